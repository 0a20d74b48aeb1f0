"""What a relay remembers of a topic, so that a later subscriber gets the snapshot that the exchange would send.

Texts are kept as they came and looked into as late as possible: only `books` has to be followed update by update.
Bitget v2, WebSocket -> Public; `seq` chains and legacy `checksum` as observed from 2024 to 2026.
"""

from __future__ import annotations

from collections import deque
from typing import Protocol

import msgspec

TRADES_MAX = 50
CANDLES_MAX = 500
LEVELS_MAX = 500
"""Rows of a snapshot, the most that Bitget sends."""


class Kept(Protocol):
    """The state of one topic."""

    def take(self, text: str, *, is_update: bool) -> bool:
        """Take a push; False: something is missing before it, and the topic has to be subscribed anew.

        Raises:
            msgspec.MsgspecError, ValueError: it is not what the channel's pushes are.
        """

    def snapshot(self) -> str | None:
        """Return the state as a snapshot push; None: nothing is known."""


def keeper(channel: str) -> Kept:
    """Return an empty state for a channel."""
    if channel == "books":
        return _Book()
    if channel == "trade":
        return _Trades()
    return _Candles() if channel.startswith("candle") else _Last()


class _Rows(msgspec.Struct):
    arg: msgspec.Raw
    data: list[msgspec.Raw]
    ts: msgspec.Raw = msgspec.Raw(b"0")


class _BookRow(msgspec.Struct):
    asks: list[tuple[str, str]]
    bids: list[tuple[str, str]]
    seq: int
    pseq: int = 0
    ts: str = ""
    checksum: int | None = None  # sent until May 2026


class _BookPush(msgspec.Struct):
    arg: msgspec.Raw
    data: list[_BookRow]
    ts: msgspec.Raw = msgspec.Raw(b"0")


class _Last:
    """Channels whose every push is the whole state."""

    def __init__(self) -> None:
        self._text: str | None = None

    def take(self, text: str, *, is_update: bool) -> bool:
        self._text = text
        return True

    def snapshot(self) -> str | None:
        return self._text


class _Trades:
    def __init__(self) -> None:
        self._texts: deque[str] = deque(maxlen=TRADES_MAX)
        self._is_snapshot = False  # what came last

    def take(self, text: str, *, is_update: bool) -> bool:
        if not is_update:
            self._texts.clear()
        self._is_snapshot = not is_update
        self._texts.append(text)
        return True

    def snapshot(self) -> str | None:
        if not self._texts:
            return None
        if len(self._texts) == 1 and self._is_snapshot:
            return self._texts[0]
        pushes = [msgspec.json.decode(text, type=_Rows) for text in reversed(self._texts)]
        rows = [row for push in pushes for row in push.data]
        return _text(pushes[0], rows[:TRADES_MAX])


class _Candles:
    def __init__(self) -> None:
        self._push: _Rows | None = None
        self._whole: str | None = None  # the snapshot as it came, while nothing has changed since
        self._rows: dict[int, msgspec.Raw] = {}  # by opening time

    def take(self, text: str, *, is_update: bool) -> bool:
        push = msgspec.json.decode(text, type=_Rows)
        if not is_update:
            self._rows.clear()
        for row in push.data:
            self._rows[int(msgspec.json.decode(row, type=list[str])[0])] = row
        for opened in sorted(self._rows)[:-CANDLES_MAX]:
            del self._rows[opened]
        self._push, self._whole = push, None if is_update else text
        return True

    def snapshot(self) -> str | None:
        if self._whole is not None:
            return self._whole
        return None if self._push is None else _text(self._push, [self._rows[at] for at in sorted(self._rows)])


class _Book:
    """The `books` channel: a snapshot, then changes, chained by `pseq` = the `seq` before."""

    def __init__(self) -> None:
        self._last: _BookPush | None = None
        self._whole: str | None = None  # the snapshot as it came, while nothing has changed since
        self._asks: dict[float, tuple[str, str]] = {}
        self._bids: dict[float, tuple[str, str]] = {}

    def take(self, text: str, *, is_update: bool) -> bool:
        push = msgspec.json.decode(text, type=_BookPush)
        for row in push.data:
            if is_update and (self._last is None or row.pseq != self._last.data[-1].seq):
                return False
            if not is_update:
                self._asks.clear()
                self._bids.clear()
            for side, changes in ((self._asks, row.asks), (self._bids, row.bids)):
                for price, size in changes:
                    if float(size):
                        side[float(price)] = price, size
                    else:
                        side.pop(float(price), None)
            self._last = push
        self._whole = None if is_update else text
        return True

    def snapshot(self) -> str | None:
        push = self._last
        if push is None or self._whole is not None:
            return self._whole
        row = push.data[-1]
        asks = [self._asks[price] for price in sorted(self._asks)[:LEVELS_MAX]]
        bids = [self._bids[price] for price in sorted(self._bids, reverse=True)[:LEVELS_MAX]]
        body = msgspec.json.encode({"asks": asks, "bids": bids, "ts": row.ts}).decode()
        if row.checksum is not None:
            body = f'{body[:-1]},"checksum":0}}'  # as in the exchange's own snapshots
        return _frame(push.arg, f'{body[:-1]},"seq":{row.seq},"pseq":0}}', push.ts)


def _text(push: _Rows, rows: list[msgspec.Raw]) -> str:
    return _frame(push.arg, ",".join(bytes(row).decode() for row in rows), push.ts)


def _frame(arg: msgspec.Raw, rows: str, ts: msgspec.Raw) -> str:
    return f'{{"action":"snapshot","arg":{bytes(arg).decode()},"data":[{rows}],"ts":{bytes(ts).decode()}}}'
