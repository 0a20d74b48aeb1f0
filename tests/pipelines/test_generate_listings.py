"""History of a market whose symbols come and go: rows where there was a market, none where there was none."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pipelines.generate import generate
from shared.lake import read
from shared.simulator.markets.listing import newcomer_ranks
from shared.simulator.markets.market import GeneratedMarket
from shared.types import NS

START_S = 1_795_330_800
SECONDS = 150


def test_history_holds_a_newcomer_while_it_trades_and_only_then(tmp_path: Path) -> None:
    """Its books begin with its launch and end with its removal, to the second; the others have every second."""
    market = GeneratedMarket(7, 8, listings_per_day=720.0)  # one newcomer, a life of two minutes
    newcomer = market.symbols[rank := newcomer_ranks(8)[0]]
    trading = [s for s in range(START_S, START_S + SECONDS) if market.is_listed(s)[rank]]

    generate(market, tmp_path, START_S, START_S + SECONDS)

    books = read.scan(tmp_path, "raw/book", market.source, start_s=START_S, end_s=START_S + SECONDS).collect()
    of = {
        symbol: set((books.filter(books["symbol"] == symbol)["recv_ns"] // NS).to_list()) for symbol in market.symbols
    }
    assert 0 < len(trading) < SECONDS
    assert np.array_equal(sorted(of[newcomer] & set(range(START_S, START_S + SECONDS))), trading)
    assert all(len(of[symbol]) >= SECONDS for symbol in market.symbols if symbol != newcomer)
