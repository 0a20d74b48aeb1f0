"""What arrived and was not understood."""

from __future__ import annotations

import msgspec

from shared.types import Note


class Kept(msgspec.Struct, frozen=True):
    """A payload that was not understood."""

    recv_ns: int
    where: str  # "books15 push", or the path of a request
    what: str  # "unknown field rpi", or why it cannot be read
    raw: str


class Quarantine:
    """What arrived and was not understood: counted by kind, the first raw payloads of each kind kept for the lake.

    Bounded: `MAX_KINDS` kinds, `MAX_RAW` characters each, `KEPT_MAX` payloads of a kind between two `take`s; kinds
    beyond are counted under "other".
    """

    MAX_KINDS = 200
    MAX_RAW = 65_536
    KEPT_MAX = 10

    def __init__(self) -> None:
        self.counts: dict[tuple[str, str], int] = {}  # (where, what) -> how often
        self.samples: dict[tuple[str, str], str] = {}  # (where, what) -> first raw payload
        self._kept: list[Kept] = []
        self._new: dict[tuple[str, str], int] = {}  # of `counts`, since the last `take`

    def keep(self, where: str, what: str, raw: str | bytes, recv_ns: int = 0) -> Note | None:
        """Count it; return a note the first time, the tenth, the hundredth …, so that a flood stays readable."""
        kind = (where, what)
        if kind not in self.counts and len(self.counts) >= self.MAX_KINDS:
            kind = ("other", "other")
        count = self.counts[kind] = self.counts.get(kind, 0) + 1
        new = self._new[kind] = self._new.get(kind, 0) + 1
        if new <= self.KEPT_MAX:
            text = (raw.decode("utf-8", "replace") if isinstance(raw, bytes) else raw)[: self.MAX_RAW]
            self.samples.setdefault(kind, text)
            self._kept.append(Kept(recv_ns, where, what, text))
        if 10 ** (len(str(count)) - 1) != count:
            return None
        return Note(event="payload.quarantined", fields={"where": kind[0], "what": kind[1], "count": count})

    def take(self) -> tuple[list[Kept], int]:
        """Return what was kept since the last call, and how many more arrived that were not."""
        kept, self._kept = self._kept, []
        more = sum(self._new.values()) - len(kept)
        self._new = {}
        return kept, more
