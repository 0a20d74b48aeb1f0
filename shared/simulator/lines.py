"""One connection's outgoing frames on their way to the socket: where pushes are lost, delayed, torn and made up.

A `Line` takes WebSocket frames as the server made them (unmasked, RFC 6455 §5.2; several may be joined) and gives those
that are due, spoilt by the push rules of the conditions. It reads channel and symbol from the text, so the server's
fast path carries no labels; while `is_on` is false, no frame passes here.

Order of things: a frame meets the rules, first to last, then waits in the queue until it is due, then passes the
bandwidth limit. Whatever waits is bounded: a connection that is more than `HELD_BYTES_MAX` behind ends.

To extend: a kind of fault is a name in `conditions.PushFault` and a case in `_alter` (one frame becomes another) or
`_meet` (anything else).
"""

from __future__ import annotations

import heapq
import re
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, Literal

from shared.simulator.conditions import CONTROL_FRAMES, PushFault, matches

if TYPE_CHECKING:
    from shared.simulator.faults import Draws, Faults

MS = 1_000_000
NS = 1_000_000_000
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

_TEXT, _BINARY = 0x81, 0x82
_ARG = re.compile(r'"channel":"([^"]*)"(?:,"(?:instId|coin)":"([^"]*)")?')
_ROW_SYMBOL = re.compile(r'"instId":"([^"]*)"')
_PSEQ = re.compile(r'"pseq":([1-9][0-9]*)')
_NUMBER = re.compile(r'"[A-Za-z0-9]+":"(-?[0-9.]+)"')

_ADDING = ("lose", "duplicate", "reorder", "late", "delay", "cut", "error")
"""Kinds that leave the text of a frame as it is."""

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
        self._n = 0
        self._not_before_ns = 0  # first in, first out: what a delayed frame makes the following ones wait for
        self._free_ns = 0  # when the bandwidth limit lets the next frame through
        self._held = 0  # bytes that wait
        self._rules: list[PushFault] = []
        self._disconnects: list[Any] | None = None  # the list that `_ends` was drawn for
        self._ends: list[tuple[int, str]] = []  # (when, how)
        self.refresh()

    def refresh(self) -> None:
        """Look at the conditions anew."""
        told = self._faults.conditions
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
        for joined in frames:
            for frame in split(joined):
                self._meet(frame, now_ns)
        out = self._release(now_ns)
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
        text = payload_of(frame).decode() if frame[0] == _TEXT else ""
        channel, symbol = label(text)
        due_ns, k_behind, copies = max(now_ns, self._not_before_ns), 0, 1
        for rule in self._rules:
            if not _is_named(rule, channel, symbol) or rule.count == 0 or not self._draws.strikes(rule.p):
                continue
            what = rule.what
            altered = self._alter(rule, text, frame)
            if altered is frame:
                continue  # there is nothing in it that this rule could change
            self._faults.strike(f"{what} {channel}")
            if rule.count is not None:
                rule.count -= 1
            if altered is not None:
                frame = altered
                text = "" if what in ("binary", "not_utf8") else payload_of(altered).decode()
            if what == "lose":
                copies = 0
                break
            if what == "duplicate":
                copies += 1
            elif what == "error":
                error = f'{{"event":"error","code":{rule.code},"msg":"{rule.msg}"}}'
                self._join(text_frame(error), due_ns)
            elif what == "reorder":
                k_behind = 1 + self._draws.below(rule.window)
            elif what == "late":
                assert rule.delay is not None
                due_ns += int(self._draws.ms(rule.delay) * MS)
            elif what == "delay":
                assert rule.delay is not None
                due_ns = self._not_before_ns = due_ns + int(self._draws.ms(rule.delay) * MS)
            elif what == "cut":
                self._join(frame[: max(1, len(frame) // 2)], due_ns, is_last=True)
                copies = 0
                break
        for _ in range(copies):
            if k_behind:
                self._behind.append(_Overtaken(frame, k_behind, now_ns + REORDER_NS_MAX))
                self._held += len(frame)
            else:
                self._join(frame, due_ns)
        if not k_behind:
            self._overtake(due_ns)
        if channel and channel not in CONTROL_FRAMES and self._faults.counts_pushes:
            self._faults.count("push", channel)

    def _alter(self, rule: PushFault, text: str, frame: bytes) -> bytes | None:
        """Return another frame in place of this one, this one where it cannot be changed, None where it need not."""
        what = rule.what
        if what in _ADDING:
            return None
        if not text:
            return frame
        if what == "binary":
            return _frame(_BINARY, text.encode())
        if what == "not_utf8":
            return _frame(_TEXT, text.encode()[:64] + b"\xff\xfe")
        if what == "not_json":
            return text_frame(HTML)
        if what == "oversize":
            return text_frame(text.ljust(rule.size_bytes))
        if what == "tear":
            return text_frame(text[: 1 + self._draws.below(max(1, len(text) - 1))])
        if what == "gap":
            changed = _PSEQ.sub(lambda found: f'"pseq":{int(found[1]) + 1}', text, count=1)
        elif what == "wrong_symbol":
            changed = _ROW_SYMBOL.sub(f'"instId":"{STRANGER}"', text, count=1)
        elif what == "unknown_channel":
            changed = re.sub(r'"channel":"[^"]*"', f'"channel":"{NEW_CHANNEL}"', text, count=1)
        elif what == "unknown_field":
            changed = text.replace('"data":[{', '"data":[{"newField":"1",', 1)
        else:
            assert what == "blank_field", what
            found = list(_NUMBER.finditer(text))
            if not found:
                return frame
            chosen = found[self._draws.below(len(found))]
            changed = text[: chosen.start(1)] + text[chosen.end(1) :]
        return frame if changed == text else text_frame(changed)

    def _join(self, frame: bytes, due_ns: int, *, is_last: bool = False) -> None:
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

    def _release(self, now_ns: int) -> list[bytes]:
        for waiting in list(self._behind):
            if waiting.until_ns <= now_ns:
                self._follow(waiting, now_ns)
        out: list[bytes] = []
        while self._queue and self._queue[0][0] <= now_ns:
            if self._slow:
                if self._free_ns > now_ns:
                    break
                self._free_ns = max(self._free_ns, self._queue[0][0]) + len(self._queue[0][2]) * NS // self._slow
            _, _, frame, is_last = heapq.heappop(self._queue)
            self._held -= len(frame)
            out.append(frame)
            if is_last:
                self.ending = "drop"
                break
        return out

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


class _Overtaken:
    """A frame that waits for `k` later ones to pass."""

    def __init__(self, frame: bytes, k: int, until_ns: int) -> None:
        self.frame, self.k, self.until_ns = frame, k, until_ns


# --------------------------------------------------------------------------------------------------- frames


def split(joined: bytes) -> Iterator[bytes]:
    """Return the WebSocket frames that were joined, as they are."""
    at = 0
    while at < len(joined):
        begin, size = _payload_at(joined, at)
        yield joined[at : begin + size] if at or begin + size < len(joined) else joined
        at = begin + size


def payload_of(frame: bytes) -> bytes:
    return frame[_payload_at(frame, 0)[0] :]


def _payload_at(data: bytes, at: int) -> tuple[int, int]:
    """Return where the payload of the frame at `at` begins, and its size."""
    size = data[at + 1]
    if size < 126:
        return at + 2, size
    n = 2 if size == 126 else 8
    return at + 2 + n, int.from_bytes(data[at + 2 : at + 2 + n], "big")


def text_frame(text: str) -> bytes:
    return _frame(_TEXT, text.encode())


def _frame(first: int, payload: bytes) -> bytes:
    n = len(payload)
    if n < 126:
        return bytes((first, n)) + payload
    if n < 65536:
        return bytes((first, 126)) + n.to_bytes(2, "big") + payload
    return bytes((first, 127)) + n.to_bytes(8, "big") + payload


def label(text: str) -> tuple[str, str]:
    """Return channel and symbol of a push, or what rules call another frame and ""; two blanks for what is neither."""
    if text.startswith('{"action"'):
        found = _ARG.search(text)
        if found is None:
            return "", ""
        symbol = found[2] or ""
        if symbol == "default":  # a private push: its rows say whose they are
            row = _ROW_SYMBOL.search(text, found.end())
            symbol = row[1] if row else symbol
        return found[1], symbol
    if text == "pong":
        return "pong", ""
    for event, name in (("subscribe", "ack"), ("unsubscribe", "ack"), ("login", "login"), ("error", "error")):
        if text.startswith(f'{{"event":"{event}"'):
            return name, ""
    return "", ""


def _is_named(rule: PushFault, channel: str, symbol: str) -> bool:
    if not channel:
        return False
    if channel in CONTROL_FRAMES:
        return rule.channel == channel
    return matches(rule.channel, channel) and matches(rule.symbol, symbol)
