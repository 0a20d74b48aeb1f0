"""Real order books, replayed as Bitget: a folder of recorded Parquet files behind the `Market` port.

Layout of a folder: `<SYMBOL>.book.parquet` (recv_ns, bid_price_1..20, bid_size_k, ask_price_k, ask_size_k), and where
there are some `.bbo`, `.trades` (price, size, side +1/-1) and `.mark` (mark_price, index_price, funding_rate).

Mapping: symbol BTC -> BTCUSDT; tick and size step from the decimals seen; the book of a second is the last one received
before it began; the ticker's quotes come from `bbo`; mark = mid where there is none; what was not recorded stays
unknown ("" on the wire), never invented. A second before which nothing was received is silent.

Time: the first three quarters are history and end at `anchor_ns`; from there on the last quarter is live and then
plays again and again, with ids and clocks that go on. At such a seam prices jump back: `seam_after` tells, and the
server closes every socket.

polars, pyarrow and friends are not needed to serve a generated market; pyarrow is imported here, inside `_read`.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shared.errors import SettingsError
from shared.simulator.market import LEVELS, NS, SNOWFLAKE_EPOCH_MS, Block, Trades

HISTORY_SHARE = 0.75
SECONDS_MIN = 60
"""Shorter recordings have no history and no live part worth the name."""

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Columns = dict[str, NDArray[Any]]


class RecordedMarket:
    """A recording on the grid of seconds, shifted to end its history at `anchor_ns`.

    Args:
        folder: in the layout above.
        anchor_ns: when history ends and the live part begins; two processes that agree on it see one market.

    Raises:
        SettingsError: the folder is not a recording, is too short, or pyarrow is not installed.
    """

    kind = "recorded"

    def __init__(self, folder: Path, anchor_ns: int) -> None:
        stems = sorted(path.name.removesuffix(".book.parquet") for path in folder.glob("*.book.parquet"))
        if not stems:
            raise SettingsError(
                f"a recording must hold <SYMBOL>.book.parquet files, found none in {folder}: check --recording"
            )
        # Shifted to another time it is another world: two of them in one table would put the same minute under two
        # dates, and a model would be tested on what it was trained on.
        self.source = f"simulator-{folder.name}-{datetime.fromtimestamp(anchor_ns // NS, UTC):%Y%m%dT%H%M%SZ}"
        self.symbols = tuple(stem if stem.endswith("USDT") else f"{stem}USDT" for stem in stems)
        books = [_read(folder / f"{stem}.book.parquet", _BOOK) for stem in stems]
        trades = [_read(folder / f"{stem}.trades.parquet", _TRADES) for stem in stems]
        self._begin = max(int(book["recv_ns"][0]) for book in books) // NS + 1
        self._length = min(int(book["recv_ns"][-1]) for book in books) // NS - self._begin
        if self._length < SECONDS_MIN:
            raise SettingsError(
                f"a recording must have {SECONDS_MIN} seconds that all symbols share, found {self._length} in {folder}"
            )
        prices = [_concat(book, "price", trade) for book, trade in zip(books, trades, strict=True)]
        sizes = [_concat(book, "size", trade) for book, trade in zip(books, trades, strict=True)]
        self.price_places = tuple(_decimals(values) for values in prices)
        self.size_places = tuple(_decimals(values) for values in sizes)
        self.price_scale = np.array([10.0**place for place in self.price_places])
        self.size_scale = np.array([10.0**place for place in self.size_places])
        self._grid(folder, stems, books, trades)

        self._history_s = int(HISTORY_SHARE * self._length)
        self._live_s = self._length - self._history_s
        self._anchor = anchor_ns // NS
        self.history_end_ns: int | None = self._anchor * NS
        self.first_second = self._anchor - self._history_s
        self.note = (
            f"recorded market {folder.name}: history {self._history_s} s, then {self._live_s} s live in a loop; "
            "every socket is closed where the loop begins again"
        )
        self._contracts = [self._contract(n) for n in range(len(self.symbols))]
        self._cached: tuple[int, Block] | None = None

    def contracts(self, second: int | None = None) -> list[dict[str, Any]]:
        return self._contracts

    def is_listed(self, second: int) -> NDArray[np.bool_]:
        return np.ones(len(self.symbols), dtype=np.bool_)

    def seam_after(self, second: int) -> int | None:
        loops = max(0, (second - self._anchor) // self._live_s) + 1
        return self._anchor + loops * self._live_s

    def block(self, second: int) -> Block:
        if second < self.first_second:
            raise SettingsError(
                f"the recording begins at second {self.first_second}, found {second}: ask for a later one"
            )
        if second < self._anchor:
            first, at, length = self.first_second, 0, self._history_s
        else:
            loop = (second - self._anchor) // self._live_s
            first, at, length = self._anchor + loop * self._live_s, self._history_s, self._live_s
        cached = self._cached
        if cached is None or cached[0] != first:
            cached = self._cached = (first, self._cut(first, at, length))
        return cached[1]

    # ------------------------------------------------------------------------------------------ grid

    def _grid(self, folder: Path, stems: list[str], books: list[Columns], trades: list[Columns]) -> None:
        """Bring everything onto seconds: shape (length, N, ...)."""
        n_symbols, t_end = len(stems), self._length
        starts_ns = (self._begin + np.arange(t_end)) * NS
        shape = (t_end, n_symbols, LEVELS)
        self._levels = {
            name: np.zeros(shape, dtype=np.int64) for name in ("bid_price", "bid_size", "ask_price", "ask_size")
        }
        self._quotes = {name: np.zeros(shape[:2], dtype=np.int64) for name in self._levels}
        self._is_fresh = np.zeros(shape[:2], dtype=np.bool_)
        self._series = {name: np.full(shape[:2], np.nan) for name in ("last", "mark", "index", "funding_rate")}
        rows: list[tuple[Ints, ...]] = []
        for n, stem in enumerate(stems):
            scales = {"price": self.price_scale[n], "size": self.size_scale[n]}
            book, trade = books[n], trades[n]
            at = np.searchsorted(book["recv_ns"], starts_ns, side="right") - 1
            self._is_fresh[:, n] = book["recv_ns"][at] > starts_ns - NS
            for name, table in self._levels.items():
                for level in range(LEVELS):
                    table[:, n, level] = _whole(book[f"{name}_{level + 1}"][at], scales[name[4:]])
            bbo = _read(folder / f"{stem}.bbo.parquet", _BBO) or book
            at = np.maximum(np.searchsorted(bbo["recv_ns"], starts_ns, side="right") - 1, 0)
            for name, quote in self._quotes.items():
                quote[:, n] = _whole(bbo[f"{name}_1"][at], scales[name[4:]])
            touch = self._levels["bid_price"][:, n, 0] + self._levels["ask_price"][:, n, 0]
            self._series["mark"][:, n] = touch / 2.0 / self.price_scale[n]
            mark = _read(folder / f"{stem}.mark.parquet", _MARK)
            if mark:
                for name, column in (
                    ("mark", "mark_price"),
                    ("index", "index_price"),
                    ("funding_rate", "funding_rate"),
                ):
                    self._series[name][:, n] = _as_of(mark, column, starts_ns)
            # The venue and the ticker must know the same mark: whole ticks, as Bitget prints it.
            self._series["mark"][:, n] = np.rint(self._series["mark"][:, n] * self.price_scale[n]) / self.price_scale[n]
            if trade:
                self._series["last"][:, n] = _as_of(trade, "price", starts_ns)
                rows.append(self._trade_rows(n, trade))
        merged = (
            [np.concatenate(columns) for columns in zip(*rows, strict=True)] if rows else [np.zeros(0, np.int64)] * 6
        )
        # Oldest first; the recording's own order where receipt is the same instant.
        order = np.argsort(merged[0], kind="stable")
        self._trade_ns, self._trade_symbol, self._trade_ticks, self._trade_steps, self._trade_side = (
            column[order] for column in merged[:5]
        )

    def _trade_rows(self, n: int, trade: Columns) -> tuple[Ints, ...]:
        offset = trade["recv_ns"] - self._begin * NS
        inside = (offset >= 0) & (offset < self._length * NS)
        ticks, steps = _whole(trade["price"], self.price_scale[n]), _whole(trade["size"], self.size_scale[n])
        symbol = np.full(len(offset), n, dtype=np.int64)
        side = np.where(trade["side"] > 0, 1, -1).astype(np.int64)
        return tuple(column[inside] for column in (offset, symbol, ticks, np.maximum(steps, 1), side))

    def _cut(self, first_second: int, at: int, length: int) -> Block:
        rows = slice(at, at + length)
        low, high = np.searchsorted(self._trade_ns, (at * NS, (at + length) * NS))
        offset = self._trade_ns[low:high] - at * NS
        ms = first_second * 1000 + offset // 1_000_000
        unknown = np.full((length, len(self.symbols)), np.nan)
        return Block(
            first_second=first_second,
            bid_ticks=self._levels["bid_price"][rows], bid_steps=self._levels["bid_size"][rows],
            ask_ticks=self._levels["ask_price"][rows], ask_steps=self._levels["ask_size"][rows],
            quote_bid_ticks=self._quotes["bid_price"][rows], quote_bid_steps=self._quotes["bid_size"][rows],
            quote_ask_ticks=self._quotes["ask_price"][rows], quote_ask_steps=self._quotes["ask_size"][rows],
            is_fresh=self._is_fresh[rows],
            last=self._series["last"][rows], mark=self._series["mark"][rows], index=self._series["index"][rows],
            funding_rate=self._series["funding_rate"][rows],
            next_funding_ms=np.zeros((length, len(self.symbols)), dtype=np.int64),
            open_interest=unknown, base_volume=unknown, quote_volume=unknown,
            open_24h=unknown, high_24h=unknown, low_24h=unknown,
            trades=Trades(
                start=np.searchsorted(offset, np.arange(length + 1) * NS),
                symbol=self._trade_symbol[low:high], offset_ns=offset % NS, price_ticks=self._trade_ticks[low:high],
                size_steps=self._trade_steps[low:high], side=self._trade_side[low:high],
                trade_id=((ms - SNOWFLAKE_EPOCH_MS) << 22) | (np.arange(high - low) & 0x3FFFFF),
            ),
        )  # fmt: skip

    def _contract(self, n: int) -> dict[str, Any]:
        symbol, step = self.symbols[n], f"{1.0 / self.size_scale[n]:.{self.size_places[n]}f}"
        return {
            "symbol": symbol, "baseCoin": symbol.removesuffix("USDT"), "quoteCoin": "USDT",
            "buyLimitPriceRatio": "0.05", "sellLimitPriceRatio": "0.05", "feeRateUpRatio": "0.005",
            "makerFeeRate": "0.0002", "takerFeeRate": "0.0006", "openCostUpRatio": "0.01",
            "supportMarginCoins": ["USDT"], "minTradeNum": step, "priceEndStep": "1",
            "volumePlace": str(self.size_places[n]), "pricePlace": str(self.price_places[n]), "sizeMultiplier": step,
            "symbolType": "perpetual", "minTradeUSDT": "5", "maxSymbolOrderNum": "200", "maxProductOrderNum": "1000",
            "maxPositionNum": "200", "symbolStatus": "normal", "offTime": "-1", "limitOpenTime": "-1",
            "deliveryTime": "", "deliveryStartTime": "", "deliveryPeriod": "", "launchTime": "", "fundInterval": "8",
            "minLever": "1", "maxLever": "50", "posLimit": "0.1", "maintainTime": "", "openTime": "",
            "maxMarketOrderQty": "", "maxOrderQty": "", "isRwa": "NO",
        }  # fmt: skip


_BOOK = ("recv_ns", *(f"{side}_{what}_{k}" for side in ("bid", "ask") for what in ("price", "size")
                      for k in range(1, LEVELS + 1)))  # fmt: skip
_BBO = ("recv_ns", "bid_price_1", "bid_size_1", "ask_price_1", "ask_size_1")
_TRADES = ("recv_ns", "price", "size", "side")
_MARK = ("recv_ns", "mark_price", "index_price", "funding_rate")


def _read(path: Path, needed: tuple[str, ...]) -> Columns:
    """Return a file's columns sorted by receipt, {} where there is no such file.

    Raises:
        SettingsError: it is no Parquet, or a needed column is missing, empty or no number.
    """
    if not path.exists():
        return {}
    try:
        import pyarrow.parquet
    except ImportError:
        raise SettingsError("replaying a recording needs pyarrow, found none: install the pipelines group") from None
    try:
        table = pyarrow.parquet.read_table(path)
    except pyarrow.ArrowInvalid as error:
        raise SettingsError(
            f"a recording must be Parquet, found {path} unreadable ({error}): check --recording"
        ) from None
    missing = [name for name in needed if name not in table.column_names]
    if missing:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise SettingsError(
            f"{path} must have the columns of docs/recordings.md, found no {', '.join(missing[:3])}{more}: "
            "add them or choose another --recording"
        )
    columns: Columns = {name: table.column(name).to_numpy() for name in needed}
    strange = [name for name, values in columns.items() if values.dtype.kind not in "iuf"]
    if strange:
        raise SettingsError(
            f"{path} must hold numbers in {strange[0]}, found {table.schema.field(strange[0]).type}: "
            "convert it or choose another --recording"
        )
    if not len(columns["recv_ns"]):
        if "price" in columns:
            return {}  # nobody traded
        raise SettingsError(f"{path} must have rows, found none: remove the symbol or choose another --recording")
    order = np.argsort(columns["recv_ns"], kind="stable")
    return {name: column[order] for name, column in columns.items()}


def _concat(book: Columns, what: str, trade: Columns) -> Floats:
    columns = [book[f"{side}_{what}_{k}"] for side in ("bid", "ask") for k in (1, 2, LEVELS)]
    return np.concatenate([*columns, trade[what]] if trade else columns)


def _decimals(values: Floats) -> int:
    """Return the fewest decimals that print every value, at most 10."""
    values = np.unique(values[np.isfinite(values)])
    for place in range(10):
        scaled = values * 10.0**place
        if np.all(np.abs(scaled - np.rint(scaled)) <= 1e-9 * np.maximum(1.0, np.abs(scaled))):
            return place
    return 10


def _whole(values: NDArray[Any], scale: float) -> Ints:
    whole: Ints = np.rint(np.nan_to_num(values, nan=0.0) * scale).astype(np.int64)
    return whole


def _as_of(table: Columns, column: str, starts_ns: Ints) -> Floats:
    """Return the last value received before each second, NaN before the first."""
    at = np.searchsorted(table["recv_ns"], starts_ns, side="right") - 1
    return np.where(at >= 0, table[column][np.maximum(at, 0)], np.nan)
