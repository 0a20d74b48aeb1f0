"""Verdicts about an hour, on lakes that are made for them: what turns each red, and what does not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from pipelines import verdicts
from pipelines.verdicts import LAG_MS_MAX_MEDIAN, LAG_MS_MAX_P99, LAG_MS_MIN, Verdict
from shared.errors import TableEmpty
from shared.lake import coverage, read, wal, wal_records, write
from shared.lake.layout import HOUR_S, TABLES
from shared.types import NS, BookTicks, TickEvent, Ticks
from tests.shared.lake import receipts as r

START_NS = r.HOUR * r.HOUR_NS
MS = 1_000_000
CHANNELS = ("book", "trade", "ticker")

HOURLY: tuple[Callable[[Path, str, int], Verdict], ...] = (
    verdicts.crossed_books,
    verdicts.duplicate_trades,
    verdicts.unknown_payloads,
    verdicts.clock_skew,
)


def recorded(lake: Path, ticks: Ticks, *, source: str = r.SOURCE, aside: list[wal_records.Aside] | None = None) -> None:
    """Record and seal some receipts of the hour."""
    write.write_universe(lake, r.universe(source=source))
    log = wal.WriteAheadLog(lake, source, "a", r.universe())
    log.append(r.concat([r.links(TickEvent.SUBSCRIBED, START_NS), ticks]))
    log.set_aside(aside or [])
    log.close()
    write.seal(lake, source, r.HOUR)


def pushes(seconds: int = 20) -> Ticks:
    return r.receipts(1, START_NS + NS, START_NS + seconds * NS)


def delayed(ticks: Ticks, by_ms: Callable[[int], np.ndarray[Any, Any]]) -> Ticks:
    """Return receipts whose lag is 20 ms and so many more."""

    def shift(rows: Any) -> Any:
        fields = {field: getattr(rows, field) for field in rows.__struct_fields__}
        return type(rows)(**fields | {"exch_ns": rows.exch_ns - by_ms(len(rows.recv_ns)).astype(np.int64) * MS})

    return r.map_tables(ticks, shift)


def covered(
    lake: Path,
    states: dict[str, dict[int, str]],
    *,
    source: str = r.SOURCE,
    minutes: range = range(60),
    reasons: dict[str, str] | None = None,
) -> None:
    """Store coverage of the hour: complete, but where another state is given, {symbol: {minute: state}}.

    Args:
        reasons: of states; these are gaps.
    """
    reasons = reasons or {}
    rows = []
    for symbol in r.SYMBOLS:
        for minute in range(60):
            state = states.get(symbol, {}).get(minute, "complete" if minute in minutes else "gap")
            reason = {"gap": "not_linked", "stale": "silent", **reasons}.get(state, "")
            state = "gap" if state in reasons else state
            rows += [(r.HOUR * 60 + minute, symbol, channel, state, reason) for channel in CHANNELS]
    columns = dict(TABLES["coverage"].columns)
    frame = pl.DataFrame(rows, schema=["minute", "symbol", "channel", "state", "reason"], orient="row")
    write.write_table(lake, "coverage", source, r.HOUR, frame.select(list(columns)).cast(columns), {})  # type: ignore[arg-type]


@pytest.mark.parametrize("check", HOURLY)
def test_clean_hour_passes(check: Callable[[Path, str, int], Verdict], tmp_path: Path) -> None:
    """Plausible receipts, link rows with NaN prices included, turn nothing red."""
    recorded(tmp_path, pushes())

    assert check(tmp_path, r.SOURCE, r.HOUR).passed


@pytest.mark.parametrize("check", [check for check in HOURLY if check is not verdicts.unknown_payloads])
def test_missing_hour_is_no_verdict(check: Callable[[Path, str, int], Verdict], tmp_path: Path) -> None:
    """An hour that nobody recorded is neither right nor wrong: the lake says that it is not there."""
    if check is verdicts.clock_skew:  # which asks table by table what there is
        assert check(tmp_path, r.SOURCE, r.HOUR) == Verdict(True, {"pushes": 0})
        return
    with pytest.raises(TableEmpty):
        check(tmp_path, r.SOURCE, r.HOUR)


@pytest.mark.parametrize("check", HOURLY)
def test_hour_of_links_alone_passes(check: Callable[[Path, str, int], Verdict], tmp_path: Path) -> None:
    """Links without a push are nothing to judge, and the figures say 0."""
    recorded(tmp_path, r.links(TickEvent.DISCONNECTED, START_NS + NS))

    passed, figures = check(tmp_path, r.SOURCE, r.HOUR)

    assert passed
    assert all(value == 0 for value in figures.values())


def test_crossed_books_are_counted_by_symbol(tmp_path: Path) -> None:
    """Locked ones, too: no price lies between a bid and an ask that are equal."""
    ticks = pushes()
    bid = ticks.books.bid_price.copy()
    of_two = np.flatnonzero(ticks.books.symbol == 2)[:3]
    bid[of_two, 0] = ticks.books.ask_price[of_two, 0]
    bid[np.flatnonzero(ticks.books.symbol == 1)[0], 0] = 1e9
    fields = {field: getattr(ticks.books, field) for field in BookTicks.__struct_fields__}
    recorded(tmp_path, Ticks(BookTicks(**fields | {"bid_price": bid}), ticks.trades, ticks.tickers))

    passed, figures = verdicts.crossed_books(tmp_path, r.SOURCE, r.HOUR)

    assert not passed
    assert (figures["crossed"], figures["symbols"]) == (4, 2)
    assert figures["worst"].markdown.splitlines()[2].startswith(f"| {r.SYMBOLS[2]} |")


def test_trade_that_is_stored_twice_turns_red(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sealing keeps one row of a trade; a file that was written otherwise is found out."""
    recorded(tmp_path, pushes())
    once = verdicts.rows_of(tmp_path, "raw/trade", r.SOURCE, r.HOUR)
    again = once.filter((pl.col("symbol") == "ETHUSDT") & (pl.col("event") == 0)).head(2)
    twice = pl.concat([once, again])
    monkeypatch.setattr(verdicts, "rows_of", lambda *_: twice)

    passed, figures = verdicts.duplicate_trades(tmp_path, r.SOURCE, r.HOUR)

    assert not passed
    assert figures["duplicates"] == 2
    assert "ETHUSDT" in figures["worst"].markdown


def test_what_was_not_understood_turns_red(tmp_path: Path) -> None:
    """One payload with an unknown field is enough, and the table says what it was."""
    recorded(tmp_path, pushes(), aside=[(START_NS + NS, "ticker push", "unknown field rpi", "{}", 3)])

    passed, figures = verdicts.unknown_payloads(tmp_path, r.SOURCE, r.HOUR)

    assert not passed
    assert (figures["payloads"], figures["kinds"]) == (3, 1)
    assert "| ticker push | unknown field rpi | 3 |" in figures["worst"].markdown


@pytest.mark.parametrize(
    ("by_ms", "words"),
    [
        (lambda n: np.full(n, LAG_MS_MIN - 30), "our clock is behind"),
        (lambda n: np.full(n, LAG_MS_MAX_MEDIAN), "our clock is ahead"),
        (lambda n: np.where(np.arange(n) % 20 == 0, LAG_MS_MAX_P99, 0), "too busy"),
    ],
    ids=["behind", "ahead", "late at times"],
)
def test_clock_that_is_wrong_turns_red(by_ms: Any, words: str, tmp_path: Path) -> None:
    """Pushes that come before they were sent, or too late, or one in twenty too late."""
    recorded(tmp_path, delayed(pushes(40), by_ms))

    passed, figures = verdicts.clock_skew(tmp_path, r.SOURCE, r.HOUR)

    assert not passed
    assert words in figures["wrong"]


def test_lags_are_those_of_numpy(tmp_path: Path) -> None:
    """Counted by the millisecond, quantiles agree with numpy's over the rows themselves."""
    rng = np.random.Generator(np.random.Philox(4))
    recorded(tmp_path, delayed(pushes(60), lambda n: rng.lognormal(3, 1, n).round()))
    rows = read.collect(verdicts.rows_of(tmp_path, "raw/book", r.SOURCE, r.HOUR)).filter(pl.col("event") == 0)
    lag_ms = (rows["recv_ns"] - rows["exch_ns"]).to_numpy() // MS

    lag = next(lag for lag in verdicts.receive_lags(tmp_path, r.SOURCE, r.HOUR) if lag.channel == "book")

    found = [lag.p1_ms, lag.median_ms, lag.p99_ms]
    assert found == np.quantile(lag_ms, [0.01, 0.5, 0.99], method="inverted_cdf").tolist()
    assert (lag.pushes, lag.max_ms) == (len(lag_ms), lag_ms.max())


def test_gap_of_links_turns_coverage_red(tmp_path: Path) -> None:
    """From rows to verdict: minutes in which the link was down, between others in which it was up."""
    down_ns, up_ns, end_ns = (START_NS + s * NS for s in (135, 400, 600))
    parts = [r.receipts(1, START_NS + NS, down_ns, per_s=1.0), r.links(TickEvent.DISCONNECTED, down_ns)]
    parts += [r.links(TickEvent.SUBSCRIBED, up_ns), r.receipts(1, up_ns, end_ns, per_s=1.0)]
    recorded(tmp_path, r.concat(parts))
    coverage.write_coverage(tmp_path, r.SOURCE, r.HOUR)

    passed, figures = verdicts.coverage_share(tmp_path, r.SOURCE, r.HOUR)

    assert not passed
    assert figures["minutes"] == 9, "the tenth was not recorded to its end"
    assert "not_linked" in figures["causes"].markdown


@pytest.mark.parametrize(
    ("states", "minutes", "passes"),
    [
        ({}, range(60), True),
        ({"BTCUSDT": {7: "gap"}}, range(60), False),  # 3 of 720 channel minutes: 99.6 %
        ({"BTCUSDT": {7: "stale"}}, range(60), True),
        ({}, range(20, 41), True),  # started and stopped within the hour
        ({}, range(0), True),  # nobody was there
        ({}, range(5, 6), True),
        ({symbol: dict.fromkeys(range(60), "stale") for symbol in r.SYMBOLS}, range(60), False),
        ({"BTCUSDT": dict.fromkeys(range(30), "not_listed") | {30: "gap", 31: "gap"}}, range(60), True),
        ({"BTCUSDT": dict.fromkeys(range(30), "not_listed") | {32: "gap"}}, range(60), False),
        ({"BTCUSDT": {7: "of the future"}}, range(60), False),
    ],
    ids=[
        "whole", "gap", "silent symbol", "part", "nothing", "a minute", "nobody speaks", "listing", "after a listing",
        "unknown state",
    ],
)  # fmt: skip
def test_what_coverage_is_judged_by(
    states: dict[str, dict[int, str]], minutes: range, passes: bool, tmp_path: Path
) -> None:
    """Minutes between the first and the last recorded one, of listed symbols; silence is covered, a gap is not."""
    covered(tmp_path, states, minutes=minutes)

    passed, figures = verdicts.coverage_share(tmp_path, r.SOURCE, r.HOUR)

    assert passed == passes, figures
    assert passed or figures["what_to_do"]


def test_import_is_not_judged_by_links_that_it_cannot_have(tmp_path: Path) -> None:
    """All of it is a gap to coverage; the verdict says that it does not judge."""
    covered(tmp_path, {}, source="import-tardis", minutes=range(0))

    for check in (verdicts.coverage_share, verdicts.whole_hour):
        passed, figures = check(tmp_path, "import-tardis", r.HOUR)
        assert passed
        assert "import" in figures["reason"]
    assert verdicts.unknown_payloads(tmp_path, "import-tardis", r.HOUR) == Verdict(True, {"payloads": 0})


@pytest.mark.parametrize(
    ("minutes", "expected"), [(range(60), (True, 0, 59)), (range(20, 60), (False, 20, 59)), (range(0), (False, -1, -1))]
)
def test_hour_that_was_begun_late_is_not_whole(minutes: range, expected: tuple[bool, int, int], tmp_path: Path) -> None:
    """From its first minute to its last, or it says which."""
    covered(tmp_path, {}, minutes=minutes)

    passed, figures = verdicts.whole_hour(tmp_path, r.SOURCE, r.HOUR)

    assert (passed, figures["first_minute"], figures["last_minute"]) == expected


def features(lake: Path, share_missing: float) -> None:
    """Store features of which one is never there, and another is missing in a share of the rows."""
    n = 100
    values = np.ones(n, np.float32)
    values[: round(share_missing * n)] = np.nan
    frame = pl.DataFrame(
        {
            "second": pl.Series(r.HOUR * HOUR_S + np.arange(n), dtype=pl.Int64),
            "symbol": ["BTCUSDT"] * n,
            "absent": np.full(n, np.nan, np.float32),
            "sometimes": values,
        }
    )
    write.write_table(lake, "features", r.SOURCE, r.HOUR, frame, {})


@pytest.mark.parametrize(("share", "passes"), [(0.05, True), (0.06, False)])
def test_features_that_are_missing_warn(share: float, passes: bool, tmp_path: Path) -> None:
    """What a source never has is no loss; what it mostly has, and lacks, is."""
    features(tmp_path, share)

    passed, figures = verdicts.missing_features(tmp_path, r.SOURCE, r.HOUR)

    assert passed == passes
    assert figures["absent"] == 1


@pytest.mark.parametrize(
    ("labels", "passes"),
    [([1, 2, 0] * 10, True), ([1, 0, 0] * 10, False), ([0] * 30, False), ([None] * 30, False)],
    ids=["both sides", "one side", "flat", "incomplete"],
)
def test_labels_of_one_side_warn(labels: list[int | None], passes: bool, tmp_path: Path) -> None:
    """Long and short must both be there."""
    frame = pl.DataFrame(
        {
            "second": pl.Series(r.HOUR * HOUR_S + np.arange(len(labels)), dtype=pl.Int64),
            "symbol": ["BTCUSDT"] * len(labels),
            "label": pl.Series(labels, dtype=pl.Int8),
        }
    )
    columns = dict(TABLES["labels"].columns)
    frame = frame.with_columns(
        pl.lit(0.0, dtype=dtype).alias(name) for name, dtype in columns.items() if name not in frame.columns
    )
    write.write_table(tmp_path, "labels", r.SOURCE, r.HOUR, frame, {})

    assert verdicts.label_balance(tmp_path, r.SOURCE, r.HOUR).passed == passes


def test_coin_that_earns_fails_its_check() -> None:
    """A backtest in which a coin earns after costs is broken, and one without a coin proves nothing."""
    assert verdicts.coin_loses({"net_bps": -14.0}).passed
    assert not verdicts.coin_loses({"net_bps": 3.0}).passed
    assert not verdicts.coin_loses({}).passed


def test_a_backtest_that_live_would_not_repeat_is_red() -> None:
    """Identical passes; a mismatch does not, nor a backtest that was never compared, nor none at all."""
    assert verdicts.backtest_parity({"parity_decisions": 1204.0, "parity_mismatches": 0.0}).passed
    assert not verdicts.backtest_parity({"parity_decisions": 1204.0, "parity_mismatches": 1.0}).passed
    assert not verdicts.backtest_parity({"parity_decisions": 0.0, "parity_mismatches": 240.0}).passed
    for nothing in ({"parity_decisions": 0.0, "parity_mismatches": 0.0}, {}):
        assert "was compared with live" in verdicts.backtest_parity(nothing).metadata["reason"]


def test_model_within_two_errors_of_its_null_fails_its_check() -> None:
    """An IC that shuffled labels reach as well is no finding."""
    known = {"rank_ic_se": 0.03, "shuffled_rank_ic_se": 0.04, "shuffled_rank_ic": 0.01}

    assert verdicts.model_beats_null(known | {"rank_ic": 0.20}).passed
    assert not verdicts.model_beats_null(known | {"rank_ic": 0.10}).passed
    assert not verdicts.model_beats_null({}).passed
