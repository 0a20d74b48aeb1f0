"""A first bandit: UCB per symbol on net bps of closed trades, as fills told them.

    bonus(n) = mean_n · count_n / (count_n + PRIOR)  +  EXPLORATION_BPS · sqrt(log2 t / (count_n + 1))

The mean is shrunk to zero by PRIOR trades that earned nothing; t is the number of trades of all arms. log2 is the
bit length of t: whole, and the same on every CPU, where `log` is not. The bonus orders candidates and never lifts one
over its cost: the net-edge gate does not see it. Rewards are bps, everywhere; nothing is a percentage.
"""

from __future__ import annotations

import msgspec
import numpy as np

from shared.types import Floats


class BanditState(msgspec.Struct, frozen=True, kw_only=True):
    """What the bandit remembers, by symbol (only symbols that were traded)."""

    count: dict[str, int] = {}
    total_bps: dict[str, float] = {}


class Bandit:
    PRIOR = 20.0
    """Trades of evidence against a symbol's mean: one 10 s trade in a small alt has σ of about 15 bps, so 20 trades
    know a mean to 3.4 bps, which is where it starts to matter beside a cost of 12."""

    EXPLORATION_BPS = 1.0
    BONUS_BPS_MAX = 5.0  # beyond this the bandit would rank, not break near-ties

    def __init__(self, symbols: tuple[str, ...], state: BanditState | None = None) -> None:
        self._symbols = symbols
        self._at = {symbol: n for n, symbol in enumerate(symbols)}
        self._count = np.zeros(len(symbols))
        self._total_bps = np.zeros(len(symbols))
        self._elsewhere = BanditState()  # symbols that this universe does not list: kept, not used
        if state is not None:
            self._restore(state)
        self._bonus: Floats | None = None

    def _restore(self, state: BanditState) -> None:
        for symbol, count in state.count.items():
            if symbol in self._at:
                self._count[self._at[symbol]] = count
                self._total_bps[self._at[symbol]] = state.total_bps[symbol]
        gone = [symbol for symbol in state.count if symbol not in self._at]
        self._elsewhere = BanditState(
            count={symbol: state.count[symbol] for symbol in gone},
            total_bps={symbol: state.total_bps[symbol] for symbol in gone},
        )

    def reward(self, symbol: str, net_bps: float) -> None:
        """Learn from one closed trade."""
        n = self._at.get(symbol)
        if n is None:
            return  # a position that was adopted in a symbol outside the universe
        self._count[n] += 1.0
        self._total_bps[n] += net_bps
        self._bonus = None

    def bonus_bps(self) -> Floats:
        """Return what each arm's past and our ignorance of it add to its rank, (N,) bps."""
        if self._bonus is None:
            log2_trades = float(int(self._count.sum()).bit_length())
            mean = self._total_bps / (self._count + self.PRIOR)
            explore = self.EXPLORATION_BPS * np.sqrt(log2_trades / (self._count + 1.0))
            self._bonus = (mean + explore).clip(-self.BONUS_BPS_MAX, self.BONUS_BPS_MAX)
        return self._bonus

    def state(self) -> BanditState:
        """Return what a restart needs; `Bandit(symbols, state)` continues bit for bit."""
        known = [(symbol, n) for symbol, n in self._at.items() if self._count[n] > 0]
        return BanditState(
            count={**{s: int(self._count[n]) for s, n in known}, **self._elsewhere.count},
            total_bps={**{s: float(self._total_bps[n]) for s, n in known}, **self._elsewhere.total_bps},
        )
