"""Retention: nothing inside its keep window goes, nothing that could not be built again, nothing that is not sealed."""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
import uuid
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines import retention
from pipelines.retention import NEWEST_HOURS, Rule, apply, parse
from pipelines.seconds import inputs_of_seconds, is_current, sample, to_frame, write_seconds
from shared.errors import LakeError, SettingsError, TableEmpty
from shared.lake import layout, read, removal, write
from shared.lake.layout import HOUR_S, RAW, TABLES
from shared.settings import ROOT
from shared.types import NS
from tests.shared.lake import receipts as r
from tests.shared.lake.conftest import s3, stand_for  # noqa: F401 - s3 is a fixture
from tests.shared.lake.test_write import record

HOURS = tuple(range(r.HOUR, r.HOUR + 8))
NOW_S = (HOURS[-1] + 1) * HOUR_S
LONG_AGO_S, FAR_AHEAD_S = 0.0, NOW_S + 50 * 366 * 86_400.0


def fill(lake: Path, hours: tuple[int, ...] = HOURS, *, has_seconds: bool = True) -> Path:
    """Write hours of a few seconds each: raw rows, a universe an hour, seconds."""
    for hour in hours:
        write.write_universe(lake, r.universe(as_of_ns=hour * r.HOUR_NS))
        start_ns = hour * r.HOUR_NS
        record(lake, f"s{hour}", start_ns, start_ns + 2 * NS)
        write.seal(lake, r.SOURCE, hour)
    for hour in hours if has_seconds else ():
        write_seconds(lake, r.SOURCE, hour)
    return lake


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fill(tmp_path_factory.mktemp("filled") / "lake")


@pytest.fixture
def lake(filled: Path, tmp_path: Path) -> Path:
    """Return a lake of eight hours that a test may spoil."""
    return Path(shutil.copytree(filled, tmp_path / "lake"))


def run(lake: Path, rules: str, now_s: float = NOW_S, *, is_dry_run: bool = False) -> retention.Done:
    (done,) = apply(lake, parse(rules), now_s=now_s, is_dry_run=is_dry_run)
    return done


def hours_of(lake: Path) -> dict[str, list[int]]:
    return {table: hours for table in TABLES if (hours := read.hours(lake, table, r.SOURCE))}


# -------------------------------------------------------------------------------------------------- settings


def test_rules_are_read_as_a_person_writes_them() -> None:
    """raw means every raw table that is not named itself; forever is no rule; ! removes for good."""
    rules = parse(" raw=30d, raw/trade=forever,raw/book=36h! ,seconds=18mo, features=2w,labels=1y")

    assert "raw/trade" not in rules
    assert rules["raw/ticker"] == Rule(30 * 24)
    assert rules["raw/book"] == Rule(36, is_final=True)
    assert [rules[name].age_h // 24 for name in ("seconds", "features", "labels")] == [18 * 31, 14, 366]
    assert parse("") == parse("  ") == {}


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("30d", "must be table=age"),
        ("raw", "must be table=age"),
        ("=30d", "must be table=age"),
        ("raw=30d,", "must be table=age"),
        ("trades=30d", "must name one of raw, raw/book"),
        ("raw=30d,raw=40d", "must name raw once"),
        ("raw=30", "must have an age like"),
        ("raw=30 days", "must have an age like"),
        ("raw=0d", "must have an age like"),
        ("raw=-3d", "must have an age like"),
        ("raw=1.5d", "must have an age like"),
        ("raw=2h", "at least 3h"),
        ("raw=30m", "must have an age like"),
        ("raw=30d!!", "must have an age like"),
    ],
)
def test_wrong_rules_are_refused_by_name(text: str, match: str) -> None:
    """What is no rule says which part is wrong, and that nothing is removed without one."""
    with pytest.raises(SettingsError, match=match) as error:
        parse(text)

    assert "to keep everything" in str(error.value)


def test_without_rules_everything_stays(lake: Path) -> None:
    """No setting, no removal, whatever the clock says."""
    before = hours_of(lake)

    done = run(lake, "", FAR_AHEAD_S)

    assert hours_of(lake) == before
    assert (done.removed, done.held, done.bytes) == ({}, {}, 0)


# ------------------------------------------------------------------------------------------- what may be removed

AGES = st.sampled_from(["3h", "4h", "5h", "7h", "1d", "3h!", "5h!", "forever"])
NAMES = st.sampled_from(["raw", *RAW, "seconds", "features", "labels", "coverage", "universe", "quarantine", "candles"])


@settings(max_examples=30)
@given(
    rules=st.dictionaries(NAMES, AGES, max_size=6),
    order=st.randoms(use_true_random=False),
    held=st.dictionaries(NAMES, st.sets(st.integers(0, 11)), min_size=2),
    logged=st.sets(st.integers(0, 11), max_size=3),
    now_s=st.one_of(
        st.floats(LONG_AGO_S, FAR_AHEAD_S), st.integers(-3, 15).map(lambda h: float((r.HOUR + h) * HOUR_S - 1))
    ),
)
def test_no_order_and_no_clock_removes_what_is_to_be_kept(
    rules: dict[str, str],
    order: random.Random,
    held: dict[str, set[int]],
    logged: set[int],
    now_s: float,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """Whatever lies there and whenever it is asked: what goes is older than its rule, sealed, and not the last word."""
    lake = tmp_path_factory.mktemp("lake")
    have = {(name if name != "raw" else "raw/book"): {r.HOUR + k for k in hours} for name, hours in held.items()}
    for table, hours in have.items():
        for hour in hours:
            path = layout.partition_path(lake, table, r.SOURCE, hour)
            path.parent.mkdir(parents=True)
            path.write_bytes(b"not read where a rule is final or the table is derived")
    for k in logged:
        (layout.log_folder(lake, r.SOURCE, r.HOUR + k) / "session=a").mkdir(parents=True)
    pairs = [f"{name}={age}" for name, age in rules.items()]
    parsed = parse(",".join(pairs))
    order.shuffle(pairs)
    assert parse(",".join(pairs)) == parsed

    before = {table: set(removal.files(lake, table, r.SOURCE)) for table in TABLES}
    planned = apply(lake, parsed, now_s=now_s, is_dry_run=True)
    done = apply(lake, parsed, now_s=now_s)
    after = {table: set(removal.files(lake, table, r.SOURCE)) for table in TABLES}

    gone = {table: before[table] - after[table] for table in TABLES}
    recorded = {hour for table in RAW for hour in before[table]} | {r.HOUR + k for k in logged}
    everything = {hour for hours in before.values() for hour in hours}
    newest = max(recorded or everything, default=0)
    for table, hours in gone.items():
        for hour in hours:
            assert parsed[table].age_h <= min(newest + 1, now_s / HOUR_S) - (hour + 1)
            assert hour < newest + 1 - NEWEST_HOURS
            assert hour - r.HOUR not in logged
            for name in retention.REBUILT_FROM.get(table, ()) if not parsed[table].is_final else ():
                is_over = name in parsed and hour + 1 + parsed[name].age_h <= newest + 1
                assert hour in before[name] or is_over
            if table in RAW and not parsed[table].is_final:
                assert "seconds" in parsed  # these seconds cannot be read: only rules let their raw rows go
    dated = {hour for table in retention._DATED for hour in after[table]}
    if dated and before["universe"] & set(range(min(dated))):
        assert max(hour for hour in before["universe"] if hour < min(dated)) in after["universe"]
    assert [one.removed for one in planned] == [one.removed for one in done]
    assert {table: set(hours) for one in done for table, hours in one.removed.items()} == {
        table: hours for table, hours in gone.items() if hours
    }
    assert not any(one.removed for one in apply(lake, parsed, now_s=now_s))


def test_raw_goes_when_its_seconds_tell_what_it_told(lake: Path) -> None:
    """Raw rows go by age; their seconds read as before, count as current, and are not built anew from nothing."""
    seconds = read.collect(read.scan(lake, "seconds", r.SOURCE))
    kept = HOURS[-4:]

    done = run(lake, "raw=4h")

    assert {table: tuple(hours) for table, hours in hours_of(lake).items()} == {
        **dict.fromkeys(RAW, kept),
        "universe": HOURS,
        "seconds": HOURS,
    }
    assert done.bytes == sum(sum(hours.values()) for hours in done.removed.values()) > 0
    assert read.collect(read.scan(lake, "seconds", r.SOURCE)).equals(seconds)
    files = {path: path.stat().st_mtime_ns for path in lake.rglob("seconds.parquet")}
    for hour in (HOURS[0], kept[0]):
        assert is_current(lake, "seconds", r.SOURCE, hour, inputs_of_seconds(lake, r.SOURCE, hour))
    with pytest.raises(TableEmpty, match=r"raw/book, raw/ticker, raw/trade .* found them removed"):
        write_seconds(lake, r.SOURCE, HOURS[0])
    assert {path: path.stat().st_mtime_ns for path in lake.rglob("seconds.parquet")} == files
    # The hour whose hour before is gone stands alone.
    start_s = kept[0] * HOUR_S
    again = to_frame(*sample(lake, r.SOURCE, start_s, start_s + HOUR_S))
    assert again.sort("second", "symbol").equals(seconds.filter(pl.col("second") // HOUR_S == kept[0]))


def test_seconds_are_not_built_anew_from_less(lake: Path) -> None:
    """Where one raw table has a shorter rule, seconds stay what they were made of."""
    run(lake, "raw/trade=4h")

    assert read.hours(lake, "raw/book", r.SOURCE) == list(HOURS)
    with pytest.raises(TableEmpty, match=r"^raw/trade of"):
        write_seconds(lake, r.SOURCE, HOURS[0])


def test_raw_without_current_seconds_is_held_back(tmp_path: Path) -> None:
    """Rows that nothing else tells of stay, and so do the 30 s before an hour that is not sampled; ! removes them."""
    lake = fill(tmp_path / "lake", has_seconds=False)
    for hour in (HOURS[0], HOURS[2]):
        write_seconds(lake, r.SOURCE, hour)

    done = run(lake, "raw=4h")

    assert done.removed == {}
    assert set(done.held["raw/book"].values()) == {
        "its seconds are not made of what is there",
        "the seconds of the next hour are not made of what is there",
    }
    assert run(lake, "raw=4h!").removed.keys() == set(RAW)
    assert read.hours(lake, "raw/book", r.SOURCE) == list(HOURS[-4:])


def test_raw_with_later_rows_is_held_back_until_they_are_sampled(lake: Path) -> None:
    """Seconds that were made before the last rows came do not tell of them."""
    record(lake, "late", HOURS[0] * r.HOUR_NS + 5 * NS, HOURS[0] * r.HOUR_NS + 7 * NS, seed=5)
    write.seal(lake, r.SOURCE, HOURS[0])

    assert HOURS[0] in run(lake, "raw=4h").held["raw/trade"]
    write_seconds(lake, r.SOURCE, HOURS[0])
    write_seconds(lake, r.SOURCE, HOURS[1])
    run(lake, "raw=4h")
    assert read.hours(lake, "raw/trade", r.SOURCE) == list(HOURS[-4:])


def test_raw_stays_while_its_seconds_are_damaged(lake: Path) -> None:
    """Before rows go, what they live on in is read to its last byte."""
    path = layout.partition_path(lake, "seconds", r.SOURCE, HOURS[1])
    content = bytearray(path.read_bytes())
    for at in range(20, 60):  # in the first page: what the footer says is whole
        content[at] ^= 1
    path.write_bytes(bytes(content))

    done = run(lake, "raw=4h")

    assert "cannot be trusted" in done.held["raw/book"][HOURS[1]]
    assert HOURS[1] in read.hours(lake, "raw/book", r.SOURCE)
    assert HOURS[3] not in read.hours(lake, "raw/book", r.SOURCE)


def test_unsealed_hour_stays_for_good(lake: Path) -> None:
    """An old hour with a log, even a dead one, is not touched, not even by a final rule."""
    record(lake, "late", HOURS[1] * r.HOUR_NS + 5 * NS, HOURS[1] * r.HOUR_NS + 6 * NS, is_closed=False).abandon()

    done = run(lake, "raw=4h!,seconds=4h!,universe=4h!")

    assert set(done.held["raw/book"].values()) == {"it has unsealed logs"}
    assert all(HOURS[1] in hours for table, hours in hours_of(lake).items() if table != "universe")
    assert HOURS[0] in read.hours(lake, "universe", r.SOURCE)


def test_seconds_go_where_they_can_be_built_again_or_the_rules_say_so(lake: Path) -> None:
    """seconds alone: only with raw rows behind them; with a rule for raw that has run out, too; ! always."""
    shutil.rmtree(lake / "raw")  # a person did that: no rule says so
    fill(lake, HOURS[-4:], has_seconds=False)

    assert run(lake, "seconds=4h").removed == {}
    assert set(run(lake, "raw=3d,seconds=4h").held["seconds"].values()) == {
        "it could not be built again: raw/book is missing"
    }
    assert list(run(lake, "raw=4h,seconds=5h").removed["seconds"]) == list(HOURS[:3])
    assert list(run(lake, "seconds=4h!").removed["seconds"]) == [HOURS[3]]


def test_universe_keeps_what_was_in_force(lake: Path) -> None:
    """Named, snapshots go up to the one that the oldest hour left was traded under."""
    run(lake, "raw=5h,seconds=4h,universe=3h")

    oldest = min(hour for table in (*RAW, "seconds") for hour in read.hours(lake, table, r.SOURCE))
    assert read.hours(lake, "universe", r.SOURCE) == list(range(oldest - 1, HOURS[-1] + 1))
    assert read.universe_at(lake, r.SOURCE, oldest * r.HOUR_NS).symbols == r.universe().symbols


def test_source_that_ended_keeps_its_last_hours(lake: Path) -> None:
    """Age counts back from the newest recorded hour: years later nothing more goes than on the last day."""
    on_the_last_day = run(lake, "raw=4h", NOW_S, is_dry_run=True).removed

    assert run(lake, "raw=4h", FAR_AHEAD_S).removed == on_the_last_day != {}
    assert read.hours(lake, "raw/book", r.SOURCE) == list(HOURS[-4:])
    assert run(lake, "raw=4h", FAR_AHEAD_S).removed == {}


# ------------------------------------------------------------------------------------------------- doing it


def test_dry_run_removes_nothing_and_says_the_same(lake: Path) -> None:
    """What a dry run lists is what a run removes."""
    files = sorted(lake.rglob("*.parquet"))

    planned = run(lake, "raw=4h,seconds=5h", is_dry_run=True)

    assert sorted(lake.rglob("*.parquet")) == files
    assert run(lake, "raw=4h,seconds=5h").removed == planned.removed


def test_run_finishes_what_a_killed_one_began(lake: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next run, even one without rules, removes what is marked; a dry run leaves it alone."""
    with monkeypatch.context() as patch:
        patch.setattr(removal, "finish", lambda *_: None)
        run(lake, "raw=7h")
    assert removal.begun(lake, r.SOURCE) == [HOURS[0]]
    assert list(lake.rglob("hour=00/book.parquet"))
    run(lake, "", is_dry_run=True)
    assert removal.begun(lake, r.SOURCE) == [HOURS[0]]

    run(lake, "")

    assert removal.begun(lake, r.SOURCE) == []
    assert not list(lake.rglob("hour=00/book.parquet"))


@pytest.mark.nightly
@pytest.mark.parametrize("seed", range(6))
def test_killed_process_leaves_whole_hours(seed: int, lake: Path) -> None:
    """A process that is killed at some moment of its work leaves every hour whole or gone; running it again ends it."""
    complete = {hour: read.raw_hour(lake, "raw/trade", r.SOURCE, hour).frame for hour in HOURS}
    n_files = len(list(lake.rglob("*.parquet")))
    command = [sys.executable, "-m", "pipelines.retention", "--lake", str(lake), "--rules", "raw=3h,seconds=3h!"]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None and len(layout.paths_below(lake, "**/*.parquet")) > n_files - 3 * seed:
        pass  # until so many files are gone
    process.kill()
    process.wait()

    left = [read.hours(lake, table, r.SOURCE) for table in (*RAW, "seconds")]
    assert left.count(left[0]) == len(left)
    for hour in left[0]:
        assert read.raw_hour(lake, "raw/trade", r.SOURCE, hour).frame.equals(complete[hour])
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    assert read.hours(lake, "seconds", r.SOURCE) == read.hours(lake, "raw/book", r.SOURCE) == list(HOURS[-3:])
    assert removal.begun(lake, r.SOURCE) == []


def test_hour_that_somebody_writes_is_waited_for(lake: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of an hour goes while its lock is held; the message says whom to wait for."""
    monkeypatch.setattr(write, "LOCK_S_MAX", 0.05)

    with write.hour_lock(lake, r.SOURCE, HOURS[0]), pytest.raises(LakeError, match="held by another process"):
        run(lake, "raw=4h")

    assert hours_of(lake)["raw/book"] == list(HOURS)


def test_lake_in_a_store_is_thinned_out_for_every_machine(tmp_path: Path, s3: str) -> None:  # noqa: F811
    """Objects go, copies elsewhere are not read any more, and what is left is what a folder would hold."""
    uri = f"{s3}/{uuid.uuid4()}/lake"
    here, there = stand_for(tmp_path / "here", uri), stand_for(tmp_path / "there", uri)
    fill(here, HOURS[:5])
    seconds = read.collect(read.scan(there, "seconds", r.SOURCE))
    read.collect(read.scan(there, "raw/book", r.SOURCE))

    done = run(here, "raw=3h,features=1d", NOW_S)

    assert done.removed.keys() == set(RAW)
    assert sum(done.left_bytes.values()) > done.bytes > 0
    assert read.hours(there, "raw/book", r.SOURCE) == list(HOURS[2:5])
    assert read.collect(read.scan(there, "seconds", r.SOURCE)).equals(seconds)
    assert len(list((there / "raw/book").rglob("*.parquet"))) == 5
    assert run(there, "raw=3h", NOW_S).removed == {}
    assert len(list((there / "raw/book").rglob("*.parquet"))) == 3  # the copies of what is gone are gone
    assert read.collect(read.scan(there, "seconds", r.SOURCE)).equals(seconds)


# --------------------------------------------------------------------------------------------------- the weights


def test_projection_is_the_last_day_times_the_age(tmp_path: Path) -> None:
    """A day's bytes are those of the last 24 hours, of a younger source scaled up; a rule keeps age times as much."""
    for hour, size in ((HOURS[0], 1000), (HOURS[1], 3000), (HOURS[3], 2000)):
        for table in ("raw/book", "seconds"):
            path = layout.partition_path(tmp_path, table, r.SOURCE, hour)
            path.parent.mkdir(parents=True)
            path.write_bytes(b"\0" * size)

    there = retention.standing(tmp_path, r.SOURCE, NOW_S)
    (done,) = apply(tmp_path, parse("raw=10d"), now_s=NOW_S)

    assert there.reference == HOURS[3] + 1
    assert there.day_bytes("raw/book") == 6000 * 24 / 4
    text = retention.report(done, parse("raw=10d"), is_dry_run=True)
    assert "in steady state: 360 kB: raw/book 360 kB (10 d)" in text
    assert "kept for ever, a day: 36 kB: seconds 36 kB" in text


def test_command_lists_removes_and_refuses(
    lake: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command says what it would do, does it, and is plain about settings it cannot use."""
    assert retention.main(["--lake", str(lake)]) == 0
    assert "everything: RETENTION is not set" in capsys.readouterr().out

    monkeypatch.setenv("RETENTION", "raw=4h")
    assert retention.main(["--lake", str(lake), "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert "raw/book      would remove 4 hours, 2025-10-14 00:00Z to 2025-10-14 03:00Z" in out
    assert read.hours(lake, "raw/book", r.SOURCE) == list(HOURS)

    assert retention.main(["--lake", str(lake), "--source", r.SOURCE]) == 0
    assert "raw/book      removed 4 hours" in capsys.readouterr().out
    assert read.hours(lake, "raw/book", r.SOURCE) == list(HOURS[-4:])

    assert retention.main(["--lake", str(lake), "--rules", "raw=1h"]) == 2
    assert "at least 3h" in capsys.readouterr().err
    assert retention.main(["--lake", str(lake), "--source", "bitget"]) == 2
    assert f"one of {r.SOURCE}" in capsys.readouterr().err
