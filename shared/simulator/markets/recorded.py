"""Real order books, replayed as Bitget: a folder of recorded Parquet files as a `replayed.ReplayedMarket`.

Layout of a folder: `<SYMBOL>.book.parquet` (recv_ns, bid_price_1..20, bid_size_k, ask_price_k, ask_size_k), and where
there are some `.bbo`, `.trades` (price, size, side +1/-1) and `.mark` (mark_price, index_price, funding_rate).

Mapping: symbol BTC -> BTCUSDT; tick and size step from the decimals seen; the venue matches on `book`, the ticker's
quotes come from `bbo`; mark = mid where there is none. The first three quarters are history and end at `anchor_ns`,
the last quarter is live.

polars, pyarrow and friends are not needed to serve a generated market; pyarrow is imported here, inside `_read`.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from shared.errors import SettingsError
from shared.simulator.markets.blocks import LEVELS, Floats
from shared.simulator.markets.replayed import SECONDS_MIN, SIDES, Columns, ReplayedMarket, Tape
from shared.types import NS

HISTORY_SHARE = 0.75


class RecordedMarket(ReplayedMarket):
    """A recording on the grid of seconds, shifted to end its history at `anchor_ns`.

    Args:
        folder: in the layout above.
        anchor_ns: when history ends and the live part begins; two processes that agree on it see one market.

    Raises:
        SettingsError: the folder is not a recording, is too short, or pyarrow is not installed.
    """

    def __init__(self, folder: Path, anchor_ns: int) -> None:
        stems = sorted(path.name.removesuffix(".book.parquet") for path in folder.glob("*.book.parquet"))
        if not stems:
            raise SettingsError(
                f"a recording must hold <SYMBOL>.book.parquet files, found none in {folder}: check --recording"
            )
        books = [_read(folder / f"{stem}.book.parquet", _BOOK) for stem in stems]
        begin_s = max(int(book["recv_ns"][0]) for book in books) // NS + 1
        length_s = min(int(book["recv_ns"][-1]) for book in books) // NS - begin_s
        if length_s < SECONDS_MIN:
            raise SettingsError(
                f"a recording must have {SECONDS_MIN} seconds that all symbols share, found {length_s} in {folder}"
            )
        self._whole = [_tape(folder, stem, book) for stem, book in zip(stems, books, strict=True)]
        past_s, anchor_s = int(HISTORY_SHARE * length_s), anchor_ns // NS
        super().__init__(
            # Shifted to another time it is another world: two of them in one table would put the same minute under
            # two dates, and a model would be tested on what it was trained on.
            source=f"simulator-{folder.name}-{datetime.fromtimestamp(anchor_s, UTC):%Y%m%dT%H%M%SZ}",
            kind="recorded",
            note=(
                f"recorded market {folder.name}: history {past_s} s, then {length_s - past_s} s live in a loop; "
                "every socket is closed where the loop begins again"
            ),
            symbols=[stem if stem.endswith("USDT") else f"{stem}USDT" for stem in stems],
            price_places=[_decimals(_seen(tape, "price")) for tape in self._whole],
            size_places=[_decimals(_seen(tape, "size")) for tape in self._whole],
            begin_s=begin_s,
            length_s=length_s,
            past_s=past_s,
            anchor_s=anchor_s,
        )
        self._contracts = [self._contract(n) for n in range(len(self.symbols))]

    def contracts(self, second: int | None = None) -> list[dict[str, Any]]:
        return self._contracts

    def _tapes(self, begin_s: int, length: int) -> list[Tape]:
        return self._whole

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


def _tape(folder: Path, stem: str, book: Columns) -> Tape:
    """Return one symbol's files as receipts."""
    matrices = {name: np.stack([book[f"{name}_{k}"] for k in range(1, LEVELS + 1)], axis=1) for name in SIDES}
    bbo = _read(folder / f"{stem}.bbo.parquet", _BBO)
    trades = _read(folder / f"{stem}.trades.parquet", _TRADES)
    mark = _read(folder / f"{stem}.mark.parquet", _MARK)
    series = {"last": {"recv_ns": trades["recv_ns"], "value": trades["price"]}} if trades else {}
    for name, column in (("mark", "mark_price"), ("index", "index_price"), ("funding_rate", "funding_rate")):
        if mark:
            series[name] = {"recv_ns": mark["recv_ns"], "value": mark[column]}
    quotes = {"recv_ns": bbo["recv_ns"]} | {name: bbo[f"{name}_1"] for name in SIDES} if bbo else {}
    return Tape({"recv_ns": book["recv_ns"]} | matrices, quotes, trades, series)


def _seen(tape: Tape, what: str) -> Floats:
    """Return every price or size of a symbol."""
    tables = [tape.book[f"{side}_{what}"].ravel() for side in ("bid", "ask")]
    tables += [tape.quotes[f"{side}_{what}"] for side in ("bid", "ask") if tape.quotes]
    return np.concatenate([*tables, tape.trades[what]] if tape.trades else tables)


def _decimals(values: Floats) -> int:
    """Return the fewest decimals that print every value, at most 10."""
    values = np.unique(values[np.isfinite(values)])
    for place in range(10):
        scaled = values * 10.0**place
        if np.all(np.abs(scaled - np.rint(scaled)) <= 1e-9 * np.maximum(1.0, np.abs(scaled))):
            return place
    return 10
