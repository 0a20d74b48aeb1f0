"""A lake as a market: what was recorded is shown again, bit for bit, a gap is silent, and bad input is one sentence."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest

from pipelines import generate
from shared.errors import SettingsError, TableEmpty
from shared.simulator.markets.lake import PAST_S, LakeMarket
from shared.simulator.markets.market import NS, GeneratedMarket, Market, depth_at
from shared.simulator.pushes.feed import HISTORY, Frame, PublicFeed
from shared.types import BookChannels

BORDER_S = 489_000 * 3600
START_S, GAP_S, RESUME_S, END_S = BORDER_S - 100, BORDER_S + 60, BORDER_S + 120, BORDER_S + 180
LATE_S = BORDER_S - 50
ANCHOR_S = 1_795_330_800
SOURCE = "simulator-g3-4"


class LateFeed(PublicFeed):
    """The market's pushes, but for a symbol of which nothing is told before it is listed."""

    def frames(
        self, start_ns: int, end_ns: int, wanted: Mapping[str, Collection[str]] | None = None
    ) -> Iterator[Frame]:
        late = self.market.symbols[2]
        return (f for f in super().frames(start_ns, end_ns, wanted) if f[2] != late or f[0] >= LATE_S * NS)

    def snapshot(self, now_ns: int, channel: str, symbol: str) -> str | None:
        is_late = symbol == self.market.symbols[2] and now_ns < LATE_S * NS
        return None if is_late else super().snapshot(now_ns, channel, symbol)


@pytest.fixture(scope="module")
def origin() -> Market:
    return GeneratedMarket(3, 4)


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory, origin: Market) -> Path:
    """Return a lake across the border of an hour, with a minute in which the recorder was off."""
    root = tmp_path_factory.mktemp("lake")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(generate, "PublicFeed", LateFeed)
        for begin_s, end_s in ((START_S, GAP_S), (RESUME_S, END_S)):
            generate.generate(origin, root, begin_s, end_s, books=BookChannels("books15"))
    return root


@pytest.fixture(scope="module")
def replayed(lake: Path) -> LakeMarket:
    return LakeMarket(lake, SOURCE, ANCHOR_S * NS)


def shown(market: LakeMarket) -> list[tuple[int, int]]:
    """Return (second, second of the receipts) of everything that is shown, in order."""
    seam = market.seam_after(ANCHOR_S)
    assert seam is not None
    return [(second, market.received_second(second)) for second in range(market.first_second, seam)]


def is_recorded(second: int) -> bool:
    return START_S <= second < GAP_S or RESUME_S <= second < END_S


def test_books_are_those_of_the_market_that_was_recorded(origin: Market, replayed: LakeMarket) -> None:
    """The book of a second is the one that was received before it began: all levels, bit for bit."""
    position = [origin.symbols.index(symbol) for symbol in replayed.symbols]
    compared = 0
    for second, received in shown(replayed):
        if not is_recorded(received - 1):
            continue
        then, now = depth_at(origin, received - 1), depth_at(replayed, second)
        listed = replayed.is_listed(second)
        for field in ("bid_price", "bid_size", "ask_price", "ask_size"):
            assert np.array_equal(getattr(then, field)[position][listed], getattr(now, field)[listed], equal_nan=True)
        compared += 1

    assert compared == END_S - 1 - START_S - (RESUME_S - GAP_S)


def test_trades_of_every_second_are_the_same(origin: Market, replayed: LakeMarket) -> None:
    """Symbol, price, size and side, in the order they were told; ids are new, and increase."""

    def told(market: Market, second: int) -> list[tuple[str, int, int, int]]:
        block = market.block(second)
        rows = range(*block.trades.start[second - block.first_second : second - block.first_second + 2].tolist())
        trades = block.trades
        found = [
            (
                market.symbols[trades.symbol[i]],
                *(int(a[i]) for a in (trades.price_ticks, trades.size_steps, trades.side)),
            )
            for i in rows
        ]
        return sorted(found, key=lambda row: row[0])

    last_id = 0
    for second, received in shown(replayed):
        expected = told(origin, received) if is_recorded(received) else []
        listed = {symbol for symbol, is_on in zip(replayed.symbols, replayed.is_listed(second), strict=True) if is_on}
        assert [row for row in told(replayed, second) if row[0] in listed] == [r for r in expected if r[0] in listed]
        block = replayed.block(second)
        ids = block.trades.trade_id[slice(*block.trades.start[second - block.first_second :][:2])]
        assert (np.diff(ids, prepend=last_id) > 0).all()
        last_id = int(ids[-1]) if len(ids) else last_id


def test_ticker_says_what_was_recorded_and_nothing_else(origin: Market, replayed: LakeMarket) -> None:
    """Quotes, last, mark, index, funding, open interest and volumes as recorded; 24 h prices are not in a lake."""
    before, after = PublicFeed(origin), PublicFeed(replayed)
    second = ANCHOR_S + 30
    received = replayed.received_second(second)
    for symbol in replayed.symbols:
        then = before.ticker_fields((received - 1) * NS, symbol) or {}
        now = after.ticker_fields(second * NS, symbol) or {}
        unknown = {name for name, value in now.items() if value == ""}

        assert unknown == {"open24h", "high24h", "low24h", "change24h", "openUtc"}
        assert {k: v for k, v in now.items() if k not in unknown | {"nextFundingTime"}} == {
            k: v for k, v in then.items() if k not in unknown | {"nextFundingTime"}
        }
        interval_s = int(next(row for row in replayed.contracts() if row["symbol"] == symbol)["fundInterval"]) * 3600
        assert int(now["nextFundingTime"]) == (second // interval_s + 1) * interval_s * 1000


def test_minute_without_a_recorder_is_silent(replayed: LakeMarket) -> None:
    """Nothing is pushed where nothing was received; half a minute later nothing is known any more either."""
    feed = PublicFeed(replayed, HISTORY)
    seconds = dict(shown(replayed))
    silent = [second for second, at in seconds.items() if not is_recorded(at - 1) and not is_recorded(at)]

    pushed = {time_ns // NS for time_ns, *_ in feed.frames(silent[0] * NS, (silent[-1] + 1) * NS)}

    assert len(silent) == RESUME_S - GAP_S - 1
    assert not pushed
    assert not depth_at(replayed, silent[40]).bid_size.any()


def test_symbol_is_listed_from_its_first_book_on(origin: Market, replayed: LakeMarket) -> None:
    """Before it was seen nobody can be told of it."""
    n = replayed.symbols.index(origin.symbols[2])

    told = {received: bool(replayed.is_listed(second)[n]) for second, received in shown(replayed)}

    assert [received for received, is_listed in told.items() if is_listed] == list(range(LATE_S + 1, END_S))


def test_contracts_are_those_of_the_universe(origin: Market, replayed: LakeMarket) -> None:
    """Every rule that the universe keeps is what Bitget's row said, digit for digit."""
    kept = (
        "symbol", "baseCoin", "quoteCoin", "buyLimitPriceRatio", "makerFeeRate", "takerFeeRate", "minTradeNum",
        "priceEndStep", "volumePlace", "pricePlace", "sizeMultiplier", "minTradeUSDT", "symbolStatus", "fundInterval",
        "minLever", "maxLever", "maxMarketOrderQty", "maxOrderQty", "isRwa",
    )  # fmt: skip
    rows = {row["symbol"]: row for row in origin.contracts(START_S)}

    for row in replayed.contracts(ANCHOR_S):
        assert {name: row[name] for name in kept} == {name: rows[row["symbol"]][name] for name in kept}
    assert replayed.contracts(ANCHOR_S) is replayed.contracts(ANCHOR_S + 1)


def test_window_plays_again_after_its_end(replayed: LakeMarket) -> None:
    """At the seam every socket is closed and the window begins again behind its first minute."""
    seam = replayed.seam_after(ANCHOR_S)
    assert seam is not None

    assert replayed.received_second(seam) == replayed.received_second(ANCHOR_S)
    assert replayed.received_second(seam - 1) == END_S - 1
    assert replayed.first_second == ANCHOR_S - PAST_S
    assert replayed.source == "simulator-g3-4-replayed-20261122T070000Z"
    assert np.array_equal(replayed.block(seam).bid_ticks, replayed.block(ANCHOR_S).bid_ticks)


def test_part_of_a_window_is_the_same_part(lake: Path, replayed: LakeMarket) -> None:
    """--from and --to choose what is shown, not how: blocks that are cut elsewhere show the same."""
    part = LakeMarket(lake, SOURCE, ANCHOR_S * NS, start_s=START_S + 17, end_s=GAP_S)
    whole = {received: second for second, received in shown(replayed)}
    common = [(second, whole[received]) for second, received in shown(part) if received > START_S + 17 + 30]

    assert len(common) > 90
    for second, other in common:
        for field in ("bid_ticks", "bid_steps", "ask_ticks", "ask_steps", "mark", "is_fresh"):
            now, then = (
                getattr(m.block(s), field)[s - m.block(s).first_second] for m, s in ((part, second), (replayed, other))
            )
            assert np.array_equal(now, then, equal_nan=True), field


@pytest.mark.parametrize(
    ("source", "window", "error", "why"),
    [
        (
            "simulator-g9-9",
            (None, None),
            TableEmpty,
            r"raw/book of simulator-g9-9 in .* \(sources here: simulator-g3-4\)",
        ),
        (SOURCE, (END_S + 7200, None), TableEmpty, "must hold hours from .*, found nothing"),
        (SOURCE, (GAP_S + 5, RESUME_S - 5), TableEmpty, "must hold books from 2025.* to .*, found none"),
        (SOURCE, (START_S, START_S + 90), SettingsError, "must have 120 seconds, found 89"),
        (SOURCE, (END_S, START_S), SettingsError, "--from must lie before --to"),
    ],
)
def test_what_cannot_be_replayed_is_one_sentence(
    lake: Path, source: str, window: tuple[int | None, int | None], error: type[Exception], why: str
) -> None:
    """Another source, an hour or a minute without rows, too few of them: what was expected, found, and what to do."""
    with pytest.raises(error, match=why) as caught:
        LakeMarket(lake, source, ANCHOR_S * NS, start_s=window[0], end_s=window[1])

    assert "\n" not in str(caught.value)


def test_lean_environment_says_what_is_missing(lake: Path) -> None:
    """Without polars the module is still importable, and replaying says what to install."""
    code = (
        "import sys; sys.modules['polars'] = None\n"
        "from pathlib import Path\n"
        "from shared.simulator.markets.lake import LakeMarket\n"
        f"LakeMarket(Path({str(lake)!r}), {SOURCE!r}, 0)"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert "SettingsError: replaying the lake needs polars, found no polars: install" in done.stderr
