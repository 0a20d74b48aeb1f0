"""Candle subscriptions: what they begin from has to be computed first, in a thread, while the pump goes on.

A subscription is acked at once. Its snapshot, and with it the stream, begins when the candles of its granularity are
known: as many as `Candles.snapshot_size` says, and whatever else is known by then. Once a minute every
granularity that somebody listens to is looked at again: after a stall of the pump, what was missed is learnt.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from shared.simulator.clock import Clock
from shared.simulator.markets.candles import Candles
from shared.simulator.markets.market import NS
from shared.simulator.pushes.feed import CANDLE_CHANNELS, PublicFeed
from shared.simulator.pushes.sockets import Arg, Hub, Socket, Topic


class CandleStreams:
    """Begins candle subscriptions and keeps them known."""

    def __init__(self, candles: Candles, feed: PublicFeed, hub: Hub, clock: Clock) -> None:
        self._candles, self._feed, self._hub, self._clock = candles, feed, hub, clock
        self._tasks: set[asyncio.Task[None]] = set()
        self._waiting: dict[asyncio.Task[None], tuple[Socket, Topic, Arg]] = {}
        self._learning: set[str] = set()
        self._minute = 0

    def begin(self, socket: Socket, topic: Topic, arg: Arg) -> None:
        """Let an acked subscription stand once its snapshot is known."""
        granularity = _granularity(topic)
        if self._candles.is_known(granularity, self._told_ns(), self._candles.snapshot_size(granularity)):
            self._stand(socket, topic, arg)
            return
        socket.topics[topic] = arg  # it counts, is acked again if repeated, and may be unsubscribed meanwhile
        task = self._start(self._begin_later(socket, topic, arg))
        self._waiting[task] = socket, topic, arg
        task.add_done_callback(lambda done: self._waiting.pop(done, None))

    def keep(self) -> None:
        """Stop computing for whom it is no use any more; have what is listened to known, once a minute."""
        for task, (socket, topic, arg) in self._waiting.items():
            if not self._is_awaited(socket, topic, arg):
                task.cancel()
        minute = self._told_ns() // NS // 60
        if minute == self._minute:
            return
        self._minute = minute
        for channel, symbols in self._hub.wanted.items():
            if symbols and channel in CANDLE_CHANNELS:
                granularity = channel.removeprefix("candle")
                if granularity not in self._learning and not self._candles.is_known(granularity, self._told_ns(), 1):
                    self._learning.add(granularity)
                    self._start(self._learn(granularity))

    def stop(self) -> None:
        self._candles.stop()
        for task in self._tasks:
            task.cancel()

    def _start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _begin_later(self, socket: Socket, topic: Topic, arg: Arg) -> None:
        granularity = _granularity(topic)
        needed = self._candles.snapshot_size(granularity)
        while not self._candles.is_known(granularity, self._told_ns(), needed):
            await self._candles.learn(granularity, self._told_ns(), needed)
        if self._is_awaited(socket, topic, arg):
            self._stand(socket, topic, arg)

    def _is_awaited(self, socket: Socket, topic: Topic, arg: Arg) -> bool:
        # Unsubscribed, subscribed anew or gone meanwhile: somebody else's matter, or nobody's.
        return socket.topics.get(topic) is arg and socket in self._hub.sockets

    async def _learn(self, granularity: str) -> None:
        try:
            await self._candles.learn(granularity, self._told_ns(), 1)
        finally:
            self._learning.discard(granularity)

    def _stand(self, socket: Socket, topic: Topic, arg: Arg) -> None:
        self._hub.listen(socket, topic, arg, is_public=True)
        text = self._feed.snapshot(self._told_ns(), *topic)
        if text is not None:
            socket.send(text)

    def _told_ns(self) -> int:
        return self._clock.now_ns() if self._hub.told_ns is None else self._hub.told_ns


def _granularity(topic: Topic) -> str:
    return topic[0].removeprefix("candle")
