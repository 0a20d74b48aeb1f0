"""WebSocket text frames as Bitget sends them: unmasked, final, uncompressed (RFC 6455 §5.2)."""

from __future__ import annotations

import json
from typing import Any


def frame(stem: bytes, tail: bytes = b"") -> bytes:
    """Return one text frame whose payload is the stem and the tail."""
    n = len(stem) + len(tail)
    if n < 126:
        return b"".join((b"\x81", n.to_bytes(1, "big"), stem, tail))
    if n < 65536:
        return b"".join((b"\x81\x7e", n.to_bytes(2, "big"), stem, tail))
    return b"".join((b"\x81\x7f", n.to_bytes(8, "big"), stem, tail))


def text_frame(text: str) -> bytes:
    """Return one text frame; a lone surrogate, which no UTF-8 can carry, becomes a question mark."""
    return frame(text.encode("utf-8", "replace"))


def payload(whole: bytes) -> str:
    """Return the text of one frame that `frame` made."""
    return whole[2 if whole[1] < 126 else 4 if whole[1] == 126 else 10 :].decode()


def compact(value: Any) -> str:
    """Return JSON without spaces, names outside ASCII as they are."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
