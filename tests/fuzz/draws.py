"""Random configurations and random markets, from a seed: everything that is allowed, extremes included.

A draw is a pure function of its generator. Most fields take their usual value most of the time, since a draw in which
every field is extreme trades nothing and finds nothing.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from shared.errors import SettingsError
from shared.features.sampler import COLUMNS
from shared.strategy.bandit.state import Mode, Policy
from shared.strategy.config import EngineConfig
from shared.strategy.scores import Scores
from shared.types import Contract, Floats, OrderKind, Universe

AT = {name: c for c, name in enumerate(COLUMNS)}
LEVELS = 5
HOUR_S = 3600

Dice = np.random.Generator


def dice_of(seed: int, *path: int) -> Dice:
    return np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, *path])))


def one_of(dice: Dice, *values: Any) -> Any:
    return values[int(dice.integers(len(values)))]


# ------------------------------------------------------------------------------------------------ configurations

_FIELDS: dict[str, tuple[Any, ...]] = {
    "decision_seconds": (1, 1, 2, 3, 7, 60),
    "horizon_s": (1, 2, 5, 10, 30, 300, 3600),
    "horizons_max": (1, 2, 6, 1000),
    "entry_wait_s": (1, 2, 3, 10, 60),
    "chases_max": (0, 1, 2, 100),
    "entry_fallback": (True, False),
    "cooldown_s": (0, 1, 3, 60, 86_400),
    "top_k": (1, 2, 3, 10, 50, 1000),
    "rank_buffer": (0.0, 0.5, 10.0),
    "newcomer_margin_bps": (0.0, 2.0, 1000.0),
    "turnover_penalty_bps": (0.0, 1.0, 1000.0),
    "side_band": (0.0, 0.25, 1.0),
    "beta_band": (0.0, 0.25, 10.0),
    "confidence_min": (0.0, 0.4, 0.6, 1.0),
    "confidence_margin_min": (0.0, 0.1, 1.0),
    "spread_bps_max": (20.0, 100.0, 1000.0, 4900.0),
    "depth_usdt_min": (0.0, 10.0, 5000.0),
    "stale_s_max": (1, 5, 30),
    "lag_s_max": (1, 5, 3600),
    "slippage_bps": (0.0, 2.0, 50.0),
    "stop_bps": (1.0, 5.0, 30.0, 100.0, 1000.0, 5000.0),
    "stop_grace_s": (0, 1, 2, 60, 3600),
    "target_bps": (None, None, 20.0, 40.0, 200.0),
    "stay_edge_bps": (-1000.0, -5.0, 0.0, 5.0, 1000.0),
    "decay_decisions": (0, 1, 3, 3600),
    "leverage": (1, 2, 5, 20, 50, 100, 150),
    "margin_use_max": (1e-3, 0.1, 0.5, 1.0),
    "symbol_share_max": (0.01, 0.25, 0.5, 1.0),
    "net_share_max": (0.05, 0.4, 1.0),
    "cluster_share_max": (0.05, 0.3, 1.0),
    "depth_share_max": (0.01, 0.1, 1.0),
    "position_risk_bps": (0.1, 3.0, 100.0, 1e4),
    "kelly_share": (1e-3, 0.1, 1.0),
    "daily_loss_limit": (1e-6, 1e-3, 0.1, 1.0),
    "drawdown_max": (1e-6, 1e-3, 0.15, 1.0),
    "orders_per_second_max": (1, 2, 8, 10),
    "clock_skew_ms_max": (1, 2000),
    "unknown_orders_max": (0, 2, 100),
    "refusals_per_minute_max": (1, 3, 30, 600),
    "bandit_mode": (Mode.SHADOW, Mode.ACT),
    "bandit_policy": tuple(Policy),
    "bandit_weight": (0.0, 1.0),
    "bandit_discount": (0.5, 0.9999, 1.0),
    "bandit_window": (10, 2000),
    "bandit_epsilon": (0.0, 0.05, 0.5),
    "explore_bps_per_day": (0.0, 0.5, 100.0),
}
"""Values within the bounds that `EngineConfig` states, both ends where a run can show what they do."""

_TRADING = {
    "spread_bps_max": 50.0,
    "depth_usdt_min": 0.0,
    "confidence_min": 0.4,
    "confidence_margin_min": 0.0,
    "depth_share_max": 1.0,
    "position_risk_bps": 100.0,
    "kelly_share": 1.0,
    "daily_loss_limit": 0.5,
    "drawdown_max": 0.5,
    "side_band": 1.0,
    "beta_band": 1.0,
}
"""Where the defaults would keep a made-up market from trading at all."""


def config_of(dice: Dice, universe: Universe, wildness: float | None = None) -> EngineConfig:
    """Return a configuration that the universe does not refuse.

    Args:
        wildness: share of fields that leave their usual values; None: drawn.
    """
    usual: dict[str, Any] = dict(_TRADING)
    leverage = max(contract.leverage_max for contract in universe.contracts)
    while True:
        share = wildness if wildness is not None else one_of(dice, 0.05, 0.2, 0.5)
        chosen = dict(usual)
        for name, values in _FIELDS.items():
            if dice.random() < share:
                chosen[name] = _between(dice, values) if dice.random() < 0.3 else one_of(dice, *values)
        chosen["entry_kind"] = one_of(dice, OrderKind.MARKET, OrderKind.POST_ONLY)
        if dice.random() < 0.7:
            chosen["horizon_s"] = one_of(dice, 1, 3, 10, 30)
        if dice.random() < 0.1 and share > 0.02:
            wanted = [s for s in universe.symbols if dice.random() < 0.5]
            chosen["symbols"] = tuple(wanted)
        try:
            config = EngineConfig(**chosen)
            config.check(universe)
        except SettingsError:
            wildness = share * 0.8  # the narrower, the more often allowed
            usual["leverage"] = min(leverage, 5)
            continue
        return config


def _between(dice: Dice, values: tuple[Any, ...]) -> Any:
    """Return something between the least and the most of a field's values, with all the digits that floats have."""
    numbers = [value for value in values if isinstance(value, float | int) and not isinstance(value, bool)]
    if not numbers:
        return one_of(dice, *values)
    low, high = min(numbers), max(numbers)
    if isinstance(low, int) and isinstance(high, int):
        return int(dice.integers(low, high + 1))
    return float(np.exp(dice.uniform(np.log(low), np.log(high)))) if low > 0 else float(dice.uniform(low, high))


def equity_of(dice: Dice) -> Decimal:
    return Decimal(one_of(dice, "58", "58.37", "1000", "10000", "10000", "123456.789", "100000000"))


# ------------------------------------------------------------------------------------------------------- markets


class Ways(msgspec.Struct, frozen=True, kw_only=True):
    """What a market does, drawn once for all its symbols. Fractions are probabilities per second and symbol [1]."""

    n_symbols: int
    seconds: int
    begin_s: int
    sigma_bps: float
    jump: float
    jump_bps: float
    hole: float  # a symbol falls silent, books and all
    hole_s: int
    one_sided: float
    crossed: float
    no_mark: float
    is_rate_known: bool
    spread_ticks_max: int
    trades: float


def ways_of(dice: Dice, *, seconds: int | None = None) -> Ways:
    # A run that crosses a settlement of every interval now and then: 8 h is 4 h is 1 h.
    settles_s = 1_760_000_000 // (8 * HOUR_S) * 8 * HOUR_S + int(one_of(dice, 0, 1, 4, 8)) * HOUR_S
    length = seconds if seconds is not None else int(one_of(dice, 90, 150, 240))
    rough = dice.random() < 0.5
    return Ways(
        n_symbols=int(one_of(dice, 1, 2, 3, 5, 8, 40)),
        seconds=length,
        begin_s=settles_s - int(dice.integers(1, length)),
        sigma_bps=one_of(dice, 0.0, 0.5, 3.0, 10.0, 40.0),
        jump=one_of(dice, 0.0, 0.002, 0.01) if rough else 0.0,
        jump_bps=one_of(dice, 50.0, 500.0, 3000.0),
        hole=one_of(dice, 0.0, 0.003, 0.02) if rough else 0.0,
        hole_s=int(one_of(dice, 1, 5, 40)),
        one_sided=one_of(dice, 0.0, 0.01) if rough else 0.0,
        crossed=one_of(dice, 0.0, 0.01) if rough else 0.0,
        no_mark=one_of(dice, 0.0, 0.02, 1.0) if rough else 0.0,
        is_rate_known=bool(dice.random() < 0.9),
        spread_ticks_max=int(one_of(dice, 1, 3, 50)),
        trades=one_of(dice, 0.0, 0.3, 1.0),
    )


def calm_of(dice: Dice) -> Ways:
    """Return ways in which nothing jumps, is missing or is paid: where two runs can be compared."""
    return msgspec.structs.replace(
        ways_of(dice), hole=0.0, one_sided=0.0, crossed=0.0, no_mark=0.0, jump=0.0, is_rate_known=False,
        sigma_bps=one_of(dice, 0.0, 0.5, 3.0),
    )  # fmt: skip


def _power(exponent: int) -> Decimal:
    return Decimal(1).scaleb(exponent)


def contract_of(dice: Dice, symbol: str, price: float) -> Contract:
    """Return rules that fit a price: ticks of a twentieth to a millionth of it, steps worth from nothing to more than an order."""
    places = int(np.floor(np.log10(price)))
    tick = _power(places - int(one_of(dice, 2, 3, 4, 4, 5, 5, 6))) * Decimal(one_of(dice, "1", "1", "2", "5", "2.5"))
    worth = 10.0 ** dice.uniform(-4, 1)  # of a step, USDT
    step = _power(int(np.floor(np.log10(worth / price)))) * Decimal(one_of(dice, "1", "1", "2", "5"))
    size_min = step * int(one_of(dice, 1, 1, 2, 7))
    if dice.random() < 0.1:
        size_min += step / 2  # no multiple of the step
    largest = [
        None if dice.random() < 0.7 else _floor(Decimal(repr(10.0 ** dice.uniform(2, 5) / price)), step)
        for _ in range(2)
    ]
    maker, taker = one_of(dice, ("0.0002", "0.0006"), ("0", "0"), ("0.0004", "0.0012"), ("-0.0001", "0.0004"))
    top = int(one_of(dice, 1, 5, 20, 50, 150))
    return Contract(
        symbol=symbol, base=symbol.removesuffix("USDT"), quote="USDT",
        status=str(one_of(dice, *["normal"] * 12, "listed", "maintain", "limit_open", "restrictedAPI", "off")),
        tick=tick, size_step=step, size_min=size_min, notional_min_usdt=Decimal(one_of(dice, "5", "5", "0", "20")),
        size_max_limit=largest[0], size_max_market=largest[1],
        price_band_buy=Decimal(one_of(dice, "0.05", "0.01", "0.2")),
        price_band_sell=Decimal(one_of(dice, "0.05", "0.01", "0.2")),
        maker_fee=Decimal(maker), taker_fee=Decimal(taker), leverage_min=1, leverage_max=top,
        funding_interval_h=int(one_of(dice, 1, 2, 4, 8)), is_rwa=bool(dice.random() < 0.2),
        launch_ms=None, off_ms=None,
    )  # fmt: skip


def _floor(value: Decimal, step: Decimal) -> Decimal:
    return max(value // step, Decimal(1)) * step


class MadeMarket(msgspec.Struct, frozen=True):
    """Contracts and their seconds, (C, T, N) in the order of `COLUMNS`."""

    ways: Ways
    universe: Universe
    values: Floats

    @property
    def first_second(self) -> int:
        return self.ways.begin_s

    @property
    def seconds(self) -> int:
        return self.ways.seconds


def market_of(dice: Dice, ways: Ways, *, moderate: bool = False) -> MadeMarket:
    """Return a market; books are whole ticks and steps, printed as an exchange prints them."""
    n_symbols, seconds = ways.n_symbols, ways.seconds
    bases = ["BTC", "ETH", *(f"A{chr(65 + n // 26)}{chr(65 + n % 26)}" for n in range(n_symbols))][:n_symbols]
    symbols = sorted(f"{base}USDT" for base in bases)
    starts = [float(10.0 ** (dice.uniform(0, 4) if moderate else dice.uniform(-7, 6))) for _ in symbols]
    contracts = [contract_of(dice, symbol, price) for symbol, price in zip(symbols, starts, strict=True)]
    if all(contract.status != "normal" for contract in contracts):
        contracts[0] = msgspec.structs.replace(contracts[0], status="normal")
    values = np.zeros((len(COLUMNS), seconds, n_symbols))
    for n, (contract, start) in enumerate(zip(contracts, starts, strict=True)):
        _fill_symbol(dice, ways, contract, start, values[:, :, n])
    as_of_ns = ways.begin_s * 1_000_000_000
    universe = Universe(source="simulator-made", as_of_ns=as_of_ns, contracts=tuple(contracts))
    return MadeMarket(ways, universe, values)


def printed(counts: NDArray[np.int64], unit: Decimal) -> Floats:
    """Return whole multiples of a unit as the floats that their decimal digits read back as."""
    digits, exponent = int("".join(map(str, unit.as_tuple().digits))), int(unit.as_tuple().exponent)
    return np.array([float(Decimal(int(k) * digits).scaleb(exponent)) for k in counts.ravel()]).reshape(counts.shape)


def _fill_symbol(dice: Dice, ways: Ways, contract: Contract, start: float, out: Floats) -> None:
    """Write one symbol's seconds, (C, T)."""
    seconds = ways.seconds
    moves = dice.standard_normal(seconds) * ways.sigma_bps * 1e-4
    jumps = dice.random(seconds) < ways.jump
    moves[jumps] += dice.choice([-1.0, 1.0], int(jumps.sum())) * ways.jump_bps * 1e-4
    mid = start * np.exp(np.cumsum(moves))
    tick = float(contract.tick)
    half = dice.integers(1, ways.spread_ticks_max + 1, seconds)
    bid = np.maximum(np.floor(mid / tick).astype(np.int64) - half // 2, LEVELS + 1)
    ask = bid + half
    level_usdt = 10.0 ** dice.uniform(1.5, 6)
    steps = np.maximum((level_usdt / start / float(contract.size_step)), 1.0)
    depth = {"bid": np.zeros(seconds), "ask": np.zeros(seconds)}
    for k in range(LEVELS):
        gap = k * int(one_of(dice, 1, 1, 2))
        for side, ticks in (("bid", np.maximum(bid - gap, 1)), ("ask", ask + gap)):
            prices = printed(ticks, contract.tick)
            sizes = printed(
                np.maximum((steps * dice.uniform(0.0, 2.0, seconds)), 1).astype(np.int64), contract.size_step
            )
            out[AT[f"{side}_price_{k + 1}"]], out[AT[f"{side}_size_{k + 1}"]] = prices, sizes
            if k and gap == 0:
                out[AT[f"{side}_price_{k + 1}"]], out[AT[f"{side}_size_{k + 1}"]] = np.nan, 0.0
                continue
            depth[side] += prices * sizes
    for side in ("bid", "ask"):
        for width in (5, 10):
            out[AT[f"{side}_depth_{width}bps_usdt"]] = depth[side]
    middle = (out[AT["bid_price_1"]] + out[AT["ask_price_1"]]) / 2
    mark = np.array([float(f"{value:.12g}") for value in middle * (1 + dice.standard_normal(seconds) * 2e-5)])
    out[AT["mark"]] = out[AT["index"]] = out[AT["last"]] = mark
    out[AT["funding_rate"]] = round(float(dice.normal(0, 1e-3)), 6) if ways.is_rate_known else np.nan
    out[AT["mid_high"]], out[AT["mid_low"]] = middle + tick, middle - tick
    is_traded = dice.random(seconds) < ways.trades
    for side in ("buy", "sell"):
        out[AT[f"{side}_count"]] = is_traded * dice.integers(0, 5, seconds)
        out[AT[f"{side}_volume_usdt"]] = out[AT[f"{side}_count"]] * 100.0
    out[AT["open_interest"]], out[AT["quote_volume_24h_usdt"]] = 1e5, 1e8
    out[AT["book_reach_bps"]] = 5.0
    out[AT["book_updates"]] = out[AT["ticker_updates"]] = 1.0
    _spoil(dice, ways, out)


def _spoil(dice: Dice, ways: Ways, out: Floats) -> None:
    seconds = ways.seconds
    for side in ("bid", "ask"):
        empty = dice.random(seconds) < ways.one_sided
        for k in range(1, LEVELS + 1):
            out[AT[f"{side}_price_{k}"], empty] = np.nan
            out[AT[f"{side}_size_{k}"], empty] = 0.0
        out[AT[f"{side}_depth_5bps_usdt"], empty] = out[AT[f"{side}_depth_10bps_usdt"], empty] = 0.0
    crossed = dice.random(seconds) < ways.crossed
    for k in range(1, LEVELS + 1):
        for what in ("price", "size"):
            a, b = AT[f"bid_{what}_{k}"], AT[f"ask_{what}_{k}"]
            out[a, crossed], out[b, crossed] = out[b, crossed], out[a, crossed].copy()
    out[AT["mark"], dice.random(seconds) < ways.no_mark] = np.nan
    for begin in np.flatnonzero(dice.random(seconds) < ways.hole):
        out[:, begin : begin + ways.hole_s] = np.nan
        out[AT["book_updates"], begin : begin + ways.hole_s] = 0.0
        out[AT["ticker_updates"], begin : begin + ways.hole_s] = 0.0


# -------------------------------------------------------------------------------------------------------- scores


def opinions_of(dice: Dice, market: MadeMarket, *, stretch_s: int | None = None) -> Scores:
    """Return scores of every second, (T, N): sure or not, stubborn or fickle, of edges from none to absurd."""
    shape = (market.seconds, market.ways.n_symbols)
    stretch = stretch_s if stretch_s is not None else int(one_of(dice, 1, 5, 30))
    rows = -(-shape[0] // stretch)

    def spread(values: NDArray[Any]) -> NDArray[Any]:
        return np.repeat(values, stretch, axis=0)[: shape[0]]

    weights = one_of(dice, (0.1, 0.45, 0.45), (0.0, 0.0, 1.0), (0.0, 1.0, 0.0), (0.6, 0.2, 0.2))
    sign = spread(dice.choice(np.array([0, -1, 1], np.int8), (rows, shape[1]), p=weights))
    sure = spread(dice.uniform(0.34, 1.0, (rows, shape[1])))
    edge = spread(10.0 ** dice.uniform(0, one_of(dice, 2.0, 3.0), (rows, shape[1])))
    other = (1.0 - sure) * spread(dice.uniform(0, 1, (rows, shape[1])))
    p_long = np.where(sign > 0, sure, np.where(sign < 0, np.minimum(other, sure), (1 - sure) / 2))
    p_short = np.where(sign < 0, sure, np.where(sign > 0, np.minimum(other, sure), (1 - sure) / 2))
    valid = spread(dice.random((rows, shape[1])) < 0.97)
    return Scores(
        p_long, p_short, 1 - p_long - p_short, edge * sign, sign.astype(np.int8), np.maximum(p_long, p_short), valid
    )
