"""Bitget's own downloads (www.bitget.com/data-download) as receipts and candles.

    trades   zip of CSV, parts _001, _002 … of 100,000 rows a day: trade_id, timestamp, price, side, volume(quote),
             size(base). Milliseconds in which only whole seconds occur. Every trade is there, in order.
    depth    zip of .xlsx: timestamp, askPrice, bidPrice, askVolume, bidVolume: the best level alone, every 5 to 20 s
    kline    zip of .xlsx, one minute a row: timestamp (seconds), open, high, low, close, baseVolume, usdtVolume

A day of these is one of UTC+8. There is no clock of receipt in them: a row counts as received when it bears, so a
trade lies in the second that Bitget has rounded it down to.

What is certain: names, units and order of trades, which several public readers of these files describe alike (2025,
2026). The columns of depth and kline are known from single readers; names are compared without case and `_`, and
anything else is refused with what was found. None of these files lay before us.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from pipelines.imports.files import Kind, Part, Rows, Schema, frames, refuse
from pipelines.imports.tardis import need_all, positive, sides
from shared.lake.layout import TABLES
from shared.types import BOOK_LEVELS, BookTicks, TickEvent, TradeTicks

_I, _F, _S = pl.Int64, pl.Float64, pl.String
KINDS = (
    Kind(
        name="trades",
        channel="trade",
        number=11,
        columns={"tradeid": _I, "timestamp": _I, "price": _F, "side": _S, "size(base)": _F},
        time="timestamp",
    ),
    Kind(
        name="depth",
        channel="book",
        number=12,
        columns={"timestamp": _I, "askprice": _F, "bidprice": _F, "askvolume": _F, "bidvolume": _F},
        time="timestamp",
    ),
    Kind(
        name="kline",
        channel="candle",
        number=13,
        columns={"timestamp": _I, "open": _F, "high": _F, "low": _F, "close": _F, "basevolume": _F, "usdtvolume": _F},
        time="timestamp",
    ),
)
_SAME = {"quotevolume": "usdtvolume"}  # of a contract in USDT
_SYMBOL = re.compile(r"(?<![^\W_])([^\W_]+USDT)(?![^\W_])")
_SPOT = re.compile(r"SPBL|(?<![^\W_])SP(?![^\W_])|/depth/[^/]+/1/")
_UNITS_NS = {10: 1_000_000_000, 13: 1_000_000}  # digits of a time since the epoch -> its unit


def plain_name(column: str) -> str:
    name = column.strip().lower().replace("_", "")
    return _SAME.get(name, name)


def recognise(path: Path, member: str, columns: list[str], row: list[str], symbol: str = "") -> tuple[Kind, str, int]:
    """Return what a file holds: kind, symbol, first time.

    Raises:
        SettingsError: it is none of the kinds above, is of the spot market, or does not say whose it is.
    """
    name = f"{path}:{member}" if member else str(path)
    plain = [plain_name(column) for column in columns]
    kind = next((kind for kind in KINDS if set(kind.columns) <= set(plain)), None)
    if kind is None:
        known = "; ".join(f"{kind.name}: {', '.join(kind.columns)}" for kind in KINDS)
        refuse(name, f"have the header of a kind that is known ({known})", ",".join(columns)[:200], "check the file")
    if _SPOT.search(f"{path.as_posix()}/{member}"):
        refuse(name, "be of USDT-M futures (UMCBL)", "one of the spot market", "download the futures' file")
    if not symbol:
        told = [_SYMBOL.findall(Path(part).stem) for part in (member, path.name, *reversed(path.parts[:-1]))]
        symbol = next((found[0] for found in told if found), "")
        if not symbol:
            refuse(name, "tell its symbol by its name or folder", "none", "say it with --symbol")
    at = dict(zip(plain, row, strict=False))["timestamp"].removesuffix(".0")
    if not at.isdigit() or len(at) not in _UNITS_NS:
        refuse(name, "tell times in s or ms since the epoch (10 or 13 digits)", repr(at), "check the file")
    return kind, symbol, int(at)


def receipts(part: Part) -> Iterator[Rows]:
    """Yield the rows of a file in order, all of symbol 0.

    Raises:
        SettingsError: a row is not what the kind promises.
    """
    for frame in _frames(part):
        yield _trades(frame, part) if part.kind.channel == "trade" else _books(frame, part)


def candles(part: Part) -> Iterator[pl.DataFrame]:
    """Yield the rows of a kline file as rows of the table `candles`."""
    for frame in _frames(part):
        need_all(frame, tuple(part.kind.columns), part)
        at_ns = frame["timestamp"] * _unit_ns(part)
        if (at_ns % 60_000_000_000 != 0).any():
            refuse(part.name, "hold candles of one minute", "times between two minutes", "download those of 1 minute")
        yield frame.select(
            minute=at_ns // 60_000_000_000,
            symbol=pl.lit(part.symbol),
            open="open",
            high="high",
            low="low",
            close="close",
            base_volume="basevolume",
            quote_volume="usdtvolume",
        ).cast(dict(TABLES["candles"].columns))  # type: ignore[arg-type]


def _frames(part: Part) -> Iterator[pl.DataFrame]:
    def schema(names: list[str]) -> Schema:
        by_plain = {plain_name(name): name for name in reversed(names)}
        return {by_plain[plain]: dtype for plain, dtype in part.kind.columns.items()}

    def time(names: list[str]) -> str:
        return next(name for name in names if plain_name(name) == part.kind.time)

    for frame in frames(part.path, part.member, schema, time):
        yield frame.rename(plain_name)


def _unit_ns(part: Part) -> int:
    return _UNITS_NS[len(str(part.first))]


def _common(frame: pl.DataFrame, part: Part) -> dict[str, Any]:
    at_ns = (frame["timestamp"] * _unit_ns(part)).to_numpy()
    return {
        "symbol": np.zeros(frame.height, np.int32),
        "recv_ns": at_ns,
        "exch_ns": at_ns,
        "event": np.full(frame.height, TickEvent.DATA, np.uint8),
        "conn": np.full(frame.height, part.kind.number, np.int32),
    }


def _trades(frame: pl.DataFrame, part: Part) -> TradeTicks:
    need_all(frame, tuple(part.kind.columns), part)
    frame = frame.sort("timestamp", "tradeid", maintain_order=True)
    return TradeTicks(
        **_common(frame, part),
        trade_id=frame["tradeid"].to_numpy(),
        price=positive(frame["price"], part),
        size=positive(frame["size(base)"], part),
        side=sides(frame["side"].str.to_lowercase(), part),
    )


def _books(frame: pl.DataFrame, part: Part) -> BookTicks:
    need_all(frame, tuple(part.kind.columns), part)
    columns: dict[str, Any] = {}
    for side in ("bid", "ask"):
        columns[f"{side}_price"] = np.full((frame.height, BOOK_LEVELS), np.nan)
        columns[f"{side}_size"] = np.zeros((frame.height, BOOK_LEVELS))
        columns[f"{side}_price"][:, 0] = positive(frame[f"{side}price"], part)
        columns[f"{side}_size"][:, 0] = frame[f"{side}volume"].to_numpy()
    return BookTicks(**_common(frame, part), seq=np.full(frame.height, -1), **columns)
