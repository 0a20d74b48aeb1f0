"""Prices of the generated market, second by second: volatility, the efficient price, and the quotes that follow it.

Everything is drawn from noise that is keyed by time (`noise`), so that any second can be computed by itself:

1. Log price at whole hours: the sum of the last 96 hourly shocks, decayed with a time constant of 24 h.
2. Log price every 5 minutes, then every second: independent shocks, shifted so that they add up to the step between
   the knots around them. A Gaussian walk conditioned on an independent Gaussian end point is the unconditioned walk,
   so bridging makes nothing predictable.
3. Shocks come in *events*: most seconds have none, some have several times the usual size (jumps). Events cluster,
   and some are the market's, which everybody shares.
4. A *late* event does not move the quotes at once. It enters the gap g between the efficient price and the quotes,
   which the quotes then close: mid = efficient - g. E[r] follows g, which is what can be predicted. Leaders close it
   with the next move, followers by an eighth a second. predictability = 0: no event is late, and there is no gap.
5. Quotes rest on their ticks until the price that they follow has left them by most of a tick (a plainly rounded
   price would bounce, and a bounce can be predicted).
"""

from __future__ import annotations

import math
from collections import OrderedDict

import msgspec
import numpy as np
from numpy.typing import NDArray

from shared.simulator.markets import noise as streams
from shared.simulator.markets.blocks import BLOCK_S, Floats, Ints
from shared.simulator.markets.noise import Noise, keep
from shared.simulator.markets.temper import FAST_LEFT, Temper

WARM_UP_S = 120
"""Seconds before a block from which its recursions start; the slowest has decayed to e^-10."""

LEVEL_HOURS = 96
_LEVEL_DECAY = math.exp(-1.0 / 24.0)
_PER_HOUR = 3600 // BLOCK_S

_VOL_OWN, _VOL_COMMON = 0.50, 0.36
_VOL_MEMORY = [10.0 * (lag == 0) + math.exp(-lag / 14.0) for lag in range(72)]
_VOL_MEMORY = [weight / math.sqrt(sum(w * w for w in _VOL_MEMORY)) for weight in _VOL_MEMORY]
_VOL_DAY = 0.45
"""Half the range of ln volatility over a day: 2.5 times from calm (03 UTC) to busy (15 UTC)."""

_SCALES = np.array([0.8, 1.4, 2.7])
_SCALE_ODDS = np.array([0.80, 0.985])  # cumulative; mean square 1.0
_ALIKE = 0.6  # [1] of symbols that the market's late events reach together
_HOLE_CLOSES = 0.6  # [1] of seconds
_MOVE_MEMORY = 0.55
_SWAY_S = 2.0, 40.0  # memory of the activity: bursts, and busy minutes

Bools = NDArray[np.bool_]


class Shocks(msgspec.Struct, frozen=True):
    """One block of what happens to prices, (BLOCK_S, N)."""

    level: Floats  # efficient log price relative to the listing's
    fast: Floats  # what enters the gap that the next move closes
    slow: Floats  # what enters the gap of the followers
    is_active: Bools  # the quotes move
    dice: Floats  # uniform, whether a gap moves the quotes
    volatility: Floats  # relative
    burst: Floats  # fast activity, standard normal
    busy: Floats  # slow activity, standard normal


class Quotes(msgspec.Struct, frozen=True):
    """Rows WARM_UP_S before a block, the block, and one after: (WARM_UP_S + BLOCK_S + 1, N)."""

    bid: Ints  # ticks
    ask: Ints
    fast: Floats  # the gap that the next move closes, in deviations of a second, at most 1.5
    slow: Floats  # the gap that followers close slowly, in its own deviations, at most 3
    after: Floats  # where the quotes came from: past moves in deviations of a second, fading
    volatility: Floats


class Path:
    """The price path of N symbols; a pure function of the block's number."""

    def __init__(self, noise: Noise, temper: Temper) -> None:
        self._noise, self._temper = noise, temper
        self._hours: OrderedDict[int, tuple[Floats, Floats]] = OrderedDict()
        self._inside: OrderedDict[int, tuple[Floats, Floats, Floats]] = OrderedDict()
        self._shocks: OrderedDict[int, Shocks] = OrderedDict()

    # ------------------------------------------------------------------------------- blocks and hours

    def volatility(self, first: int, end: int) -> Floats:
        """Return the relative volatility at the begin of blocks [first, end), (blocks, N + 1); about 1 on average."""
        smooth = self._noise.smooth(streams.VOLATILITY, first, end, _VOL_MEMORY)
        # The last column is the market's own noise, which everybody shares.
        log_vol = _VOL_OWN * smooth + _VOL_COMMON * smooth[:, -1:]
        log_vol[:, -1] = math.hypot(_VOL_OWN, _VOL_COMMON) * smooth[:, -1]
        hour = (np.arange(first, end) * BLOCK_S % 86400) / 3600.0
        day = _VOL_DAY * np.cos((hour - 15.0) / 24.0 * 2.0 * np.pi)
        mean = 0.5 * (_VOL_OWN**2 + _VOL_COMMON**2) + 0.25 * _VOL_DAY**2
        vol: Floats = np.exp(log_vol - mean + day[:, None])
        return vol

    def _hour_knots(self, hour: int) -> tuple[Floats, Floats]:
        """Return (log price relative to the listing's at the begin of `hour`, at its end), each (N + 1,)."""
        found = self._hours.get(hour)
        if found is None:
            first = hour - LEVEL_HOURS
            vol = self.volatility(first * _PER_HOUR, (hour + 1) * _PER_HOUR)
            variance = (vol**2).reshape(LEVEL_HOURS + 1, _PER_HOUR, -1).sum(1) * BLOCK_S
            shocks = np.sqrt(variance) * self._temper.sigma * self._noise.knots(streams.HOUR_STEPS, first, hour + 1)
            decay = _LEVEL_DECAY ** np.arange(LEVEL_HOURS)[::-1, None]
            found = (decay * shocks[:-1]).sum(0), (decay * shocks[1:]).sum(0)
            keep(self._hours, hour, found, 64)
        return found

    def _hour_inside(self, hour: int) -> tuple[Floats, Floats, Floats]:
        """Return (log price at the begin of the hour's blocks, their steps, volatility knots to the next hour's)."""
        found = self._inside.get(hour)
        if found is None:
            begin, end = self._hour_knots(hour)
            blocks = hour * _PER_HOUR, (hour + 1) * _PER_HOUR
            vol = self.volatility(blocks[0], blocks[1] + 1)
            sd = np.sqrt((vol[:-1] ** 2 + vol[:-1] * vol[1:] + vol[1:] ** 2) / 3.0 * BLOCK_S) * self._temper.sigma
            raw = sd * self._noise.knots(streams.BLOCK_STEPS, *blocks)
            steps = raw - sd**2 / (sd**2).sum(0) * (raw.sum(0) - (end - begin))
            levels = begin + np.cumsum(np.vstack([np.zeros_like(begin), steps[:-1]]), axis=0)
            found = levels, steps, vol
            keep(self._inside, hour, found, 32)
        return found

    def levels(self, b: int, blocks: int) -> Floats:
        """Return the log price of the symbols at the begin of the `blocks` blocks up to and with b, (blocks, N)."""
        first = b - blocks + 1
        hours = range(first // _PER_HOUR, b // _PER_HOUR + 1)
        knots = np.concatenate([self._hour_inside(hour)[0] for hour in hours])
        rows = knots[first - hours[0] * _PER_HOUR :][:blocks]
        found: Floats = rows[:, :-1] + self._temper.beta * rows[:, -1:]
        return found

    # ------------------------------------------------------------------------------------- seconds

    def shocks(self, b: int) -> Shocks:
        found = self._shocks.get(b)
        if found is None:
            found = self._draw(b)
            keep(self._shocks, b, found, 5)
        return found

    def _draw(self, b: int) -> Shocks:
        temper, at = self._temper, b % _PER_HOUR
        levels, steps, knots = self._hour_inside(b // _PER_HOUR)
        weight = (np.arange(BLOCK_S) / BLOCK_S)[:, None]
        vol = knots[at] + weight * (knots[at + 1] - knots[at])
        burst, busy = self._activity(b)

        rng = self._noise.at(streams.SHOCKS, b)
        shape = (BLOCK_S, temper.n + 1)
        odds = np.minimum(temper.events * np.exp(temper.bursts * (burst - temper.bursts / 2.0)), 0.98)
        is_event = rng.random(shape, dtype=np.float32) < odds
        scale = _SCALES[np.searchsorted(_SCALE_ODDS, rng.random(shape, dtype=np.float32))]
        size = vol * temper.sigma / np.sqrt(temper.events) * is_event
        total = rng.standard_normal(shape) * scale * size
        share = size**2
        total -= share / np.maximum(share.sum(0), 1e-300) * (total.sum(0) - steps[at])

        dice = rng.random((2, BLOCK_S, temper.n), dtype=np.float32)
        # Whether the market's events come late is mostly the same for everybody.
        alike = rng.random((BLOCK_S, temper.n), dtype=np.float32) < _ALIKE
        dice[1] = np.where(alike, rng.random((BLOCK_S, 1), dtype=np.float32), dice[1])
        is_fast, is_late = dice < temper.late_fast, dice < temper.late_fast + temper.late_slow
        own, market = total[:, :-1], temper.beta * total[:, -1:]
        fast = own * is_fast[0] + market * is_fast[1]
        slow = own * is_late[0] + market * is_late[1] - fast
        # A leader rests until a late event comes through; a follower's quotes move with every event, by what is seen.
        is_seen = ~is_late | temper.is_follower
        is_active = (is_event[:, :-1] & is_seen[0]) | (is_event[:, -1:] & is_seen[1])
        level = levels[at, :-1] + temper.beta * levels[at, -1] + np.cumsum(own + market, axis=0)
        return Shocks(
            level=level, fast=fast, slow=slow, is_active=is_active,
            dice=rng.random((BLOCK_S, temper.n), dtype=np.float32),
            volatility=vol[:, :-1], burst=burst[:, :-1], busy=busy[:, :-1],
        )  # fmt: skip

    def _activity(self, b: int) -> tuple[Floats, Floats]:
        """Return (bursts, busy minutes) of the block, (BLOCK_S, N + 1), standard normal with memory, half common."""
        found = []
        for stream, memory_s in zip((streams.BURSTS, streams.BUSY), _SWAY_S, strict=True):
            white = self._noise.normal(stream, b, (self._temper.n + 1,), WARM_UP_S)
            mixed = np.float32(math.sqrt(0.5)) * (white + white[:, -1:])
            mixed[:, -1] = white[:, -1]
            found.append(remember(mixed, math.exp(-1.0 / memory_s))[WARM_UP_S:])
        return found[0], found[1]

    # -------------------------------------------------------------------------------------- quotes

    def quotes(self, b: int) -> Quotes:
        """Return the touch of block b with what stands behind it."""
        parts = [self.shocks(b - 1), self.shocks(b), self.shocks(b + 1)]
        rows = [slice(BLOCK_S - WARM_UP_S, BLOCK_S), slice(0, BLOCK_S), slice(0, 1)]

        def join(name: str) -> Floats:
            return np.concatenate([getattr(part, name)[r] for part, r in zip(parts, rows, strict=True)])

        temper = self._temper
        level, fast, slow, is_active, dice, vol = map(
            join, ("level", "fast", "slow", "is_active", "dice", "volatility")
        )
        efficient = np.exp(level) * (temper.price * temper.price_scale)  # ticks
        wide = self._spreads(b, vol)
        unit = temper.move_sd * vol

        # A gap moves the quotes with odds that grow with it: where it exceeds this.
        exceeds = np.where(dice < temper.release, dice / temper.release, np.inf) * unit
        closing = temper.is_one_tick & (dice * 1024.0 % 1.0 < _HOLE_CLOSES)
        from_below = dice * 64.0 % 1.0 < 0.5
        count, n = level.shape
        low, high = np.empty((count, n)), np.empty((count, n))
        soon, later = np.zeros((count, n)), np.zeros((count, n))
        near, far = np.zeros(n), np.zeros(n)
        bid = np.rint(efficient[0] - wide[0] / 2.0)
        ask = bid + wide[0]
        for t in range(count):
            moves = is_active[t]
            if temper.has_gap:
                moves = moves | (np.abs(near) > exceeds[t])
                near = np.where(moves, FAST_LEFT * near, near) + fast[t]
                far = np.where(moves, temper.closes * far, far) + slow[t]
                soon[t], later[t] = near, far
            price = efficient[t] * (1.0 - near - far)
            moves = moves & (np.abs(price - 0.5 * (bid + ask)) >= temper.rest_ticks)
            # One tick is the rule where it is: a hole closes soon, from either side (from one the mid would drift).
            closes = closing[t] & (ask - bid > 1.0)
            if closes.any():
                closes &= ~moves
                up = closes & from_below[t]
                bid, ask = np.where(up, ask - 1.0, bid), np.where(closes & ~up, bid + 1.0, ask)
            bid = np.where(moves, np.rint(price - 0.5 * wide[t]), bid)
            ask = np.where(moves, bid + wide[t], ask)
            low[t], high[t] = bid, ask
        after = np.diff(low + high, axis=0, prepend=low[:1] + high[:1]) / (2.0 * temper.move_ticks * vol)
        for t in range(1, count):
            after[t] += _MOVE_MEMORY * after[t - 1]
        return Quotes(
            bid=np.maximum(low, 1.0).astype(np.int64), ask=np.maximum(high, 2.0).astype(np.int64),
            after=np.clip(after, -2.5, 2.5), volatility=vol,
            fast=np.clip(soon / unit, -1.5, 1.5), slow=np.clip(later / (temper.slow_sd * vol), -3.0, 3.0),
        )  # fmt: skip

    def _spreads(self, b: int, vol: Floats) -> Floats:
        """Return the spread that the quotes take if they move, ticks, rows as those of `quotes`."""
        temper = self._temper
        normal = self._noise.normal(streams.SPREADS, b, (temper.n,), WARM_UP_S)
        normal = np.concatenate([normal, normal[-1:]])  # the row after the block only says where its last trades went
        free = np.rint(temper.spread_ticks * np.exp(temper.spread_sd * normal) * np.sqrt(vol))
        # A book that holds one tick opens for a moment, by a few ticks.
        tight = np.where(
            normal < temper.one_tick, 1.0, np.minimum(2.0 + np.floor(5.0 * (normal - temper.one_tick)), 9.0)
        )
        spread: Floats = np.where(temper.is_one_tick, tight, np.maximum(1.0, free))
        return spread


def remember(white: Floats, phi: float) -> Floats:
    """Return y(t) = phi y(t - 1) + sqrt(1 - phi^2) white(t) along the first axis, in place."""
    memory, fresh = np.float32(phi), np.float32(math.sqrt(1.0 - phi * phi))
    white[1:] *= fresh
    for t in range(1, len(white)):
        white[t] += memory * white[t - 1]
    return white
