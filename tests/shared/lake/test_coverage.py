"""Coverage against a second implementation that walks through every moment."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.errors import TableEmpty
from shared.lake import coverage, read, write
from shared.lake.layout import CHANNELS, TABLES
from shared.lake.wal import WriteAheadLog
from shared.types import NS, TickEvent, Ticks, TradeTicks
from tests.shared.lake import receipts as r
from tests.shared.lake.test_wal import START_NS, open_log

MS = 10**6
SUBSCRIBED, DISCONNECTED, GAP = TickEvent.SUBSCRIBED, TickEvent.DISCONNECTED, TickEvent.GAP


def states(frame: pl.DataFrame, symbol: str, channel: str) -> list[str]:
    """Return the 60 states of one symbol and channel."""
    return frame.filter((pl.col("symbol") == symbol) & (pl.col("channel") == channel)).sort("minute")["state"].to_list()


def pushes(symbol: int, seconds: list[int]) -> Ticks:
    """Return one ticker at each of these seconds of the hour."""
    parts = [r.links(SUBSCRIBED, 0, 0)]
    for second in seconds:
        some = r.receipts(1, START_NS, START_NS + 2 * NS, per_s=3.0).tickers
        row = r.take(some, slice(0, 1))
        row.symbol[0], row.recv_ns[0], row.exch_ns[0] = symbol, START_NS + second * NS, START_NS + second * NS - MS
        parts.append(Ticks(parts[0].books, parts[0].trades, row))
    return r.concat(parts)


def by_walking(ticks: Ticks, symbol: int, channel: str) -> list[str]:
    """Return what coverage must say, second by second; every event of these tests is on a whole second.

    What a gap tells of may have been lost since the push before it, what the end of a link took as well, in the half
    minute before at the most. No push of a trade is due.
    """
    table: Any = {"book": ticks.books, "trade": ticks.trades, "ticker": ticks.tickers}[channel]
    events: dict[int, list[tuple[int, int]]] = {}
    for row in np.flatnonzero(table.symbol == symbol).tolist():
        if table.event[row] >= SUBSCRIBED:
            second = (int(table.recv_ns[row]) - START_NS) // NS
            events.setdefault(second, []).append((int(table.event[row]), int(table.conn[row])))
    pushed = {
        (int(recv_ns) - START_NS) // NS
        for rows in (ticks.books, ticks.trades, ticks.tickers)
        for recv_ns in rows.recv_ns[(rows.symbol == symbol) & np.isin(rows.event, [TickEvent.DATA, SUBSCRIBED])]
    }
    own = (table.symbol == symbol) & (table.event == TickEvent.DATA)
    own_pushes = sorted(((table.recv_ns[own] - START_NS) // NS).tolist()) if channel != "trade" else []
    up: set[int] = set()
    last_push, seen = -30, []
    doubted: set[int] = set()

    def doubt(second: int, back: int) -> None:
        earlier = [at for at in own_pushes if at < second]
        doubted.update(range(max(second - back, earlier[-1] if earlier else 0), second + 1))

    for second in range(3600):
        for event, conn in events.get(second, []):
            if event == SUBSCRIBED:
                up.add(conn)
            else:
                was_up = bool(up)
                up.discard(conn)
                if event == GAP and channel != "trade":
                    doubt(second, 3600)
                elif event == GAP:
                    doubted.add(second)
                elif was_up and not up and any(at < second for at in own_pushes):
                    doubt(second, 30)
        # A moment within [second, second + 1) is stale where more than 30 s have passed: from the 30th on.
        last_push = second if second in pushed else last_push
        seen.append("gap" if not up else "stale" if second - last_push >= 30 else "complete")
    seen = ["gap" if second in doubted else state for second, state in enumerate(seen)]
    return [max(seen[m * 60 : m * 60 + 60], key=["complete", "stale", "gap"].index) for m in range(60)]


@settings(max_examples=10)
@given(data=st.data())
def test_coverage_equals_a_walk_through_every_second(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Links that come and go on two connections, gaps and silences: every minute's state is the walk's."""
    root = tmp_path_factory.mktemp("lake")
    parts = [pushes(0, sorted(data.draw(st.sets(st.integers(0, 3599), max_size=19), "pushes")))]
    seconds = data.draw(st.lists(st.integers(0, 3599), max_size=12), "links")
    for second in seconds:
        event = data.draw(st.sampled_from([SUBSCRIBED, SUBSCRIBED, DISCONNECTED, GAP]))
        parts.append(r.links(event, START_NS + second * NS, 1, (data.draw(st.integers(0, 1)),)))
    ticks = r.concat(parts)
    ticks = in_order(ticks)
    log = open_log(root)
    log.append(r.concat([ticks, r.links(DISCONNECTED, START_NS + r.HOUR_NS - 1, 1, (2,))]))
    log.flush(START_NS + r.HOUR_NS - 1)
    write.write_universe(root, r.universe())

    frame = coverage.compute(root, r.SOURCE, r.HOUR)

    for channel in CHANNELS:
        assert states(frame, "BTCUSDT", channel) == by_walking(ticks, 0, channel), channel
    assert set(states(frame, "ETHUSDT", "book")) == {"gap"}


def test_carried_links_cover_the_next_hour(tmp_path: Path) -> None:
    """An hour that begins with CARRIED rows is covered from its first instant, silence from the hour before counted."""
    log = open_log(tmp_path)
    log.append(r.links(SUBSCRIBED, START_NS))
    log.append(pushes(0, [3590]))
    log.append(pushes(0, list(range(3610, 7200, 10))))
    log.flush(START_NS + 7200 * NS - 1)
    write.write_universe(tmp_path, r.universe())

    frame = coverage.compute(tmp_path, r.SOURCE, r.HOUR + 1)

    assert states(frame, "BTCUSDT", "trade") == ["complete"] * 60
    assert states(frame, "ETHUSDT", "trade") == ["stale"] * 60


def test_first_minute_of_a_link_is_not_stale(tmp_path: Path) -> None:
    """A symbol that pushes right after its link came up on the full minute was never silent."""
    log = open_log(tmp_path)
    log.append(r.links(SUBSCRIBED, START_NS + 600 * NS))
    log.append(pushes(0, list(range(601, 3600, 10))))
    log.flush(START_NS + r.HOUR_NS - 1)
    write.write_universe(tmp_path, r.universe())

    frame = coverage.compute(tmp_path, r.SOURCE, r.HOUR)

    assert states(frame, "BTCUSDT", "book") == ["gap"] * 10 + ["complete"] * 50


def test_unlisted_minutes_are_told(tmp_path: Path) -> None:
    """Before its snapshot and after the one that says off, a symbol is not listed."""
    log = open_log(tmp_path)
    log.append(r.links(SUBSCRIBED, START_NS))
    log.append(pushes(0, list(range(0, 3600, 20))))
    log.flush(START_NS + r.HOUR_NS - 1)
    write.write_universe(tmp_path, r.universe(r.SYMBOLS[:1]))
    write.write_universe(tmp_path, r.universe(r.SYMBOLS[:2], START_NS + 120 * NS))

    frame = coverage.compute(tmp_path, r.SOURCE, r.HOUR)

    assert states(frame, "ETHUSDT", "book")[:3] == ["not_listed", "stale", "stale"]
    assert states(frame, "BTCUSDT", "book") == ["complete"] * 60
    assert set(frame["symbol"]) == set(r.SYMBOLS[:2])


def test_coverage_is_stored(tmp_path: Path) -> None:
    """The table is written with three rows a symbol and minute."""
    log = open_log(tmp_path)
    log.append(r.links(SUBSCRIBED, START_NS))
    log.close(START_NS + r.HOUR_NS)
    write.write_universe(tmp_path, r.universe())

    written = coverage.write_coverage(tmp_path, r.SOURCE, r.HOUR)

    stored = read.scan(tmp_path, "coverage", r.SOURCE).collect()
    assert written.rows == stored.height == 3 * 60 * len(r.SYMBOLS)
    assert set(stored["state"]) == {"stale"}


# ------------------------------------------------------------------------------------------------------ silences


def steady(
    seconds: range, *, n_symbols: int = 2, lost: tuple[tuple[int, int, int], ...] = (), late_s: int = 0
) -> Ticks:
    """Return books and tickers of symbols every 100 ms, the odd symbols' on connection 1, without what was lost.

    Args:
        lost: (symbol, from ms, to ms) of the hour.
        late_s: so long after they happened pushes are received from the minute 20 on, in one heap a time.
    """
    at = np.arange(seconds.start * 10, seconds.stop * 10) * 100
    parts = []
    for conn in (0, 1):
        links = r.links(SUBSCRIBED, START_NS + seconds.start * NS, n_symbols, (conn,))
        parts.append(r.map_tables(links, partial(_of_connection, conn)))
    some = r.receipts(1, START_NS, START_NS + 2 * NS, per_s=3.0)
    for n in range(n_symbols):
        mine = at[[not any(n == who and begin <= ms < end for who, begin, end in lost) for ms in at.tolist()]]
        tables: list[Any] = []
        for table, offset in ((some.books, 0), (some.tickers, 7)):
            rows: Any = r.take(table, np.zeros(len(mine), np.int64))  # type: ignore[type-var]
            exch_ns = START_NS + (mine + 13 * n + offset + 1) * MS
            rows.symbol[:], rows.exch_ns[:], rows.conn[:] = n, exch_ns, n % 2
            rows.recv_ns[:] = exch_ns + np.where(mine >= 1_200_000, -exch_ns % (max(late_s, 1) * NS) * (late_s > 0), 0)
            tables.append(rows)
        parts.append(Ticks(tables[0], r.take(some.trades, slice(0, 0)), tables[1]))
    return in_order(r.concat(parts))


def _of_connection(conn: int, rows: Any) -> Any:
    return r.take(rows, rows.symbol % 2 == conn)


def in_order(ticks: Ticks) -> Ticks:
    return r.map_tables(ticks, lambda rows: r.take(rows, np.argsort(rows.recv_ns, kind="stable")))


def covered(root: Path, ticks: Ticks, end_s: int = 3600) -> pl.DataFrame:
    log = open_log(root)
    log.append(ticks)
    log.close(START_NS + end_s * NS)
    write.write_universe(root, r.universe())
    return coverage.compute(root, r.SOURCE, r.HOUR)


def marked(frame: pl.DataFrame) -> dict[tuple[str, str], dict[int, str]]:
    """Return, of the symbols that were recorded, the minutes that are not complete and why."""
    rows = frame.filter((pl.col("state") != "complete") & (pl.col("reason") != "not_linked"))
    found: dict[tuple[str, str], dict[int, str]] = {}
    for minute, symbol, channel, _, reason in rows.select(TABLES["coverage"].columns.keys()).iter_rows():
        found.setdefault((symbol, channel), {})[minute - r.HOUR * 60] = reason
    return found


def test_nothing_lost_is_nothing_marked(tmp_path: Path) -> None:
    """An hour of steady pushes on two connections is complete, but for the minutes it was not recorded."""
    frame = covered(tmp_path, steady(range(605)), 605)

    recorded = frame.filter(pl.col("symbol").is_in(["BTCUSDT", "ETHUSDT"]))
    assert marked(frame) == {}
    assert set(recorded.filter(pl.col("minute") < r.HOUR * 60 + 10)["state"]) == {"complete"}
    assert set(recorded.filter(pl.col("minute") >= r.HOUR * 60 + 10)["reason"]) == {"not_linked"}


@pytest.mark.parametrize(
    ("lost_ms", "is_hole"), [(100, False), (400, False), (600, True), (5000, True), (40_000, True)]
)
def test_channel_that_falls_silent_is_marked_beyond_five_cadences(tmp_path: Path, lost_ms: int, is_hole: bool) -> None:
    """A symbol whose pushes are missing for a while: up to four of them are not seen, from six on they are, in the
    minutes that the silence touches and in no other; another symbol of another connection is complete."""
    begin = 180_000 - 300
    frame = covered(tmp_path, steady(range(600), lost=((0, begin, begin + lost_ms),)), 600)

    # Alone on its connection: all of the connection is silent, trades too. That is the stronger word from 750 ms on.
    minutes = {2, 3} if is_hole else set()
    assert set(marked(frame).get(("BTCUSDT", "book"), {})) == minutes
    assert set(marked(frame).get(("BTCUSDT", "ticker"), {})) == minutes
    assert set(marked(frame).get(("BTCUSDT", "trade"), {})) == (minutes if lost_ms > 1000 else set())
    assert not {symbol for symbol, _ in marked(frame)} - {"BTCUSDT"}


def test_symbol_that_stands_still_among_others_is_silent_not_frozen(tmp_path: Path) -> None:
    """Of three symbols of a connection one stands still, then all of them: silence of one, then frozen for each."""
    lost = ((0, 70_000, 73_000), *((n, 130_000, 133_000) for n in (0, 2)))
    frame = covered(tmp_path, steady(range(300), n_symbols=4, lost=lost), 300)

    assert marked(frame) == {
        ("BTCUSDT", "book"): {1: "silence", 2: "frozen"},
        ("BTCUSDT", "ticker"): {1: "silence", 2: "frozen"},
        ("BTCUSDT", "trade"): {2: "frozen"},
        **{("SOLUSDT", channel): {2: "frozen"} for channel in CHANNELS},
    }


def test_snapshot_of_trades_does_not_hide_that_nothing_was_heard(tmp_path: Path) -> None:
    """A feed that stood still for 20 s, then trades of that time in a subscribe snapshot: all channels were frozen."""
    lost = tuple((n, 130_000, 150_000) for n in (0, 2))
    trades = r.receipts(1, START_NS + 128 * NS, START_NS + 152 * NS, n_symbols=1, per_s=10.0)
    trades = r.map_tables(trades, lambda rows: r.take(rows, slice(0, len(rows.recv_ns) * (type(rows) is TradeTicks))))
    trades.trades.event[:], trades.trades.recv_ns[:] = TickEvent.REPEATED, START_NS + 150 * NS
    ticks = in_order(r.concat([steady(range(300), n_symbols=4, lost=lost), trades]))

    found = marked(covered(tmp_path, ticks, 300))

    assert {found["BTCUSDT", channel][2] for channel in CHANNELS} == {"frozen"}


def test_pushes_that_come_late_and_in_a_heap_are_not_lost(tmp_path: Path) -> None:
    """A network that hands everything over once every five seconds leaves no hole in exchange time."""
    assert marked(covered(tmp_path, steady(range(1100, 1400), late_s=5), 1400)) == {}


@pytest.mark.parametrize("since_ms", [3_599_600, 3_561_000])
def test_silence_at_the_end_of_an_hour_is_seen_from_either_side(since_ms: int, tmp_path: Path) -> None:
    """A hole over the border, each part of it shorter than the limit or longer than what is read of the hour before,
    marks the last minute of the one hour and the first of the other."""
    log = open_log(tmp_path)
    log.append(steady(range(3000, 4200), n_symbols=4, lost=((0, since_ms, 3_600_400),)))
    log.flush(START_NS + 4200 * NS)
    write.write_universe(tmp_path, r.universe())

    before, after = (marked(coverage.compute(tmp_path, r.SOURCE, hour)) for hour in (r.HOUR, r.HOUR + 1))

    for channel in ("book", "ticker"):
        assert before["BTCUSDT", channel][59] == "silence", channel
    assert {minute: why for minute, why in after["BTCUSDT", "book"].items() if minute < 69} == {60: "silence"}


def test_what_a_broken_chain_lost_is_marked_from_the_push_before_it(tmp_path: Path) -> None:
    """A GAP right after the full minute tells of a push that was lost before it."""
    ticks = steady(range(300), lost=((0, 119_900, 120_000),))
    gap = r.links(GAP, START_NS + 120 * NS + 500_000, 1, (0,), "b")
    again = r.links(SUBSCRIBED, START_NS + 120 * NS + 500_000, 1, (0,), "b")

    assert marked(covered(tmp_path, in_order(r.concat([ticks, gap, again])), 300)) == {
        ("BTCUSDT", "book"): {1: "broken", 2: "broken"}
    }


@pytest.mark.parametrize("first", ["gap", "push"])
def test_chain_that_breaks_in_the_next_hour_had_lost_something_in_this_one(tmp_path: Path, first: str) -> None:
    """A quiet full book whose next change, a minute after the border, misses one before it: both hours are marked from
    the last change on. Where a change came between, the chain had held until there."""
    changes_s = [20, 90, 95, 200, 330, 331, 600, 3400, 3598, *([3640] if first == "push" else []), 3800, 3900]
    some = r.receipts(1, START_NS, START_NS + 2 * NS, per_s=3.0)
    books = r.take(some.books, np.zeros(len(changes_s), np.int64))
    books.symbol[:], books.conn[:] = 0, 0
    books.recv_ns[:] = START_NS + np.array(changes_s) * NS
    books.exch_ns[:] = books.recv_ns - MS
    none = slice(0, 0)
    steady_tickers = steady(range(4200), n_symbols=1).tickers
    parts = [
        r.links(SUBSCRIBED, START_NS, 1, (0,)),
        Ticks(books, r.take(some.trades, none), r.take(steady_tickers, steady_tickers.event == TickEvent.DATA)),
        *(r.links(event, START_NS + 3_661_500 * MS + k, 1, (0,), "b") for k, event in enumerate((GAP, SUBSCRIBED))),
    ]
    log = WriteAheadLog(tmp_path, r.SOURCE, "full", r.universe(), has_depth=True)
    log.append(in_order(r.concat(parts)))
    log.flush(START_NS + 4200 * NS)
    write.write_universe(tmp_path, r.universe())

    before, after = (marked(coverage.compute(tmp_path, r.SOURCE, hour)) for hour in (r.HOUR, r.HOUR + 1))

    assert before.get(("BTCUSDT", "book"), {}) == ({59: "broken"} if first == "gap" else {})
    broken = {minute for minute, why in after["BTCUSDT", "book"].items() if why == "broken"}
    assert broken == {60, 61}


# ------------------------------------------------------------------------------------------------------- volumes


def candles(root: Path, ticks: Ticks, minutes: range, changed: dict[tuple[int, int], float]) -> None:
    """Store candles of what the ticks say, with other volumes where told."""
    rows = []
    for n, symbol in enumerate(r.SYMBOLS):
        for minute in minutes:
            at = r.HOUR * 60 + minute
            own = (ticks.trades.symbol == n) & (ticks.trades.exch_ns // (60 * NS) == at) & (ticks.trades.event <= 1)
            volume = float(ticks.trades.size[own].sum()) + changed.get((n, minute), 0.0)
            rows.append((at, symbol, 1.0, 1.0, 1.0, 1.0, volume, volume))
    frame = pl.DataFrame(rows, schema=dict(TABLES["candles"].columns), orient="row")
    write.add_rows(root, "candles", r.SOURCE, r.HOUR, frame, {})


def test_minute_whose_trades_are_not_its_candle_is_marked(tmp_path: Path) -> None:
    """One size step more or less than the candle is a loss; a minute without a candle, and one after whose end nothing
    was received yet, is not judged; other channels are not touched."""
    ticks = r.concat([r.links(SUBSCRIBED, START_NS), r.receipts(3, START_NS, START_NS + 301 * NS, per_s=1.0)])
    ticks = in_order(ticks)
    ticks.trades.event[ticks.trades.event == 0] = np.arange(int((ticks.trades.event == 0).sum())) % 7 == 0
    candles(tmp_path, ticks, range(1, 5), {(0, 1): 0.0001, (1, 2): -0.0001, (2, 3): 50.0, (3, 4): 9.0})

    found = marked(covered(tmp_path, ticks, 301))

    assert {key: minutes for key, minutes in found.items() if "volume" in minutes.values()} == {
        ("BTCUSDT", "trade"): {1: "volume"},
        ("ETHUSDT", "trade"): {2: "volume"},
        ("SOLUSDT", "trade"): {3: "volume"},
    }


def test_hour_that_was_not_recorded_is_refused(tmp_path: Path) -> None:
    """The half minute that is read of the hour before is no reason to say of an hour that all of it is a gap."""
    covered(tmp_path, steady(range(3000, 3600)))

    with pytest.raises(TableEmpty, match="needed for the coverage"):
        coverage.compute(tmp_path, r.SOURCE, r.HOUR + 1)
