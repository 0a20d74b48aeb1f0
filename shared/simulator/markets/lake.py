"""Our own lake, replayed as Bitget: what a recorder received is shown again, on another day.

Books, trades and tickers come from the raw tables, contract rules from the dated universe; a block of five minutes is
read when it is asked for, so that a day of 600 symbols needs no more memory than five minutes. A state expires after
30 s, as it does for the sampler: where the recorder was cut off, the replay is silent, and a symbol is listed from
its first book on. Ticks that a snapshot repeated and rows of links are not shown.

The window begins at the anchor and plays in a loop; its first minute lies before the anchor, for candles and for
snapshots of trades. What a lake does not hold (24 h open, high and low) is unknown.

polars and the lake's code are imported inside: a simulator that serves another market needs neither.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shared.errors import SettingsError, TableEmpty
from shared.simulator.markets.blocks import Ints
from shared.simulator.markets.replayed import SECONDS_MIN, SIDES, Columns, ReplayedMarket, Tape
from shared.types import NS, BookTicks, Contract, TickerTicks, TickEvent, Universe

PAST_S = 60
EXPIRE_S = 30

_TICKER = {
    "last": "last", "mark": "mark", "index": "index", "funding_rate": "funding_rate",
    "open_interest": "open_interest", "base_volume": "base_volume_24h", "quote_volume": "quote_volume_24h",
}  # fmt: skip
_QUOTES = dict(zip(SIDES, ("bid", "bid_size", "ask", "ask_size"), strict=True))


class LakeMarket(ReplayedMarket):
    """A window of one source of the lake, shown from `anchor_ns` on.

    Args:
        start_s, end_s: epoch seconds of the window; None: from the first, to the last that was recorded.

    Raises:
        SettingsError: the window is too short, or polars is not installed.
        TableEmpty: no such source, or nothing recorded in the window.
        TableCorrupt: a file of the window cannot be read.
    """

    def __init__(
        self, lake: Path, source: str, anchor_ns: int, *, start_s: int | None = None, end_s: int | None = None
    ) -> None:
        try:
            from shared.lake import read
        except ImportError as error:
            raise SettingsError(
                f"replaying the lake needs polars, found no {error.name}: install the pipelines group"
            ) from None
        if start_s is not None and end_s is not None and start_s >= end_s:
            raise SettingsError(f"--from must lie before --to, found {_say(start_s)} and {_say(end_s)}: swap them")
        self._read, self._lake, self._of = read, lake, source
        begin_s, stop_s, firsts = self._bounds(start_s, end_s)
        length_s = stop_s - begin_s
        if length_s < PAST_S + SECONDS_MIN:
            raise SettingsError(
                f"a window of the lake must have {PAST_S + SECONDS_MIN} seconds, found {max(length_s, 0)} of {source} "
                f"from {_say(begin_s)} to {_say(stop_s)}: widen --from and --to"
            )
        self._universes = read.universes_between(lake, source, begin_s * NS, stop_s * NS)
        known: dict[str, Contract] = {}
        finest: dict[str, tuple[int, int]] = {}
        for universe in self._universes:
            for contract in universe.contracts:
                known.setdefault(contract.symbol, contract)
                price, size = finest.get(contract.symbol, (0, 0))
                finest[contract.symbol] = max(price, _place(contract.tick)), max(size, _size_place(contract))
        symbols = sorted(set(known) & set(firsts))
        if not symbols:
            raise TableEmpty(
                f"the universe of {source} in {lake} must list what was recorded, found "
                f"{len(known)} contracts and books of {len(firsts)} others: record or generate the source again"
            )
        anchor_s = anchor_ns // NS
        super().__init__(
            # A generated market stays recognisable as one ("simulator-g…"), and every replay is a world of its own.
            source=f"simulator-{source.removeprefix('simulator-')}"
            f"-replayed-{datetime.fromtimestamp(anchor_s, UTC):%Y%m%dT%H%M%SZ}",
            kind="replayed",
            note=(
                f"replayed lake: {source} of {_say(begin_s)} to {_say(stop_s)}, {length_s - PAST_S} s in a loop; "
                "every socket is closed where the loop begins again"
            ),
            symbols=symbols,
            price_places=[finest[symbol][0] for symbol in symbols],
            size_places=[finest[symbol][1] for symbol in symbols],
            begin_s=begin_s,
            length_s=length_s,
            past_s=PAST_S,
            anchor_s=anchor_s,
            expire_ns=EXPIRE_S * NS,
        )
        self._all = [contract_row(known[symbol], *finest[symbol]) for symbol in symbols]
        self._hours = np.array([known[symbol].funding_interval_h for symbol in symbols])
        self._first_ns = np.array([firsts[symbol] for symbol in symbols])
        self._shown = frozenset(symbols)
        self._rows_of: dict[int, list[dict[str, Any]]] = {}
        self._named_of: dict[int, NDArray[np.bool_]] = {}
        self._finest = finest

    def contracts(self, second: int | None = None) -> list[dict[str, Any]]:
        if second is None:
            return self._all
        universe = self._universe_at(second)
        if universe is None:
            return self._all
        rows = self._rows_of.get(universe.as_of_ns)
        if rows is None:
            listed = [contract for contract in universe.contracts if contract.symbol in self._shown]
            rows = [contract_row(contract, *self._finest[contract.symbol]) for contract in listed]
            self._rows_of[universe.as_of_ns] = rows
        return rows

    def is_listed(self, second: int) -> NDArray[np.bool_]:
        universe = self._universe_at(second)
        if universe is None:
            return np.zeros(len(self.symbols), dtype=np.bool_)
        named = self._named_of.get(universe.as_of_ns)
        if named is None:
            known = set(universe.symbols)
            named = self._named_of[universe.as_of_ns] = np.array([symbol in known for symbol in self.symbols])
        listed: NDArray[np.bool_] = named & (self._first_ns <= self.received_second(second) * NS)
        return listed

    def funding_hours(self) -> Ints:
        return self._hours

    def _universe_at(self, second: int) -> Universe | None:
        """Return the snapshot in force, None before the first second."""
        if second < self.first_second:
            return None
        now_ns = self.received_second(second) * NS
        found = [universe for universe in self._universes if universe.as_of_ns <= now_ns]
        return found[-1] if found else self._universes[0]

    def _bounds(self, start_s: int | None, end_s: int | None) -> tuple[int, int, dict[str, int]]:
        """Return the first whole second, the end, and when each symbol's first book was received, ns."""
        import polars as pl

        rows = self._read.scan(self._lake, "raw/book", self._of, start_s=start_s, end_s=end_s, is_sorted=False)
        carried = (pl.col("event") == int(TickEvent.CARRIED)) & (pl.col("exch_ns") > 0)
        is_state = (pl.col("event") == int(TickEvent.DATA)) | carried
        query = (
            rows.filter(is_state).group_by("symbol").agg(first=pl.col("recv_ns").min(), last=pl.col("recv_ns").max())
        )
        found = self._read.collect(query)
        if not found.height:
            raise TableEmpty(
                f"raw/book of {self._of} in {self._lake} must hold books "
                f"{'' if start_s is None else f'from {_say(start_s)} '}{'' if end_s is None else f'to {_say(end_s)}'}"
                ", found none: widen --from and --to"
            )
        firsts = dict(zip(found["symbol"].to_list(), found["first"].to_list(), strict=True))
        return min(firsts.values()) // NS + 1, int(max(found["last"].to_list())) // NS + 1, firsts

    def _tapes(self, begin_s: int, length: int) -> list[Tape]:
        begin_ns, end_ns = (begin_s - EXPIRE_S) * NS, (begin_s + length) * NS
        try:
            ticks = self._read.read_ticks(self._lake, self._of, begin_ns, end_ns, self.symbols)
        except TableEmpty:
            return [Tape({}, {}, {}, {})] * len(self.symbols)  # an hour that nobody recorded
        book, ticker, trade = ticks.books, ticks.tickers, ticks.trades
        of_book = _by_symbol(book.symbol, _is_state(book), len(self.symbols))
        of_ticker = _by_symbol(ticker.symbol, _is_state(ticker), len(self.symbols))
        of_trade = _by_symbol(trade.symbol, trade.event == int(TickEvent.DATA), len(self.symbols))
        tapes = []
        for books, tickers, trades in zip(of_book, of_ticker, of_trade, strict=True):
            recv_ns = ticker.recv_ns[tickers]
            quotes: Columns = {name: getattr(ticker, of)[tickers] for name, of in _QUOTES.items()}
            tapes.append(
                Tape(
                    {"recv_ns": book.recv_ns[books], "is_push": book.event[books] == int(TickEvent.DATA)}
                    | {name: getattr(book, name)[books] for name in SIDES},
                    {"recv_ns": recv_ns} | quotes,
                    {"recv_ns": trade.recv_ns[trades]}
                    | {name: getattr(trade, name)[trades] for name in ("price", "size", "side")},
                    {name: {"recv_ns": recv_ns, "value": getattr(ticker, of)[tickers]} for name, of in _TICKER.items()},
                )
            )
        return tapes


def _is_state(rows: BookTicks | TickerTicks) -> NDArray[np.bool_]:
    """Return which rows show the symbol: pushes, and states carried over an hour's border (not bare links)."""
    is_state: NDArray[np.bool_] = (rows.event == TickEvent.DATA) | (
        (rows.event == TickEvent.CARRIED) & (rows.exch_ns > 0)
    )
    return is_state


def _by_symbol(symbol: NDArray[np.int32], is_wanted: NDArray[np.bool_], n_symbols: int) -> list[Ints]:
    """Return the positions of each symbol's wanted rows, in order of receipt."""
    rows = np.flatnonzero(is_wanted)
    rows = rows[np.argsort(symbol[rows], kind="stable")]
    ends = np.searchsorted(symbol[rows], np.arange(n_symbols + 1))
    return [rows[ends[n] : ends[n + 1]] for n in range(n_symbols)]


def contract_row(contract: Contract, price_place: int, size_place: int) -> dict[str, Any]:
    """Return a stored contract as the row of `GET /api/v2/mix/market/contracts` that it was read from.

    Fields that the universe does not keep (limits of orders and positions, dates) have the values that most rows have.
    """

    def text(value: Any, unknown: str) -> str:
        return unknown if value is None else f"{value:f}" if hasattr(value, "as_tuple") else str(value)

    return {
        "symbol": contract.symbol, "baseCoin": contract.base, "quoteCoin": contract.quote,
        "buyLimitPriceRatio": text(contract.price_band_buy, ""),
        "sellLimitPriceRatio": text(contract.price_band_sell, ""), "feeRateUpRatio": "0.005",
        "makerFeeRate": text(contract.maker_fee, ""), "takerFeeRate": text(contract.taker_fee, ""),
        "openCostUpRatio": "0.01", "supportMarginCoins": [contract.quote],
        "minTradeNum": text(contract.size_min, ""), "priceEndStep": str(int(contract.tick.scaleb(price_place))),
        "volumePlace": str(size_place), "pricePlace": str(price_place),
        "sizeMultiplier": text(contract.size_step, ""), "symbolType": "perpetual",
        "minTradeUSDT": text(contract.notional_min_usdt, ""), "maxSymbolOrderNum": "200",
        "maxProductOrderNum": "1000", "maxPositionNum": "200", "symbolStatus": contract.status,
        "offTime": text(contract.off_ms, "-1"), "limitOpenTime": "-1", "deliveryTime": "", "deliveryStartTime": "",
        "deliveryPeriod": "", "launchTime": text(contract.launch_ms, ""),
        "fundInterval": str(contract.funding_interval_h), "minLever": str(contract.leverage_min),
        "maxLever": str(contract.leverage_max), "posLimit": "0.1", "maintainTime": "",
        "openTime": text(contract.launch_ms, ""), "maxMarketOrderQty": text(contract.size_max_market, ""),
        "maxOrderQty": text(contract.size_max_limit, ""), "isRwa": "YES" if contract.is_rwa else "NO",
    }  # fmt: skip


def _place(step: Any) -> int:
    return max(0, -int(step.normalize().as_tuple().exponent))


def _size_place(contract: Contract) -> int:
    return max(_place(contract.size_step), _place(contract.size_min))


def _say(second: int) -> str:
    return f"{datetime.fromtimestamp(second, UTC):%Y-%m-%dT%H:%M:%SZ}"
