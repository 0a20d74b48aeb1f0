"""Golden payloads by name, and strategies that make variations of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

_FOLDER = Path(__file__).resolve().parents[2] / "golden"


def _load(name: str) -> dict[str, Any]:
    return json.loads((_FOLDER / name).read_text("utf-8"))  # type: ignore[no-any-return]


def compact(payload: Any) -> str:
    """Return JSON as Bitget sends it: no spaces, UTF-8 as it is."""
    return json.dumps(payload, ensure_ascii=False, separators=(",", ":"))


FRAMES: dict[str, Any] = _load("bitget_frames.json")
REST: dict[str, Any] = _load("bitget_rest.json")
ERRORS: dict[str, Any] = _load("bitget_errors.json")
SIGNATURES: dict[str, Any] = _load("bitget_signatures.json")

PUSHES = sorted(name for name, frame in FRAMES.items() if frame.get("data"))

json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**40), 2**40) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=5,
)


def frame(name: str, **changes: Any) -> str:
    """Return a golden frame as text, with fields of its first row replaced."""
    payload = json.loads(json.dumps(FRAMES[name]))
    if changes:
        payload["data"][0] |= changes
    return compact(payload)


def envelope(data: Any) -> dict[str, Any]:
    return {"code": "00000", "msg": "success", "requestTime": 1760000000000, "data": data}


def book(
    symbol: str, bids: list[tuple[float, float]], asks: list[tuple[float, float]], ts: int = 1, seq: int = 1
) -> str:
    """Return a books15 frame with numbers as strings."""
    rows = {side: [[repr(p), repr(s)] for p, s in levels] for side, levels in (("asks", asks), ("bids", bids))}
    return compact(
        {
            "action": "snapshot",
            "arg": {"instType": "USDT-FUTURES", "channel": "books15", "instId": symbol},
            "data": [rows | {"ts": str(ts), "seq": seq, "pseq": 0}],
            "ts": ts + 2,
        }
    )


def trades(symbol: str, rows: list[tuple[int, float, float, str]], action: str = "update", ts: int = 1) -> str:
    """Return a trade frame; rows are (trade id, price, size, side), newest first as Bitget sends them."""
    data = [
        {"ts": str(ts), "price": repr(price), "size": repr(size), "side": side, "tradeId": str(trade_id)}
        for trade_id, price, size, side in rows
    ]
    arg = {"instType": "USDT-FUTURES", "channel": "trade", "instId": symbol}
    return compact({"action": action, "arg": arg, "data": data, "ts": ts})


def ack(channel: str, symbol: str, event: str = "subscribe") -> str:
    name = "coin" if channel == "account" else "instId"
    return compact({"event": event, "arg": {"instType": "USDT-FUTURES", "channel": channel, name: symbol}})


def refusal(channel: str, symbol: str, code: int = 30001) -> str:
    arg = {"instType": "USDT-FUTURES", "channel": channel, "instId": symbol}
    return compact({"event": "error", "arg": arg, "code": code, "msg": "doesn't exist", "op": "subscribe"})
