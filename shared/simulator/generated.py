"""The generated market: what it does, second by second.

`GeneratedMarket` is a pure function of (seed, n_symbols, predictability, absolute second): every process that asks
for a second gets the same bits, whatever it asked for before, so history and live are one market and a restart
continues it. (Same bits on one machine and numpy; another CPU may round a logarithm differently and move a quote by
a tick.) It is built from noise that is keyed by time, never carried from call to call:

1. Log price knots at whole hours: X(h) = sum of the last 96 hourly shocks, decayed with a half-life of 17 h.
2. Knots every 5 minutes, then seconds: independent shocks, shifted so that they add up to the step between the
   knots around them. A Gaussian walk conditioned on an independent Gaussian end point is the unconditioned walk, so
   bridging makes nothing predictable.
3. Volatility by block: a moving average of 6 h of keyed noise, common and own, times the pattern of the day.
4. *Late* shocks: a share of each shock does not move the price at once but enters the gap g between the efficient
   price and the quotes, which closes exponentially: mid = efficient - g, g(t+1) = phi g(t) + late(t+1). The gap
   is what can be predicted, E[r] = (1 - phi) g; the book leans into it (imbalance) and takers know part of it (flow).
   Small alts have a slow, large gap (followers); majors a fast, small one. predictability = 0 has no gap at all.
5. Quotes move only in active seconds; sizes are lognormal with memory; trades come in parents of several fills.

Every recursion starts `WARM_UP_S` seconds before its block from a fixed state (the slowest has decayed to e^-10).

What gives it away: fixed level offsets within five minutes, no reaction of one order to another, volatility that
steps every five minutes, no listings or delistings.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from shared.errors import SettingsError
from shared.simulator.blocks import BLOCK_S, LEVELS, SNOWFLAKE_EPOCH_MS, Block, Floats, Ints, Outline, Trades
from shared.simulator.listing import Listing, default_listings_per_day, listings, listings_per_day_max
from shared.simulator.universe import Comings

WARM_UP_S = 120
DEFAULT_PREDICTABILITY = 0.20
PREDICTABILITY_MAX = 0.30


class GeneratedMarket:
    """A market from one seed; see the module's docstring.

    Args:
        seed: any int in [0, 2^32).
        n_symbols: 1 to 1,000.
        predictability: about the share [1] of a small alt's 10 s return variance that a linear model explains from
            what is public; in [0, PREDICTABILITY_MAX]. 0: nothing can be predicted.
        listings_per_day: how many symbols are listed in a day, and how many removed; 0: none. None: Bitget's pace
            of 2026 for as many symbols, none below `listing.STATIC_BELOW`.

    Raises:
        SettingsError: an argument is out of bounds.
    """

    kind = "generated"

    def __init__(
        self,
        seed: int,
        n_symbols: int,
        predictability: float = DEFAULT_PREDICTABILITY,
        listings_per_day: float | None = None,
    ) -> None:
        if not 1 <= n_symbols <= 1000:
            raise SettingsError(
                f"the generated market has 1 to 1000 symbols, found {n_symbols}: choose --symbols in between"
            )
        if not 0.0 <= predictability <= PREDICTABILITY_MAX:
            raise SettingsError(
                f"predictability must be in [0, {PREDICTABILITY_MAX}], found {predictability}: "
                "choose --predictability in between (real books reach about 0.24)"
            )
        if not 0 <= seed < 2**32:
            raise SettingsError(f"the seed must be in [0, 2^32), found {seed}: choose --seed in between")
        self.seed, self.predictability = seed, predictability
        self.history_end_ns: int | None = None
        usual = default_listings_per_day(n_symbols)
        self.listings_per_day = usual if listings_per_day is None else float(listings_per_day)
        most = listings_per_day_max(n_symbols)
        if not 0.0 <= self.listings_per_day <= most:
            raise SettingsError(
                f"listings a day must be in [0, {most:g}] for {n_symbols} symbols, found {self.listings_per_day:g}: "
                "choose --listings-per-day in between"
            )
        self.listings = listings(n_symbols, self.listings_per_day)
        self.symbols = tuple(listing.symbol for listing in self.listings)
        suffix = "" if predictability == DEFAULT_PREDICTABILITY else f"-p{predictability:.2f}"
        if self.listings_per_day != usual:
            suffix += f"-l{self.listings_per_day:g}"
        self.source = f"simulator-g{seed}-{n_symbols}{suffix}"
        n_small = sum(listing.tier == "small" for listing in self.listings)
        self.note = (
            f"generated market: {n_small} small alts are followers, planted 10 s R2 about {predictability:.2f}"
            if predictability
            else "generated market: nothing can be predicted"
        )
        self.price_places = tuple(listing.price_place for listing in self.listings)
        self.size_places = tuple(listing.volume_place for listing in self.listings)
        self.price_scale = np.array([10.0**place for place in self.price_places])
        self.size_scale = np.array([10.0**place for place in self.size_places])
        self._comings = Comings(self.listings)
        self._temper = _Temper(self.listings, predictability)
        self._blocks: OrderedDict[int, Block] = OrderedDict()
        self._shocks: OrderedDict[int, _Shocks] = OrderedDict()
        self._hours: OrderedDict[int, tuple[Floats, Floats]] = OrderedDict()
        self._noise: OrderedDict[tuple[int, int], Floats] = OrderedDict()

    def contracts(self, second: int | None = None) -> list[dict[str, Any]]:
        return self._comings.contracts(second)

    def is_listed(self, second: int) -> NDArray[np.bool_]:
        return self._comings.is_listed(second)

    def seam_after(self, second: int) -> int | None:
        return None

    def block(self, second: int) -> Block:
        b = second // BLOCK_S
        # Several readers (event loop, prefetching thread) may ask at once: at worst a block is computed twice.
        found = self._blocks.get(b)
        if found is None:
            found = self._comings.without_unlisted(self._compute(b))
            _keep(self._blocks, b, found, 4)
        return found

    def outline(self, second: int) -> Outline:
        """Return the trades and prices of the block that holds `second`, not cached.

        Sizes of the book are nine tenths of what a block costs, and nothing depends on them.
        """
        return self._comings.outline(self._compute(second // BLOCK_S, with_sizes=False))

    def hour(self, hour: int) -> list[Block]:
        """Return the blocks of one hour, in order."""
        return [self.block(hour * 3600 + s) for s in range(0, 3600, BLOCK_S)]

    # ------------------------------------------------------------------------------- keyed noise

    def _generator(self, stream: int, position: int) -> np.random.Generator:
        # Two keys and a counter that no two (stream, position) share: 2^64 draws apart.
        bits = np.random.Philox(key=[self.seed, len(self.symbols)], counter=[0, position, stream, 0])
        return np.random.Generator(bits)

    def _knots(self, stream: int, first: int, end: int) -> Floats:
        """Return keyed standard normal noise for knots [first, end), shape (end - first, N + 1)."""
        per_page = 288
        pages = []
        for page in range(first // per_page, (end - 1) // per_page + 1):
            noise = self._noise.get((stream, page))
            if noise is None:
                noise = self._generator(stream, page).standard_normal((per_page, len(self.symbols) + 1))
                _keep(self._noise, (stream, page), noise, 64)
            pages.append(noise)
        start = first - first // per_page * per_page
        return np.concatenate(pages)[start : start + end - first]

    # ------------------------------------------------------------------ volatility and price knots

    def _volatility(self, first: int, end: int) -> Floats:
        """Return the volatility of 5-minute blocks [first, end) relative to its mean square, (blocks, N + 1)."""
        noise = self._knots(_STREAM_VOLATILITY, first - len(_VOL_MEMORY) + 1, end)
        smooth = np.zeros((end - first, noise.shape[1]))
        for lag, weight in enumerate(_VOL_MEMORY):
            at = len(_VOL_MEMORY) - 1 - lag
            smooth += weight * noise[at : at + end - first]
        # The last column is the factor's own noise, which everybody shares.
        log_vol = _VOL_OWN * smooth + _VOL_COMMON * smooth[:, -1:]
        log_vol[:, -1] = math.hypot(_VOL_OWN, _VOL_COMMON) * smooth[:, -1]
        hour = (np.arange(first, end) * BLOCK_S % 86400) / 3600.0
        day = 0.25 * np.cos((hour - 15.0) / 24.0 * 2.0 * np.pi)  # peak at 15 UTC, factor 1.65 from calm to busy
        return np.exp(log_vol - (_VOL_OWN**2 + _VOL_COMMON**2) + day[:, None])

    def _hour_knots(self, hour: int) -> tuple[Floats, Floats]:
        """Return (log price relative to the listing's at the begin of `hour`, at its end), each (N + 1,)."""
        found = self._hours.get(hour)
        if found is None:
            per_hour = 3600 // BLOCK_S
            first = hour - _LEVEL_HOURS
            vol = self._volatility(first * per_hour, (hour + 1) * per_hour)
            variance = (vol**2).reshape(_LEVEL_HOURS + 1, per_hour, -1).sum(1) * BLOCK_S
            shocks = np.sqrt(variance) * self._temper.sigma * self._knots(_STREAM_HOUR, first, hour + 1)
            decay = _LEVEL_DECAY ** np.arange(_LEVEL_HOURS)[::-1, None]
            found = (decay * shocks[:-1]).sum(0), (decay * shocks[1:]).sum(0)
            _keep(self._hours, hour, found, 64)
        return found

    def _block_knots(self, b: int) -> tuple[Floats, Floats, Floats]:
        """Return (log price at the begin of block b, its step over the block, volatility), each (N + 1,)."""
        per_hour = 3600 // BLOCK_S
        hour = b // per_hour
        begin, end = self._hour_knots(hour)
        vol = self._volatility(hour * per_hour, (hour + 1) * per_hour)
        sd = vol * self._temper.sigma * math.sqrt(BLOCK_S)
        raw = sd * self._knots(_STREAM_BLOCK, hour * per_hour, (hour + 1) * per_hour)
        steps = raw - sd**2 / (sd**2).sum(0) * (raw.sum(0) - (end - begin))
        at = b - hour * per_hour
        return begin + steps[:at].sum(0), steps[at], vol[at]

    # ------------------------------------------------------------------------------------ seconds

    def _second_shocks(self, b: int) -> _Shocks:
        found = self._shocks.get(b)
        if found is None:
            found = self._compute_shocks(b)
            _keep(self._shocks, b, found, 6)
        return found

    def _compute_shocks(self, b: int) -> _Shocks:
        temper = self._temper
        begin, step, vol = self._block_knots(b)
        rng = self._generator(_STREAM_SECONDS, b)
        shape = (BLOCK_S, len(self.symbols) + 1)
        # Fat tails: one second in twelve is 2.6 times as large, the rest smaller, mean square 1.
        tail = np.where(rng.random(shape) < 1 / 12, 2.6, 0.683)
        total = rng.standard_normal(shape) * tail * vol * temper.sigma
        late = total * 0.0
        if temper.has_gap:
            # The late part is a share of variance, independent of the part that is seen at once.
            late = rng.standard_normal(shape) * tail * vol * temper.sigma * temper.late_sd
            total = total * temper.now_sd + late
        shift = (total.sum(0) - step) / BLOCK_S
        total -= shift
        own, factor = total[:, :-1], total[:, -1:]
        efficient = own + factor * temper.beta
        late = late[:, :-1] + temper.beta * temper.factor_late * factor
        level = begin[:-1] + temper.beta * begin[-1]
        return _Shocks(
            level=level + np.cumsum(efficient, axis=0),
            late=late,
            is_active=rng.random((BLOCK_S, len(self.symbols))) < temper.active_share,
            scale=vol[:-1],
        )

    def _mid(self, b: int) -> tuple[Floats, Floats, Floats]:
        """Return (log mid, what it lacks in standard deviations, volatility): WARM_UP_S rows before b, b, one after."""
        parts = [self._second_shocks(b - 1), self._second_shocks(b), self._second_shocks(b + 1)]
        rows = [slice(BLOCK_S - WARM_UP_S, BLOCK_S), slice(0, BLOCK_S), slice(0, 1)]
        level = np.concatenate([p.level[r] for p, r in zip(parts, rows, strict=True)])
        late = np.concatenate([p.late[r] for p, r in zip(parts, rows, strict=True)])
        active = np.concatenate([p.is_active[r] for p, r in zip(parts, rows, strict=True)])
        gap = np.empty_like(late)
        state = np.zeros(late.shape[1])
        for t in range(len(late)):
            state = self._temper.phi * state + late[t]
            gap[t] = state
        mid = level - gap
        rows_index = np.arange(len(mid))[:, None]
        last_active = np.maximum.accumulate(np.where(active, rows_index, 0), axis=0)
        held = np.take_along_axis(mid, last_active, axis=0)
        # What the book can lean into is what the held quote still lacks: the gap plus the moves it slept through.
        scale = self._temper.gap_sd * parts[1].scale
        lean = np.divide(level - held, scale, out=np.zeros_like(gap), where=scale > 0)
        return held, lean, parts[1].scale

    def _compute(self, b: int, *, with_sizes: bool = True) -> Block:
        temper, n = self._temper, len(self.symbols)
        rng = self._generator(_STREAM_BOOK, b)
        mid_log, lean, vol = self._mid(b)
        ticks = np.exp(mid_log[WARM_UP_S:]) * temper.price * self.price_scale  # mid in ticks, (T + 1, N)
        lean = np.clip(lean, -3.0, 3.0)

        spread = np.maximum(
            1,
            np.rint(
                temper.spread_ticks
                * np.exp(0.3 * rng.standard_normal((BLOCK_S, n)) + 0.5 * np.log(vol) * temper.is_small)
            ),
        )
        bid = np.rint(ticks[:-1] - spread / 2.0).astype(np.int64)
        bid = np.maximum(bid, 40)
        ask = bid + spread.astype(np.int64)
        gaps = 1 + rng.poisson(np.maximum(temper.level_gap - 1.0, 0.02)[:, None], (2, n, LEVELS - 1))
        offset = np.concatenate([np.zeros((2, n, 1), dtype=np.int64), np.cumsum(gaps, axis=2)], axis=2)
        bid_ticks = np.maximum(bid[:, :, None] - offset[0], 1)
        ask_ticks = ask[:, :, None] + offset[1]

        bid_steps = ask_steps = np.broadcast_to(np.int64(0), bid_ticks.shape)
        if with_sizes:
            bid_steps, ask_steps = self._sizes(b, rng, lean[WARM_UP_S : WARM_UP_S + BLOCK_S], ticks[:-1])
        trades = self._trades(b, ticks, lean[WARM_UP_S:], vol, bid_ticks, ask_ticks)
        return self._assemble(b, vol, bid_ticks, bid_steps, ask_ticks, ask_steps, trades)

    def _sizes(self, b: int, rng: np.random.Generator, lean: Floats, ticks: Floats) -> tuple[Ints, Ints]:
        """Return sizes (T, N, LEVELS) in steps: lognormal, remembered for seconds, larger on the side of the gap."""
        temper, n = self._temper, len(self.symbols)
        shape = (BLOCK_S, n, 2, LEVELS)
        # Own generator per block, so that the warm-up of the next block can draw the same noise again.
        before = self._generator(_STREAM_SIZES, b - 1).standard_normal(shape, dtype=np.float32)[-_SIZE_WARM_UP_S:]
        noise = np.concatenate([before, self._generator(_STREAM_SIZES, b).standard_normal(shape, dtype=np.float32)])
        state = np.zeros(shape[1:], dtype=np.float32)
        memory, innovation = np.float32(_SIZE_MEMORY), np.float32(math.sqrt(1.0 - _SIZE_MEMORY**2))
        for t in range(len(noise)):
            state = memory * state + innovation * noise[t]
            noise[t] = state
        log_size = noise[_SIZE_WARM_UP_S:] * temper.size_sd + temper.log_touch_usd
        lean32 = lean.astype(np.float32)[:, :, None] * temper.lean_strength
        log_size[:, :, 0] += lean32
        log_size[:, :, 1] -= lean32
        usd_per_step = (ticks / self.price_scale / self.size_scale)[:, :, None, None]
        steps = np.maximum(1.0, np.exp(log_size) / usd_per_step)
        # Whole steps, three significant digits: sizes that people type (and texts that are found again in a cache).
        digits = 10.0 ** np.maximum(0.0, np.floor(np.log10(steps)) - 2.0)
        whole = (np.rint(steps / digits) * digits).astype(np.int64)
        return np.ascontiguousarray(whole[:, :, 0]), np.ascontiguousarray(whole[:, :, 1])

    def _trades(self, b: int, ticks: Floats, lean: Floats, vol: Floats, bid_ticks: Ints, ask_ticks: Ints) -> Trades:
        temper = self._temper
        rng = self._generator(_STREAM_TRADES, b)
        move = np.log(ticks[1:] / ticks[:-1]) / (vol * temper.sigma[:-1])
        # Takers come in bursts (gamma mixing) and more when the price moves.
        rate = (
            temper.parents_per_s
            * vol
            * (0.5 + 0.5 * np.minimum(np.abs(move), 6.0))
            * rng.gamma(0.6, 1 / 0.6, move.shape)
        )
        parents = np.minimum(rng.poisson(rate), 40)
        t_of, n_of = (np.repeat(index.ravel(), parents.ravel()) for index in np.indices(parents.shape))
        tilt = rng.standard_normal(parents.shape)
        pressure = 1.1 * np.clip(move, -3, 3) + 0.6 * lean[:-1] + 0.8 * tilt
        buys = rng.random(len(t_of)) < 1.0 / (1.0 + np.exp(-pressure[t_of, n_of]))
        offset = (rng.random(len(t_of)) * 999.0).astype(np.int64) * 1_000_000 + 500_000
        children = 1 + rng.geometric(0.55, len(t_of)) * (rng.random(len(t_of)) < 0.5)
        row = np.repeat(np.arange(len(t_of)), children)
        child = np.arange(len(row)) - np.repeat(np.cumsum(children) - children, children)
        usd = temper.child_usd[n_of[row]] * np.exp(1.3 * rng.standard_normal(len(row)) - 0.845)
        t_row, n_row, side = t_of[row], n_of[row], np.where(buys[row], 1, -1)
        level = np.where((child >= 2) & (rng.random(len(row)) < 0.3), 1, 0)
        price = np.where(side > 0, ask_ticks[t_row, n_row, level], bid_ticks[t_row, n_row, level])
        steps = np.maximum(1, np.rint(usd * self.price_scale[n_row] * self.size_scale[n_row] / price)).astype(np.int64)
        order = np.lexsort((child, row, offset[row], t_row))
        t_row, offset_row = t_row[order], offset[row][order]
        second = b * BLOCK_S + t_row
        ms = second * 1000 + offset_row // 1_000_000
        return Trades(
            start=np.searchsorted(t_row, np.arange(BLOCK_S + 1)),
            symbol=n_row[order],
            offset_ns=offset_row,
            price_ticks=price[order],
            size_steps=steps[order],
            side=side[order],
            # The low bits count the block's trades, so ids increase with time and never repeat (40 symbols: ~40,000).
            trade_id=((ms - SNOWFLAKE_EPOCH_MS) << 22) | (np.arange(len(order)) & 0x3FFFFF),
        )

    def _assemble(
        self, b: int, vol: Floats, bid_ticks: Ints, bid_steps: Ints, ask_ticks: Ints, ask_steps: Ints, trades: Trades
    ) -> Block:
        temper, n = self._temper, len(self.symbols)
        rng = self._generator(_STREAM_TICKER, b)
        shape = (BLOCK_S, n)
        mid = (bid_ticks[:, :, 0] + ask_ticks[:, :, 0]) / 2.0 / self.price_scale
        tick = 1.0 / self.price_scale
        # Last price: of the newest trade before this second; the bid until the block has seen one.
        last_ticks = np.zeros(shape, dtype=np.int64)
        t_of = np.repeat(np.arange(BLOCK_S), np.diff(trades.start))
        within = t_of < BLOCK_S - 1
        last_ticks[t_of[within] + 1, trades.symbol[within]] = trades.price_ticks[within]
        seen = np.maximum.accumulate(np.where(last_ticks > 0, np.arange(BLOCK_S)[:, None], 0), axis=0)
        last_ticks = np.take_along_axis(last_ticks, seen, axis=0)
        last_ticks = np.where(last_ticks > 0, last_ticks, bid_ticks[:, :, 0])

        weight = (np.arange(BLOCK_S) / BLOCK_S)[:, None]

        def drift(stream: int) -> Floats:
            knots = self._knots(stream, b, b + 2)[:, :-1]
            moved: Floats = knots[0] + weight * (knots[1] - knots[0])
            return moved

        basis_bps = temper.basis_bps + temper.basis_sd_bps * drift(_STREAM_BASIS)
        mark = mid * (1.0 + temper.mark_sd * rng.standard_normal(shape))
        hour = b * BLOCK_S // 3600
        level = np.stack([self._hour_knots(hour - k)[0] for k in range(25)])
        path = level[:, :-1] + temper.beta * level[:, -1:]
        base = temper.price
        high = np.maximum(np.rint(np.exp(path.max(0)) * base / tick), ask_ticks[:, :, 0].max(0))
        low = np.minimum(np.rint(np.exp(path.min(0)) * base / tick), bid_ticks[:, :, 0].min(0))
        # Volumes move twice a minute, as the sum over a day does: by next to nothing.
        volume = np.repeat(temper.usd_per_s * 86400.0 * np.exp(0.15 * drift(_STREAM_VOLUME)[::30]), 30, axis=0)
        base_volume = volume / mid[0]
        interval_s = temper.funding_interval_h * 3600
        seconds = b * BLOCK_S + np.arange(BLOCK_S)
        next_funding = (seconds[:, None] // interval_s + 1) * interval_s * 1000
        # Two contracts in three sit at the clamp of 1 bp, the rest wander (373 Binance perpetuals: 65 % at it).
        wander = np.where(temper.rank % 3 == 2, 1.5e-4 * drift(_STREAM_FUNDING), 0.0)
        minute = np.rint((1e-4 + wander) * 1e6) / 1e6
        minute = np.repeat(minute[::60], 60, axis=0)  # recalculated once a minute
        return Block(
            first_second=b * BLOCK_S,
            bid_ticks=bid_ticks, bid_steps=bid_steps, ask_ticks=ask_ticks, ask_steps=ask_steps,
            quote_bid_ticks=bid_ticks[:, :, 0], quote_bid_steps=bid_steps[:, :, 0],
            quote_ask_ticks=ask_ticks[:, :, 0], quote_ask_steps=ask_steps[:, :, 0],
            is_fresh=np.ones(shape, dtype=np.bool_),
            last=last_ticks * 1.0 / self.price_scale,
            mark=np.rint(mark / tick) / self.price_scale,
            index=mark * (1.0 - 1e-4 * basis_bps),
            funding_rate=minute,
            next_funding_ms=next_funding.astype(np.int64),
            open_interest=np.rint(volume * 0.4 / base * self.size_scale) / self.size_scale,
            base_volume=np.rint(base_volume * self.size_scale) / self.size_scale,
            quote_volume=np.rint(volume),
            open_24h=np.broadcast_to(np.rint(np.exp(path[24]) * base / tick) / self.price_scale, shape),
            high_24h=np.broadcast_to(high / self.price_scale, shape),
            low_24h=np.broadcast_to(low / self.price_scale, shape),
            trades=trades,
        )  # fmt: skip


class _Shocks(msgspec.Struct, frozen=True):
    level: Floats  # (BLOCK_S, N) efficient log price relative to the listing's
    late: Floats  # (BLOCK_S, N) what enters the gap
    is_active: NDArray[np.bool_]
    scale: Floats  # (N,) volatility of the block


class _Temper:
    """The listings as arrays, and what predictability makes of them; N symbols, then the market factor."""

    def __init__(self, rows: tuple[Listing, ...], predictability: float) -> None:
        def array(values: Any) -> Floats:
            return np.array(list(values), dtype=np.float64)

        self.rank = np.arange(len(rows))
        self.is_small = array(row.tier in ("small", "stock") for row in rows)
        is_small = self.is_small > 0
        self.price = array(row.price for row in rows)
        self.spread_ticks = np.maximum(
            1.0, array(row.spread_bps * row.price * 10.0**row.price_place / 1e4 for row in rows)
        )
        self.active_share = array(row.active_share for row in rows)
        self.level_gap = array(row.level_gap for row in rows)
        self.usd_per_s = array(row.usd_per_s for row in rows)
        trades_per_s = array(row.trades_per_s for row in rows)
        self.parents_per_s = trades_per_s / _CHILDREN_MEAN
        self.child_usd = self.usd_per_s / trades_per_s
        self.funding_interval_h = np.array([row.funding_interval_h for row in rows])
        self.basis_bps = np.where(is_small, 6.0, 2.0) * np.sin(1.7 * self.rank)
        self.basis_sd_bps = np.where(is_small, 3.0, 0.6)
        self.mark_sd = np.where(is_small, 0.5e-4, 0.05e-4)

        self.has_gap = predictability > 0.0
        late_small = _late_share(predictability)
        late_large = _LATE_LEADER * min(1.0, predictability / DEFAULT_PREDICTABILITY)
        late = np.where(is_small, late_small, late_large)
        self.phi = np.where(is_small, math.exp(-1.0 / _GAP_S_FOLLOWER), math.exp(-1.0 / _GAP_S_LEADER))
        self.factor_late = late
        # The factor itself is seen at once; each symbol then answers late in its own way.
        self.late_sd = np.append(np.sqrt(late), 0.0)
        self.now_sd = np.append(np.sqrt(1.0 - late), 1.0)
        # 10 s variance of the mid over that of ten independent seconds.
        ten = 1.0 - late * (1.0 - _late_variance(self.phi) / 10.0)
        efficient = array(row.vol10_bps for row in rows) * 1e-4 / np.sqrt(10.0 * ten)
        share = array(row.factor_share for row in rows)
        factor_sigma = 0.6e-4
        self.beta = np.sqrt(share) * efficient / factor_sigma
        self.sigma = np.append(np.sqrt(1.0 - share) * efficient, factor_sigma)
        self.gap_sd = efficient * np.sqrt(late / (1.0 - self.phi**2))

        slope = np.where(is_small, 0.10, 0.12)
        profile = np.log(1.0 + slope[:, None] * np.arange(LEVELS))
        touch = np.log(array(row.touch_usd for row in rows))
        shape = np.where(np.arange(LEVELS) == 0, 0.0, np.where(self.level_gap[:, None] > 2.0, -3.0, 0.0))
        self.log_touch_usd = (touch[:, None] + profile + shape)[:, None, :].astype(np.float32)  # (N, 1, LEVELS)
        self.size_sd = np.where(np.arange(LEVELS) == 0, _SIZE_SD_TOUCH, _SIZE_SD_DEEP).astype(np.float32)
        lean = np.where(is_small, _LEAN_FOLLOWER, _LEAN_LEADER)[:, None] * np.where(np.arange(LEVELS) < 5, 1.0, 0.3)
        self.lean_strength = lean[None].astype(np.float32) * (1.0 if self.has_gap else 0.0)


_GAP_S_FOLLOWER = 8.0
_GAP_S_LEADER = 2.0
_LATE_LEADER = 0.24
_LEAN_FOLLOWER = 1.0
_LEAN_LEADER = 1.0
_SIZE_SD_TOUCH = 1.2
_SIZE_SD_DEEP = 0.7
_SIZE_MEMORY = 0.70
_SIZE_WARM_UP_S = 40
_CHILDREN_MEAN = 1.0 + 0.5 / 0.55
_LEVEL_HOURS = 96
_LEVEL_DECAY = math.exp(-1.0 / 24.0)
_VOL_OWN, _VOL_COMMON = 0.42, 0.25
_VOL_MEMORY = [0.9 * math.exp(-lag / 1.2) + 0.25 * math.exp(-lag / 20.0) for lag in range(72)]
_VOL_MEMORY = [weight / math.sqrt(sum(w * w for w in _VOL_MEMORY)) for weight in _VOL_MEMORY]

(
    _STREAM_VOLATILITY, _STREAM_HOUR, _STREAM_BLOCK, _STREAM_SECONDS, _STREAM_BOOK, _STREAM_SIZES, _STREAM_TRADES,
    _STREAM_TICKER, _STREAM_BASIS, _STREAM_VOLUME, _STREAM_FUNDING,
) = range(11)  # fmt: skip


def _late_variance(phi: Any) -> Any:
    """Return the 10 s variance of a mid all of whose unit shocks arrive late: what g brings, and what comes anew."""
    brought = (1.0 - phi**10) ** 2 / (1.0 - phi**2)
    anew = sum((1.0 - phi**k) ** 2 for k in range(10))
    return brought + anew


def _late_share(predictability: float) -> float:
    """Return which share of a follower's variance is late, so that 10 s R2 comes out as wanted.

    R2 = brought s / (10 (1 - s) + (brought + anew) s), solved for s; the book shows the gap with noise, and a label
    starts one second after the features: both are in _SEEN [1].
    """
    if predictability == 0.0:
        return 0.0
    phi = math.exp(-1.0 / _GAP_S_FOLLOWER)
    target = predictability / _SEEN
    brought = (1.0 - phi**10) ** 2 / (1.0 - phi**2)
    share = 10.0 * target / (brought + target * (10.0 - _late_variance(phi)))
    assert share < 1.0, (predictability, share)
    return float(share)


_SEEN = 0.62


def _keep(cache: OrderedDict[Any, Any], key: Any, value: Any, bound: int) -> None:
    cache[key] = value
    while len(cache) > bound:
        cache.popitem(last=False)
