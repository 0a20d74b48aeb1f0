"""One connection's outgoing frames on their way to the socket: where pushes are lost, delayed, torn and made up.

A `Line` takes WebSocket frames as the server made them (unmasked, RFC 6455 §5.2; several may be joined) and gives those
that are due, spoilt by the push rules of the conditions. It reads channel and symbol from the text, so the server's
fast path carries no labels; while `is_on` is false, no frame passes here.

Order of things: a frame meets the rules, first to last, then waits in the queue until it is due, then passes the
bandwidth limit. Whatever waits is bounded: a connection that is more than `HELD_BYTES_MAX` behind ends.

To extend: a kind of fault is a name in `conditions.PushFault` and a case in `_alter` (one frame becomes another) or
`_strike` (anything else).
"""

from __future__ import annotations

import heapq
import re
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, Literal

from shared.simulator.clock import MS
from shared.simulator.faults.conditions import CONTROL_FRAMES, PushFault, matches
from shared.simulator.pushes.frames import compact, payload, text_frame
from shared.simulator.pushes.frames import frame as framed
from shared.types import NS

if TYPE_CHECKING:
    from shared.simulator.faults.faults import Draws, Faults

HELD_BYTES_MAX = 64_000_000
REORDER_NS_MAX = NS
"""A frame that waits for later ones to overtake it waits no longer: after the last frame of all, none comes."""

GOING_AWAY = b"\x88\x02\x03\xe9"  # a close frame, status 1001 (RFC 6455 §7.4.1)
HTML = (
    "<html>\r\n<head><title>502 Bad Gateway</title></head>\r\n"
    "<body>\r\n<center><h1>502 Bad Gateway</h1></center>\r\n</body>\r\n</html>\r\n"
)
STRANGER = "NOPEUSDT"
NEW_CHANNEL = "books50"

LABELS_MAX = 10_000
"""Channels and symbols for which a connection remembers which rules mean them."""

_BINARY = b"\x82"
_ARG = re.compile(rb'"channel":"([^"]*)"(?:,"(?:instId|coin)":"([^"]*)")?')
_ROW_SYMBOL = re.compile(rb'"instId":"([^"]*)"')
_SYMBOL = re.compile(r'"instId":"[^"]*"')
_CHANNEL = re.compile(r'"channel":"[^"]*"')
_PSEQ = re.compile(r'"pseq":([1-9][0-9]*)')
_NUMBER = re.compile(r'"[A-Za-z0-9]+":"(-?[0-9.]+)"')
_ANSWERS = {
    b"pong": "pong",
    b'{"event":"subscribe"': "ack",
    b'{"event":"unsubscribe"': "ack",
    b'{"event":"login"': "login",
    b'{"event":"error"': "error",
}

Ending = Literal["", "abort", "drop"]


class Line:
    """What lies between the server and one client.

    Args:
        faults: whose conditions hold; counts the strikes.
        stream: "public" or "private".
        name: of its random numbers.
        draws: those numbers.
    """

    def __init__(self, faults: Faults, stream: str, name: str, draws: Draws) -> None:
        self.stream, self.name = stream, name
        self.is_on = False
        self.ending: Ending = ""  # how the connection ends once what was carried is written; "drop": flushed first
        self._faults, self._draws = faults, draws
        self._queue: list[tuple[int, int, bytes, bool]] = []  # heap of (due, order of arrival, frame, ends with it)
        self._behind: list[_Overtaken] = []
        self._out: list[bytes] = []  # what is written at the end of this `carry`
        self._now_ns = 0
        self._n = 0
        self._not_before_ns = 0  # first in, first out: what a delayed frame makes the following ones wait for
        self._free_ns = 0  # when the bandwidth limit lets the next frame through
        self._held = 0  # bytes that wait
        self._rules: list[PushFault] = []
        self._meant: dict[tuple[str, str], list[PushFault]] = {}  # by channel and symbol
        self._disconnects: list[Any] | None = None  # the list that `_ends` was drawn for
        self._ends: list[tuple[int, str]] = []  # (when, how)
        self.refresh()

    def refresh(self) -> None:
        """Look at the conditions anew."""
        told = self._faults.conditions
        self._meant.clear()
        self._rules = [rule for rule in told.pushes if self._is_meant(rule.stream)]
        self._slow = min((slow.bytes_per_s for slow in told.slow if self._is_meant(slow.stream)), default=0)
        if told.disconnects is not self._disconnects:
            self._ends = []
        self.is_on = bool(
            self._rules
            or self._slow
            or self._queue
            or self._behind
            or any(self._is_meant(one.stream) for one in told.disconnects)
            or self._faults.counts_pushes
        )

    def restart(self, draws: Draws) -> None:
        """Go on with other random numbers."""
        self._draws, self._disconnects = draws, None

    def carry(self, frames: Iterable[bytes], now_ns: int) -> list[bytes]:
        """Take what the server sends and return what is written now; call it without frames, too, while `is_on`.

        Args:
            now_ns: real time that never goes back.
        """
        if self.ending:
            return []
        out = self._out = []
        self._now_ns = now_ns
        for joined in frames:
            for frame in split(joined):
                self._meet(frame, now_ns)
        if self._queue or self._behind:
            self._release(now_ns)
        self._end_in_time(out, now_ns)
        if self._held > HELD_BYTES_MAX:
            self.ending = "abort"
        if not self._rules and not self._queue and not self._behind:
            self.refresh()
        return out

    # --------------------------------------------------------------------------------------------- inside

    def _is_meant(self, stream: str) -> bool:
        return stream in ("all", self.stream)

    def _meet(self, frame: bytes, now_ns: int) -> None:
        """Let one frame meet the rules, and what is left of it join the queue."""
        channel, symbol = label(frame)
        met = _Met(frame, max(now_ns, self._not_before_ns))
        for rule in self._meaning(channel, symbol):
            if not self._draws.strikes(rule.p) or rule.count == 0 or not self._strike(rule, met):
                continue
            self._faults.strike(f"{rule.what} {channel}")
            if rule.count is not None:
                rule.count -= 1
            if met.copies == 0:
                break
        for _ in range(met.copies):
            if met.k_behind:
                self._behind.append(_Overtaken(met.frame, met.k_behind, now_ns + REORDER_NS_MAX))
                self._held += len(met.frame)
            else:
                self._join(met.frame, met.due_ns)
        if self._behind and not met.k_behind:
            self._overtake(met.due_ns)
        if channel and channel not in CONTROL_FRAMES and self._faults.counts_pushes:
            self._faults.count("push", channel)

    def _meaning(self, channel: str, symbol: str) -> list[PushFault]:
        """Return the rules that mean a frame of this channel and symbol, in their order."""
        found = self._meant.get((channel, symbol))
        if found is None:
            found = [rule for rule in self._rules if _is_named(rule, channel, symbol)]
            if len(self._meant) < LABELS_MAX:
                self._meant[channel, symbol] = found
        return found

    def _strike(self, rule: PushFault, met: _Met) -> bool:
        """Do to a frame what the rule says; False where there is nothing in it that the rule could change."""
        what = rule.what
        if what == "lose":
            met.copies = 0
        elif what == "duplicate":
            met.copies += 1
        elif what == "reorder":
            met.k_behind = 1 + self._draws.below(rule.window)
        elif what == "error":
            error = compact({"event": "error", "code": rule.code, "msg": rule.msg})
            self._join(text_frame(error), met.due_ns)
        elif what == "cut":
            self._join(met.frame[: max(1, len(met.frame) // 2)], met.due_ns, is_last=True)
            met.copies = 0
        elif rule.delay is not None:
            met.due_ns += int(self._draws.ms(rule.delay) * MS)
            if what == "delay":
                self._not_before_ns = met.due_ns
        else:
            altered = self._alter(rule, payload(met.frame), met.frame) if met.is_text else None
            if altered is None:
                return False
            met.frame, met.is_text = altered, what not in ("binary", "not_utf8")
        return True

    def _alter(self, rule: PushFault, text: str, frame: bytes) -> bytes | None:
        """Return another frame in place of this one, None where there is nothing to change."""
        what = rule.what
        if what == "binary":
            return _BINARY + frame[1:]
        if what == "not_utf8":
            return framed(text.encode()[:64], b"\xff\xfe")
        if what == "not_json":
            return text_frame(HTML)
        if what == "oversize":
            return text_frame(text.ljust(rule.size_bytes))
        if what == "tear":
            return text_frame(text[: 1 + self._draws.below(max(1, len(text) - 1))])
        if what == "gap":
            changed = _PSEQ.sub(lambda found: f'"pseq":{int(found[1]) + 1}', text, count=1)
        elif what == "wrong_symbol":
            changed = _SYMBOL.sub(f'"instId":"{STRANGER}"', text, count=1)
        elif what == "unknown_channel":
            changed = _CHANNEL.sub(f'"channel":"{NEW_CHANNEL}"', text, count=1)
        elif what == "unknown_field":
            changed = text.replace('"data":[{', '"data":[{"newField":"1",', 1)
        else:
            assert what == "blank_field", what
            found = list(_NUMBER.finditer(text))
            if not found:
                return None
            chosen = found[self._draws.below(len(found))]
            changed = text[: chosen.start(1)] + text[chosen.end(1) :]
        return None if changed == text else text_frame(changed)

    def _join(self, frame: bytes, due_ns: int, *, is_last: bool = False) -> None:
        if due_ns <= self._now_ns and not (self._queue or self._slow or is_last):
            self._out.append(frame)
            return
        self._n += 1
        heapq.heappush(self._queue, (due_ns, self._n, frame, is_last))
        self._held += len(frame)

    def _overtake(self, due_ns: int) -> None:
        """Let a frame pass those that wait behind; the ones that were overtaken often enough follow it."""
        for waiting in list(self._behind):
            waiting.k -= 1
            if waiting.k <= 0:
                self._follow(waiting, due_ns)

    def _follow(self, waiting: _Overtaken, due_ns: int) -> None:
        self._behind.remove(waiting)
        self._held -= len(waiting.frame)
        self._join(waiting.frame, due_ns)

    def _release(self, now_ns: int) -> None:
        for waiting in list(self._behind):
            if waiting.until_ns <= now_ns:
                self._follow(waiting, now_ns)
        while self._queue and self._queue[0][0] <= now_ns:
            if self._slow:
                if self._free_ns > now_ns:
                    break
                self._free_ns = max(self._free_ns, self._queue[0][0]) + len(self._queue[0][2]) * NS // self._slow
            _, _, frame, is_last = heapq.heappop(self._queue)
            self._held -= len(frame)
            self._out.append(frame)
            if is_last:
                self.ending = "drop"
                break

    def _end_in_time(self, out: list[bytes], now_ns: int) -> None:
        told = self._faults.conditions.disconnects
        if told is not self._disconnects:
            self._disconnects = told
            self._ends = [
                (now_ns + int(self._draws.exponential(rule.every_s) * NS), rule.how)
                for rule in told
                if self._is_meant(rule.stream)
            ]
        for when_ns, how in self._ends:
            if when_ns <= now_ns and not self.ending:
                self._faults.strike(f"disconnect {self.stream} {how}")
                self.ending = "abort" if how == "abort" else "drop"
                if how == "close":
                    out.append(GOING_AWAY)


class _Met:
    """A frame on its way through the rules."""

    def __init__(self, frame: bytes, due_ns: int) -> None:
        self.frame, self.due_ns = frame, due_ns
        self.is_text = True
        self.copies = 1
        self.k_behind = 0  # so many later frames overtake it


class _Overtaken:
    """A frame that waits for `k` later ones to pass."""

    def __init__(self, frame: bytes, k: int, until_ns: int) -> None:
        self.frame, self.k, self.until_ns = frame, k, until_ns


# --------------------------------------------------------------------------------------------------- frames


def split(joined: bytes) -> Iterator[bytes]:
    """Return the WebSocket frames that were joined, as they are."""
    begin, size = _payload_at(joined, 0) if joined else (0, 0)
    if begin + size == len(joined) > 0:
        yield joined  # nearly always
        return
    at = 0
    while at < len(joined):
        begin, size = _payload_at(joined, at)
        yield joined[at : begin + size]
        at = begin + size


def _payload_at(data: bytes, at: int) -> tuple[int, int]:
    """Return where the payload of the frame at `at` begins, and its size."""
    size = data[at + 1]
    if size < 126:
        return at + 2, size
    n = 2 if size == 126 else 8
    return at + 2 + n, int.from_bytes(data[at + 2 : at + 2 + n], "big")


def label(frame: bytes) -> tuple[str, str]:
    """Return channel and symbol of a push, or what rules call another frame and ""; two blanks for what is neither."""
    begin, _ = _payload_at(frame, 0)
    if frame.startswith(b'{"action"', begin):
        found = _ARG.search(frame, begin)
        if found is None:
            return "", ""
        symbol = found[2] or b""
        if symbol == b"default":  # a private push: its rows say whose they are
            row = _ROW_SYMBOL.search(frame, found.end())
            symbol = row[1] if row else symbol
        return found[1].decode(), symbol.decode()
    for start, name in _ANSWERS.items():
        if frame.startswith(start, begin):
            return name, ""
    return "", ""


def _is_named(rule: PushFault, channel: str, symbol: str) -> bool:
    if not channel:
        return False
    if channel in CONTROL_FRAMES:
        return rule.channel == channel
    return matches(rule.channel, channel) and matches(rule.symbol, symbol)
