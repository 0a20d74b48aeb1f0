"""Rows of a lake in the formats that we import, written from their documentation, not by our readers."""

from __future__ import annotations

import gzip
import io
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from shared.types import BookTicks, TickerTicks, TickEvent, Ticks, TradeTicks

HEAD = "exchange,symbol,timestamp,local_timestamp"
DERIVATIVE = "funding_timestamp,funding_rate,predicted_funding_rate,open_interest,last_price,index_price,mark_price"


def number(value: float) -> str:
    """Return the shortest digits that read back as the same float; nothing for NaN."""
    return "" if np.isnan(value) else np.format_float_positional(value, trim="-")


def data_of(rows: Any, n: int) -> np.ndarray:
    """Return the positions of one symbol's pushes."""
    return np.flatnonzero((rows.symbol == n) & (rows.event == TickEvent.DATA))


def head_of(rows: Any, k: int, symbol: str) -> str:
    recv_us, exch_us = int(rows.recv_ns[k]) // 1000, int(rows.exch_ns[k]) // 1000
    return f"bitget-futures,{symbol},{exch_us or recv_us},{recv_us}"


def trades(rows: TradeTicks, n: int, symbol: str) -> list[str]:
    """Return lines as Tardis writes them: the trades of one push stand newest first, as Bitget sends them."""
    found = [f"{HEAD},id,side,price,amount"]
    at = data_of(rows, n)
    pushes = np.split(at, np.flatnonzero(np.diff(rows.recv_ns[at] // 1000)) + 1) if len(at) else []
    for push in pushes:
        for k in push[::-1].tolist():
            side = "buy" if rows.side[k] > 0 else "sell"
            found.append(
                f"{head_of(rows, k, symbol)},{rows.trade_id[k]},{side},{number(rows.price[k])},{number(rows.size[k])}"
            )
    return found


def snapshots(rows: BookTicks, n: int, symbol: str, depth: int = 25) -> list[str]:
    names = [f"{side}[{k}].{what}" for k in range(depth) for side in ("asks", "bids") for what in ("price", "amount")]
    found = [f"{HEAD},{','.join(names)}"]
    for k in data_of(rows, n).tolist():
        cells = []
        for level in range(depth):
            for side in ("ask", "bid"):
                is_there = level < 15 and not np.isnan(getattr(rows, f"{side}_price")[k, level])
                for what in ("price", "size"):
                    cells.append(number(getattr(rows, f"{side}_{what}")[k, level]) if is_there else "")
        found.append(f"{head_of(rows, k, symbol)},{','.join(cells)}")
    return found


def whole_books(rows: BookTicks, n: int, symbol: str) -> list[str]:
    """Return incremental_book_L2 of the channel books15: every message is a snapshot."""
    found = [f"{HEAD},is_snapshot,side,price,amount"]
    for k in data_of(rows, n).tolist():
        found += [
            f"{head_of(rows, k, symbol)},true,{side},{number(price)},{number(size)}"
            for side in ("bid", "ask")
            for price, size in zip(getattr(rows, f"{side}_price")[k], getattr(rows, f"{side}_size")[k], strict=True)
            if not np.isnan(price)
        ]
    return found


def changed_books(rows: BookTicks, n: int, symbol: str) -> list[str]:
    """Return incremental_book_L2 of a channel of changes: what differs from the book before, behind one snapshot.

    What a first update told before the snapshot is in it, as Tardis warns, and means nothing.
    """
    found = [f"{HEAD},is_snapshot,side,price,amount"]
    last: dict[str, dict[float, float]] | None = None
    at = data_of(rows, n).tolist()
    early_us = int(rows.recv_ns[at[0]]) // 1000 - 1
    found.append(f"bitget-futures,{symbol},{early_us},{early_us},false,bid,1,1")
    for k in at:
        book = {
            side: {
                price: size
                for price, size in zip(
                    getattr(rows, f"{side}_price")[k].tolist(), getattr(rows, f"{side}_size")[k].tolist(), strict=True
                )
                if not np.isnan(price)
            }
            for side in ("bid", "ask")
        }
        lines = []
        for side, levels in book.items():
            before = {} if last is None else last[side]
            lines += [(side, price, 0.0) for price in before if price not in levels]
            lines += [(side, price, size) for price, size in levels.items() if before.get(price) != size]
        is_first = str(last is None).lower()
        found += [f"{head_of(rows, k, symbol)},{is_first},{s},{number(p)},{number(a)}" for s, p, a in lines]
        last = book
    return found


def derivative(rows: TickerTicks, n: int, symbol: str) -> list[str]:
    found = [f"{HEAD},{DERIVATIVE}"]
    for k in data_of(rows, n).tolist():
        funding = str(rows.next_funding_ms[k] * 1000) if rows.next_funding_ms[k] else ""
        values = [rows.open_interest[k], rows.last[k], rows.index[k], rows.mark[k]]
        cells = [funding, number(rows.funding_rate[k]), "", *(number(value) for value in values)]
        found.append(f"{head_of(rows, k, symbol)},{','.join(cells)}")
    return found


BOOKS: dict[str, Callable[[BookTicks, int, str], list[str]]] = {
    "book_snapshot_25": snapshots,
    "incremental_whole": whole_books,
    "incremental_changes": changed_books,
}


def tardis(folder: Path, ticks: Ticks, symbols: tuple[str, ...], books: str = "book_snapshot_25") -> list[Path]:
    """Write a day's files of these symbols, named as Tardis' client names them."""
    paths = []
    for n, symbol in enumerate(symbols):
        for kind, lines in (
            ("trades", trades(ticks.trades, n, symbol)),
            (books, BOOKS[books](ticks.books, n, symbol)),
            ("derivative_ticker", derivative(ticks.tickers, n, symbol)),
        ):
            paths.append(folder / f"bitget-futures_{kind}_2026-09-25_{symbol}.csv.gz")
            pack(paths[-1], lines)
    return paths


def pack(path: Path, lines: Iterable[str]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(("\n".join(lines) + "\n").encode()))
    return path


def zipped(path: Path, member: str, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(member, content)
    return path


def workbook(rows: list[list[Any]], *, is_shared: bool = True) -> bytes:
    """Return an .xlsx file, whose texts are shared strings or stand in the cells; None is a cell that is not there."""
    words: list[str] = []
    lines = []
    for r, row in enumerate(rows, 1):
        cells = []
        for c, value in enumerate(row):
            at = f"{chr(ord('A') + c)}{r}"
            if value is None:
                continue
            if isinstance(value, str) and is_shared:
                words.append(value)
                cells.append(f'<c r="{at}" t="s"><v>{len(words) - 1}</v></c>')
            elif isinstance(value, str):
                cells.append(f'<c r="{at}" t="inlineStr"><is><t>{value}</t></is></c>')
            else:
                cells.append(f'<c r="{at}"><v>{value}</v></c>')
        lines.append(f'<row r="{r}">{"".join(cells)}</row>')
    space = 'xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"'
    shared = "".join(f"<si><t>{word}</t></si>" for word in words)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        content = f"<worksheet {space}><sheetData>{''.join(lines)}</sheetData></worksheet>"
        archive.writestr("xl/worksheets/sheet1.xml", content)
        if is_shared:
            archive.writestr("xl/sharedStrings.xml", f"<sst {space}>{shared}</sst>")
    return buffer.getvalue()
