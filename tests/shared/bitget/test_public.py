"""Public REST beyond the streams: pages as Bitget sends them, and what is done about odd ones."""

from __future__ import annotations

import itertools
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.bitget import public, rest, wire
from shared.errors import ProtocolBroken
from tests.shared.bitget.payloads import json_values

GOLDEN: dict[str, Any] = json.loads(
    (Path(__file__).resolve().parents[2] / "golden" / "bitget_public.json").read_text("utf-8")
)


def test_golden_payloads_mean_what_they_say() -> None:
    """Funding, open interest and tiers are read field by field, with nothing left over."""
    funding, a = wire.parse_rows(GOLDEN["history-fund-rate"], public.FundingRow, "")
    now, b = wire.parse_rows(GOLDEN["current-fund-rate"], public.FundingNowRow, "")
    interest, c = wire.parse_rows([GOLDEN["open-interest"]], public.InterestPage, "")
    tiers, d = wire.parse_rows(GOLDEN["query-position-lever"], public.TierRow, "")

    assert (a, b, c, d) == ((), (), (), ())
    assert funding == [public.FundingRow("BTCUSDT", 0.0001, 1759996800000)]
    assert now == [public.FundingNowRow("BTCUSDT", 0.0001, 8, 1760025600000)]
    assert interest == [public.InterestPage([public.InterestRow("BTCUSDT", 5000.25)], 1760000000300)]
    assert tiers == [public.TierRow("BTCUSDT", 1, Decimal(0), Decimal(150000), 125, Decimal("0.0040"))]


@pytest.mark.parametrize("endpoint", ["candles", "history-candles"])
def test_candle_is_seven_columns(endpoint: str) -> None:
    """A candle is read from its list, and a page is in order of time whatever order it came in."""
    first = [*GOLDEN[endpoint][0]]
    first[0] = "1760000040000"
    later = ["1760000100000", *first[1:]]

    rows, unknown = public.candles([later, first, later], endpoint)

    assert unknown == ()
    assert [row.open_ms for row in rows] == [1760000040000, 1760000100000]
    assert rows[0] == public.CandleRow(1760000040000, 60000.1, 60010, 59990.5, 60005, 12.5, 750012.25)
    assert public.minute(rows[0]) == 1760000040 // 60


def test_candle_with_more_columns_is_named() -> None:
    """An eighth column, as spot has it, is tolerated and told."""
    rows, unknown = public.candles([["1760000040000", "1", "1", "1", "1", "0", "0", "9"]], "candles")

    assert (len(rows), unknown) == (1, ("column 8",))


@pytest.mark.parametrize(
    "data",
    [
        [["1760000040000", "1", "1", "1", "1", "0"]],  # a column is missing
        [["1760000040000", "1", "1", "1", "1", "0", ""]],
        [["1760000040000", "1", "nan", "1", "1", "0", "0"]],
        [["1760000040001", "1", "1", "1", "1", "0", "0"]],  # opens within a minute
        [["1760000040000", "1", "1", "1", "1", "0", "0"], ["1760000040000", "1", "1", "1", "1", "1", "0"]],
        [{"ts": "1760000040000"}],
        "text",
    ],
)
def test_odd_candles_are_refused(data: Any) -> None:
    """No number is made up for a candle, and two that contradict one another are no candle."""
    with pytest.raises(ProtocolBroken):
        public.candles(data, "candles")


@given(json_values)
def test_any_payload_is_rows_or_an_error(data: Any) -> None:
    """Whatever comes in place of a page is read or refused in our own words."""
    for read in (
        lambda: public.candles(data, "candles"),
        lambda: wire.parse_rows(data, public.FundingRow, "funding"),
        lambda: wire.parse_rows(data, public.TierRow, "tiers"),
    ):
        try:
            rows, _ = read()
        except ProtocolBroken:
            continue
        assert isinstance(rows, list)


@given(st.sampled_from(["candles", "history-candles"]), st.integers(0, 2**41), st.integers(1, 1000))
def test_candles_are_asked_for_by_their_end_alone(name: str, end_ms: int, limit: int) -> None:
    """The one bound that Bitget keeps is endTime: no start is sent that could be ignored."""
    ask = rest.candles if name == "candles" else rest.history_candles

    request = ask("BTCUSDT", "1m", end_ms, limit)

    assert request.endpoint.path.endswith("/" + name)
    assert request.query == {
        "productType": "USDT-FUTURES",
        "symbol": "BTCUSDT",
        "granularity": "1m",
        "endTime": str(end_ms),
        "limit": str(limit),
    }


# ---------------------------------------------------------------------------------------------- recorded payloads


def test_recorded_candles_are_understood_whole(outside: Path) -> None:
    """Recorded one-minute candles are consecutive minutes without anything unknown."""
    data = _recorded(outside, "rest_history_candles_1m_BTCUSDT.json")

    rows, unknown = public.candles(data, "history-candles")

    assert unknown == ()
    minutes = [public.minute(row) for row in rows]
    assert minutes == list(range(minutes[0], minutes[0] + len(data)))
    assert all(row.low <= min(row.open, row.close) <= max(row.open, row.close) <= row.high for row in rows)


def test_recorded_funding_and_tiers_are_understood_whole(outside: Path) -> None:
    """Recorded settlements are eight hours apart, newest first; recorded tiers join one another."""
    funding, a = wire.parse_rows(_recorded(outside, "rest_history_fund_rate_BTCUSDT.json"), public.FundingRow, "")
    tiers, b = wire.parse_rows(_recorded(outside, "rest_query_position_lever_BTCUSDT.json"), public.TierRow, "")

    assert (a, b) == ((), ())
    times = [row.funding_time for row in funding]
    assert {before - after for before, after in itertools.pairwise(times)} == {8 * 3_600_000}
    assert [tier.level for tier in tiers] == list(range(1, len(tiers) + 1))
    assert all(low.end_unit == high.start_unit for low, high in itertools.pairwise(tiers))


def test_recorded_current_funding_is_understood_whole(outside: Path) -> None:
    """The recorded row of current-fund-rate tells interval and next settlement."""
    lines = (outside / "bitget/fixtures/recorded_live_202609/rest_rows_tickers_fundrate_20260915.jsonl").read_text()
    recorded = [row for row in map(json.loads, lines.splitlines()) if "fundingRateInterval" in row]

    rows, unknown = wire.parse_rows(recorded, public.FundingNowRow, "")

    assert unknown == ()
    assert [(row.funding_rate_interval, row.next_update) for row in rows] == [(8, 1789459200000)]


def _recorded(outside: Path, name: str) -> Any:
    return json.loads((outside / "bitget/fixtures/recorded_live_202609" / name).read_text("utf-8"))["data"]
