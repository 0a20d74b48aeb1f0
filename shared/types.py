"""What crosses modules: the universe, ticks, seconds, events and actions.

Axes mean the same everywhere: T seconds, N symbols (in the order of `Universe.symbols`), C sampled
columns (`shared.features.sampler.COLUMNS`), F features (`FeatureGraph.names`), L book levels, R rows of receipt.

Money, prices and sizes of *orders* are `Decimal`; market observations are float64 (15 digits round-trip).
Clocks are integers: `recv_ns` is our own receipt, `exch_ns` the exchange's stamp, `second` is the epoch
second whose row holds what was received in [second, second + 1).

Nothing here does I/O or reads a clock. Everything is immutable but the arrays, which nobody writes to after
handing them over.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

SCHEMA_VERSION = 2
"""Version of every table and of the journal. A reader refuses one it does not know."""

BOOK_LEVELS = 15
"""Levels per side that a stored book row holds (`books15` and `books`; `books5` fills the first five)."""

FULL_BOOKS = "books"
"""The channel that tells a book of up to 500 levels a side and its changes; the others tell the best levels anew."""

BOOK_CHANNELS = ("books1", "books5", "books15", FULL_BOOKS)

NS = 1_000_000_000

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


# --------------------------------------------------------------------------------------------- universe


class Contract(msgspec.Struct, frozen=True, kw_only=True):
    """Bitget's trading rules of one perpetual at one time (Bitget v2, Get Contract Config)."""

    symbol: str
    base: str
    quote: str
    status: str  # "normal" trades; "listed", "maintain", "limit_open", "restrictedAPI", "off" do not open
    tick: Decimal  # priceEndStep x 10^-pricePlace
    size_step: Decimal  # sizeMultiplier, base coin
    size_min: Decimal  # minTradeNum, base coin
    notional_min_usdt: Decimal  # minTradeUSDT
    size_max_limit: Decimal | None  # maxOrderQty; None: Bitget states no bound
    size_max_market: Decimal | None  # maxMarketOrderQty; None: Bitget states no bound
    price_band_buy: Decimal  # buyLimitPriceRatio [1]
    price_band_sell: Decimal  # sellLimitPriceRatio [1]
    maker_fee: Decimal  # [1] of notional
    taker_fee: Decimal  # [1] of notional
    leverage_min: int
    leverage_max: int
    funding_interval_h: int
    is_rwa: bool
    launch_ms: int | None  # None: listed before Bitget kept the date
    off_ms: int | None  # None: no delisting announced

    @property
    def has_market(self) -> bool:
        """Claim that books and trades of it are pushed: it has been launched, and not been taken off."""
        return self.status not in ("listed", "off")


class Tier(msgspec.Struct, frozen=True, kw_only=True):
    """One step of a contract's risk ladder (Bitget v2, Get Position Tier)."""

    level: int  # from 1
    start_usdt: Decimal  # notional, exclusive but for 0
    end_usdt: Decimal  # notional, inclusive
    leverage_max: int
    maintenance_rate: Decimal  # [1] of notional


class Universe(msgspec.Struct, frozen=True, kw_only=True):
    """The contracts listed at one time, sorted by symbol; their position is the N axis."""

    source: str  # "bitget", "simulator-…" or "import-…"
    as_of_ns: int
    contracts: tuple[Contract, ...]

    def __post_init__(self) -> None:
        symbols = [contract.symbol for contract in self.contracts]
        assert symbols == sorted(set(symbols)), "contracts must be sorted by symbol, each once"

    @property
    def symbols(self) -> tuple[str, ...]:
        return tuple(contract.symbol for contract in self.contracts)

    def index(self) -> dict[str, int]:
        """Return symbol -> position on the N axis."""
        return {contract.symbol: n for n, contract in enumerate(self.contracts)}


class BookChannels(msgspec.Struct, frozen=True):
    """The book channel of every symbol: one for all, but for those named.

    `live` and the recorder of one installation have the same (the setting `BOOKS`): what a second says of depth depends
    on how many levels are seen, and a model must see what it learned from.
    """

    default: str = "books5"  # one of BOOK_CHANNELS
    others: Mapping[str, str] = {}  # symbol -> channel

    def of(self, symbol: str) -> str:
        return self.others.get(symbol, self.default)

    def channels_of(self, symbol: str) -> tuple[str, ...]:
        """Return all channels that a symbol is followed on."""
        return (self.of(symbol), "trade", "ticker")

    @property
    def has_full(self) -> bool:
        """Claim that some symbol's full book is followed."""
        return FULL_BOOKS in (self.default, *self.others.values())

    def __str__(self) -> str:
        """Return it as it is written in the setting."""
        return ",".join([self.default, *(f"{symbol}={channel}" for symbol, channel in sorted(self.others.items()))])


BOOKS5 = BookChannels()
"""What is recorded and traded unless the setting `BOOKS` says otherwise."""


# ------------------------------------------------------------------------------------------------- ticks


class TickEvent(enum.IntEnum):
    """What a raw row tells. Links are rows, so that coverage is computed, not guessed."""

    DATA = 0
    REPEATED = 1  # a trade that a subscribe snapshot repeats, a book or ticker behind a newer one: no flow, no state
    SUBSCRIBED = 2  # from here on, silence of this channel means that nothing happened (ack received)
    DISCONNECTED = 3  # from here on, silence means nothing
    GAP = 4  # a break in a sequence chain was seen here
    CARRIED = 5  # first rows of an hour: the link is up and this was the last state, so an hour stands alone


LATE_NS_MAX = 5 * NS
"""An exchange time that lies further back is no late push: the clock there was set, and what it says is the state."""


class BookTicks(msgspec.Struct, frozen=True):
    """Book rows in order of receipt. Link rows (`event` other than DATA, CARRIED) have NaN prices, 0 sizes."""

    symbol: NDArray[np.int32]  # (R,) position on the N axis
    recv_ns: Ints  # (R,)
    exch_ns: Ints  # (R,), 0 where the exchange sent none
    event: NDArray[np.uint8]  # (R,) TickEvent
    conn: NDArray[np.int32]  # (R,) which connection of the collector's session
    seq: Ints  # (R,), -1 where the channel has none
    bid_price: Floats  # (R, BOOK_LEVELS), best first; absent level: NaN
    bid_size: Floats  # (R, BOOK_LEVELS), base coin; absent level: 0
    ask_price: Floats
    ask_size: Floats


class TradeTicks(msgspec.Struct, frozen=True):
    """Public trades in order of receipt, oldest first within a frame."""

    symbol: NDArray[np.int32]
    recv_ns: Ints
    exch_ns: Ints
    event: NDArray[np.uint8]
    conn: NDArray[np.int32]
    trade_id: Ints  # Bitget's snowflake; -1 on link rows
    price: Floats
    size: Floats  # base coin
    side: NDArray[np.int8]  # +1 the taker bought, -1 the taker sold, 0 on link rows


class TickerTicks(msgspec.Struct, frozen=True):
    """Ticker rows in order of receipt. A field that Bitget sent empty is NaN, never 0."""

    symbol: NDArray[np.int32]
    recv_ns: Ints
    exch_ns: Ints
    event: NDArray[np.uint8]
    conn: NDArray[np.int32]
    last: Floats
    bid: Floats
    ask: Floats
    bid_size: Floats
    ask_size: Floats
    mark: Floats
    index: Floats
    funding_rate: Floats  # [1] per interval
    next_funding_ms: Ints  # 0 where unknown
    open_interest: Floats  # base coin
    base_volume_24h: Floats
    quote_volume_24h: Floats  # USDT


class DepthTicks(msgspec.Struct, frozen=True):
    """Changed levels of full books (channel `books`) in order of receipt, in a frame as sent: asks, then bids.

    Rows of one frame share everything up to `is_snapshot`. A frame that changes nothing, and a link row, is one row
    with side 0. CARRIED rows are a book as a snapshot, with the numbers of the last push.
    """

    symbol: NDArray[np.int32]
    recv_ns: Ints
    exch_ns: Ints
    event: NDArray[np.uint8]
    conn: NDArray[np.int32]
    seq: Ints  # -1 on link rows
    pseq: Ints  # the seq that this update follows; 0 on snapshots, -1 on link rows
    is_snapshot: NDArray[np.bool_]  # the book begins anew with this frame
    side: NDArray[np.int8]  # +1 bid, -1 ask, 0: no level
    price: Floats  # NaN where there is no level
    size: Floats  # base coin; 0: the level is deleted


class Ticks(msgspec.Struct, frozen=True):
    """One batch of receipts: each table in order of receipt."""

    books: BookTicks
    trades: TradeTicks
    tickers: TickerTicks
    depth: DepthTicks | None = None  # None: nobody records full books


# ----------------------------------------------------------------------------------------------- seconds


class Seconds(msgspec.Struct, frozen=True):
    """A block of sampled seconds; row t is second `first_second + t`, known at its end."""

    first_second: int
    columns: Mapping[str, Floats]  # every name of sampler.COLUMNS -> (T, N), C-contiguous


# ------------------------------------------------------------------------------------- orders, as we say it


class Side(enum.StrEnum):
    BUY = "buy"
    SELL = "sell"

    @property
    def sign(self) -> int:
        return 1 if self is Side.BUY else -1

    @property
    def opposite(self) -> Side:
        return Side.SELL if self is Side.BUY else Side.BUY


class OrderKind(enum.StrEnum):
    MARKET = "market"
    POST_ONLY = "post_only"
    LIMIT = "limit"
    IOC = "ioc"
    FOK = "fok"


class OrderStatus(enum.StrEnum):
    """Bitget's own words for the state of an accepted order."""

    LIVE = "live"
    PARTIALLY_FILLED = "partially_filled"
    FILLED = "filled"
    CANCELED = "canceled"

    @property
    def is_final(self) -> bool:
        return self in (OrderStatus.FILLED, OrderStatus.CANCELED)


class Cause(enum.StrEnum):
    """Why an order was sent: every entry has one, every exit exactly one."""

    ENTRY = "entry"
    HORIZON = "horizon"  # the prediction's horizon has passed
    REVERSAL = "reversal"  # the score now says the other side
    DECAY = "decay"  # the score that entered is gone
    TARGET = "target"  # the configured profit was reached
    STOP = "stop"  # the exchange's own stop, or ours where it did not come
    RISK = "risk"  # a latched limit flattens
    OPERATOR = "operator"  # a person, or a clean stop
    ADOPTED = "adopted"  # found at the exchange at the start


class Position(msgspec.Struct, frozen=True, kw_only=True):
    """A net position in one symbol (one-way mode)."""

    symbol: str
    size: Decimal  # base coin, signed: > 0 long
    entry_price: Decimal  # average, from fills


class PendingOrder(msgspec.Struct, frozen=True, kw_only=True):
    """An order that rests at the exchange."""

    client_oid: str
    order_id: str
    symbol: str
    side: Side
    kind: OrderKind
    size: Decimal
    filled: Decimal
    price: Decimal | None  # None: a market order
    reduce_only: bool


# ------------------------------------------------------------------------------------------ engine: events


class Event(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Something that happened to us; the engine's only input. `recv_ns` is the engine's only clock."""

    recv_ns: int


class Adopted(Event, frozen=True, kw_only=True):
    """The exchange's truth, read before anything else is done (and again after any doubt)."""

    equity_usdt: Decimal
    available_usdt: Decimal
    positions: tuple[Position, ...]
    orders: tuple[PendingOrder, ...]
    leverage: dict[str, int]  # symbol -> obtained (read back); a symbol that is absent may not be opened
    fills: tuple[Filled, ...] = ()  # read last, oldest first, from `QueryAccount.fills_since_ns` on; most are repeats


class SecondClosed(Event, frozen=True, kw_only=True):
    """A second of market data, sampled. Encoded to bytes by the journal, not by msgspec.

    `scores` carries what a block-wise caller (the backtest) has already computed with the same graph and
    scorer; None makes the engine compute it. Cut invariance makes the two equal, bit for bit.
    """

    second: int
    columns: Any  # (C, N) float64 in the order of sampler.COLUMNS
    scores: Any = None  # shared.strategy.scores.Scores or None


class OrderAccepted(Event, frozen=True, kw_only=True):
    """The exchange took the order. An ack is not a fill."""

    client_oid: str
    order_id: str


class OrderRefused(Event, frozen=True, kw_only=True):
    """The exchange said no: the order does not exist."""

    client_oid: str
    code: str
    message: str


class OrderTimedOut(Event, frozen=True, kw_only=True):
    """No answer: the order may be live. It is queried, never sent again."""

    client_oid: str


class OrderReported(Event, frozen=True, kw_only=True):
    """State of one order, from the private stream or from `order/detail`."""

    client_oid: str
    order_id: str
    status: OrderStatus
    filled: Decimal
    reason: str  # Bitget's cancelReason, "" otherwise


class OrderAbsent(Event, frozen=True, kw_only=True):
    """`order/detail` does not know it. Proof of absence only after the signature window (30 s)."""

    client_oid: str


class CancelRefused(Event, frozen=True, kw_only=True):
    client_oid: str
    code: str
    message: str


class Filled(Event, frozen=True, kw_only=True):
    """One fill; the only source of positions and fees. Repeats (same trade_id) are ignored by the engine."""

    client_oid: str  # "" where the exchange itself traded (stop, liquidation)
    order_id: str
    trade_id: str
    symbol: str
    side: Side
    price: Decimal
    size: Decimal
    fee_usdt: Decimal  # >= 0 is a cost
    is_maker: bool
    exch_ns: int


class FundingPaid(Event, frozen=True, kw_only=True):
    """The funding of one position at one settlement. Repeats (same bill_id) are ignored by the engine."""

    symbol: str
    amount_usdt: Decimal  # > 0 received
    bill_id: str
    exch_ns: int  # when the exchange booked it: at the full hour, or soon after


class LinkChanged(Event, frozen=True, kw_only=True):
    """A stream went down or came up; while one is down nothing adds risk."""

    link: str  # "public" or "private"
    is_up: bool


class ClockRead(Event, frozen=True, kw_only=True):
    """The exchange's clock was read; while it differs too much from ours, nothing adds risk."""

    offset_ns: int  # the exchange's is ahead of ours by this, half the round trip taken off


class StopRequested(Event, frozen=True, kw_only=True):
    """Cancel everything, close everything, open nothing more."""

    reason: str


# ----------------------------------------------------------------------------------------- engine: actions


class Action(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """What the engine wants done. Journaled before it is done."""


class PlaceOrder(Action, frozen=True, kw_only=True, omit_defaults=True):
    client_oid: str
    symbol: str
    side: Side
    kind: OrderKind
    size: Decimal
    price: Decimal | None  # None exactly for market orders
    reduce_only: bool
    stop_price: Decimal | None  # protective stop that rides on an entry; None on exits
    cause: Cause
    # An exit that the exchange makes itself, of the whole position, whatever its size (Bitget: flash close). It bears a
    # name of the exchange's own, and ours only here. False is not written: journals from before read and replay.
    is_flash: bool = False


class CancelOrder(Action, frozen=True, kw_only=True):
    client_oid: str
    order_id: str  # "" while the ack is missing
    symbol: str


class QueryOrder(Action, frozen=True, kw_only=True, omit_defaults=True):
    """Ask `order/detail` (and the fills of the order): what became of it?"""

    client_oid: str
    symbol: str
    order_id: str = ""  # only of what does not bear our name there (`PlaceOrder.is_flash`); "": by our name


class QueryAccount(Action, frozen=True, kw_only=True):
    """Ask for the whole truth again; answered by `Adopted`."""

    reason: str
    fills_since_ns: int  # on our clock: no older fill can be missing


class Note(Action, frozen=True, kw_only=True):
    """A log event of the core, written by the shell: `noun.verb`, keys carry units."""

    event: str
    fields: dict[str, str | int | float | bool | None]
