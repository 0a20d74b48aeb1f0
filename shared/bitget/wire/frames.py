"""WebSocket frames, decoded: pushes of every channel, acks, errors and pongs."""

from __future__ import annotations

import enum
from typing import Any

import msgspec

from shared.bitget.wire.decoding import ChannelDecoder
from shared.bitget.wire.rows import (
    PRODUCT_TYPE,
    AccountPushRow,
    BookRow,
    DepthRow,
    FillRow,
    OrderRow,
    PositionRow,
    TickerRow,
    TradeRow,
)
from shared.errors import ProtocolBroken


class Pong(enum.Enum):
    PONG = "pong"


class Ack(msgspec.Struct, frozen=True):
    """The server did what one `arg` of our request asked."""

    event: str  # "subscribe", "unsubscribe" or "login"
    channel: str
    symbol: str


class ErrorFrame(msgspec.Struct, frozen=True):
    """The server did not do what we asked. `code` is an int on the wire and text here, as over REST."""

    code: str
    message: str
    op: str
    channel: str
    symbol: str


class BookPush(msgspec.Struct, frozen=True, gc=False):
    channel: str
    symbol: str
    is_snapshot: bool
    rows: list[BookRow]
    unknown: tuple[str, ...]


class DepthPush(msgspec.Struct, frozen=True, gc=False):
    channel: str
    symbol: str
    is_snapshot: bool
    rows: list[DepthRow]
    unknown: tuple[str, ...]


class TradePush(msgspec.Struct, frozen=True, gc=False):
    channel: str
    symbol: str
    is_snapshot: bool  # the subscribe snapshot repeats recent trades
    rows: list[TradeRow]  # newest first, as sent
    unknown: tuple[str, ...]


class TickerPush(msgspec.Struct, frozen=True, gc=False):
    channel: str
    symbol: str
    is_snapshot: bool
    rows: list[TickerRow]
    unknown: tuple[str, ...]


class OrderPush(msgspec.Struct, frozen=True):
    channel: str
    symbol: str
    is_snapshot: bool
    rows: list[OrderRow]
    unknown: tuple[str, ...]


class FillPush(msgspec.Struct, frozen=True):
    channel: str
    symbol: str
    is_snapshot: bool
    rows: list[FillRow]
    unknown: tuple[str, ...]


class PositionPush(msgspec.Struct, frozen=True):
    channel: str
    symbol: str
    is_snapshot: bool
    rows: list[PositionRow]
    unknown: tuple[str, ...]


class AccountPush(msgspec.Struct, frozen=True):
    channel: str
    symbol: str
    is_snapshot: bool
    rows: list[AccountPushRow]
    unknown: tuple[str, ...]


Push = BookPush | DepthPush | TradePush | TickerPush | OrderPush | FillPush | PositionPush | AccountPush
Frame = Push | Ack | ErrorFrame | Pong


class _Arg(msgspec.Struct, frozen=True, gc=False, rename="camel", forbid_unknown_fields=True):
    inst_type: str = ""
    channel: str = ""
    inst_id: str = ""
    coin: str = ""


class _Head(msgspec.Struct, frozen=True, gc=False, forbid_unknown_fields=True):
    arg: _Arg | None = None
    data: msgspec.Raw = msgspec.Raw(b"")
    ts: int = 0
    action: str = ""
    event: str = ""
    code: int | str | None = None
    msg: str | None = None
    op: str | None = None


_ARG_FIELDS = frozenset(_Arg.__struct_encode_fields__)
_HEAD_FIELDS = frozenset(_Head.__struct_encode_fields__)
_HEAD = msgspec.json.Decoder(_Head, strict=False)

_CHANNELS: dict[str, tuple[ChannelDecoder[Any], Any]] = {
    name: (ChannelDecoder(name, kind), push)
    for name, kind, push in (
        ("books15", BookRow, BookPush),
        ("books5", BookRow, BookPush),
        ("books1", BookRow, BookPush),
        ("books", DepthRow, DepthPush),
        ("trade", TradeRow, TradePush),
        ("ticker", TickerRow, TickerPush),
        ("orders", OrderRow, OrderPush),
        ("fill", FillRow, FillPush),
        ("positions", PositionRow, PositionPush),
        ("account", AccountPushRow, AccountPush),
    )
}


class _Heads(msgspec.Struct, frozen=True):
    head: _Head
    unknown: tuple[str, ...]


def _decode_head_slowly(raw: str | bytes) -> _Heads:
    try:
        whole = msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeError) as error:
        raise ProtocolBroken(f"expected a JSON frame, found {_clip(raw)}: {error}") from None
    if not isinstance(whole, dict):
        raise ProtocolBroken(f"expected a JSON object as frame, found {_clip(raw)}")
    unknown = {name for name in whole if name not in _HEAD_FIELDS}
    kept = {
        name: value for name, value in whole.items() if name in _HEAD_FIELDS and value is not None and name != "data"
    }
    if isinstance(kept.get("arg"), dict):
        unknown.update("arg." + name for name in kept["arg"] if name not in _ARG_FIELDS)
        kept["arg"] = {name: value for name, value in kept["arg"].items() if name in _ARG_FIELDS and value is not None}
    try:
        head = msgspec.convert(kept, _Head, strict=False)
    except msgspec.ValidationError as error:
        raise ProtocolBroken(f"expected a frame of Bitget v2, found {_clip(raw)}: {error}") from None
    if "data" in whole:
        head = msgspec.structs.replace(head, data=msgspec.Raw(msgspec.json.encode(whole["data"])))
    return _Heads(head, tuple(sorted(unknown)))


def decode_push(raw: str | bytes) -> Frame:
    """Return what one WebSocket message says.

    Raises:
        ProtocolBroken: it is not a frame of Bitget v2, of a channel we know, or a row lacks what it must have.
    """
    if raw == "pong" or raw == b"pong":
        return Pong.PONG
    unknown: tuple[str, ...] = ()
    try:
        head = _HEAD.decode(raw)
    except (msgspec.DecodeError, UnicodeError):
        heads = _decode_head_slowly(raw)
        head, unknown = heads.head, heads.unknown
    arg = head.arg
    if head.action:
        if arg is None or not head.data:
            raise ProtocolBroken(f"expected arg and data in a push, found {_clip(raw)}")
        entry = _CHANNELS.get(arg.channel)
        if entry is None or arg.inst_type != PRODUCT_TYPE:
            raise ProtocolBroken(f"expected a channel of {PRODUCT_TYPE} that was asked for, found {_clip(raw)}")
        rows, unknown_in_rows = entry[0].decode(head.data)
        return entry[1](arg.channel, arg.inst_id, head.action == "snapshot", rows, unknown + unknown_in_rows)  # type: ignore[no-any-return]
    channel, symbol = (arg.channel, arg.inst_id or arg.coin) if arg is not None else ("", "")  # account has a coin
    if head.event == "error" or (head.event == "login" and str(head.code or 0) != "0"):
        return ErrorFrame(str(head.code), head.msg or "", head.op or head.event, channel, symbol)
    if head.event in ("subscribe", "unsubscribe", "login"):
        return Ack(head.event, channel, symbol)
    raise ProtocolBroken(f"expected a push, an ack or an error, found {_clip(raw)}")


def _clip(raw: str | bytes, limit: int = 200) -> str:
    text = raw.decode("utf-8", "replace") if isinstance(raw, bytes) else raw
    return repr(text if len(text) <= limit else text[:limit] + "…")
