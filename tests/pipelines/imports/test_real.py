"""Recorded order books, in Tardis' formats: what they are in seconds is counted here by other means."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from pipelines.imports import landing
from pipelines.imports.__main__ import parts_of
from pipelines.imports.tardis import receipts
from pipelines.seconds import sample
from shared.lake import read
from shared.types import BOOK_LEVELS, NS, BookTicks, TickEvent, TradeTicks
from tests.pipelines.imports import writers

SOURCE = "import-real"
SYMBOL = "REALUSDT"


@pytest.fixture(params=["binance_usdm_20260216/BTCUSDT", "hyperliquid_20250904/SOL"])
def recording(request: pytest.FixtureRequest, outside: Path) -> tuple[BookTicks, TradeTicks]:
    """Return the first two minutes of a public recording as receipts, to the microsecond."""
    stem = outside / "market/recordings" / request.param
    frames = [pl.read_parquet(f"{stem}.{kind}.parquet") for kind in ("book", "trades")]
    end_ns = int(frames[0]["recv_ns"][0]) + 120 * NS
    frames = [frame.filter(pl.col("recv_ns") < end_ns).sort("recv_ns", maintain_order=True) for frame in frames]
    common = [
        {
            "symbol": np.zeros(frame.height, np.int32),
            "recv_ns": (frame["recv_ns"] // 1000 * 1000).to_numpy(),
            "exch_ns": (frame["exch_ns"] // 1000 * 1000).to_numpy(),
            "event": np.full(frame.height, TickEvent.DATA, np.uint8),
            "conn": np.zeros(frame.height, np.int32),
        }
        for frame in frames
    ]
    book, trades = frames
    sides = {
        f"{side}_{what}": np.stack([book[f"{side}_{what}_{k}"].to_numpy() for k in range(1, BOOK_LEVELS + 1)], axis=1)
        for side in ("bid", "ask")
        for what in ("price", "size")
    }
    return (
        BookTicks(**common[0], seq=np.full(book.height, -1), **sides),
        TradeTicks(
            **common[1],
            trade_id=np.arange(trades.height),
            price=trades["price"].to_numpy(),
            size=trades["size"].to_numpy(),
            side=trades["side"].to_numpy().astype(np.int8),
        ),
    )


def test_real_books_and_trades_are_the_seconds_of_their_rows(
    recording: tuple[BookTicks, TradeTicks], tmp_path: Path
) -> None:
    """The last book before a second's end is its state, the trades within it are its flow, whichever file tells it."""
    books, trades = recording
    writers.pack(tmp_path / "trades.csv.gz", writers.trades(trades, 0, SYMBOL))
    lakes = []
    for kind, write in writers.BOOKS.items():
        path = writers.pack(tmp_path / f"{kind}.csv.gz", write(books, 0, SYMBOL))
        lakes.append(tmp_path / kind)
        landing.land(lakes[-1], SOURCE, parts_of("tardis", [path, tmp_path / "trades.csv.gz"]), receipts)

    start_s = max(int(books.recv_ns[0]), int(trades.recv_ns[0])) // NS + 1
    end_s = min(int(books.recv_ns[-1]), int(trades.recv_ns[-1])) // NS
    first_s = min(int(books.recv_ns[0]), int(trades.recv_ns[0])) // NS
    at = np.searchsorted(books.recv_ns, (np.arange(start_s, end_s) + 1) * NS) - 1
    order = np.lexsort((trades.trade_id, trades.exch_ns, trades.recv_ns))
    bought = np.zeros(end_s - start_s)
    for k in order.tolist():  # one after the other, as they came
        second = int(trades.recv_ns[k]) // NS - start_s
        if 0 <= second < len(bought) and trades.side[k] > 0:
            bought[second] += trades.price[k] * trades.size[k]
    assert end_s - start_s > 100
    assert bought.any()
    for lake in lakes:
        _, seconds = sample(lake, SOURCE, first_s, end_s, (SYMBOL,))
        columns = {name: values[start_s - first_s :, 0] for name, values in seconds.columns.items()}
        for side in ("bid", "ask"):
            for level in range(5):
                expected = getattr(books, f"{side}_price")[at, level]
                np.testing.assert_array_equal(columns[f"{side}_price_{level + 1}"], expected)
        np.testing.assert_array_equal(columns["buy_volume_usdt"], bought)
    hour = int(books.recv_ns[0]) // (3600 * NS)
    rows = [read.raw_hour(lake, "raw/book", SOURCE, hour).frame.drop("conn") for lake in lakes]
    assert rows[0].equals(rows[1])
    told, changed = (frame.filter(pl.col("event") == 0) for frame in (rows[0], rows[2]))
    assert changed.join(told, on=told.columns, how="anti").height == 0
    is_news = pl.any_horizontal(pl.col(name).ne(pl.col(name).shift()) for name in told.columns[4:]).fill_null(
        value=True
    )
    assert changed.height == told.filter(is_news).height  # changes say nothing of a push that changed nothing
