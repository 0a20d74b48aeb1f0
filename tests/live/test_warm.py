"""Connections are kept warm, and the clock is read on the way."""

from __future__ import annotations

import asyncio
from typing import cast

import pytest

from live import account
from shared.bitget.transport import RestClient
from shared.errors import ExchangeSilent


class Exchange:
    """A client that counts how many requests are out at once; its clock is 1.5 s ahead, if anybody is there."""

    def __init__(self, *, is_there: bool = True) -> None:
        self.is_there, self.n_out, self.n_out_max = is_there, 0, 0

    async def server_time(self) -> int:
        self.n_out += 1
        self.n_out_max = max(self.n_out_max, self.n_out)
        await asyncio.sleep(0)
        self.n_out -= 1
        if not self.is_there:
            raise ExchangeSilent("the exchange must answer, found nobody: wait")
        return 0

    async def sync_clock(self) -> int:
        await self.server_time()
        return 1500


def asked(exchange: Exchange) -> int | None:
    return asyncio.run(account.warm(cast(RestClient, exchange), 5))


def test_as_many_requests_as_orders_leave_at_once_and_one_reads_the_clock() -> None:
    """Five orders a second need five connections; the offset comes from the one that measures its trip."""
    exchange = Exchange()

    assert asked(exchange) == 1500
    assert exchange.n_out_max == 5


def test_a_clock_that_nobody_told_or_told_late_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a round trip is the error of a reading: one that took longer than allowed says nothing."""
    assert asked(Exchange(is_there=False)) is None

    monkeypatch.setattr(account, "CLOCK_READ_WITHIN_S", -1.0)
    assert asked(Exchange()) is None
