"""Comings and goings of the generated market: contract rows by the second, and nothing where nobody trades."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import SettingsError
from shared.simulator.desk import Desk
from shared.simulator.gate import Credentials
from shared.simulator.markets.listing import (
    BITGET_LISTINGS_PER_DAY,
    BITGET_SYMBOLS,
    PERIOD_S_MIN,
    Life,
    contract_row,
    listings,
    listings_per_day_max,
    newcomer_ranks,
)
from shared.simulator.markets.market import BLOCK_S, NS, GeneratedMarket, depth_at
from shared.simulator.pushes.feed import HISTORY, PublicFeed
from shared.simulator.venue.orders import OrderRequest, Refusal
from shared.types import OrderKind, Side

START_S = 1_795_330_800
PERIOD_S = 240


@pytest.fixture(scope="module")
def busy() -> GeneratedMarket:
    """Return a market of 16 symbols, two of which come and go every four minutes."""
    return GeneratedMarket(7, 16, listings_per_day=86_400 * 2 / PERIOD_S)


def statuses(market: GeneratedMarket, symbol: str, seconds: range) -> list[str | None]:
    found: list[str | None] = []
    for second in seconds:
        rows = {row["symbol"]: row for row in market.contracts(second)}
        found.append(rows[symbol]["symbolStatus"] if symbol in rows else None)
    return found


def test_newcomers_pass_through_bitgets_statuses(busy: GeneratedMarket) -> None:
    """In one period a row is pre-listed, normal, closing only, off, and gone; then it begins again."""
    rank = newcomer_ranks(16)[0]
    life = busy.listings[rank].life
    assert life is not None
    assert life.period_s == PERIOD_S
    begin = START_S - (START_S - life.begin_s) % PERIOD_S

    found = statuses(busy, busy.symbols[rank], range(begin, begin + PERIOD_S + 1))

    order = [status for t, status in enumerate(found) if t == 0 or found[t - 1] != status]
    assert order == ["listed", "normal", "limit_open", "off", None, "listed"]


def test_rows_tell_the_times_at_which_they_change(busy: GeneratedMarket) -> None:
    """launchTime, limitOpenTime and offTime are the first instants of normal, limit_open and off."""
    symbol = busy.symbols[newcomer_ranks(16)[0]]
    said: set[tuple[str, int]] = set()
    turned: set[tuple[str, int]] = set()
    before: Any = None
    for second in range(START_S, START_S + 3 * PERIOD_S):
        row = next((row for row in busy.contracts(second) if row["symbol"] == symbol), None)
        status = row["symbolStatus"] if row else None
        if before is not None and status != before and status in ("normal", "limit_open", "off"):
            turned.add((status, second * 1000))
        before = status
        if row:
            for name, of in (("launchTime", "normal"), ("limitOpenTime", "limit_open"), ("offTime", "off")):
                if row[name] not in ("", "-1"):
                    said.add((of, int(row[name])))

    assert len(turned) >= 6
    assert turned <= said


def test_who_is_not_listed_has_no_book_and_no_trades(busy: GeneratedMarket) -> None:
    """Where `is_listed` says no, the block is empty and silent; where it says yes, it is whole."""
    seen = {True: 0, False: 0}
    for k in range(3):
        block = busy.block(START_S + BLOCK_S * k)
        listed = np.array([busy.is_listed(block.first_second + t) for t in range(BLOCK_S)])
        traded = np.zeros(listed.shape, dtype=np.bool_)
        traded[np.repeat(np.arange(BLOCK_S), np.diff(block.trades.start)), block.trades.symbol] = True

        assert (block.is_fresh == listed).all()
        assert ((block.bid_steps > 0).all(axis=2) == listed).all()
        assert ((block.ask_steps > 0).any(axis=2) == listed).all()
        assert (np.isfinite(block.mark) == listed).all()
        assert not (traded & ~listed).any()
        seen[True] += int(listed.sum())
        seen[False] += int((~listed).sum())
    assert min(seen.values()) > 100


def test_who_trades_has_a_row_that_says_so(busy: GeneratedMarket) -> None:
    """A symbol has a market exactly while its row is normal or limit_open."""
    for second in range(START_S, START_S + 2 * PERIOD_S, 3):
        trading = {row["symbol"] for row in busy.contracts(second) if row["symbolStatus"] in ("normal", "limit_open")}

        assert trading == {s for s, is_listed in zip(busy.symbols, busy.is_listed(second), strict=True) if is_listed}


def test_the_same_list_stands_while_nothing_changes(busy: GeneratedMarket) -> None:
    """`is` tells that the rules are those of the second before; another list has other rows."""
    rows, changes = busy.contracts(START_S), 0
    for second in range(START_S + 1, START_S + PERIOD_S):
        later = busy.contracts(second)
        if later is not rows:
            assert later != rows
            changes += 1
        rows = later

    assert 8 <= changes <= 14


def test_universe_does_not_depend_on_what_was_asked_before(busy: GeneratedMarket) -> None:
    """Rows and the listed symbols of a second are the same forwards, backwards, and asked for alone."""
    seconds = list(range(START_S, START_S + PERIOD_S, 7))
    forward = [(busy.contracts(s), busy.is_listed(s).tolist()) for s in seconds]
    backward = [(busy.contracts(s), busy.is_listed(s).tolist()) for s in reversed(seconds)][::-1]
    alone = GeneratedMarket(7, 16, listings_per_day=86_400 * 2 / PERIOD_S)

    assert forward == backward
    assert alone.contracts(seconds[9]) == forward[9][0]


@given(
    period=st.integers(PERIOD_S_MIN, 10_000_000),
    begin=st.integers(0, 10_000_000),
    second=st.integers(1_500_000_000, 2_000_000_000),
)
def test_a_life_tells_when_it_changes(period: int, begin: int, second: int) -> None:
    """The second named as the next change is the first with another phase, and launches lie in the period."""
    life = Life(period, begin)

    phase, until = life.at(second)

    assert until > second
    assert life.at(until - 1)[0] == phase
    assert life.at(until)[0] != phase
    if phase is not None and phase.is_trading:
        assert phase.launch_ms == life.launch_s(second) * 1000
        assert phase.launch_ms <= second * 1000
    if phase is not None and phase.off_ms is not None and phase.limit_open_ms is not None:
        assert phase.limit_open_ms < phase.off_ms
        assert (phase.status == "off") == (second * 1000 >= phase.off_ms)


def test_default_pace_is_bitgets() -> None:
    """Eight hundred symbols see as many listings in twelve weeks as their share of Bitget's; few see none."""
    market = GeneratedMarket(7, 800)
    launches = 0.0
    for listing in market.listings:
        if listing.life is not None:
            launches += 84 * 86_400 / listing.life.period_s

    assert launches == pytest.approx(84 * BITGET_LISTINGS_PER_DAY * 800 / BITGET_SYMBOLS, rel=0.01)
    assert all(listing.life is None for listing in GeneratedMarket(7, 40).listings)


def test_no_pace_means_that_everybody_stays() -> None:
    market = GeneratedMarket(7, 800, listings_per_day=0.0)

    assert market.is_listed(START_S).all()
    assert market.contracts(START_S) == market.contracts()
    assert market.source == "simulator-g7-800-l0"


def test_all_rows_ever_keep_the_order_of_symbols(busy: GeneratedMarket) -> None:
    """Without a second, every symbol has its row, in the order of `symbols`, whoever is listed."""
    assert tuple(row["symbol"] for row in busy.contracts()) == busy.symbols
    assert {row["symbolStatus"] for row in busy.contracts()} == {"normal"}


@pytest.mark.parametrize("pace", [-1.0, float("nan"), listings_per_day_max(16) * 1.01])
def test_a_pace_out_of_bounds_is_refused(pace: float) -> None:
    with pytest.raises(SettingsError, match="listings a day must be in"):
        GeneratedMarket(7, 16, listings_per_day=pace)


def test_a_symbol_that_never_changes_is_not_moved_by_those_that_do(busy: GeneratedMarket) -> None:
    """Who else is listed changes neither prices nor trades of the others."""
    still = GeneratedMarket(7, 16, listings_per_day=0.0).block(START_S)
    moving = busy.block(START_S)
    stays = [n for n, listing in enumerate(busy.listings) if listing.life is None]

    assert (still.bid_ticks[:, stays] == moving.bid_ticks[:, stays]).all()
    assert (still.ask_steps[:, stays] == moving.ask_steps[:, stays]).all()


def test_feed_is_silent_about_who_is_not_listed(busy: GeneratedMarket) -> None:
    """No push, no snapshot, no ticker and no book of a symbol outside its trading time; all of them inside."""
    feed = PublicFeed(busy, HISTORY)
    symbol = busy.symbols[rank := newcomer_ranks(16)[0]]
    wanted = {"ticker": [symbol], "books15": [symbol], "trade": [symbol], "books": [symbol]}
    spoke = {True: 0, False: 0}
    for second in range(START_S, START_S + PERIOD_S):
        is_listed = bool(busy.is_listed(second)[rank])
        now_ns = second * NS + NS // 2
        spoke[is_listed] += len(list(feed.frames(second * NS, (second + 1) * NS, wanted)))

        assert (feed.ticker_fields(now_ns, symbol) is not None) == is_listed
        assert (feed.book_rows(now_ns, symbol, 5) != ([], [])) == is_listed
        assert (feed.snapshot(now_ns, "books15", symbol) is not None) == is_listed
    assert spoke[False] == 0
    assert spoke[True] > 100


def test_desk_tells_the_venue_what_is_tradable(busy: GeneratedMarket) -> None:
    """Orders are taken while the row is normal and refused before the launch and after the removal."""
    desk = Desk(busy, [Credentials("a", "s", "p", Decimal(10_000))])
    symbol = busy.symbols[newcomer_ranks(16)[0]]
    row = busy.contracts()[newcomer_ranks(16)[0]]
    size = max(Decimal(row["minTradeNum"]), (Decimal(6) / Decimal(str(busy.listings[newcomer_ranks(16)[0]].price))))
    size = -(-size // Decimal(row["sizeMultiplier"])) * Decimal(row["sizeMultiplier"])
    answers: dict[str | None, set[bool]] = {}
    found = statuses(busy, symbol, range(START_S, START_S + PERIOD_S))
    for t, status in enumerate(found):
        now_ns = (START_S + t) * NS + NS // 2
        desk.advance(now_ns)
        if t % 2 == 0:
            answer = desk.venue.place(
                "a", OrderRequest(symbol=symbol, side=Side.BUY, kind=OrderKind.MARKET, size=size), now_ns
            )
            answers.setdefault(status, set()).add(not isinstance(answer, Refusal))

    assert answers["normal"] == {True}
    assert answers["listed"] == answers["off"] == answers[None] == {False}


def test_nothing_is_left_in_a_symbol_that_was_removed(busy: GeneratedMarket) -> None:
    """At its off time a symbol's orders are cancelled and its positions closed; the money is the venue's sum as ever."""
    rank = newcomer_ranks(16)[0]
    symbol, row = busy.symbols[rank], busy.contracts()[rank]
    life = busy.listings[rank].life
    assert life is not None
    second = life.launch_s(START_S + PERIOD_S) + 20
    off = next(s for s in range(second, second + PERIOD_S) if not busy.is_listed(s)[rank])
    desk = Desk(busy, [Credentials("a", "s", "p", Decimal(10_000))])
    desk.advance(second * NS)
    step = Decimal(row["sizeMultiplier"])
    size = max(Decimal(row["minTradeNum"]), -(-Decimal(10) / Decimal(str(busy.listings[rank].price)) // step) * step)
    bought = OrderRequest(symbol=symbol, side=Side.BUY, kind=OrderKind.MARKET, size=size)
    assert not isinstance(desk.venue.place("a", bought, second * NS), Refusal)
    low = Decimal(str(depth_at(busy, second).bid_price[rank, -1])).quantize(Decimal(1).scaleb(-busy.price_places[rank]))
    resting = OrderRequest(symbol=symbol, side=Side.BUY, kind=OrderKind.LIMIT, size=size, price=low)
    assert not isinstance(desk.venue.place("a", resting, second * NS), Refusal)
    assert desk.venue.positions("a")

    for at in range(second, off + 1):
        desk.advance(at * NS)

    assert not desk.venue.positions("a")
    assert not desk.venue.pending("a")
    deposits, realised, fees, funding = desk.venue.totals("a")
    assert desk.venue.equity("a") == deposits + realised - abs(fees) + funding


def test_contract_fields_are_distributed_as_bitgets_are(outside: Path) -> None:
    """Shares of each field's values over 800 symbols lie near those of Bitget's rows of July 2026."""
    recorded = json.loads((outside / "bitget/fixtures/rest_contracts_usdt_futures_119rows_20260702.json").read_text())
    recorded = recorded if isinstance(recorded, list) else recorded["data"]
    made = [contract_row(listing) for listing in listings(800)]

    def share(rows: list[dict[str, Any]], name: str, *values: str) -> float:
        return sum(row[name] in values for row in rows) / len(rows)

    for name, values in {
        "isRwa": ("YES",), "fundInterval": ("8",), "pricePlace": ("2", "3"), "volumePlace": ("0",),
        "buyLimitPriceRatio": ("0.02",), "maxLever": ("10", "20", "25"), "posLimit": ("0.05", "0.1"),
    }.items():  # fmt: skip
        assert share(made, name, *values) == pytest.approx(share(recorded, name, *values), abs=0.2), name
    for row in made:
        assert {key: type(value) for key, value in row.items()} == {
            key: type(value) for key, value in recorded[0].items()
        }
        assert Decimal("0.02") <= Decimal(row["buyLimitPriceRatio"]) <= Decimal("0.2")
        assert int(row["maxOrderQty"]) > int(row["maxMarketOrderQty"]) > 0
        assert Decimal(row["minTradeNum"]) % Decimal(row["sizeMultiplier"]) == 0
    assert sum(row["minTradeNum"] != row["sizeMultiplier"] for row in made) > 0
    assert sum(not row["symbol"].isascii() for row in made) == 3
    assert {"1", "4", "8"} == {row["fundInterval"] for row in made}
