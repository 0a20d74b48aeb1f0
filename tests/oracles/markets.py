"""Markets for the oracle: a recording of real books, and books that are made up from a seed."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pipelines.exact.tape import FASTEST_NS, Block, mids
from shared.types import NS, Floats
from tests.oracles.both import FOREVER_NS

LEVELS = 20


def recorded(folder: Path, symbol: str, *, quotes: bool = False) -> Block:
    """Return a recording's books (or, with `quotes`, its best levels alone: ten times as many rows) and trades."""
    import pyarrow.parquet as parquet

    def columns(kind: str) -> dict[str, Floats]:
        table = parquet.read_table(folder / f"{symbol}.{kind}.parquet")
        return {name: table.column(name).to_numpy() for name in table.column_names}

    books, trades = columns("bbo" if quotes else "book"), columns("trades")
    fastest = min(int((table["recv_ns"] - table["exch_ns"]).min()) for table in (books, trades))
    shift_ns = fastest - FASTEST_NS if fastest < 0 else 0
    n_levels = 1 if quotes else LEVELS

    def side(name: str) -> Floats:
        levels = [
            np.stack([books[f"{name}_price_{k}"], books[f"{name}_size_{k}"]], axis=-1) for k in range(1, n_levels + 1)
        ]
        return np.ascontiguousarray(np.stack(levels, axis=1))

    book_ns, bids, asks = np.maximum.accumulate(books["exch_ns"].astype(np.int64) + shift_ns), side("bid"), side("ask")
    marks = mids(book_ns, bids, asks)
    return Block(
        begin_ns=0,
        end_ns=FOREVER_NS,
        book_ns=book_ns,
        bids=bids,
        asks=asks,
        trade_ns=np.maximum.accumulate(trades["exch_ns"].astype(np.int64) + shift_ns),
        trade_price=trades["price"],
        trade_size=trades["size"],
        trade_side=trades["side"].astype(np.int8),
        mark_ns=marks.ns,
        mark=marks.mark,
        index=marks.index,
        rate=marks.rate,
    )


def made(seed: int, seconds: int, *, books_per_s: int = 10, trades_per_s: float = 8.0, levels: int = 10) -> Block:
    """Return a market of one tick's spread: sizes come and go, trades eat the touch, an eaten touch moves the book.

    Prices have one decimal, sizes three; every book is what remained of the trades before it.
    """
    draw = np.random.Generator(np.random.Philox(key=[seed, 7]))
    start_ns, step_ns = 1_795_330_800 * NS, NS // books_per_s
    tick, bid = 0.1, 640_000  # in ticks
    sizes = {side: (draw.lognormal(0.0, 1.0, levels) * 500).astype(int) + 1 for side in (1, -1)}  # in thousandths
    book_ns: list[int] = []
    bids: list[Floats] = []
    asks: list[Floats] = []
    trades: list[tuple[int, float, float, int]] = []
    for k in range(seconds * books_per_s):
        begin_ns = start_ns + k * step_ns
        for _ in range(int(draw.poisson(trades_per_s / books_per_s))):
            taker = 1 if draw.random() < 0.5 else -1
            size = int(draw.lognormal(4.0, 1.5)) + 1
            at_ns = begin_ns + int(draw.integers(1_000_000, step_ns - 1_000_000)) // 1_000_000 * 1_000_000
            side = -taker  # of the book that is eaten
            while size > 0:
                eaten = min(size, int(sizes[side][0]))
                price = (bid if side == 1 else bid + 1) * tick
                trades.append((at_ns, round(price, 1), eaten / 1000, taker))
                sizes[side][0] -= eaten
                size -= eaten
                if sizes[side][0] == 0:  # the touch is gone: both sides move by a tick
                    bid += taker
                    sizes[side] = np.append(sizes[side][1:], int(draw.lognormal(0.0, 1.0) * 500) + 1)
                    sizes[-side] = np.append(int(draw.lognormal(-1.0, 1.0) * 500) + 1, sizes[-side][:-1])
        for side in (1, -1):
            n = int(draw.integers(levels))
            sizes[side][n] = max(1, int(sizes[side][n] * draw.lognormal(0.0, 0.4)))
        book_ns.append(begin_ns + step_ns)
        for rows, side, first in ((bids, 1, bid), (asks, -1, bid + 1)):
            prices = np.round((first - side * np.arange(levels)) * tick, 1)
            rows.append(np.stack([prices, sizes[side] / 1000], axis=-1))
    trades.sort(key=lambda trade: trade[0])
    times, prices, amounts, takers = (np.array(column) for column in zip(*trades, strict=True))
    marks = mids(np.array(book_ns), np.array(bids), np.array(asks))
    return Block(
        begin_ns=0, end_ns=FOREVER_NS, book_ns=np.array(book_ns), bids=np.array(bids), asks=np.array(asks),
        trade_ns=times, trade_price=prices, trade_size=amounts, trade_side=takers.astype(np.int8),
        mark_ns=marks.ns, mark=marks.mark, index=marks.index, rate=marks.rate,
    )  # fmt: skip
