"""Real order books through sampler and features, against published figures of the same recording."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from shared.features.catalog import FEATURES
from shared.features.graph import FeatureGraph
from shared.features.plan import in_order
from shared.types import BOOK_LEVELS, NS, BookTicks, TickerTicks, TickEvent, Ticks, TradeTicks
from tests.shared.features import worlds
from tests.shared.features.worlds import Row

# Facts page, section 2: median spread in bps, sigma of 1 s returns in bps, traded USD a second.
PUBLISHED = {
    "BTC": (0.09, 0.40, 29e3),
    "ETH": (0.23, 0.89, 37e3),
    "SOL": (0.49, 1.01, 18e3),
    "WLFI": (3.2, 3.94, 1.4e3),
}
TICKER = {"last", "mark", "index", "funding_rate", "open_interest", "quote_volume_24h_usdt"}


def subscribed(kind: type[BookTicks | TradeTicks], frame: pl.DataFrame) -> Row:
    return Row(int(frame["recv_ns"][0]) // NS * NS, kind, 0, TickEvent.SUBSCRIBED, 0, {})


def load(folder: Path, symbol: str) -> Ticks:
    """Return a recording as one linked symbol."""
    books = pl.read_parquet(folder / f"{symbol}.book.parquet")
    trades = pl.read_parquet(folder / f"{symbol}.trades.parquet")
    link_rows = worlds.ticks([subscribed(BookTicks, books), subscribed(TradeTicks, books)])
    rows = len(books)

    def common(frame: pl.DataFrame) -> dict[str, Any]:
        return {
            "symbol": np.zeros(len(frame), np.int32),
            "recv_ns": frame["recv_ns"].to_numpy(),
            "exch_ns": frame["exch_ns"].to_numpy(),
            "event": np.zeros(len(frame), np.uint8),
            "conn": np.zeros(len(frame), np.int32),
        }

    def levels(name: str) -> Any:
        return books.select(f"{name}_{k}" for k in range(1, BOOK_LEVELS + 1)).to_numpy().copy(order="C")

    names = ("bid_price", "bid_size", "ask_price", "ask_size")
    book_ticks = BookTicks(**common(books), seq=np.arange(rows), **{name: levels(name) for name in names})
    trades = trades.filter(pl.col("recv_ns") >= int(books["recv_ns"][0]))
    trade_ticks = TradeTicks(
        **common(trades),
        trade_id=np.arange(len(trades)),
        price=trades["price"].to_numpy(),
        size=trades["size"].to_numpy(),
        side=trades["side"].to_numpy().astype(np.int8),
    )

    def joined(first: BookTicks | TradeTicks, second: BookTicks | TradeTicks) -> Any:
        return type(first)(*(np.concatenate([getattr(t, f) for t in (first, second)]) for f in first.__struct_fields__))

    no_tickers = worlds.table(TickerTicks, [])
    return Ticks(joined(link_rows.books, book_ticks), joined(link_rows.trades, trade_ticks), no_tickers)


@pytest.mark.parametrize("symbol", sorted(PUBLISHED))
def test_recorded_books_have_the_published_spread_volatility_and_volume(outside: Path, symbol: str) -> None:
    """Spread, volatility and flow of a real half hour are those that others measured on it; no ticker, no ratio to it."""
    ticks = load(outside / "market" / "recordings" / "hyperliquid_20250904", symbol)
    first, end = int(ticks.books.recv_ns[0]) // NS, int(ticks.books.recv_ns[-1]) // NS
    spread, sigma, usdt = PUBLISHED[symbol]

    seconds = worlds.sample(1, first, [(ticks, end)])
    block = FeatureGraph(FEATURES, worlds.names(1)).step(seconds, first)[:, 0]

    feature = {name: block[:, f] for f, name in enumerate(FEATURES)}
    assert np.nanmedian(feature["spread_bps"]) == pytest.approx(
        spread, rel=0.2
    )  # published from every quote, here from the slower books
    assert np.nanstd(feature["return_1s"]) * 1e4 == pytest.approx(sigma, rel=0.2)
    volume = seconds["buy_volume_usdt"] + seconds["sell_volume_usdt"]
    assert np.nanmean(volume) == pytest.approx(usdt, rel=0.15)
    for name, values in feature.items():
        nodes = in_order([FEATURES[name]])
        if TICKER & {node.parameter for node in nodes} or {"rank", "std_across"} & {node.operator for node in nodes}:
            assert np.isnan(values).all(), name  # no ticker was recorded, and one symbol has no cross-section
        else:
            assert np.isfinite(values[60:]).mean() > 0.95, name
