"""Stylised facts of a market on a 1 s grid, measured the same way on generated and on recorded blocks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shared.simulator.markets.blocks import Block

Array = NDArray[Any]


class Series:
    """Consecutive blocks as (T, N) arrays; the market's book at the begin of each second, and the second's trades."""

    def __init__(self, market: Any, blocks: Sequence[Block]) -> None:
        def join(name: str) -> Array:
            return np.concatenate([getattr(block, name) for block in blocks])

        self.symbols: tuple[str, ...] = market.symbols
        self.price_scale, self.size_scale = market.price_scale, market.size_scale
        self.tiers = np.array([listing.tier for listing in getattr(market, "listings", ())])
        self.bid, self.bid_size = join("bid_ticks"), join("bid_steps")
        self.ask, self.ask_size = join("ask_ticks"), join("ask_steps")
        self.mark, self.index, self.funding = join("mark"), join("index"), join("funding_rate")
        self.is_fresh = join("is_fresh")
        self.mid = (self.bid[:, :, 0] + self.ask[:, :, 0]) / 2.0
        self.first_second = blocks[0].first_second
        parts, begin = [], 0
        for block in blocks:
            trades = block.trades
            length = len(trades.start) - 1
            second = np.repeat(np.arange(length), np.diff(trades.start)) + begin
            ms = second * 1000 + trades.offset_ns // 1_000_000
            parts.append((second, trades.symbol, ms, trades.price_ticks, trades.size_steps, trades.side))
            begin += length
        columns = [np.concatenate(column) for column in zip(*parts, strict=True)]
        self.t_second, self.t_symbol, self.t_ms, ticks, steps, self.t_side = columns
        self.t_usd = ticks / self.price_scale[self.t_symbol] * steps / self.size_scale[self.t_symbol]
        self.count, self.usd, self.signed = (np.zeros(self.mid.shape) for _ in range(3))
        at = self.t_second, self.t_symbol
        np.add.at(self.count, at, 1)
        np.add.at(self.usd, at, self.t_usd)
        np.add.at(self.signed, at, self.t_usd * self.t_side)

    def moved(self, seconds: int, later: int = 0) -> Array:
        """Return mid[t + later + seconds] / mid[t + later] - 1, NaN where that is outside."""
        out = np.full(self.mid.shape, np.nan)
        end = len(self.mid) - seconds - later
        out[:end] = self.mid[later + seconds :] / self.mid[later : later + end] - 1.0
        return out

    def imbalance(self, levels: int) -> Array:
        bid, ask = (side[:, :, :levels].sum(2).astype(float) for side in (self.bid_size, self.ask_size))
        found: Array = (bid - ask) / (bid + ask)
        return found

    def order_flow_imbalance(self) -> Array:
        """Return what the touch gained on the bid minus on the ask since the second before (Cont et al. 2014)."""
        bid, ask = self.bid[:, :, 0], self.ask[:, :, 0]
        bid_size, ask_size = self.bid_size[:, :, 0].astype(float), self.ask_size[:, :, 0].astype(float)
        out = np.full(self.mid.shape, np.nan)
        out[1:] = (
            (bid[1:] >= bid[:-1]) * bid_size[1:] - (bid[1:] <= bid[:-1]) * bid_size[:-1]
            - (ask[1:] <= ask[:-1]) * ask_size[1:] + (ask[1:] >= ask[:-1]) * ask_size[:-1]
        )  # fmt: skip
        return out

    def spread_ticks(self) -> Array:
        return np.subtract(self.ask[:, :, 0], self.bid[:, :, 0])

    def parents(self, n: int) -> tuple[Array, Array, Array]:
        """Return (ms, sign, USD) of taker orders of symbol n: fills of one millisecond and side."""
        rows = self.t_symbol == n
        ms, side, usd = self.t_ms[rows], self.t_side[rows], self.t_usd[rows]
        if not len(ms):
            return ms, side, usd
        begins = np.flatnonzero(np.r_[True, (np.diff(ms) != 0) | (np.diff(side) != 0)])
        return ms[begins], side[begins], np.add.reduceat(usd, begins)


def autocorrelation(values: Array, lag: int) -> float:
    both = np.isfinite(values[lag:]) & np.isfinite(values[:-lag])
    x, y = values[:-lag][both], values[lag:][both]
    if len(x) < 10 or not x.std() or not y.std():
        return float("nan")
    return float(np.corrcoef(x, y)[0, 1])


def r2_one(x: Array, y: Array) -> float:
    """Return the squared correlation."""
    both = np.isfinite(x) & np.isfinite(y)
    if both.sum() < 10 or not x[both].std() or not y[both].std():
        return float("nan")
    return float(np.corrcoef(x[both], y[both])[0, 1] ** 2)


def kurtosis(values: Array) -> float:
    """Return the excess kurtosis."""
    values = values[np.isfinite(values)]
    centred = values - values.mean()
    return float((centred**4).mean() / (centred**2).mean() ** 2 - 3.0)


def hill(values: Array, share: float = 0.02) -> float:
    """Return the tail exponent of the largest `share` of positive values."""
    ordered = np.sort(values)[::-1]
    k = max(10, int(len(ordered) * share))
    if len(ordered) <= k:
        return float("nan")
    return float(1.0 / np.log(ordered[:k] / ordered[k]).mean())


def jumps(mid: Array) -> tuple[float, float]:
    """Return (jumps an hour, their median size in bps): |r1s| above 5 local bipower deviations and 2 ticks."""
    r = np.diff(mid)
    product = np.abs(r[1:]) * np.abs(r[:-1]) * np.pi / 2.0
    width = min(300, len(product))
    window = np.ones(width) / width
    local = np.sqrt(np.maximum(np.convolve(np.r_[product[0], product], window, "same")[: len(r)], 1e-12))
    is_jump = (np.abs(r) > 5.0 * local) & (np.abs(r) > 2.0)
    size = np.abs(r[is_jump] / mid[:-1][is_jump]) * 1e4
    return float(is_jump.sum() / len(r) * 3600.0), float(np.median(size)) if len(size) else float("nan")


def facts_of(series: Series, n: int) -> dict[str, float]:
    """Return the facts of one symbol; the names carry their units."""
    mid = series.mid[:, n]
    r1, r10 = series.moved(1)[:, n] * 1e4, series.moved(10)[:, n] * 1e4
    one, five = series.imbalance(1)[:, n], series.imbalance(5)[:, n]
    spread = series.spread_ticks()[:, n]
    bid_size, ask_size = series.bid_size[:, n].astype(float), series.ask_size[:, n].astype(float)
    usd = series.mid[:, n] / series.price_scale[n] / series.size_scale[n]
    touch = np.concatenate([bid_size[:, 0] * usd, ask_size[:, 0] * usd])
    gaps = np.diff(series.bid[:, n, :10], axis=1)
    out = {
        "sd1_bps": float(np.nanstd(r1)), "sd10_bps": float(np.nanstd(r10)), "zero1": float((r1[:-1] == 0).mean()),
        "kurt1": kurtosis(r1), "kurt10": kurtosis(r10[:-10:10]), "ac1": autocorrelation(r1, 1),
        "vr10": float(np.nanvar(r10) / np.nanvar(r1) / 10.0),
        "beyond12": float((np.abs(r10[:-10]) > 12.0).mean()),
        "spread_bps": float(np.mean(spread / mid) * 1e4), "spread_ticks": float(np.median(spread)),
        "one_tick": float((spread == 1).mean()),
        "occupied": float((gaps == -1).mean()),
        "touch_usd": float(np.median(touch)), "touch_lnsd": float(np.log(np.maximum(touch, 1e-9)).std()),
        "level5_rel": float(np.median(bid_size[:, 4]) / np.median(bid_size[:, 0])),
        "level10_rel": float(np.median(bid_size[:, 9]) / np.median(bid_size[:, 0])),
        "imb_sd": float(one.std()), "imb_extreme": float((np.abs(one) > 0.8).mean()),
        "imb_ac1": autocorrelation(one, 1), "imb_ac5": autocorrelation(one, 5), "imb_ac10": autocorrelation(one, 10),
        "ofi_r2": r2_one(series.order_flow_imbalance()[1:, n], r1[:-1]),
        "ofi_next": r2_one(series.order_flow_imbalance()[:, n], r1),
    }  # fmt: skip
    for seconds in (1, 5, 10):
        moved = series.moved(seconds)[:, n]
        out[f"imb1_r2_{seconds}"] = r2_one(one, moved)
        out[f"imb5_r2_{seconds}"] = r2_one(five, moved)
    out["jumps_h"], out["jump_bps"] = jumps(mid)
    count = series.count[:, n]
    ms, sign, parent_usd = series.parents(n)
    out |= {"trades_s": float(count.mean()), "usd_s": float(series.usd[:, n].mean()), "fano": _ratio(count)}
    if len(ms) > 200:
        trade_usd = series.t_usd[series.t_symbol == n]
        out |= {
            "parents_s": len(ms) / len(mid), "trade_lnsd": float(np.log(trade_usd).std()),
            "hill": hill(parent_usd), "sign_ac1": autocorrelation(sign.astype(float), 1),
            "sign_ac10": autocorrelation(sign.astype(float), 10), "tfi_r2": r2_one(series.signed[:, n], r1),
            "tfi_next": r2_one(series.signed[:-1, n], r1[1:]),
            "gap_cv": float(np.diff(ms).std() / np.diff(ms).mean()),
        }  # fmt: skip
    return out


def _ratio(count: Array) -> float:
    return float(count.var() / count.mean()) if count.any() else float("nan")


def volatility_facts(series: Series, n: int) -> dict[str, float]:
    """Return how the realised volatility of 5 minutes scatters and lasts."""
    r = series.moved(1)[:-1, n]
    blocks = len(r) // 300
    log_vol = np.log(np.sqrt((r[: blocks * 300].reshape(blocks, 300) ** 2).mean(1)) + 1e-9)
    return {
        "vol5_lnsd": float(log_vol.std()),
        "vol5_ac": autocorrelation(log_vol, 1),
        "vol1h_ac": autocorrelation(log_vol, 12),
    }


def cross_facts(series: Series, columns: Sequence[int]) -> dict[str, float]:
    """Return mean correlation and the first component's share over `columns` by horizon."""
    out = {}
    for seconds in (1, 5, 10, 30):
        r = series.moved(seconds)[:-seconds:seconds, columns]
        rho = np.corrcoef(r.T)
        k = len(columns)
        out[f"rho_{seconds}"] = float((rho.sum() - k) / (k * (k - 1)))
        out[f"pc1_{seconds}"] = float(np.linalg.eigvalsh(rho)[-1] / k)
    return out


def recorded_series(market: Any) -> Series:
    """Return a whole recording: its history and one loop of its live part."""
    second, blocks = market.first_second, []
    end = market.seam_after(market.history_end_ns // 1_000_000_000)
    while second < end:
        blocks.append(market.block(second))
        second = blocks[-1].first_second + len(blocks[-1].is_fresh)
    return Series(market, blocks)
