"""Every feature, as a formula over the columns of the seconds.

To add one, add a line to FEATURES: name, formula, and a comment with unit and meaning. Names end in their window;
`_bps` is bps of price; everything else is a ratio [1] unless it says otherwise. A feature must be scale-free (no raw
price or size: a pooled model would learn which symbol it looks at); tests/shared/features find it by themselves and
hold it to the laws. SIGNED and MIRRORED say what a mirrored market does to it.
"""

from __future__ import annotations

from typing import Final

from shared import costs
from shared.features.ops import Column, Lag, Node, log, mean, nonzero, notional, share, std, total

BPS = 1e4

bids = [Column(f"bid_price_{level}") for level in range(1, 6)]
asks = [Column(f"ask_price_{level}") for level in range(1, 6)]
bid_sizes = [Column(f"bid_size_{level}") for level in range(1, 6)]
ask_sizes = [Column(f"ask_size_{level}") for level in range(1, 6)]

mid = (bids[0] + asks[0]) * 0.5
spread_bps: Node = costs.spread_bps(bids[0], asks[0])
daily_volume = nonzero(Column("quote_volume_24h_usdt"))


def chain(parts: list[Node]) -> Node:
    """Add from left to right: levels best first."""
    result = parts[0]
    for part in parts[1:]:
        result = result + part
    return result


def imbalance(levels: int) -> Node:
    """Return (bid − ask) / (bid + ask) of the sizes of the best levels: 1 is all bid."""
    bid, ask = chain(bid_sizes[:levels]), chain(ask_sizes[:levels])
    return (bid - ask) / nonzero(bid + ask)


def depth(prices: list[Node], sizes: list[Node]) -> Node:
    """Return the notional of the five best levels, USDT."""
    return chain([notional(price, size) for price, size in zip(prices, sizes, strict=True)])


def simple_return(seconds: int) -> Node:
    """Return the simple return of the mid: division is exact on every CPU, a library's log is not."""
    return mid / Lag(mid, seconds) - 1.0


def flow(seconds: int) -> Node:
    """Return (buys − sells) / (buys + sells) of taker volume; 0 when the window is covered and nothing traded."""
    buys, sells = total(Column("buy_volume_usdt"), seconds), total(Column("sell_volume_usdt"), seconds)
    return share(buys - sells, buys + sells)


bid_depth, ask_depth = depth(bids, bid_sizes), depth(asks, ask_sizes)

FEATURES: Final[dict[str, Node]] = {
    # The quoted spread, bps of the mid: now, and its mean and sample deviation.
    "spread_bps": spread_bps,
    "spread_mean_10s": mean(spread_bps, 10),
    "spread_std_10s": std(spread_bps, 10),
    # Size imbalance of the best 1, 3, 5 levels; mean and sample deviation of that of five.
    "imbalance_1": imbalance(1),
    "imbalance_3": imbalance(3),
    "imbalance_5": imbalance(5),
    "imbalance_mean_10s": mean(imbalance(5), 10),
    "imbalance_std_10s": std(imbalance(5), 10),
    # Visible notional as a ratio to the traded volume of 24 h: the best five levels, and within 5 and 10 bps.
    "depth_total_bid": bid_depth / daily_volume,
    "depth_total_ask": ask_depth / daily_volume,
    "depth_5bps_bid": Column("bid_depth_5bps_usdt") / daily_volume,
    "depth_5bps_ask": Column("ask_depth_5bps_usdt") / daily_volume,
    "depth_10bps_bid": Column("bid_depth_10bps_usdt") / daily_volume,
    "depth_10bps_ask": Column("ask_depth_10bps_usdt") / daily_volume,
    # (bid − ask) / (bid + ask) of the notional of the best five levels.
    "depth_ratio": (bid_depth - ask_depth) / nonzero(bid_depth + ask_depth),
    # Simple returns of the mid.
    "return_1s": simple_return(1),
    "return_5s": simple_return(5),
    "return_10s": simple_return(10),
    "return_20s": simple_return(20),
    "return_30s": simple_return(30),
    # Sample deviation of 1 s returns, not annualised.
    "volatility_10s": std(simple_return(1), 10),
    "volatility_20s": std(simple_return(1), 20),
    "volatility_30s": std(simple_return(1), 30),
    # The mean mid of 10 s against that of 20 s: above 0 the market has been rising.
    "momentum_10_20": mean(mid, 10) / mean(mid, 20) - 1.0,
    # Funding per interval as Bitget quotes it, and how far the mark stands above the index, bps of the index.
    "funding_rate": Column("funding_rate"),
    "mark_index_spread_bps": (Column("mark") - Column("index")) / Column("index") * BPS,
    # ln USDT: the one level that is kept, because it says how liquid the symbol is.
    "quote_volume_24h": log(Column("quote_volume_24h_usdt")),
    # Signed taker flow, and trades of both sides a second.
    "flow_10s": flow(10),
    "flow_30s": flow(30),
    "trade_intensity_10s": mean(Column("buy_count") + Column("sell_count"), 10),
}
"""Name → formula; the order is the F axis."""

SIGNED: Final = frozenset(
    {
        *(f"imbalance_{levels}" for levels in (1, 3, 5)),
        "imbalance_mean_10s",
        "depth_ratio",
        *(f"return_{seconds}s" for seconds in (1, 5, 10, 20, 30)),
        "momentum_10_20",
        "funding_rate",
        "mark_index_spread_bps",
        "flow_10s",
        "flow_30s",
    }
)
"""Features that change sign in a mirrored market (bids are asks, buyers are sellers, up is down)."""

MIRRORED: Final = {
    f"depth_{what}_{side}": f"depth_{what}_{other}"
    for what in ("total", "5bps", "10bps")
    for side, other in (("bid", "ask"), ("ask", "bid"))
}
"""Features that change places with another one in a mirrored market. All others stay as they are."""
