"""Which perpetuals the generated market lists, and how each of them behaves.

One row a symbol, in the order of activity: two majors, some large alts, and many small alts. The small alts are the
*followers*: part of every shock reaches their price late, and shows in their book first. Levels come from public
recordings of 2022 to 2026 (spread, depth, volatility, activity by class); names and prices are made up where a
thousand symbols are asked for.

To extend: add a name to `_NAMED`; everything else follows from its price and its rank.
"""

from __future__ import annotations

import math
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

# (base coin, price in USDT, price decimals, size decimals): the order is the order of activity. The Chinese name is
# third from the top of the small alts, so that every market of 20 symbols has one (three of Bitget's 682 in July 2026).
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
    ("ALGO", 0.1403, 5, 0),
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
_SYLLABLES = ("KA", "LO", "MI", "RU", "TE", "VO", "ZA", "NI", "PO", "SU")


class Listing(msgspec.Struct, frozen=True, kw_only=True):
    """One perpetual of the generated market: its contract and its temper."""

    symbol: str
    base: str
    price: float  # USDT, what its price reverts to over days
    price_place: int  # tick = 10^-price_place
    volume_place: int  # size step = 10^-volume_place
    rank: int
    tier: str  # "major", "large" or "small"
    usd_per_s: float  # traded notional
    trades_per_s: float
    vol10_bps: float  # root mean square 10 s return of the mid, before the day's pattern
    factor_share: float  # [1] of the variance that is the market's
    touch_usd: float  # median notional at the best level
    spread_ticks: float
    active_share: float  # [1] of seconds in which the quotes move at all
    level_gap: float  # mean distance between neighbouring levels, ticks
    depth_slope: float  # growth of the size from level to level [1]
    leverage_max: int
    funding_interval_h: int


def listings(n_symbols: int) -> tuple[Listing, ...]:
    """Return the `n_symbols` most active perpetuals, most active first."""
    n_major = min(2, n_symbols)
    n_large = max(0, min(round(0.15 * n_symbols), n_symbols - n_major - 1))
    return tuple(_listing(rank, n_major, n_large) for rank in range(n_symbols))


def _listing(rank: int, n_major: int, n_large: int) -> Listing:
    base, price, price_place, volume_place = _NAMED[rank] if rank < len(_NAMED) else _made_up(rank)
    # Small, fixed differences between neighbours in rank, so that no two symbols are alike.
    wiggle = math.sin(2.399963 * rank)
    usd_per_s = (150e3, 60e3)[rank] if rank < 2 else max(250.0, 60e3 * (2.0 / (rank + 1)) ** 1.3)
    tick_bps = 1e4 * 10.0**-price_place / price
    if rank < n_major:
        tier, vol10, share, active, gap, slope, spread = "major", (2.1, 2.8)[rank], 0.80, 0.50, 2.2, 0.03, 1.0
    elif rank < n_major + n_large:
        tier, vol10, share, active, gap, slope, spread = "large", 3.9 + 0.5 * wiggle, 0.60, 0.55, 1.05, 0.12, 1.0
    else:
        tier, vol10, share, active, gap, slope = "small", 13.5 + 1.5 * wiggle, 0.25, 0.85, 1.1, 0.10
        spread = max(1.0, (2.4 + 1.2 * wiggle) / tick_bps)
    return Listing(
        symbol=f"{base}USDT", base=base, price=price, price_place=price_place, volume_place=volume_place, rank=rank,
        tier=tier, usd_per_s=usd_per_s,
        # Half of the measured 0.027 U^0.56 (residual ln-sd 0.8): two hours of 40 symbols stay below a million trades.
        trades_per_s=0.0135 * usd_per_s**0.56,
        vol10_bps=vol10, factor_share=share,
        touch_usd=80.0 * usd_per_s**0.71 if tier != "small" else 60.0 * usd_per_s**0.65,
        spread_ticks=spread, active_share=active, level_gap=gap, depth_slope=slope,
        leverage_max=(150, 125)[min(rank, 1)] if rank < 2 else 100 if tier == "large" else (75, 50, 75)[rank % 3],
        funding_interval_h=8 if tier != "small" else (4, 8, 4, 4)[rank % 4],
    )  # fmt: skip


def _made_up(rank: int) -> tuple[str, float, int, int]:
    n = rank - len(_NAMED)
    base = _SYLLABLES[n % 10] + _SYLLABLES[n // 10 % 10] + (_SYLLABLES[n // 100 % 10] if n >= 100 else "X")
    price = 10.0 ** (-2.5 + 4.0 * (0.618034 * (n + 1) % 1.0))
    price_place = max(0, math.ceil(-math.log10(price * 1.5e-4)))  # tick between 0.15 and 1.5 bps
    return base, float(f"{price:.4g}"), price_place, max(0, math.floor(math.log10(price)) + 1)


def contract_row(listing: Listing) -> dict[str, Any]:
    """Return the row of `GET /api/v2/mix/market/contracts`, with Bitget's keys of September 2026."""
    step = f"{10.0**-listing.volume_place:.{listing.volume_place}f}"
    usd_step = 10.0 ** math.floor(math.log10(max(listing.usd_per_s, 1.0)))
    market_max = max(1, round(usd_step * 2000 / listing.price))
    return {
        "symbol": listing.symbol, "baseCoin": listing.base, "quoteCoin": "USDT",
        "buyLimitPriceRatio": "0.05" if listing.rank < 2 else "0.15",
        "sellLimitPriceRatio": "0.05" if listing.rank < 2 else "0.15",
        "feeRateUpRatio": "0.005", "makerFeeRate": "0.0002", "takerFeeRate": "0.0006", "openCostUpRatio": "0.01",
        "supportMarginCoins": ["USDT"], "minTradeNum": step, "priceEndStep": "1",
        "volumePlace": str(listing.volume_place), "pricePlace": str(listing.price_place), "sizeMultiplier": step,
        "symbolType": "perpetual", "minTradeUSDT": "5", "maxSymbolOrderNum": "200", "maxProductOrderNum": "1000",
        "maxPositionNum": "200", "symbolStatus": "normal", "offTime": "-1", "limitOpenTime": "-1",
        "deliveryTime": "", "deliveryStartTime": "", "deliveryPeriod": "", "launchTime": "",
        "fundInterval": str(listing.funding_interval_h), "minLever": "1", "maxLever": str(listing.leverage_max),
        "posLimit": "0.1", "maintainTime": "", "openTime": "",
        "maxMarketOrderQty": str(market_max), "maxOrderQty": str(market_max * 5), "isRwa": "NO",
    }  # fmt: skip
