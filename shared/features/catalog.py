"""Every feature, as a formula over the columns of the seconds.

To add one, add an entry to a section below: name, formula, unit, what it says, where it comes from, and what a mirrored
market (bids are asks, buyers are sellers, up is down) does to it: SAME, SIGN, or the name of the feature it changes
places with. Then `python -m shared.features.page > docs/features.md`. Nothing else: tables, models, live and the
contract tests in tests/shared/features find it by themselves.

* Names end in their window; `_bps` is bps of price.
* Scale-free: no raw price or size, or a pooled model would learn which symbol it looks at.
* A NaN leaves the row without a score, so a quiet market must not make one: `share` is 0 for nothing of nothing.
* The lookback is `LOOKBACK_S`: a session that starts scores nothing for so long.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from shared import costs
from shared.features.across import mean_across, rank, std_across, value_of, zscore
from shared.features.ops import (
    Column,
    Lag,
    Node,
    Second,
    absolute,
    covariance,
    floor,
    highest,
    less,
    level_price,
    log,
    lowest,
    maximum,
    mean,
    nonzero,
    notional,
    share,
    sign,
    sin_turn,
    since,
    sqrt,
    std,
    total,
)

BPS = 1e4
DAY_S = 86400.0
LOOKBACK_S = 30
LEADER = "BTCUSDT"
SAME, SIGN = "same", "sign"


class Feature(NamedTuple):
    """A formula and what a reader has to know about it."""

    formula: Node
    unit: str  # "1" for a ratio
    says: str
    source: str = "convention"
    mirror: str = SAME  # SAME, SIGN, or the name of the feature that it changes places with


# ------------------------------------------------------------------------------------------------ building blocks

bids = [Column(f"bid_price_{level}") for level in range(1, 6)]
asks = [Column(f"ask_price_{level}") for level in range(1, 6)]
bid_sizes = [Column(f"bid_size_{level}") for level in range(1, 6)]
ask_sizes = [Column(f"ask_size_{level}") for level in range(1, 6)]
bid_depth_5bps, ask_depth_5bps = Column("bid_depth_5bps_usdt"), Column("ask_depth_5bps_usdt")
bid_depth_10bps, ask_depth_10bps = Column("bid_depth_10bps_usdt"), Column("ask_depth_10bps_usdt")
buys, sells = Column("buy_volume_usdt"), Column("sell_volume_usdt")
trades = Column("buy_count") + Column("sell_count")
mark, index, open_interest = Column("mark"), Column("index"), Column("open_interest")

mid = (bids[0] + asks[0]) * 0.5
spread_bps: Node = costs.spread_bps(bids[0], asks[0])
daily_volume = nonzero(Column("quote_volume_24h_usdt"))
mark_index_bps = (mark - index) / index * BPS


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


def balance(one: Node, other: Node) -> Node:
    """Return (one − other) / (one + other) of amounts; 0 where there is neither."""
    return share(one - other, one + other)


def depth(prices: list[Node], sizes: list[Node]) -> Node:
    """Return the notional of the five best levels, USDT."""
    return chain([notional(price, size) for price, size in zip(prices, sizes, strict=True)])


def distance_bps(prices: list[Node], sizes: list[Node]) -> Node:
    """Return how far the notional of the five best levels lies from the mid on average."""
    levels = zip(prices, sizes, strict=True)
    away = chain([notional(absolute(mid - price), notional(price, size)) for price, size in levels])
    return share(away, depth(prices, sizes) * mid) * BPS


def recovered(x: Node, seconds: int) -> Node:
    """Return where x stands between its low and its high of the window: 0 at the low, 1 at the high."""
    low, high = lowest(x, seconds), highest(x, seconds)
    return share(x - low, high - low)


def level_flow(level: int) -> Node:
    """Return the order flow of one level over a second (Cont, Kukanov, Stoikov 2014, eq. 4): what joined the bid or
    left the ask less what left the bid or joined the ask, in base coin. A level that is absent is infinitely far."""

    def joined(price: Node, size: Node) -> Node:
        """Return 1[p >= p'] q − 1[p <= p'] q', with ' for a second ago."""
        before = Lag(price, 1)
        return (1.0 - less(price, before)) * size - (1.0 - less(before, price)) * Lag(size, 1)

    bid = level_price(bids[level - 1], bid_sizes[level - 1], 0.0)
    ask = level_price(asks[level - 1], ask_sizes[level - 1], float("inf"))
    return joined(bid, bid_sizes[level - 1]) - joined(0.0 - ask, ask_sizes[level - 1])


def order_flow(levels: int, seconds: int) -> Node:
    """Return the order flow of the best levels over the window, in units of their mean size."""
    flows = chain([level_flow(level) for level in range(1, levels + 1)])
    sizes = chain([*bid_sizes[:levels], *ask_sizes[:levels]]) * 0.5
    return total(flows, seconds) / nonzero(mean(sizes, seconds))


def simple_return(seconds: int) -> Node:
    """Return the simple return of the mid: division is exact on every CPU, a library's log is not."""
    return mid / Lag(mid, seconds) - 1.0


def flow(seconds: int) -> Node:
    """Return (buys − sells) / (buys + sells) of taker volume; 0 when the window is covered and nothing traded."""
    return balance(total(buys, seconds), total(sells, seconds))


def volume_ratio(volume: Node, seconds: int) -> Node:
    """Return the volume of the window over that of an average window of its length in the last 24 h."""
    return total(volume, seconds) / daily_volume * (DAY_S / seconds)


def change(x: Node, seconds: int) -> Node:
    return x / nonzero(Lag(x, seconds)) - 1.0


bid_depth, ask_depth = depth(bids, bid_sizes), depth(asks, ask_sizes)
microprice = (bids[0] * ask_sizes[0] + asks[0] * bid_sizes[0]) / nonzero(bid_sizes[0] + ask_sizes[0])

move = simple_return(1)
moves_squared = total(move * move, 30)
signed_volume, volume = buys - sells, buys + sells
range_1s = (Column("mid_high") - Column("mid_low")) / mid
range_30s = highest(Column("mid_high"), 30), lowest(Column("mid_low"), 30)

market_move = mean_across(move)
beta = share(covariance(move, market_move, 30), covariance(market_move, market_move, 30))


def residual_return(seconds: int) -> Node:
    """Return the return less beta times that of the market."""
    return simple_return(seconds) - beta * mean_across(simple_return(seconds))


# ------------------------------------------------------------------------------------------------------- sources

CKS = "Cont, Kukanov & Stoikov 2014, The price impact of order book events"
MLOFI = "Xu, Gould & Howison 2018, Multi-level order-flow imbalance in a limit order book"
QUEUE = "Gould & Bonart 2016, Queue imbalance as a one-tick-ahead price predictor"
MICRO = "Stoikov 2018, The micro-price (its first approximation, the weighted mid)"
SHAPE = "Næs & Skjeltorp 2006, Order book characteristics and the volume–volatility relation"
RESILIENCE = "Large 2007, Measuring the resiliency of an electronic limit order book"
CRS = "Chordia, Roll & Subrahmanyam 2002, Order imbalance, liquidity, and market returns"
VPIN = "Easley, López de Prado & O'Hara 2012, Flow toxicity and liquidity (time bars)"
DURATION = "Engle & Russell 1998, Autoregressive conditional duration"
REALISED = "Andersen, Bollerslev, Diebold & Labys 2003, Modeling and forecasting realized volatility"
SKEW = "Amaya, Christoffersen, Jacobs & Vasquez 2015, Does realized skewness predict the cross-section"
RATIO = "Lo & MacKinlay 1988, Stock market prices do not follow random walks"
RANGE = "Parkinson 1980, The extreme value method for estimating the variance of the rate of return"
ILLIQUIDITY = "Amihud 2002, Illiquidity and stock returns (1 + relative volume below, finite when nothing trades)"
LEADLAG = "Lo & MacKinlay 1990, When are contrarian profits due to stock market overreaction?"
INDEX_MODEL = "Sharpe 1963, A simplified model for portfolio analysis"
REVERSAL = "Jegadeesh 1990, Evidence of predictable behavior of security returns"
BITGET = "Bitget v2, ticker channel"

# ------------------------------------------------------------------------------------------------------ sections

SECTIONS: Final[dict[str, dict[str, Feature]]] = {
    "Spread": {
        "spread_bps": Feature(spread_bps, "bps", "quoted spread over the mid"),
        "spread_mean_10s": Feature(mean(spread_bps, 10), "bps", "its mean"),
        "spread_std_10s": Feature(std(spread_bps, 10), "bps", "its sample deviation"),
        "spread_ratio_30s": Feature(spread_bps / mean(spread_bps, 30), "1", "the spread over its mean", RESILIENCE),
    },
    "Imbalance of the book": {
        "imbalance_1": Feature(imbalance(1), "1", "(bid − ask) / (bid + ask) of the sizes at the touch", QUEUE, SIGN),
        "imbalance_3": Feature(imbalance(3), "1", "the same of the best three levels", QUEUE, SIGN),
        "imbalance_5": Feature(imbalance(5), "1", "the same of the best five levels", QUEUE, SIGN),
        "imbalance_mean_10s": Feature(mean(imbalance(5), 10), "1", "mean of imbalance_5", QUEUE, SIGN),
        "imbalance_std_10s": Feature(std(imbalance(5), 10), "1", "sample deviation of imbalance_5", QUEUE),
        "imbalance_1_mean_10s": Feature(mean(imbalance(1), 10), "1", "mean of imbalance_1", QUEUE, SIGN),
        "imbalance_1_std_10s": Feature(std(imbalance(1), 10), "1", "sample deviation of imbalance_1", QUEUE),
        "imbalance_3_mean_10s": Feature(mean(imbalance(3), 10), "1", "mean of imbalance_3", QUEUE, SIGN),
        "imbalance_3_std_10s": Feature(std(imbalance(3), 10), "1", "sample deviation of imbalance_3", QUEUE),
        "imbalance_1_change_1s": Feature(
            imbalance(1) - Lag(imbalance(1), 1), "1", "imbalance_1 less that a second ago", QUEUE, SIGN
        ),
        "imbalance_1_change_5s": Feature(
            imbalance(1) - Lag(imbalance(1), 5), "1", "imbalance_1 less that 5 s ago", QUEUE, SIGN
        ),
        "imbalance_5bps": Feature(
            balance(bid_depth_5bps, ask_depth_5bps),
            "1", "(bid − ask) / (bid + ask) of the depth within 5 bps; 0 where there is none", QUEUE, SIGN,
        ),
        "imbalance_10bps": Feature(
            balance(bid_depth_10bps, ask_depth_10bps), "1", "the same of the depth within 10 bps", QUEUE, SIGN
        ),
        "microprice_bps": Feature(
            (microprice - mid) / mid * BPS, "bps", "(bid x ask size + ask x bid size) / sizes, from the mid",
            MICRO, SIGN,
        ),
    },
    "Depth and shape of the book": {
        "depth_total_bid": Feature(
            bid_depth / daily_volume, "1", "notional of the best five bids over the volume of 24 h",
            mirror="depth_total_ask",
        ),
        "depth_total_ask": Feature(
            ask_depth / daily_volume, "1", "notional of the best five asks over the volume of 24 h",
            mirror="depth_total_bid",
        ),
        "depth_5bps_bid": Feature(
            bid_depth_5bps / daily_volume, "1", "bids within 5 bps of the mid over the volume of 24 h",
            mirror="depth_5bps_ask",
        ),
        "depth_5bps_ask": Feature(
            ask_depth_5bps / daily_volume, "1", "asks within 5 bps of the mid over the volume of 24 h",
            mirror="depth_5bps_bid",
        ),
        "depth_10bps_bid": Feature(
            bid_depth_10bps / daily_volume, "1", "bids within 10 bps of the mid over the volume of 24 h",
            mirror="depth_10bps_ask",
        ),
        "depth_10bps_ask": Feature(
            ask_depth_10bps / daily_volume, "1", "asks within 10 bps of the mid over the volume of 24 h",
            mirror="depth_10bps_bid",
        ),
        "depth_ratio": Feature(
            (bid_depth - ask_depth) / nonzero(bid_depth + ask_depth),
            "1", "(bid − ask) / (bid + ask) of the notional of the best five levels", mirror=SIGN,
        ),
        "depth_near_bid": Feature(
            share(bid_depth_5bps, maximum(bid_depth_5bps, bid_depth_10bps)),
            "1", "share of the bids within 10 bps that is within 5 bps", SHAPE, "depth_near_ask",
        ),
        "depth_near_ask": Feature(
            share(ask_depth_5bps, maximum(ask_depth_5bps, ask_depth_10bps)),
            "1", "share of the asks within 10 bps that is within 5 bps", SHAPE, "depth_near_bid",
        ),
        "touch_share_bid": Feature(
            share(bid_sizes[0], chain(bid_sizes)), "1", "best bid's share of the best five", SHAPE, "touch_share_ask"
        ),
        "touch_share_ask": Feature(
            share(ask_sizes[0], chain(ask_sizes)), "1", "best ask's share of the best five", SHAPE, "touch_share_bid"
        ),
        "book_slope_bid_bps": Feature(
            distance_bps(bids, bid_sizes), "bps", "mean distance of the best five bids, by notional, from the mid",
            SHAPE, "book_slope_ask_bps",
        ),
        "book_slope_ask_bps": Feature(
            distance_bps(asks, ask_sizes), "bps", "mean distance of the best five asks, by notional, from the mid",
            SHAPE, "book_slope_bid_bps",
        ),
        "depth_change_10s_bid": Feature(
            balance(bid_depth_10bps, Lag(bid_depth_10bps, 10)),
            "1", "(now − then) / (now + then) of the bids within 10 bps", RESILIENCE, "depth_change_10s_ask",
        ),
        "depth_change_10s_ask": Feature(
            balance(ask_depth_10bps, Lag(ask_depth_10bps, 10)),
            "1", "(now − then) / (now + then) of the asks within 10 bps", RESILIENCE, "depth_change_10s_bid",
        ),
        "resilience_30s_bid": Feature(
            recovered(bid_depth_10bps, 30), "1", "bids within 10 bps: 0 at their low of the window, 1 at their high",
            RESILIENCE, "resilience_30s_ask",
        ),
        "resilience_30s_ask": Feature(
            recovered(ask_depth_10bps, 30), "1", "asks within 10 bps: 0 at their low of the window, 1 at their high",
            RESILIENCE, "resilience_30s_bid",
        ),
    },
    "Order flow": {
        **{
            f"order_flow_{levels}_{w}s": Feature(
                order_flow(levels, w), "1",
                f"order flow of {'the touch' if levels == 1 else f'the best {levels} levels'}, in their mean sizes",
                CKS if levels == 1 else MLOFI, SIGN,
            )
            for levels in (1, 5)
            for w in (1, 10)
        },
        "quote_intensity_10s": Feature(mean(Column("book_updates"), 10), "1/s", "book updates a second", DURATION),
        "seconds_since_quote": Feature(
            since(Column("book_updates"), 30), "s", "since the last book update, at most 30", DURATION
        ),
    },
    "Trades": {
        "flow_5s": Feature(flow(5), "1", "(buys − sells) / (buys + sells) of taker volume, 0 for none", CRS, SIGN),
        "flow_10s": Feature(flow(10), "1", "the same over 10 s", CRS, SIGN),
        "flow_30s": Feature(flow(30), "1", "the same over 30 s", CRS, SIGN),
        "flow_count_10s": Feature(
            balance(total(Column("buy_count"), 10), total(Column("sell_count"), 10)),
            "1", "(buys − sells) / (buys + sells) of the number of trades", CRS, SIGN,
        ),
        "flow_volume_10s": Feature(
            volume_ratio(signed_volume, 10), "1", "buys − sells, in average 10 s of the last 24 h", CRS, SIGN
        ),
        "flow_toxicity_30s": Feature(
            share(total(absolute(signed_volume), 30), total(volume, 30)),
            "1", "sum of |buys − sells| by second over the volume", VPIN,
        ),
        "volume_ratio_30s": Feature(volume_ratio(volume, 30), "1", "volume, in average 30 s of the last 24 h", CRS),
        "trade_intensity_10s": Feature(mean(trades, 10), "1/s", "trades a second", DURATION),
        "trade_intensity_ratio": Feature(
            share(mean(trades, 10), mean(trades, 30)), "1", "trade_intensity_10s over that of 30 s", DURATION
        ),
        "trade_size_ratio": Feature(
            share(
                total(volume, 10) * maximum(total(trades, 30), 1.0), total(volume, 30) * maximum(total(trades, 10), 1.0)
            ),
            "1", "mean size of the trades of 10 s over that of 30 s",
        ),
        "seconds_since_trade": Feature(since(trades, 30), "s", "since the last trade, at most 30", DURATION),
    },
    "Price": {
        **{
            f"return_{w}s": Feature(simple_return(w), "1", f"mid / mid {w} s ago − 1", mirror=SIGN)
            for w in (1, 5, 10, 20, 30)
        },
        "momentum_10_20": Feature(
            mean(mid, 10) / mean(mid, 20) - 1.0, "1", "mean mid of 10 s over that of 20 s − 1", mirror=SIGN
        ),
        "up_share_30s": Feature(mean(sign(move), 30), "1", "share of seconds that rose less that fell", mirror=SIGN),
        "range_position_30s": Feature(
            share((mid - range_30s[1]) - (range_30s[0] - mid), range_30s[0] - range_30s[1]),
            "1", "−1 at the low of the window, 1 at its high", mirror=SIGN,
        ),
        "last_mid_bps": Feature((Column("last") - mid) / mid * BPS, "bps", "last trade from the mid", mirror=SIGN),
    },
    "Volatility": {
        **{
            f"volatility_{w}s": Feature(std(move, w), "1", "sample deviation of 1 s returns, not annualised", REALISED)
            for w in (10, 20, 30)
        },
        "volatility_ratio": Feature(
            share(std(move, 10), std(move, 30)), "1", "volatility_10s over volatility_30s", REALISED
        ),
        "return_score_10s": Feature(
            share(simple_return(10), sqrt(moves_squared * (10.0 / 30.0))),
            "1", "return_10s over the root mean square move of 10 s", REALISED, SIGN,
        ),
        "realised_skew_30s": Feature(
            share(total(move * move * move, 30) * 30.0**0.5, moves_squared * sqrt(moves_squared)),
            "1", "√n Σr³ / (Σr²)^1.5 of 1 s returns", SKEW, SIGN,
        ),
        "realised_kurtosis_30s": Feature(
            share(total(move * move * (move * move), 30) * 30.0, moves_squared * moves_squared),
            "1", "n Σr⁴ / (Σr²)² of 1 s returns", SKEW,
        ),
        "variance_ratio_5s": Feature(
            share(total(simple_return(5) * simple_return(5), 20) * (24.0 / 20.0 / 5.0), total(move * move, 24)),
            "1", "mean square of 5 s returns over 5 times that of 1 s returns; above 1: trending", RATIO,
        ),
        "autocorrelation_28s": Feature(
            share(total(move * Lag(move, 1), 28), total(move * move, 29)),
            "1", "of 1 s returns with the one before", RATIO,
        ),
        "range_10s_bps": Feature(
            (highest(Column("mid_high"), 10) - lowest(Column("mid_low"), 10)) / mid * BPS,
            "bps", "high less low of the mid",
        ),
        "range_30s_bps": Feature((range_30s[0] - range_30s[1]) / mid * BPS, "bps", "high less low of the mid"),
        "volatility_range_30s": Feature(
            sqrt(mean(range_1s * range_1s, 30) * (1.0 / 2.772588722239781)),
            "1", "√(mean square of the range of a second / 4 ln 2)", RANGE,
        ),
        "illiquidity_30s_bps": Feature(
            absolute(simple_return(30)) * BPS / (volume_ratio(volume, 30) + 1.0),
            "bps", "|return_30s| over 1 + volume_ratio_30s", ILLIQUIDITY,
        ),
    },
    "Derivatives": {
        "funding_rate": Feature(Column("funding_rate"), "1", "of the running interval, as quoted", BITGET, SIGN),
        "funding_clock_8h": Feature(
            (Second() + 1.0) * (1.0 / 28800.0) - floor((Second() + 1.0) * (1.0 / 28800.0)),
            "1", "share of the funding interval gone (00, 08, 16 h UTC; those of 1, 2 and 4 h nest in it)", BITGET,
        ),
        "mark_index_spread_bps": Feature(mark_index_bps, "bps", "mark above index", BITGET, SIGN),
        "basis_change_10s_bps": Feature(
            mark_index_bps - Lag(mark_index_bps, 10), "bps", "mark_index_spread_bps less that 10 s ago", BITGET, SIGN
        ),
        "mid_mark_bps": Feature((mid - mark) / mark * BPS, "bps", "mid above mark", BITGET, SIGN),
        "open_interest_change_30s": Feature(change(open_interest, 30), "1", "now over then − 1", BITGET),
        "open_interest_days": Feature(
            open_interest * mark / daily_volume, "d", "open interest at mark over the volume of 24 h", BITGET
        ),
        "quote_volume_24h": Feature(
            log(Column("quote_volume_24h_usdt")), "ln USDT", "the one level that is kept: how liquid",
            BITGET,
        ),
    },
    "Leader and market": {
        **{
            f"btc_return_{w}s": Feature(value_of(LEADER, simple_return(w)), "1", f"return_{w}s of BTC", LEADLAG, SIGN)
            for w in (1, 5, 10)
        },
        "btc_imbalance_5": Feature(value_of(LEADER, imbalance(5)), "1", "imbalance_5 of BTC", LEADLAG, SIGN),
        "btc_flow_10s": Feature(value_of(LEADER, flow(10)), "1", "flow_10s of BTC", LEADLAG, SIGN),
        "btc_gap_5s": Feature(
            value_of(LEADER, simple_return(5)) - simple_return(5), "1", "btc_return_5s less return_5s", LEADLAG, SIGN
        ),
        **{
            f"market_return_{w}s": Feature(
                mean_across(simple_return(w)), "1", f"mean of return_{w}s over symbols", LEADLAG, SIGN
            )
            for w in (1, 5, 10)
        },
        "market_volatility_30s": Feature(std(market_move, 30), "1", "sample deviation of market_return_1s", REALISED),
        "market_breadth_10s": Feature(
            mean_across(sign(simple_return(10))), "1", "symbols that rose less those that fell, share", mirror=SIGN
        ),
        "market_dispersion_10s": Feature(
            std_across(simple_return(10)), "1", "sample deviation of return_10s over symbols"
        ),
        "market_flow_10s": Feature(mean_across(flow(10)), "1", "mean of flow_10s over symbols", CRS, SIGN),
        "market_imbalance_5": Feature(mean_across(imbalance(5)), "1", "mean of imbalance_5 over symbols", CRS, SIGN),
        "beta_30s": Feature(beta, "1", "of 1 s returns to market_return_1s, least squares", INDEX_MODEL),
        "correlation_30s": Feature(
            share(covariance(move, market_move, 30), std(move, 30) * std(market_move, 30)),
            "1", "of 1 s returns with market_return_1s", INDEX_MODEL,
        ),
        **{
            f"residual_return_{w}s": Feature(
                residual_return(w), "1", f"return_{w}s − beta_30s x market_return_{w}s", INDEX_MODEL, SIGN
            )
            for w in (1, 5, 10)
        },
    },
    "Among symbols": {
        **{
            f"rank_{name}": Feature(
                rank(formula), "1", f"rank of {name} among symbols, −½ lowest, ½ highest", source, mirror
            )
            for name, formula, source, mirror in (
                ("return_10s", simple_return(10), REVERSAL, SIGN),
                ("residual_return_10s", residual_return(10), REVERSAL, SIGN),
                ("imbalance_5", imbalance(5), QUEUE, SIGN),
                ("order_flow_5_10s", order_flow(5, 10), MLOFI, SIGN),
                ("flow_10s", flow(10), CRS, SIGN),
                ("spread_bps", spread_bps, "convention", SAME),
                ("volatility_30s", std(move, 30), REALISED, SAME),
                ("funding_rate", Column("funding_rate"), BITGET, SIGN),
            )
        },
        **{
            f"zscore_{name}": Feature(
                zscore(formula), "1", f"{name} in deviations from its mean over symbols", source, mirror
            )
            for name, formula, source, mirror in (
                ("return_10s", simple_return(10), REVERSAL, SIGN),
                ("residual_return_5s", residual_return(5), REVERSAL, SIGN),
                ("imbalance_mean_10s", mean(imbalance(5), 10), QUEUE, SIGN),
                ("order_flow_1_10s", order_flow(1, 10), CKS, SIGN),
                ("flow_30s", flow(30), CRS, SIGN),
                ("mark_index_spread_bps", mark_index_bps, BITGET, SIGN),
            )
        },
    },
    "Time": {
        "day_sin": Feature(sin_turn(Second() * (1.0 / DAY_S)), "1", "sine of the time of day, UTC"),
        "day_cos": Feature(sin_turn(Second() * (1.0 / DAY_S) + 0.25), "1", "cosine of the time of day, UTC"),
    },
}  # fmt: skip

CATALOG: Final[dict[str, Feature]] = {
    name: feature for section in SECTIONS.values() for name, feature in section.items()
}
"""Name → feature; the order is the F axis."""

FEATURES: Final[dict[str, Node]] = {name: feature.formula for name, feature in CATALOG.items()}
"""Name → formula, in the same order: what a graph is made of."""
