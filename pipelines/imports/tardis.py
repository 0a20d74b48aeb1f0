"""Tardis.dev's CSV files of `bitget-futures` as receipts.

Source: docs.tardis.dev -> Downloadable CSV files -> Data types; one file a day, symbol and type, sorted by
`local_timestamp`, microseconds since the epoch, UTC. A cell is empty where the exchange said nothing; a `timestamp`
equal to `local_timestamp` means that the exchange sent none.

    trades               id, side (the taker's), price, amount. In a push of several Tardis keeps Bitget's order, which
                         is newest first; here they are put oldest first, by time and id.
    book_snapshot_5/25   a book a row, best level first: the best 15 of 25 are kept
    incremental_book_L2  levels. Until 2026-04-28 Tardis took the channel `books15`, so every message is a whole book
                         (is_snapshot); since then `books`, a snapshot and changes to it. A snapshot replaces the book,
                         amount 0 deletes a level, what comes before the first snapshot is left out.
    quotes, book_ticker  the best level alone
    derivative_ticker    last, mark, index, funding, open interest; a row only where one of them has changed. It has
                         no volume of 24 hours and no quotes: these are NaN.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from pipelines.imports.files import Kind, Part, Rows, Schema, frames, refuse
from shared.types import BOOK_LEVELS, BookTicks, TickerTicks, TickEvent, TradeTicks

EXCHANGE = "bitget-futures"
UNIT_NS = 1000

_I, _F, _S = pl.Int64, pl.Float64, pl.String
_HEAD: dict[str, type[pl.DataType]] = {"exchange": _S, "symbol": _S, "timestamp": _I, "local_timestamp": _I}


def _levels(n: int) -> dict[str, type[pl.DataType]]:
    return {f"{side}[{k}].{what}": _F for k in range(n) for side in ("asks", "bids") for what in ("price", "amount")}


def _kind(name: str, channel: str, number: int, columns: Schema) -> Kind:
    return Kind(name=name, channel=channel, number=number, columns=_HEAD | dict(columns), time="local_timestamp")


_QUOTE: Schema = {"ask_amount": _F, "ask_price": _F, "bid_price": _F, "bid_amount": _F}
KINDS = (
    _kind("trades", "trade", 1, {"id": _I, "side": _S, "price": _F, "amount": _F}),
    _kind("book_snapshot_25", "book", 2, _levels(25)),
    _kind("book_snapshot_5", "book", 3, _levels(5)),
    _kind("incremental_book_L2", "book", 4, {"is_snapshot": pl.Boolean, "side": _S, "price": _F, "amount": _F}),
    _kind("quotes or book_ticker", "book", 5, _QUOTE),
    _kind(
        "derivative_ticker",
        "ticker",
        6,
        {
            "funding_timestamp": _I, "funding_rate": _F, "predicted_funding_rate": _F, "open_interest": _F,
            "last_price": _F, "index_price": _F, "mark_price": _F,
        },
    ),
)  # fmt: skip
"""The richer first: a header with all columns of several kinds is the first of them."""


def recognise(name: str, columns: list[str], row: list[str]) -> tuple[Kind, str, int]:
    """Return what a file holds, by its header and its first row: kind, symbol, first time.

    Raises:
        SettingsError: it is none of the kinds above, or of another exchange.
    """
    kind = next((kind for kind in KINDS if set(kind.columns) <= set(columns)), None)
    if kind is None:
        known = "; ".join(f"{kind.name}: {', '.join(list(kind.columns)[:8])}" for kind in KINDS)
        refuse(name, f"have the header of a kind that is known ({known})", ",".join(columns)[:200], "check the file")
    cells = dict(zip(columns, row, strict=False))
    if cells["exchange"] != EXCHANGE:
        refuse(name, f"be of the exchange {EXCHANGE}", repr(cells["exchange"]), "leave it out: the lake is Bitget's")
    if not cells["local_timestamp"].isdigit() or len(cells["local_timestamp"]) != 16:
        refuse(name, "tell times in µs since the epoch (16 digits)", repr(cells["local_timestamp"]), "check the file")
    return kind, cells["symbol"], int(cells["local_timestamp"])


def receipts(part: Part) -> Iterator[Rows]:
    """Yield the rows of a file in order of receipt, all of symbol 0.

    Raises:
        SettingsError: a row is not what the kind promises.
    """
    book = _Levels(part.name) if part.kind.name == "incremental_book_L2" else None
    for frame in frames(part.path, part.member, lambda names: part.kind.columns, lambda names: part.kind.time):
        for column, wanted in (("exchange", EXCHANGE), ("symbol", part.symbol)):
            if not (frame[column] == wanted).all():
                others = frame.filter(pl.col(column).ne_missing(wanted))[column].to_list()[:1]
                refuse(part.name, f"hold {column} {wanted} in every row", repr(others[0]), "import it alone")
        if part.kind.channel == "trade":
            yield _trades(frame, part)
        elif part.kind.channel == "ticker":
            yield _tickers(frame, part)
        elif book is not None:
            yield from book.books(frame, part)
        else:
            yield _books(frame, part)


def _common(frame: pl.DataFrame, part: Part) -> dict[str, Any]:
    need_all(frame, ("timestamp", "local_timestamp"), part)
    n = frame.height
    recv, exch = frame["local_timestamp"].to_numpy(), frame["timestamp"].to_numpy()
    return {
        "symbol": np.zeros(n, np.int32),
        "recv_ns": recv * UNIT_NS,
        "exch_ns": np.where(exch == recv, 0, exch * UNIT_NS),
        "event": np.full(n, TickEvent.DATA, np.uint8),
        "conn": np.full(n, part.kind.number, np.int32),
    }


def need_all(frame: pl.DataFrame, columns: tuple[str, ...], part: Part) -> None:
    """Refuse a frame with an empty cell, or a number that is none, in one of the columns."""
    for name in columns:
        values = frame[name]
        if values.null_count() or (values.dtype == pl.Float64 and not values.is_finite().all()):
            refuse(part.name, f"have a value in every cell of {name}", "an empty one", "take the publisher's own file")


def _trades(frame: pl.DataFrame, part: Part) -> TradeTicks:
    need_all(frame, ("id", "side", "price", "amount"), part)
    frame = frame.sort("local_timestamp", "timestamp", "id", maintain_order=True)
    return TradeTicks(
        **_common(frame, part),
        trade_id=frame["id"].to_numpy(),
        price=positive(frame["price"], part),
        size=positive(frame["amount"], part),
        side=sides(frame["side"], part),
    )


def sides(values: pl.Series, part: Part) -> NDArray[np.int8]:
    """Return +1 where the taker bought and -1 where it sold."""
    if not values.is_in(["buy", "sell"]).all():
        refuse(
            part.name,
            "name every trade buy or sell",
            repr(values.filter(~values.is_in(["buy", "sell"]))[0]),
            "check it",
        )
    return np.where((values == "buy").to_numpy(), 1, -1).astype(np.int8)


def positive(values: pl.Series, part: Part) -> NDArray[np.float64]:
    if values.len() and not (values > 0).all():
        refuse(part.name, f"hold {values.name} above 0", repr(values.min()), "take the publisher's own file")
    return values.to_numpy()


def _tickers(frame: pl.DataFrame, part: Part) -> TickerTicks:
    nothing = np.full(frame.height, np.nan)
    named = {"last": "last_price", "mark": "mark_price", "index": "index_price"} | {
        name: name for name in ("funding_rate", "open_interest")
    }
    values = {field: frame[column].fill_null(np.nan).to_numpy() for field, column in named.items()}
    blank = ("bid", "ask", "bid_size", "ask_size", "base_volume_24h", "quote_volume_24h")
    next_ms = (frame["funding_timestamp"].fill_null(0) // 1000).to_numpy()
    return TickerTicks(**_common(frame, part), **values, **dict.fromkeys(blank, nothing), next_funding_ms=next_ms)


def _books(frame: pl.DataFrame, part: Part) -> BookTicks:
    columns: dict[str, Any] = {}
    for side, ours in (("bids", "bid"), ("asks", "ask")):
        if part.kind.name.startswith("quotes"):
            prices, sizes = [f"{ours}_price"], [f"{ours}_amount"]
        else:
            n = min(BOOK_LEVELS, sum(name.startswith(f"{side}[") for name in part.kind.columns) // 2)
            prices, sizes = ([f"{side}[{k}].{what}" for k in range(n)] for what in ("price", "amount"))
        columns[f"{ours}_price"] = _matrix(frame, prices, np.nan, part)
        columns[f"{ours}_size"] = _matrix(frame, sizes, 0.0, part)
        columns[f"{ours}_size"][np.isnan(columns[f"{ours}_price"])] = 0.0
    return BookTicks(**_common(frame, part), seq=np.full(frame.height, -1), **columns)


def _matrix(frame: pl.DataFrame, names: list[str], absent: float, part: Part) -> NDArray[np.float64]:
    matrix = np.full((frame.height, BOOK_LEVELS), absent)
    for k, name in enumerate(names):
        matrix[:, k] = frame[name].fill_null(absent).to_numpy()
    if (matrix < 0).any() or np.isinf(matrix).any():
        refuse(part.name, "hold prices and amounts from 0 on", "others", "take the publisher's own file")
    return matrix


class _Levels:
    """A book kept from its levels, across the frames of a file."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._prices: tuple[list[float], list[float]] = ([], [])  # bids by falling, asks by rising price
        self._sizes: tuple[list[float], list[float]] = ([], [])
        self._is_known = False

    def books(self, frame: pl.DataFrame, part: Part) -> Iterator[BookTicks]:
        """Yield the best levels after each message."""
        need_all(frame, ("is_snapshot", "side", "price", "amount"), part)
        if not frame["side"].is_in(["bid", "ask"]).all():
            refuse(part.name, "name every level bid or ask", "another word", "take the publisher's own file")
        if not (frame["amount"] >= 0).all() or not (frame["price"] > 0).all():
            refuse(part.name, "hold prices above 0 and amounts from 0 on", "others", "take the publisher's own file")
        # Two messages may arrive in one microsecond: a snapshot and a change are never of one, nor are two times.
        message = frame.select("local_timestamp", "timestamp", "is_snapshot")
        is_new = message.select(pl.any_horizontal(pl.all().ne_missing(pl.all().shift())))[:, 0].to_numpy()
        starts = np.flatnonzero(is_new)
        is_ask, is_snapshot = (frame["side"] == "ask").to_list(), frame["is_snapshot"].to_list()
        price, size = frame["price"].to_list(), frame["amount"].to_list()
        ends = [*starts[1:].tolist(), frame.height]
        kept: list[int] = []
        tops: list[list[float]] = []
        for start, end in zip(starts.tolist(), ends, strict=True):
            if is_snapshot[start]:
                self._prices, self._sizes = ([], []), ([], [])
                self._is_known = True
            if not self._is_known:
                continue
            for row in range(start, end):
                self._set(is_ask[row], price[row], size[row])
            kept.append(start)
            tops.append(self._top())
        if not kept:
            return
        matrix = np.array(tops).reshape(len(tops), 4, BOOK_LEVELS)
        yield BookTicks(
            **_common(frame[kept], part),
            seq=np.full(len(kept), -1),
            bid_price=matrix[:, 0].copy(),
            bid_size=matrix[:, 1].copy(),
            ask_price=matrix[:, 2].copy(),
            ask_size=matrix[:, 3].copy(),
        )

    def _set(self, is_ask: bool, price: float, size: float) -> None:
        keys, sizes = self._prices[is_ask], self._sizes[is_ask]
        key = price if is_ask else -price
        at = bisect_left(keys, key)
        is_there = at < len(keys) and keys[at] == key
        if size == 0.0:
            if is_there:
                del keys[at], sizes[at]
        elif is_there:
            sizes[at] = size
        else:
            keys.insert(at, key)
            sizes.insert(at, size)

    def _top(self) -> list[float]:
        top: list[float] = []
        for is_ask in (False, True):
            keys, sizes = self._prices[is_ask][:BOOK_LEVELS], self._sizes[is_ask][:BOOK_LEVELS]
            missing = BOOK_LEVELS - len(keys)
            top += keys if is_ask else [-key for key in keys]
            top += [np.nan] * missing + sizes + [0.0] * missing
        return top
