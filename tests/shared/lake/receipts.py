"""Made-up receipts: seeded, plausible, with every kind of row, on several connections."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any, TypeVar

import numpy as np

from shared.lake import layout
from shared.lake.receipts import link_rows
from shared.types import BOOK_LEVELS, NS, BookTicks, Contract, TickerTicks, TickEvent, Ticks, TradeTicks, Universe

SOURCE = "simulator-g1-4"
HOUR = 489_000  # 2025-10-14 00:00 UTC
HOUR_NS = layout.HOUR_NS
SYMBOLS = ("BTCUSDT", "ETHUSDT", "SOLUSDT", "龙虾USDT")


def universe(symbols: tuple[str, ...] = SYMBOLS, as_of_ns: int = HOUR * HOUR_NS, source: str = SOURCE) -> Universe:
    """Return a universe of plausible contracts."""
    return Universe(
        source=source,
        as_of_ns=as_of_ns,
        contracts=tuple(
            Contract(
                symbol=symbol,
                base=symbol.removesuffix("USDT"),
                quote="USDT",
                status="normal",
                tick=Decimal("0.1"),
                size_step=Decimal("0.0001"),
                size_min=Decimal("0.0001"),
                notional_min_usdt=Decimal(5),
                size_max_limit=Decimal(1200),
                size_max_market=None,
                price_band_buy=Decimal("0.05"),
                price_band_sell=Decimal("0.05"),
                maker_fee=Decimal("0.0002"),
                taker_fee=Decimal("0.0006"),
                leverage_min=1,
                leverage_max=125,
                funding_interval_h=8,
                is_rwa=False,
                launch_ms=None,
                off_ms=None,
            )
            for symbol in symbols
        ),
    )


def receipts(
    seed: int,
    start_ns: int,
    end_ns: int,
    n_symbols: int = len(SYMBOLS),
    per_s: float = 4.0,
    conns: tuple[int, ...] = (0,),
) -> Ticks:
    """Return DATA rows received in [start_ns, end_ns), in order, each table about `per_s` rows a symbol and second.

    What is received in a second depends on the seed and that second alone: two overlapping histories agree.
    """
    parts = [links(TickEvent.SUBSCRIBED, 0, 0)]
    parts += [_second(seed, second, n_symbols, per_s, conns) for second in range(start_ns // NS, -(-end_ns // NS))]
    return between(concat(parts), start_ns, end_ns)


def links(
    event: TickEvent, recv_ns: int, n_symbols: int = len(SYMBOLS), conns: tuple[int, ...] = (0,), tables: str = "btk"
) -> Ticks:
    """Return one link row for each symbol and connection in book (b), trade (t) and ticker (k)."""
    pairs = [(n, conn) for n in range(n_symbols) for conn in conns]
    rows = [
        link_rows(table, pairs if letter in tables else [], event, recv_ns)
        for table, letter in (("raw/book", "b"), ("raw/trade", "t"), ("raw/ticker", "k"))
    ]
    assert isinstance(rows[0], BookTicks)
    assert isinstance(rows[1], TradeTicks)
    assert isinstance(rows[2], TickerTicks)
    return Ticks(rows[0], rows[1], rows[2])


def _second(seed: int, second: int, n_symbols: int, per_s: float, conns: tuple[int, ...]) -> Ticks:
    rng = np.random.Generator(np.random.Philox(key=seed, counter=second))
    n = int(rng.poisson(per_s * n_symbols))
    base_ns = second * NS
    tick = 0.1

    def head(rows: int) -> dict[str, Any]:
        recv_ns = base_ns + np.sort(rng.choice(NS, rows, replace=False)).astype(np.int64)
        return {
            "symbol": rng.integers(0, n_symbols, rows).astype(np.int32),
            "recv_ns": recv_ns,
            "exch_ns": recv_ns - 20_000_000,
            "event": np.zeros(rows, np.uint8),
            "conn": rng.choice(conns, rows).astype(np.int32),
        }

    book = head(n)
    mid: Any = np.round(1000 + rng.normal(0, 3, n), 1)[:, None]
    steps = np.arange(1, BOOK_LEVELS + 1)[None, :] * tick
    depth = rng.lognormal(0, 1, (n, BOOK_LEVELS)).round(4)
    books = BookTicks(
        **book,
        seq=book["exch_ns"] // 1000,
        bid_price=np.round(mid - steps, 1),
        bid_size=depth,
        ask_price=np.round(mid + steps, 1),
        ask_size=depth[:, ::-1].copy(),
    )
    if n:  # a book that shows three levels on one side
        books.bid_price[-1, 3:], books.bid_size[-1, 3:] = np.nan, 0.0
    trade = head(n)
    trades = TradeTicks(
        **trade,
        trade_id=second * 100_000 + np.arange(n),
        price=np.round(1000 + rng.normal(0, 3, n), 1),
        size=rng.lognormal(0, 1, n).round(4),
        side=rng.choice([-1, 1], n).astype(np.int8),
    )
    ticker = head(n)
    values: dict[str, Any] = {
        name: np.round(1000 + rng.normal(0, 3, n), 1) for name in TickerTicks.__struct_fields__[5:]
    }
    values["next_funding_ms"] = np.full(n, (second // 28_800 + 1) * 28_800_000)
    values["index"] = np.where(rng.random(n) < 0.2, np.nan, values["index"])
    return Ticks(books, trades, TickerTicks(**ticker, **values))


# --------------------------------------------------------------------------------------------- batches as values

R = TypeVar("R", BookTicks, TradeTicks, TickerTicks)


def take(rows: R, which: Any) -> R:
    return type(rows)(**{field: getattr(rows, field)[which] for field in rows.__struct_fields__})


def map_tables(ticks: Ticks, change: Callable[[Any], Any]) -> Ticks:
    return Ticks(change(ticks.books), change(ticks.trades), change(ticks.tickers))


def concat(parts: Sequence[Ticks]) -> Ticks:
    def join(tables: Sequence[Any]) -> Any:
        first = tables[0]
        return type(first)(
            **{field: np.concatenate([getattr(rows, field) for rows in tables]) for field in first.__struct_fields__}
        )

    return Ticks(join([p.books for p in parts]), join([p.trades for p in parts]), join([p.tickers for p in parts]))


def between(ticks: Ticks, start_ns: int, end_ns: int) -> Ticks:
    """Return what was received in [start_ns, end_ns)."""
    return map_tables(ticks, lambda rows: take(rows, (rows.recv_ns >= start_ns) & (rows.recv_ns < end_ns)))


def only(ticks: Ticks, event: TickEvent) -> Ticks:
    return map_tables(ticks, lambda rows: take(rows, rows.event == event))


def n_rows(ticks: Ticks) -> int:
    return sum(len(rows.recv_ns) for rows in (ticks.books, ticks.trades, ticks.tickers))


def same_rows(rows: Any, others: Any, ignore: tuple[str, ...] = ("conn",)) -> bool:
    """Tell whether two tables are equal bit for bit, NaN equal to NaN."""
    return all(
        np.array_equal(getattr(rows, field), getattr(others, field), equal_nan=getattr(rows, field).dtype.kind == "f")
        for field in rows.__struct_fields__
        if field not in ignore
    )


def same(a: Ticks, b: Ticks, ignore: tuple[str, ...] = ("conn",)) -> bool:
    """Tell whether two batches are equal bit for bit; connections have other names in the lake."""
    return all(same_rows(getattr(a, table), getattr(b, table), ignore) for table in ("books", "trades", "tickers"))
