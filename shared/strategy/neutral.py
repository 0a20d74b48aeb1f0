"""Neutrality: the book may lean to one side, or towards the market, only within a band.

    side   | Σ sign · notional |          <= side_band · gross limit
    beta   | Σ sign · beta · notional |   <= beta_band · gross limit        beta by `betas`, 1 where it is not known

over what is held and what is asked for. Entries alone are bound, and only those that lean further: exits and moves of
the price may leave the book outside of its band, and entries on the other side lead back. Exact, so that neither the
order of symbols nor a mirror changes a verdict.
"""

from __future__ import annotations

from decimal import Decimal

from shared.strategy.exact import ZERO


class Tilt:
    """The two sums while the entries of one decision are added. USDT."""

    def __init__(self, side_max: Decimal, beta_max: Decimal) -> None:
        self._side_max, self._beta_max = side_max, beta_max * 100
        self._side = self._beta = ZERO  # beta in hundredths

    def add(self, sign: int, notional_usdt: Decimal, beta_hundredths: int) -> None:
        signed = notional_usdt if sign > 0 else -notional_usdt
        self._side += signed
        self._beta += signed * beta_hundredths

    def allows(self, sign: int, notional_usdt: Decimal, beta_hundredths: int) -> bool:
        """Say whether an entry keeps both bands, or leads back towards them."""
        side = self._side + sign * notional_usdt
        beta = self._beta + sign * notional_usdt * beta_hundredths
        if abs(side) > self._side_max and abs(side) > abs(self._side):
            return False
        return abs(beta) <= self._beta_max or abs(beta) <= abs(self._beta)
