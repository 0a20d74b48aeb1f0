"""Sealing: the same rows however often and in whatever pieces; tables are replaced whole or not at all."""

from __future__ import annotations

import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.errors import LakeError, SchemaMismatch, TableEmpty
from shared.lake import layout, read, wal, wal_reading, wal_records, write
from shared.lake.layout import RAW, TABLES
from shared.settings import ROOT
from shared.types import NS, TickEvent, Ticks
from tests.shared.lake import receipts as r
from tests.shared.lake.test_wal import START_NS, dead_log, everything, open_log, small_disk

SUBSCRIBED, DATA = TickEvent.SUBSCRIBED, TickEvent.DATA


def record(
    root: Path, session: str, start_ns: int, end_ns: int, seed: int = 1, *, is_closed: bool = True
) -> wal.WriteAheadLog:
    """Write one session of the market `seed`, which every session of that seed sees alike."""
    log = open_log(root, session)
    log.append(r.concat([r.links(SUBSCRIBED, start_ns), r.receipts(seed, start_ns, end_ns, per_s=1.0)]))
    if is_closed:
        log.close(end_ns)
    else:
        log.flush(end_ns - 1)
    return log


def contents(root: Path, hours: tuple[int, ...] = (r.HOUR,)) -> list[pl.DataFrame]:
    return [read.raw_hour(root, table, r.SOURCE, hour).frame for table in RAW for hour in hours]


def equal(a: list[pl.DataFrame], b: list[pl.DataFrame]) -> bool:
    return all(x.equals(y, null_equal=True) for x, y in zip(a, b, strict=True))


def seconds_frame(hour: int, n_seconds: int = 5, value: float = 1.0) -> pl.DataFrame:
    """Return rows of the seconds table: every column holds `value`."""
    keys = [(hour * 3600 + s, symbol) for symbol in r.SYMBOLS for s in range(n_seconds)]
    frame = pl.DataFrame(keys, schema={"second": pl.Int64, "symbol": pl.String}, orient="row")
    return frame.with_columns(pl.lit(value).alias(name) for name in list(TABLES["seconds"].columns)[2:])


# -------------------------------------------------------------------------------------------------- sealing


def test_seal_changes_nothing_for_a_reader(tmp_path: Path) -> None:
    """An hour reads the same before and after it is sealed, and the logs are gone."""
    record(tmp_path, "a", START_NS, START_NS + 5 * NS)
    before = everything(tmp_path)

    report = write.seal(tmp_path, r.SOURCE, r.HOUR)

    assert r.same(everything(tmp_path), before, ignore=())
    assert report.rows == r.n_rows(before)
    assert report.sessions == ("a",)
    assert report.dead_sessions == report.living_sessions == ()
    assert not list((tmp_path / ".wal").rglob("*"))
    assert not list((tmp_path / ".tmp").rglob("*"))


def test_seal_that_dies_while_it_removes_logs_leaves_an_hour_that_can_be_read_and_sealed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed behind the first file of a log's folder: every reader goes on, and so does the next seal, which tidies."""
    dead_log(tmp_path)
    before = everything(tmp_path)

    remove = shutil.rmtree

    def killed(folder: Path, **options: Any) -> None:
        if "session=" not in folder.name:
            return remove(folder, **options)
        (folder / "trade.arrow").unlink()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            write.seal(tmp_path, r.SOURCE, r.HOUR)

    assert r.same(everything(tmp_path), before)
    again = open_log(tmp_path, "again")
    again.append(r.receipts(2, START_NS + 8 * NS, START_NS + 12 * NS))
    again.close(START_NS + 13 * NS)
    write.seal(tmp_path, r.SOURCE, r.HOUR)
    assert len(everything(tmp_path).trades.recv_ns) > len(before.trades.recv_ns)
    assert not list((tmp_path / ".wal").rglob("*session=*"))


def test_seal_is_idempotent(tmp_path: Path) -> None:
    """Sealing a sealed hour again touches no file."""
    record(tmp_path, "a", START_NS, START_NS + 5 * NS)
    first = write.seal(tmp_path, r.SOURCE, r.HOUR)
    stamps = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.parquet")}

    again = write.seal(tmp_path, r.SOURCE, r.HOUR)

    assert again.files == first.files
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.parquet")} == stamps
    assert write.unsealed(tmp_path, r.SOURCE) == []


@settings(max_examples=7)
@given(
    spans=st.lists(st.tuples(st.integers(0, 8), st.integers(1, 6)), min_size=2, max_size=4),
    order=st.randoms(use_true_random=False),
)
def test_sealing_in_pieces_equals_sealing_once(
    spans: list[tuple[int, int]], order: random.Random, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Sessions that overlap, sealed together or one after another in any order, give the same rows and hashes."""
    at_once, in_pieces = tmp_path_factory.mktemp("at_once"), tmp_path_factory.mktemp("in_pieces")
    sessions = [(f"s{k}", START_NS + begin * NS, START_NS + (begin + s) * NS) for k, (begin, s) in enumerate(spans)]
    for session in sessions:
        record(at_once, *session)
    write.seal(at_once, r.SOURCE, r.HOUR)
    order.shuffle(sessions)
    for session in sessions:
        record(in_pieces, *session)
        write.seal(in_pieces, r.SOURCE, r.HOUR)

    assert equal(contents(at_once), contents(in_pieces))
    for table in RAW:
        hashes = {read.content_hash(root, table, r.SOURCE, [r.HOUR]) for root in (at_once, in_pieces)}
        assert len(hashes) == 1
    covered = {second for begin, s in spans for second in range(begin, begin + s)}
    union = r.concat([r.receipts(1, START_NS + s * NS, START_NS + (s + 1) * NS, per_s=1.0) for s in sorted(covered)])
    assert r.same(r.only(everything(in_pieces), DATA), union)


@settings(max_examples=15, deadline=None)
@given(
    ends_s=st.integers(3, 8), begins_s=st.integers(1, 6), lag_ms=st.integers(-900, 900), order=st.permutations("abc"),
)  # fmt: skip
def test_recorders_that_relieve_one_another_leave_the_rows_of_one(
    ends_s: int, begins_s: int, lag_ms: int, order: list[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Three recorders that overlap, the second receiving everything at another moment, leave every push once.

    In whatever order they are sealed, alone or together, the rows are the same: those that one uninterrupted recorder
    stored, each with its earliest receipt.
    """
    truth = r.receipts(1, START_NS, START_NS + 12 * NS, per_s=2.0)
    spans = {"a": (0, ends_s), "b": (min(begins_s, ends_s), 10), "c": (9, 12)}
    lags = {"a": 0, "b": lag_ms * 1_000_000, "c": 0}

    def session(root: Path, name: str) -> None:
        begin_ns, end_ns = (START_NS + s * NS for s in spans[name])
        heard = r.map_tables(truth, lambda rows: msgspec.structs.replace(rows, recv_ns=rows.recv_ns + lags[name]))
        log = open_log(root, name)
        log.append(r.concat([r.links(SUBSCRIBED, begin_ns), r.between(heard, begin_ns, end_ns)]))
        log.close(end_ns)

    at_once, in_pieces = tmp_path_factory.mktemp("at_once"), tmp_path_factory.mktemp("in_pieces")
    for name in order:
        session(at_once, name)
        session(in_pieces, name)
        write.seal(in_pieces, r.SOURCE, r.HOUR)
    write.seal(at_once, r.SOURCE, r.HOUR)

    assert equal(contents(at_once), contents(in_pieces))
    got = r.map_tables(everything(at_once), lambda rows: r.take(rows, rows.event <= TickEvent.REPEATED))
    for rows, expected in ((got.books, truth.books), (got.trades, truth.trades), (got.tickers, truth.tickers)):
        assert len(set(zip(rows.symbol.tolist(), rows.exch_ns.tolist(), strict=True))) == len(rows.symbol)
        receipts = {(n, at): recv for n, at, recv in zip(rows.symbol, rows.exch_ns, rows.recv_ns, strict=True)}
        for n, at, recv in zip(expected.symbol, expected.exch_ns, expected.recv_ns, strict=True):
            heard = [
                recv + lags[name]
                for name, (begin, end) in spans.items()
                if begin * NS <= recv + lags[name] - START_NS < end * NS
            ]
            assert receipts.pop((n, at), None) == (min(heard) if heard else None)
        assert not receipts


def test_state_that_is_told_again_after_a_time_without_recorder_stays(tmp_path: Path) -> None:
    """Recorders that follow one another do not share a push: that the state is still this one was heard by the second."""
    ticks = r.receipts(1, START_NS, START_NS + 2 * NS, per_s=2.0)
    again = r.map_tables(ticks, lambda rows: msgspec.structs.replace(rows, recv_ns=rows.recv_ns + 4 * NS))
    for session, heard, begin_ns in (("a", ticks, START_NS), ("b", again, START_NS + 4 * NS)):
        log = open_log(tmp_path, session)
        log.append(r.concat([r.links(SUBSCRIBED, begin_ns), heard]))
        log.close(begin_ns + 2 * NS)

    write.seal(tmp_path, r.SOURCE, r.HOUR)

    got = r.only(everything(tmp_path), DATA)
    assert len(got.books.symbol) == 2 * len(ticks.books.symbol)
    assert len(got.tickers.symbol) == 2 * len(ticks.tickers.symbol)
    assert len(got.trades.symbol) == len(ticks.trades.symbol)


def test_duplicate_trades_count_once_and_keep_the_first_receipt(tmp_path: Path) -> None:
    """A trade that two connections received at different times is one row, of the earlier receipt."""
    ticks = r.receipts(1, START_NS + NS, START_NS + 3 * NS)
    late = msgspec.structs.replace(ticks.trades, recv_ns=ticks.trades.recv_ns + 7)
    nothing = r.links(SUBSCRIBED, 0, 0)
    for session, trades in (("late", late), ("early", ticks.trades)):
        log = open_log(tmp_path, session)
        log.append(Ticks(nothing.books, trades, nothing.tickers))
        log.close()

    report = write.seal(tmp_path, r.SOURCE, r.HOUR)

    assert report.duplicates == len(ticks.trades.recv_ns)
    assert r.same_rows(r.only(everything(tmp_path), DATA).trades, ticks.trades)


def test_living_log_stays_and_is_read(tmp_path: Path) -> None:
    """Sealing beside a living writer takes what ended, leaves the writer's log, and hides neither."""
    record(tmp_path, "done", START_NS, START_NS + 4 * NS)
    log = record(tmp_path, "alive", START_NS + 2 * NS, START_NS + 6 * NS, is_closed=False)
    before = everything(tmp_path)

    report = write.seal(tmp_path, r.SOURCE, r.HOUR)
    between = everything(tmp_path)
    log.close(START_NS + 6 * NS)
    write.seal(tmp_path, r.SOURCE, r.HOUR)

    assert report.sessions == ("done",)
    assert report.living_sessions == ("alive",)
    assert r.same(between, before, ignore=())
    assert r.same(r.only(everything(tmp_path), DATA), r.receipts(1, START_NS, START_NS + 6 * NS, per_s=1.0))


def test_crash_after_the_rename_seals_to_the_same_rows(tmp_path: Path) -> None:
    """Where the file is there and the logs are not yet removed, readers and the next seal see every row once."""
    dead_log(tmp_path)
    logs = tmp_path / "kept"
    shutil.copytree(tmp_path / ".wal", logs)
    write.seal(tmp_path, r.SOURCE, r.HOUR)
    sealed = contents(tmp_path)
    shutil.rmtree(tmp_path / ".wal", ignore_errors=True)
    logs.rename(tmp_path / ".wal")

    both = contents(tmp_path)
    report = write.seal(tmp_path, r.SOURCE, r.HOUR)

    assert equal(both, sealed)
    assert equal(contents(tmp_path), sealed)
    assert report.duplicates == sum(frame.height for frame in sealed)


def test_nothing_to_seal_says_what_to_run(tmp_path: Path) -> None:
    """An hour without logs and files is refused with what would fill it."""
    with pytest.raises(TableEmpty, match=r"pipelines\.generate"):
        write.seal(tmp_path, r.SOURCE, r.HOUR)


def test_full_disk_leaves_logs_and_no_half_file(tmp_path: Path) -> None:
    """When the disk refuses a seal, the logs stay, no part of a file is visible, and sealing later is complete."""
    record(tmp_path, "a", START_NS, START_NS + 60 * NS)
    before = everything(tmp_path)

    with small_disk(20_000), pytest.raises(LakeError, match=r"cannot be written.*untouched.*make room"):
        write.seal(tmp_path, r.SOURCE, r.HOUR)

    assert not [path for path in tmp_path.rglob("*.parquet") if path.name.startswith("book")]
    assert r.same(everything(tmp_path), before, ignore=())
    write.seal(tmp_path, r.SOURCE, r.HOUR)
    assert r.same(everything(tmp_path), before, ignore=())


_SEALER = """
import sys
from pathlib import Path
from shared.lake import write
print("go", flush=True)
write.seal(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
"""


@pytest.mark.parametrize("seed", range(3))
def test_killed_sealer_loses_nothing(seed: int, tmp_path: Path) -> None:
    """Killed with SIGKILL at a random moment, a seal leaves only whole files, and every row is still there."""
    record(tmp_path, "a", START_NS, START_NS + 120 * NS)
    before = everything(tmp_path)
    sealer = subprocess.Popen(
        [sys.executable, "-c", _SEALER, str(tmp_path), r.SOURCE, str(r.HOUR)],
        stdout=subprocess.PIPE, cwd=ROOT, env={"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert sealer.stdout is not None
    sealer.stdout.readline()
    for _ in range(random.Random(seed).randrange(3_000_000)):  # some instants later, wherever it is by then
        pass
    sealer.send_signal(signal.SIGKILL)
    sealer.wait()
    sealer.stdout.close()

    for path in (tmp_path / "raw").rglob("*.parquet"):
        read.verify(path)
    between = everything(tmp_path)
    write.seal(tmp_path, r.SOURCE, r.HOUR)

    assert r.same(between, before, ignore=()), f"seed {seed}"
    assert r.same(everything(tmp_path), before, ignore=())
    assert not list(tmp_path.rglob("*.arrow"))


# --------------------------------------------------------------------------------------------- derived tables


def test_write_table_stores_sorted_rows_with_a_footer(tmp_path: Path) -> None:
    """Rows and columns may come in any order; the file is sorted by key and says what it is made from."""
    frame = seconds_frame(r.HOUR)
    shuffled = frame.sample(fraction=1.0, shuffle=True, seed=1).select(reversed(frame.columns))

    written = write.write_table(tmp_path, "seconds", r.SOURCE, r.HOUR, shuffled, {"made_from": "test"})

    footer = read.verify(written.path)
    assert pl.read_parquet(written.path, hive_partitioning=False).equals(frame.sort("symbol", "second"))
    assert (footer.rows, footer.provenance) == (frame.height, {"made_from": "test"})
    assert (footer.first, footer.last) == (r.HOUR * 3600, r.HOUR * 3600 + 4)


def test_write_table_replaces_the_whole_hour(tmp_path: Path) -> None:
    """Writing an hour again leaves nothing of what was there."""
    write.write_table(tmp_path, "seconds", r.SOURCE, r.HOUR, seconds_frame(r.HOUR, 5), {})

    write.write_table(tmp_path, "seconds", r.SOURCE, r.HOUR, seconds_frame(r.HOUR, 2, value=2.0), {})

    stored = read.scan(tmp_path, "seconds", r.SOURCE).collect()
    assert stored.height == 2 * len(r.SYMBOLS)
    assert set(stored["last"]) == {2.0}


@pytest.mark.parametrize(
    "change",
    [
        lambda frame: frame.drop("mark"),
        lambda frame: frame.with_columns(extra=pl.lit(1.0)),
        lambda frame: frame.with_columns(pl.col("mark").cast(pl.Float32)),
    ],
    ids=["missing", "extra", "type"],
)
def test_write_table_refuses_other_columns(change: Any, tmp_path: Path) -> None:
    """Columns that are missing, more, or of another type are refused by name."""
    frame = change(seconds_frame(r.HOUR))

    with pytest.raises(SchemaMismatch, match=r"mark|extra"):
        write.write_table(tmp_path, "seconds", r.SOURCE, r.HOUR, frame, {})


def test_write_table_takes_no_rows(tmp_path: Path) -> None:
    """An hour in which there is nothing to say has a file that says so."""
    written = write.write_table(tmp_path, "seconds", r.SOURCE, r.HOUR, seconds_frame(r.HOUR).clear(), {})

    assert read.footer(written.path).rows == 0
    assert read.scan(tmp_path, "seconds", r.SOURCE).collect().is_empty()


def test_write_table_asserts_hour_and_key(tmp_path: Path) -> None:
    """Rows of another hour, or two of one key, are a bug of the caller."""
    frame = seconds_frame(r.HOUR)

    with pytest.raises(AssertionError, match="are not in"):
        write.write_table(tmp_path, "seconds", r.SOURCE, r.HOUR + 1, frame, {})
    with pytest.raises(AssertionError, match="must be unique"):
        write.write_table(tmp_path, "seconds", r.SOURCE, r.HOUR, pl.concat([frame, frame]), {})


KEYS = st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["", "A", "AB", "B", "龙"]), st.integers(0, 3)))


@settings(max_examples=80, deadline=None)
@given(KEYS, st.booleans())
def test_rows_are_sorted_by_their_key_whether_they_were_or_not(
    keys: list[tuple[str, str, int]], is_sorted: bool
) -> None:
    """As Python sorts keys, in any order given; a key that is there twice is seen in any order, too."""
    given_keys = sorted(keys) if is_sorted else keys
    about = TABLES["decisions"]
    frame = pl.DataFrame(given_keys, schema={name: about.columns[name] for name in about.key}, orient="row")

    if len(set(keys)) < len(keys):
        with pytest.raises(AssertionError, match="must be unique"):
            write._by_key("decisions", frame)
    else:
        assert write._by_key("decisions", frame).rows() == sorted(keys)


def test_features_hold_any_float32_columns(tmp_path: Path) -> None:
    """The features table takes the columns of the graph, all float32, and refuses a float64."""
    frame = seconds_frame(r.HOUR).select("second", "symbol", spread_bps=pl.lit(1.5, pl.Float32))

    write.write_table(tmp_path, "features", r.SOURCE, r.HOUR, frame, {})

    assert (
        read.scan(tmp_path, "features", r.SOURCE)
        .collect()
        .sort("symbol", "second")
        .equals(frame.sort("symbol", "second"))
    )
    with pytest.raises(SchemaMismatch, match="spread_bps"):
        write.write_table(
            tmp_path, "features", r.SOURCE, r.HOUR, frame.with_columns(pl.col("spread_bps").cast(pl.Float64)), {}
        )


def test_table_written_in_pieces_is_the_table_written_whole(tmp_path: Path) -> None:
    """Symbols after symbols or all at once: the same rows, hash and bytes; pieces that are out of order are refused."""
    frame = seconds_frame(r.HOUR, 30).sort("symbol", "second")
    pieces = [part for _, part in frame.group_by("symbol", maintain_order=True)]

    whole = write.write_table(tmp_path / "whole", "seconds", r.SOURCE, r.HOUR, frame, {})
    parts = write.write_parts(tmp_path / "parts", "seconds", r.SOURCE, r.HOUR, (p.reverse() for p in pieces), {})

    assert parts.content_hash == whole.content_hash
    assert parts.path.read_bytes() == whole.path.read_bytes()
    for wrong in (reversed(pieces), [pieces[0], pieces[0]], [pl.concat([pieces[0], pieces[0]])]):
        with pytest.raises(AssertionError, match=r"came behind|found twice"):
            write.write_parts(tmp_path / "parts", "seconds", r.SOURCE, r.HOUR, wrong, {})
    assert parts.path.read_bytes() == whole.path.read_bytes()
    assert not list((tmp_path / "parts" / ".tmp").iterdir())


def test_parts_lie_side_by_side(tmp_path: Path) -> None:
    """Two sessions of an hour have a journal file each, read as one table."""
    for session in ("one", "two"):
        frame = pl.DataFrame(
            {
                "session": [session], "sequence": [0], "recv_ns": [START_NS],
                "kind": ["event"], "name": ["LinkChanged"], "symbol": [""], "payload": ["{}"],
            }
        )  # fmt: skip
        write.write_table(tmp_path, "journal", r.SOURCE, r.HOUR, frame, {}, part=session)

    assert read.scan(tmp_path, "journal", r.SOURCE).collect()["session"].to_list() == ["one", "two"]


# ------------------------------------------------------------------------------------------------- universe


def test_universe_survives_and_is_dated(tmp_path: Path) -> None:
    """A snapshot comes back with every Decimal as it was; the one in force is the latest that is not later."""
    early, late = r.universe(as_of_ns=START_NS + 5), r.universe(r.SYMBOLS[1:], START_NS + 2 * r.HOUR_NS)
    tickers = pl.DataFrame({"symbol": ["ETHUSDT"]} | {name: [1.5] for name in write.TICKER_COLUMNS})
    for universe in (late, early, early):
        write.write_universe(tmp_path, universe, tickers)

    assert read.universe_at(tmp_path, r.SOURCE, START_NS + 5) == early
    assert read.universe_at(tmp_path, r.SOURCE, late.as_of_ns - 1) == early
    assert read.universe_at(tmp_path, r.SOURCE, late.as_of_ns) == late
    assert read.universe_between(tmp_path, r.SOURCE, START_NS, START_NS + 10).symbols == early.symbols
    assert read.universe_between(tmp_path, r.SOURCE, START_NS + 6, 2**62).symbols == r.SYMBOLS
    assert read.universes_between(tmp_path, r.SOURCE, START_NS + 6, 2**62) == [early, late]
    with pytest.raises(TableEmpty, match="universe of simulator-g1-4"):
        read.universe_at(tmp_path, r.SOURCE, START_NS + 4)
    stored = read.scan(tmp_path, "universe", r.SOURCE).collect()
    assert stored.height == len(r.SYMBOLS) * 2 - 1
    assert stored.filter(pl.col("symbol") == "ETHUSDT")["mark"].to_list() == [1.5, 1.5]
    assert stored.filter(pl.col("symbol") == "SOLUSDT")["mark"].to_list() == [None, None]


def test_seal_report_counts_bytes_and_rows(tmp_path: Path) -> None:
    """The report's figures are those of the files."""
    record(tmp_path, "a", START_NS, START_NS + 3 * NS)

    report = write.seal(tmp_path, r.SOURCE, r.HOUR)

    assert report.bytes == sum(path.stat().st_size for path in tmp_path.rglob("*.parquet"))
    assert report.rows == sum(read.footer(path).rows for path in tmp_path.rglob("*.parquet"))
    assert {file.content_hash for file in report.files.values()} == {
        read.verify(layout.partition_path(tmp_path, table, r.SOURCE, r.HOUR)).content_hash for table in RAW
    }


def test_what_was_not_understood_is_sealed_beside_the_rows(tmp_path: Path) -> None:
    """Payloads set aside are durable with the flush, in the hour of their log, also of a writer that was killed."""
    log = open_log(tmp_path, "a")
    log.append(r.concat([r.links(SUBSCRIBED, START_NS), r.receipts(1, START_NS, START_NS + 2 * NS, per_s=1.0)]))
    log.set_aside(
        [(START_NS + 1, "books15 push", "unknown field rpi", '{"x":"龙"}', 1), (START_NS + 2, "other", "more", "", 7)]
    )
    log.flush(START_NS + 2 * NS)
    log.set_aside([(START_NS + 3 * NS, "lost with", "the process", "", 1)])
    log.abandon()
    with (wal_reading.find_logs(tmp_path, r.SOURCE, r.HOUR)[0].folder / wal_records.ASIDE).open("ab") as file:
        file.write(b'[1,"half a li')

    report = write.seal(tmp_path, r.SOURCE, r.HOUR)

    assert report.quarantined == 8
    rows = read.scan(tmp_path, "quarantine", r.SOURCE).collect()
    assert rows["raw"].to_list() == ['{"x":"龙"}', ""]
    assert rows["session"].to_list() == ["a", "a"]
    assert rows["count"].sum() == 8


def test_nothing_set_aside_leaves_no_table(tmp_path: Path) -> None:
    """An hour that was understood has no quarantine."""
    record(tmp_path, "a", START_NS, START_NS + NS)

    assert write.seal(tmp_path, r.SOURCE, r.HOUR).quarantined == 0
    assert read.hours(tmp_path, "quarantine", r.SOURCE) == []


@pytest.mark.parametrize("in_two_seals", [False, True])
def test_slower_recorder_does_not_turn_the_book_back(tmp_path: Path, in_two_seals: bool) -> None:
    """Two recorders carry a symbol, each misses a push. What the slower one alone has comes behind a newer one: it is
    kept as REPEATED, and the last DATA row is the newest state; alone in the lake, a recorder's rows stay as they are."""
    for table in ("books", "tickers"):
        root = tmp_path / table
        pushed = getattr(r.receipts(1, START_NS, START_NS + 2 * NS, per_s=5.0, n_symbols=1), table)
        pushed = r.take(pushed, pushed.event == TickEvent.DATA)
        n = len(pushed.recv_ns)
        for session, missing, late_ns in (("fast", 3, 0), ("slow", 4, 900_000_000)):
            heard = r.take(pushed, np.arange(n) != missing)
            heard.recv_ns[:] += late_ns
            empty = r.map_tables(r.links(TickEvent.SUBSCRIBED, START_NS, 1), lambda rows: rows)
            log = open_log(root, session)
            log.append(r.concat([empty, r.map_tables(empty, lambda rows: r.take(rows, slice(0, 0)))]))
            log.append(
                msgspec.structs.replace(r.map_tables(empty, lambda rows: r.take(rows, slice(0, 0))), **{table: heard})
            )
            log.close(START_NS + 10 * NS)
            if in_two_seals or session == "slow":
                write.seal(root, r.SOURCE, r.HOUR)

        rows = getattr(everything(root), table)

        kept = r.take(rows, (rows.event <= TickEvent.REPEATED) & (rows.symbol == 0))
        assert sorted(kept.exch_ns.tolist()) == pushed.exch_ns.tolist(), table
        assert kept.exch_ns[kept.event == TickEvent.REPEATED].tolist() == [pushed.exch_ns[3]], table
        data = kept.exch_ns[kept.event == TickEvent.DATA]
        assert data.tolist() == sorted(data.tolist()), table
