"""Lists of rows, decoded: strict and typed first, then the slower looks at why that refused."""

from __future__ import annotations

import math
from typing import Any, Generic, TypeVar

import msgspec

from shared.bitget.wire.rows import BookRow, DepthRow, Row, TickerRow, TradeRow
from shared.errors import ProtocolBroken

R = TypeVar("R", bound=Row)

_NOT_FINITE = frozenset({"nan", "snan", "inf", "infinity"})  # float() and Decimal() read these words as numbers


def _known(kind: type[Row]) -> frozenset[str]:
    return frozenset(kind.__struct_encode_fields__) | frozenset(kind.IGNORED.split())


def _is_blank(value: Any) -> bool:
    return value is None or value == "" or (isinstance(value, str) and value.lstrip("+-").lower() in _NOT_FINITE)


def _sift(payload: Any, kind: type[Row], unknown: set[str], inside: str = "") -> Any:
    """Return the payload with only the fields of `kind` and no blanks; add the names nobody knows to `unknown`."""
    if isinstance(payload, list):
        return [_sift(item, kind, unknown, inside) for item in payload]
    if not isinstance(payload, dict):
        if _is_blank(payload):
            raise ProtocolBroken(f"expected a value in a list, found {payload!r}: Bitget's payload has changed")
        return payload
    unknown.update(inside + name for name in payload.keys() - _known(kind))
    fields = kind.__struct_encode_fields__
    return {
        name: _sift(value, kind.NESTED.get(name, Row), unknown, name + ".") if isinstance(value, list) else value
        for name, value in payload.items()
        if name in fields and not _is_blank(value)
    }


def parse_rows(payload: Any, kind: type[R], where: str) -> tuple[list[R], tuple[str, ...]]:
    """Return the rows of a decoded JSON list, and the fields in them that this code does not know, sorted.

    Raises:
        ProtocolBroken: a required field is missing, blank, or not what the protocol says.
    """
    unknown: set[str] = set()
    sifted = _sift([] if payload is None else payload, kind, unknown)
    try:
        rows: list[R] = msgspec.convert(sifted, list[kind], strict=False)  # type: ignore[valid-type]
    except msgspec.ValidationError as error:
        raise ProtocolBroken(f"{where}: {error}: Bitget's payload has changed, or is not from Bitget") from None
    return rows, tuple(sorted(unknown))


def parse_each(payload: Any, kind: type[R], where: str) -> tuple[list[R], tuple[str, ...], list[tuple[Any, str]]]:
    """Return what `parse_rows` does, and the rows that cannot be read with the reason: the others are worth having.

    Raises:
        ProtocolBroken: there is no list, or none of its rows can be read.
    """
    if not isinstance(payload, list):
        raise ProtocolBroken(f"{where}: expected a list, found {type(payload).__name__}")
    try:
        return *parse_rows(payload, kind, where), []
    except ProtocolBroken as error:
        rows: list[R] = []
        unknown: set[str] = set()
        broken: list[tuple[Any, str]] = []
        for item in payload:
            try:
                found, names = parse_rows([item], kind, where)
            except ProtocolBroken as why:
                broken.append((item, str(why)))
            else:
                rows += found
                unknown.update(names)
        if not rows:
            raise ProtocolBroken(str(error)) from None
        return rows, tuple(sorted(unknown)), broken


class ChannelDecoder(Generic[R]):
    """Decoder of one channel's `data`: typed and strict first, then the slower looks at why that refused."""

    def __init__(self, name: str, kind: type[R]) -> None:
        self.name, self.kind = name, kind
        self._known = _known(kind)
        # Money goes the careful way: a typed decoder reads a blank text or Decimal("NaN") where none may be.
        self._is_hot = kind in (BookRow, DepthRow, TradeRow, TickerRow)
        # Books and trades hold digits and keys without an n: an n is "nan", "inf" or an unknown field.
        self._n_is_odd = kind in (BookRow, DepthRow, TradeRow)
        # float() reads a blank as an error and "nan" as what we mean; a recording knows no mark, index or funding.
        self._blank_is_nan = kind is TickerRow
        ignored = [(field, Any, None) for field in kind.IGNORED.split()]
        strict = msgspec.defstruct(
            "Strict" + kind.__name__,
            ignored,
            bases=(kind,),
            forbid_unknown_fields=True,
            frozen=True,
            kw_only=True,
            gc=False,
        )
        self._strict = msgspec.json.Decoder(list[strict], strict=False)  # type: ignore[valid-type]
        self._lenient = msgspec.json.Decoder(list[kind], strict=False)  # type: ignore[valid-type]

    def decode(self, data: msgspec.Raw) -> tuple[list[R], tuple[str, ...]]:
        if not self._is_hot:
            return self._explain(data)
        text = bytes(data)
        if self._blank_is_nan and b'""' in text:
            text = text.replace(b'""', b'"nan"')
        if not (self._n_is_odd and (b"n" in text or b"N" in text)):
            try:
                return self._strict.decode(text), ()
            except (msgspec.DecodeError, UnicodeError):
                pass  # an unknown field, a blank one, or a broken row: the next two tell which
        try:
            rows = self._lenient.decode(text)
            names = {name for row in _NAMES.decode(text) for name in row} - self._known
        except (msgspec.DecodeError, UnicodeError):
            return self._explain(data)
        return (rows, tuple(sorted(names))) if _are_finite(rows) else self._explain(data)

    def _explain(self, data: msgspec.Raw) -> tuple[list[R], tuple[str, ...]]:
        try:
            payload = msgspec.json.decode(data)
        except (msgspec.DecodeError, UnicodeError) as error:
            raise ProtocolBroken(f"channel {self.name}: {error}: the frame is damaged") from None
        return parse_rows(payload, self.kind, f"channel {self.name}")


_NAMES = msgspec.json.Decoder(list[dict[str, msgspec.Raw]])


def _are_finite(rows: list[Any]) -> bool:
    for row in rows:
        if isinstance(row, BookRow):
            if not all(math.isfinite(value) for level in (*row.asks, *row.bids) for value in level):
                return False
        elif isinstance(row, TradeRow) and not (math.isfinite(row.price) and math.isfinite(row.size)):
            return False
    return True
