"""Which perpetuals the generated market lists, when, and how each of them behaves.

One row a symbol, in the order of activity: two majors, some large alts, many small alts, and perpetuals on stocks
("RWA", four in ten of Bitget's since 2026). Small alts and stocks are the *followers*: part of every shock reaches
their price late, and shows in their book first. Names and prices are made up where a thousand symbols are asked for;
how fields are distributed follows Bitget's contract list of July 2026 (119 rows) and counts of September 2026.

Levels follow the traded notional U [USDT/s], which falls with the rank as rank^-1.3 (between the 1.2 and 1.5 that a
large exchange is taken to have): trades/s = 0.027 U^0.56, L1 = 80 U^0.71 USDT, spread ~ U^-0.25, each with the
scatter between symbols that recordings show.

Comings and goings: every eighth symbol from the end of the ranks is a *newcomer* with a `Life`: pre-listing, trading,
closing only, removed, and after a while listed again, so that any second of any year has about as many symbols.

To extend: add a name to `_NAMED`; everything else follows from its price and its rank.
"""

from __future__ import annotations

import math
from typing import Any

import msgspec
import numpy as np

# (base coin, price in USDT, price decimals, size decimals): the order is the order of activity. The Chinese name is
# third from the top of the small alts, so that every market of 20 symbols has one (three of Bitget's in 2026).
_NAMED: tuple[tuple[str, float, int, int], ...] = (
    ("BTC", 83400.0, 1, 4),
    ("ETH", 2940.0, 2, 2),
    ("SOL", 138.0, 3, 1),
    ("XRP", 2.12, 4, 0),
    ("DOGE", 0.1612, 5, 0),
    ("BNB", 865.0, 2, 2),
    ("SUI", 1.94, 4, 1),
    ("ADA", 0.412, 4, 0),
    ("HYPE", 31.7, 3, 2),
    ("LINK", 13.9, 3, 1),
    ("龙虾", 0.02137, 5, 0),
    ("PEPE", 0.00000734, 10, 0),
    ("WLFI", 0.1462, 5, 0),
    ("ASTER", 1.043, 4, 1),
    ("AVAX", 14.6, 3, 1),
    ("ENA", 0.2713, 5, 0),
    ("UNI", 7.52, 3, 1),
    ("DASH", 61.4, 2, 2),
    ("WIF", 0.4417, 5, 1),
    ("LTC", 91.3, 2, 2),
    ("AAVE", 187.0, 2, 2),
    ("NEAR", 1.873, 4, 1),
    ("ARB", 0.2241, 5, 0),
    ("APT", 2.61, 4, 1),
    ("DOT", 2.37, 4, 1),
    ("FIL", 1.66, 4, 1),
    ("OP", 0.3312, 5, 0),
    ("TIA", 0.6143, 5, 1),
    ("INJ", 6.12, 3, 1),
    ("SEI", 0.1402, 5, 0),
    ("ONDO", 0.5121, 5, 0),
    ("FET", 0.2614, 5, 0),
    ("CRV", 0.4213, 5, 0),
    ("PENGU", 0.01143, 6, 0),
    ("BONK", 0.00001012, 9, 0),
    ("VIRTUAL", 1.217, 4, 1),
    ("LDO", 0.7012, 5, 1),
    ("ETC", 13.21, 3, 1),
    ("ALGO", 0.1403, 5, 1),
    ("KAITO", 0.6321, 5, 1),
    ("JUP", 0.2532, 5, 0),
    ("ATOM", 2.54, 4, 1),
    ("IMX", 0.3107, 5, 0),
    ("GALA", 0.00732, 6, 0),
    ("SAND", 0.1531, 5, 0),
    ("MAV", 0.03214, 6, 0),
    ("STRK", 0.1213, 5, 0),
    ("ZEC", 512.0, 2, 3),
)
_CHINESE = {61: "币安人生", 142: "哈基米"}
_SYLLABLES = ("KA", "LO", "MI", "RU", "TE", "VO", "ZA", "NI", "PO", "SU")

BITGET_LISTINGS_PER_DAY = 123.0 / 84.0
BITGET_SYMBOLS = 740
"""682 perpetuals became 805 in twelve weeks: the net pace, at this many on average."""

STATIC_BELOW = 100
"""Symbols below which nothing is listed or removed unless asked for: at Bitget's pace, one in five days or fewer."""

_NEWCOMER_EVERY = 8
PERIOD_S_MIN = 120
"""The shortest life of a newcomer, from one pre-listing to the next."""


class Phase(msgspec.Struct, frozen=True):
    """How a symbol stands for a while: what its contract row says, and whether it has a market."""

    status: str  # "listed" (pre-listing), "normal", "limit_open", "off"
    is_trading: bool
    launch_ms: int | None
    limit_open_ms: int | None  # None: not announced
    off_ms: int | None


class Life(msgspec.Struct, frozen=True):
    """Periodic comings and goings of one symbol, in whole seconds of the epoch.

    A period is: pre-listing, trading (its end is announced some days before), closing only, removed but still shown,
    absent.
    """

    period_s: int
    begin_s: int  # of some period

    def at(self, second: int) -> tuple[Phase | None, int]:
        """Return how the symbol stands at `second` (None: no row), and the first second at which that changes."""
        period = self.period_s
        begin = second - (second - self.begin_s) % period
        launch = begin + max(1, min(7_200, period // 20))
        off = begin + period * 9 // 10
        limit_open = off - max(1, min(172_800, period // 10))
        announced = limit_open - max(1, min(259_200, period // 10))
        gone = off + max(1, min(3_600, period // 40))
        known = launch * 1000, limit_open * 1000, off * 1000
        if second < launch:
            return Phase("listed", False, known[0], None, None), launch
        if second < announced:
            return Phase("normal", True, known[0], None, None), announced
        if second < limit_open:
            return Phase("normal", True, *known), limit_open
        if second < off:
            return Phase("limit_open", True, *known), off
        if second < gone:
            return Phase("off", False, *known), gone
        return None, begin + period

    def launch_s(self, second: int) -> int:
        """Return when the trading of the period around `second` begins or began."""
        begin = second - (second - self.begin_s) % self.period_s
        return begin + max(1, min(7_200, self.period_s // 20))


ALWAYS = Phase("normal", True, None, None, None)


class Listing(msgspec.Struct, frozen=True, kw_only=True):
    """One perpetual of the generated market: its contract, its temper, and its life."""

    symbol: str
    base: str
    price: float  # USDT, what its price reverts to over days
    price_place: int  # tick = 10^-price_place
    volume_place: int  # decimals of sizes
    size_step: int  # size step in units of 10^-volume_place: 1, or 10, 100 for the cheapest coins
    size_min: int  # least order in the same units; not always one step
    rank: int
    tier: str  # "major", "large", "small" or "stock"
    usd_per_s: float  # traded notional
    trades_per_s: float
    vol10_bps: float  # root mean square 10 s return of the mid, before the day's pattern
    factor_share: float  # [1] of the variance that is the market's
    touch_usd: float  # median notional at the best level
    spread_bps: float  # typical; a tick where that is wider
    level_gap: float  # mean distance between neighbouring levels, ticks
    leverage_max: int
    funding_interval_h: int
    price_band: str  # [1] of the mark, as the contract row tells it
    position_share: str  # of the open interest that one user may hold
    opened_ms: int | None  # `openTime` of the row
    life: Life | None  # None: always listed


def listings(n_symbols: int, listings_per_day: float = 0.0) -> tuple[Listing, ...]:
    """Return the `n_symbols` most active perpetuals, most active first.

    Args:
        listings_per_day: how many newcomers are listed in a day, and how many removed; 0: none.
    """
    n_major = min(2, n_symbols)
    n_large = max(0, min(round(0.15 * n_symbols), 30, n_symbols - n_major - 1))
    newcomers = newcomer_ranks(n_symbols) if listings_per_day > 0.0 else ()
    lives: dict[int, Life] = {}
    for k, rank in enumerate(newcomers):
        period_s = max(PERIOD_S_MIN, round(86_400.0 * len(newcomers) / listings_per_day))
        # Spread over the period by the golden ratio: comings are neither regular nor at once.
        lives[rank] = Life(period_s, int(period_s * (0.618034 * (k + 1) % 1.0)))
    return tuple(_listing(rank, n_major, n_large, lives.get(rank)) for rank in range(n_symbols))


def newcomer_ranks(n_symbols: int) -> tuple[int, ...]:
    """Return which positions come and go: every eighth from the end, at least one."""
    return tuple(sorted(range(n_symbols - 1, -1, -_NEWCOMER_EVERY)[: max(1, n_symbols // _NEWCOMER_EVERY)]))


def listings_per_day_max(n_symbols: int) -> float:
    return 86_400.0 / PERIOD_S_MIN * len(newcomer_ranks(n_symbols))


def default_listings_per_day(n_symbols: int) -> float:
    return BITGET_LISTINGS_PER_DAY * n_symbols / BITGET_SYMBOLS if n_symbols >= STATIC_BELOW else 0.0


def _listing(rank: int, n_major: int, n_large: int, life: Life | None) -> Listing:
    # The scatter between symbols: the same whatever the seed, as names and prices are.
    scatter = np.random.Generator(np.random.Philox(key=[rank, 20260702])).standard_normal(8).tolist()
    is_stock = rank >= len(_NAMED) and rank * 7 % 16 < 7 and rank not in _CHINESE
    base, price, price_place, volume_place, size_step = (
        (*_NAMED[rank], 1) if rank < len(_NAMED) else _made_up(rank, is_stock, scatter[0])
    )
    usd_per_s = 65e3 / (rank + 1) ** 1.3 * math.exp(0.3 * scatter[1] * (rank > 1))
    interval_h = 8 if rank < n_major + n_large or is_stock or rank % 3 == 1 else 4
    if rank < n_major:
        tier, vol10, share, gap = "major", (2.1, 2.8)[rank], 0.80, 1.9
        spread_bps = 0.0
    elif rank < n_major + n_large:
        tier, vol10, share, gap = "large", 3.6 * math.exp(0.12 * scatter[2]), 0.60, 1.04
        spread_bps = 0.0
    else:
        tier, vol10, share = "small", 15.2 * math.exp(0.22 * scatter[2]), 0.25
        spread_bps = 14.0 * usd_per_s**-0.25 * math.exp(0.55 * scatter[3])
        gap = 1.0 + 0.35 * spread_bps * price * 10.0**price_place / 1e4 / 3.0
        if is_stock:
            tier, vol10, share = "stock", 6.0 * math.exp(0.3 * scatter[2]), 0.10
        if life is not None:
            share = 0.05  # what was listed lately goes its own way
    return Listing(
        symbol=f"{base}USDT", base=base, price=price, price_place=price_place, volume_place=volume_place,
        size_step=size_step, size_min=5 * 10**volume_place if base == "ALGO" or rank % 61 == 60 else size_step,
        rank=rank, tier=tier, usd_per_s=usd_per_s,
        trades_per_s=0.027 * usd_per_s**0.56 * math.exp(0.3 * scatter[4] * (rank > 1)),
        vol10_bps=vol10, factor_share=share,
        touch_usd=80.0 * usd_per_s**0.71 * math.exp(0.4 * scatter[5] * (rank > 1)),
        spread_bps=spread_bps, level_gap=gap,
        leverage_max=_leverage(rank, tier, life), funding_interval_h=1 if rank == 30 else interval_h,
        price_band=("0.02" if rank % 5 else "0.15") if is_stock else _band(rank),
        position_share=("0.15", "0.1", "0.2")[rank % 3] if is_stock
        else ("0.15", "0.1", "0.05")[0 if rank < 20 else 1 + rank % 2],
        # Bitget began to tell it in 2024; what is older has none.
        opened_ms=None if rank < 40 else 1_718_118_000_000 + rank * 61_803_398_875 % 64_000_000_000,
        life=life,
    )  # fmt: skip


def _leverage(rank: int, tier: str, life: Life | None) -> int:
    if tier == "major":
        return 150
    if tier == "large":
        return (125, 100, 75, 75)[min(rank - 2, 3)] if rank > 1 else 100
    if tier == "stock":
        return 20 if rank % 11 else 25
    if life is not None:
        return 20
    return (75, 50, 75, 50, 20)[rank % 5] if rank < 500 else (50, 20, 75, 10)[rank % 4]


def _band(rank: int) -> str:
    if rank < 14:
        return "0.05"
    return "0.2" if rank % 37 == 0 else "0.1" if rank < 48 else "0.15"


def _made_up(rank: int, is_stock: bool, normal: float) -> tuple[str, float, int, int, int]:
    n = rank - len(_NAMED)
    base = _SYLLABLES[n % 10] + _SYLLABLES[n // 10 % 10] + (_SYLLABLES[n // 100 % 10] if n >= 100 else "X")
    uniform = 0.618034 * (n + 1) % 1.0
    if is_stock:
        price = float(f"{10.0 ** (1.1 + 1.8 * uniform):.4g}")
        return f"{base}STOCK" if rank % 45 == 0 else base, price, 3 if price < 40.0 else 2, 2, 1
    price = float(f"{10.0 ** (-2.5 + 4.0 * uniform):.4g}")
    # Tick between 0.12 and 1.2 bps, one in six a decimal finer or coarser: quartiles 0.2, 0.4, 0.7 bps.
    place = math.ceil(-math.log10(price * 1.2e-4)) + (1 if normal > 1.4 else -1 if normal < -1.4 else 0)
    volume_place = 2 if price > 20.0 else 1 if price > 3.0 else 0
    return _CHINESE.get(rank, base), price, max(0, place), volume_place, 10 if price < 0.01 and rank % 2 else 1


def contract_row(listing: Listing, phase: Phase = ALWAYS) -> dict[str, Any]:
    """Return the row of `GET /api/v2/mix/market/contracts`, with Bitget's keys of September 2026."""

    def units(count: int) -> str:
        text = f"{count / 10**listing.volume_place:.{listing.volume_place}f}"
        return text.rstrip("0").rstrip(".") if "." in text else text

    def moment(ms: int | None, unknown: str) -> str:
        return unknown if ms is None else str(ms)

    # The most that an order may be: 50 million USDT of the largest, about a million of the smallest.
    largest_usd = 2e5 * listing.usd_per_s**0.5
    limit_max = _round(largest_usd / listing.price)
    market_max = _round(limit_max / (3.0 if listing.tier == "stock" else 7.0))
    return {
        "symbol": listing.symbol, "baseCoin": listing.base, "quoteCoin": "USDT",
        "buyLimitPriceRatio": listing.price_band, "sellLimitPriceRatio": listing.price_band,
        "feeRateUpRatio": "0.005", "makerFeeRate": "0.0002", "takerFeeRate": "0.0006", "openCostUpRatio": "0.01",
        "supportMarginCoins": ["USDT"], "minTradeNum": units(listing.size_min), "priceEndStep": "1",
        "volumePlace": str(listing.volume_place), "pricePlace": str(listing.price_place),
        "sizeMultiplier": units(listing.size_step),
        "symbolType": "perpetual", "minTradeUSDT": "5", "maxSymbolOrderNum": "200", "maxProductOrderNum": "1000",
        "maxPositionNum": "200", "symbolStatus": phase.status,
        "offTime": moment(phase.off_ms, "-1"), "limitOpenTime": moment(phase.limit_open_ms, "-1"),
        "deliveryTime": "", "deliveryStartTime": "", "deliveryPeriod": "", "launchTime": moment(phase.launch_ms, ""),
        "fundInterval": str(listing.funding_interval_h), "minLever": "1", "maxLever": str(listing.leverage_max),
        "posLimit": listing.position_share, "maintainTime": "",
        "openTime": moment(listing.opened_ms if phase.launch_ms is None else phase.launch_ms, ""),
        "maxMarketOrderQty": str(market_max), "maxOrderQty": str(limit_max),
        "isRwa": "YES" if listing.tier == "stock" else "NO",
    }  # fmt: skip


def _round(quantity: float) -> int:
    """Return two significant digits, as exchanges set limits."""
    digits = 10.0 ** max(0, math.floor(math.log10(max(quantity, 1.0))) - 1)
    return max(1, round(round(quantity / digits) * digits))
