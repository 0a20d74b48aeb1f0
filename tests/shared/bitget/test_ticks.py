"""The buffer: what was appended comes out as columns, in order, whole, however often it is taken."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.bitget import wire
from shared.bitget.ticks import CHANNEL_TABLE, TickBuffer, TicksOverflow
from shared.types import BOOK_LEVELS, TickEvent, Ticks
from tests.shared.bitget.payloads import FRAMES, book, compact, frame, trades

SYMBOLS = ("BTCUSDT", "龙虾USDT")
prices = st.floats(1e-8, 1e7, allow_subnormal=False)
sizes = st.floats(0, 1e12, allow_subnormal=False)
levels = st.lists(st.tuples(prices, sizes), max_size=20)


def append(buffer: TickBuffer, text: str, conn: int = 3, recv_ns: int = 10) -> None:
    push = wire.decode_push(text)
    assert isinstance(push, (wire.BookPush, wire.TradePush, wire.TickerPush))
    n = buffer.index[push.symbol]
    if isinstance(push, wire.TradePush):
        buffer.append_trades(n, push.rows, conn, recv_ns, is_repeated=push.is_snapshot)
    for row in push.rows:
        if isinstance(row, wire.BookRow):
            buffer.append_book(n, row, conn, recv_ns)
        elif isinstance(row, wire.TickerRow):
            buffer.append_ticker(n, row, conn, recv_ns)


def columns(ticks: Ticks) -> dict[str, Any]:
    return {
        f"{table}.{name}": getattr(getattr(ticks, table), name)
        for table in ("books", "trades", "tickers")
        for name in getattr(ticks, table).__struct_fields__
    }


@given(st.lists(st.tuples(levels, levels, st.integers(0, 2**40), st.integers(-1, 2**62)), min_size=1, max_size=5))
def test_books_come_out_as_json_says(rows: list[tuple[Any, Any, int, int]]) -> None:
    """Against the standard library's JSON: levels in order, the sixteenth cut, absent ones price NaN and size 0."""
    buffer = TickBuffer(SYMBOLS)
    rows = sorted({row[2:]: row for row in rows}.values(), key=lambda row: row[2:])  # in order, each said once
    texts = [book("龙虾USDT", bids, asks, ts, seq) for bids, asks, ts, seq in rows]
    for i, text in enumerate(texts):
        append(buffer, text, recv_ns=10 + i)

    books = buffer.take().books

    for i, text in enumerate(texts):
        row = json.loads(text)["data"][0]
        for side, price, size in (("bids", books.bid_price, books.bid_size), ("asks", books.ask_price, books.ask_size)):
            sent = [(float(p), float(s)) for p, s in row[side]][:BOOK_LEVELS]
            absent = BOOK_LEVELS - len(sent)
            np.testing.assert_array_equal(price[i], [p for p, _ in sent] + [np.nan] * absent)
            np.testing.assert_array_equal(size[i], [s for _, s in sent] + [0.0] * absent)
        assert (books.symbol[i], books.recv_ns[i], books.conn[i], books.event[i]) == (1, 10 + i, 3, TickEvent.DATA)
        assert (books.exch_ns[i], books.seq[i]) == (int(row["ts"]) * 10**6, row["seq"])


@given(
    st.lists(st.tuples(st.integers(0, 2**62), prices, sizes, st.sampled_from(["buy", "sell"])), max_size=30),
    st.booleans(),
)
def test_trades_come_out_oldest_first(rows: list[tuple[int, float, float, str]], is_repeated: bool) -> None:
    """Bitget sends the newest trade first; the buffer stores the oldest first, and a snapshot's rows as REPEATED."""
    buffer = TickBuffer(SYMBOLS)
    append(buffer, trades("BTCUSDT", rows, "snapshot" if is_repeated else "update"))

    got = buffer.take().trades

    assert got.trade_id.tolist() == [trade_id for trade_id, *_ in reversed(rows)]
    assert got.price.tolist() == [price for _, price, _, _ in reversed(rows)]
    assert got.size.tolist() == [size for _, _, size, _ in reversed(rows)]
    assert got.side.tolist() == [1 if side == "buy" else -1 for *_, side in reversed(rows)]
    assert set(got.event.tolist()) <= {TickEvent.REPEATED if is_repeated else TickEvent.DATA}


def test_ticker_comes_out_with_blanks_as_nan() -> None:
    """A ticker row holds what was sent; what was not is NaN, and an unknown funding time 0."""
    buffer = TickBuffer(SYMBOLS)
    append(buffer, frame("ticker"))
    append(buffer, frame("ticker_with_blanks"))
    append(buffer, frame("ticker", markPrice="inf"))

    tickers = buffer.take().tickers

    assert (tickers.last[0], tickers.mark[0], tickers.index[0]) == (0.01816, 0.018161, 0.01818)
    assert (tickers.funding_rate[0], tickers.next_funding_ms[0]) == (-0.0002, 1760012800000)
    assert (tickers.open_interest[0], tickers.quote_volume_24h[0]) == (31911345.5999999605, 90000.5)
    assert np.isnan([tickers.bid[1], tickers.ask[1], tickers.mark[1], tickers.index[1], tickers.funding_rate[1]]).all()
    assert (tickers.next_funding_ms[1], tickers.quote_volume_24h[1]) == (0, 123.5)
    assert np.isnan(tickers.mark[2])


@pytest.mark.parametrize("channel", sorted(CHANNEL_TABLE))
@pytest.mark.parametrize("event", [TickEvent.SUBSCRIBED, TickEvent.DISCONNECTED, TickEvent.GAP])
def test_link_rows_hold_no_market(channel: str, event: TickEvent) -> None:
    """A link row says when, whom and which connection; its prices are NaN, its sizes 0, its ids -1."""
    buffer = TickBuffer(SYMBOLS)
    buffer.append_link(channel, "龙虾USDT", event, 4, 99)

    ticks = buffer.take()

    table: Any = {"book": ticks.books, "trade": ticks.trades, "ticker": ticks.tickers}[CHANNEL_TABLE[channel]]
    assert (table.symbol[0], table.recv_ns[0], table.conn[0], table.event[0], table.exch_ns[0]) == (1, 99, 4, event, 0)
    for name, column in columns(ticks).items():
        if not len(column):
            continue
        if name.endswith(("price", "last", "mark", "index", "bid", "ask", "rate", "interest", "24h")):
            assert np.isnan(column).all(), name
        if name.endswith(("trade_id", "seq")):
            assert (column == -1).all(), name
        if name in ("books.bid_size", "books.ask_size", "trades.size", "trades.side"):
            assert (column == 0).all(), name


@given(st.data())
def test_cuts_between_batches_change_nothing(data: st.DataObject) -> None:
    """Taking after any row gives, put together, the same columns as taking once."""
    names = data.draw(
        st.lists(st.sampled_from(["books15", "trade_snapshot", "trade_update", "ticker", "link"]), max_size=30)
    )
    cuts = data.draw(st.sets(st.integers(0, 30)))
    whole, cut = TickBuffer(SYMBOLS), TickBuffer(SYMBOLS)
    batches = []
    for i, name in enumerate(names):
        for buffer in (whole, cut):
            if name == "link":
                buffer.append_link("trade", "BTCUSDT", TickEvent.GAP, 0, 100 + i)
            else:
                append(buffer, frame(name), recv_ns=100 + i)
        if i in cuts:
            batches.append(columns(cut.take()))
    batches.append(columns(cut.take()))

    for name, column in columns(whole.take()).items():
        np.testing.assert_array_equal(np.concatenate([batch[name] for batch in batches]), column)


@given(st.lists(st.sampled_from(["BTCUSDT", "龙虾USDT", "NEWUSDT", "ETHUSDT"]), max_size=30))
def test_axis_that_grows_keeps_its_positions(names: list[str]) -> None:
    """Symbols added when they first push get the positions behind the others; every row is found under its symbol."""
    buffer = TickBuffer(SYMBOLS)
    taken_of: list[str] = []
    for i, name in enumerate(names):
        buffer.grow([name])
        append(buffer, book(name, [(1.0 + i, 2.0)], [(3.0 + i, 4.0)], i, i), recv_ns=10 + i)
        buffer.append_link("books15", name, TickEvent.GAP, 1, 10 + i)
        if i % 3 == 0:
            taken_of += [buffer.symbols[n] for n in buffer.take().books.symbol.tolist()]
    taken_of += [buffer.symbols[n] for n in buffer.take().books.symbol.tolist()]

    assert taken_of == [name for name in names for _ in range(2)]
    assert buffer.symbols[:2] == SYMBOLS
    assert buffer.symbols[2:] == tuple(name for name in dict.fromkeys(names) if name not in SYMBOLS)


def test_taken_batch_is_not_written_again() -> None:
    """A batch that was handed over does not change when the buffer goes on."""
    buffer = TickBuffer(SYMBOLS)
    append(buffer, book("BTCUSDT", [(1.0, 2.0)], [(3.0, 4.0)]))
    first = buffer.take()

    append(buffer, book("BTCUSDT", [(5.0, 6.0)], [(7.0, 8.0)]))

    assert first.books.bid_price[0, 0] == 1.0
    assert all(
        column.flags.c_contiguous and column.flags.owndata for column in columns(first).values() if column.ndim == 1
    )


def test_columns_have_the_promised_types() -> None:
    """Every column has the dtype and shape that `shared.types` states, also in an empty batch."""
    buffer = TickBuffer(SYMBOLS)
    for rows in (0, 1):
        if rows:
            for name in ("books15", "trade_update", "ticker"):
                append(buffer, frame(name))
        for name, column in columns(buffer.take()).items():
            field = name.split(".")[1]
            expected = {"symbol": "int32", "conn": "int32", "event": "uint8", "side": "int8"}.get(field)
            if field in ("recv_ns", "exch_ns", "seq", "trade_id", "next_funding_ms"):
                expected = "int64"
            assert column.dtype == (expected or "float64"), name
            if name.startswith("books") and column.ndim == 2:
                assert column.shape[1] == BOOK_LEVELS


def test_full_buffer_refuses_and_keeps_what_it_has() -> None:
    """A full buffer raises before it takes a part of a frame; what it holds can still be taken, and then it goes on."""
    buffer = TickBuffer(SYMBOLS, rows_max=3)
    append(buffer, frame("trade_update"))
    before = len(buffer)

    with pytest.raises(TicksOverflow, match="at most 3 trade rows"):
        append(buffer, frame("trade_update"))

    assert len(buffer) == before == 2
    assert len(buffer.take().trades.price) == 2
    append(buffer, frame("trade_update"))
    assert len(buffer) == 2


def test_buffer_grows_without_losing_rows() -> None:
    """Growing keeps every row, and the length counts all tables."""
    buffer = TickBuffer(SYMBOLS)
    for i in range(1000):
        append(buffer, book("BTCUSDT", [(1.0 + i, 1.0)], [(5000.0, 1.0)], seq=i), recv_ns=10 + i)

    assert len(buffer) == 1000
    assert buffer.take().books.seq.tolist() == list(range(1000))
    assert len(buffer) == 0


def test_receipts_never_go_back() -> None:
    """A receipt before the last one is our mistake: two clocks on one buffer."""
    buffer = TickBuffer(SYMBOLS)
    append(buffer, frame("ticker"), recv_ns=10)

    with pytest.raises(AssertionError):
        append(buffer, frame("ticker"), recv_ns=9)


def test_golden_frames_survive_the_round() -> None:
    """The golden book frame comes out with every level it has."""
    buffer = TickBuffer(SYMBOLS)
    append(buffer, frame("books15"))

    row = FRAMES["books15"]["data"][0]
    books = buffer.take().books

    assert books.ask_price[0, :3].tolist() == [float(price) for price, _ in row["asks"]]
    assert msgspec.json.decode(compact(row))["seq"] == books.seq[0]


def test_push_is_one_row_however_often_and_by_whomever_it_is_brought() -> None:
    """Said twice by one connection, or by two that carry the channel: one row, the first; other pushes stay."""
    buffer = TickBuffer(SYMBOLS)
    level = [(1.0, 1.0)]

    def tell(conn: int, seq: int, recv_ns: int) -> None:
        append(buffer, book("BTCUSDT", level, level, 5, seq), conn, recv_ns)

    buffer.append_link("books15", "BTCUSDT", TickEvent.SUBSCRIBED, 1, 10)
    tell(1, 1, 11)
    tell(1, 1, 12)
    buffer.append_link("books15", "BTCUSDT", TickEvent.SUBSCRIBED, 2, 13)
    tell(2, 1, 14)  # the new connection begins with what the old one has brought
    tell(2, 2, 15)
    tell(1, 2, 16)
    tell(1, 3, 17)
    buffer.append_link("books15", "BTCUSDT", TickEvent.DISCONNECTED, 1, 18)
    tell(2, 3, 19)  # it was brought, whoever brought it has gone
    tell(2, 4, 20)
    buffer.append_link("books15", "BTCUSDT", TickEvent.DISCONNECTED, 2, 21)
    buffer.append_link("books15", "BTCUSDT", TickEvent.SUBSCRIBED, 2, 22)
    tell(2, 4, 23)  # nobody listened meanwhile: it is news that this is the state again

    books = buffer.take().books
    data = books.event == TickEvent.DATA
    assert books.seq[data].tolist() == [1, 2, 3, 4, 4]
    assert books.recv_ns[data].tolist() == [11, 15, 17, 20, 23]
    assert buffer.repeats == 4


def test_ticker_that_says_something_new_is_never_left_out() -> None:
    """Tickers have no number: one that differs in any field is a row of its own, on either connection."""
    buffer = TickBuffer(SYMBOLS)
    buffer.append_link("ticker", "BTCUSDT", TickEvent.SUBSCRIBED, 1, 10)
    buffer.append_link("ticker", "BTCUSDT", TickEvent.SUBSCRIBED, 2, 10)
    for at, (conn, mark) in enumerate([(1, "1"), (2, "1"), (2, "2"), (1, "2"), (1, "3")]):
        append(buffer, frame("ticker", markPrice=mark), conn, 11 + at)

    tickers = buffer.take().tickers
    assert tickers.mark[tickers.event == TickEvent.DATA].tolist() == [1.0, 2.0, 3.0]


@pytest.mark.parametrize("table", ["books", "tickers"])
@given(st.lists(st.tuples(st.integers(100_000, 112_000), st.integers(1, 3)), min_size=1, max_size=20))
def test_what_comes_behind_a_newer_push_is_kept_and_is_no_state(table: str, told: list[tuple[int, int]]) -> None:
    """However pushes are shuffled: each that is older than the newest so far is REPEATED, all others are DATA. A time
    that lies further back than a network delays is a clock that was set: what it says is the state."""
    buffer = TickBuffer(SYMBOLS)
    newest, expected = (0, 0), []
    for i, (ts, seq) in enumerate(told):
        if table == "books":
            append(buffer, book("BTCUSDT", [(1.0, 1.0)], [(2.0, 1.0)], ts, seq), recv_ns=10 + i)
            push = ts, seq
        else:
            append(buffer, frame("ticker", ts=str(ts), markPrice=str(seq)), recv_ns=10 + i)
            push = ts, seq if ts != newest[0] else max(seq, newest[1])  # tickers of one time have no order
        if ts == newest[0] and (seq == newest[1] or table == "tickers"):
            expected += [] if seq == newest[1] else [(ts, TickEvent.DATA)]
            newest = newest if seq == newest[1] else (ts, seq)
        elif newest[0] - 5000 <= ts and push < newest:
            expected.append((ts, TickEvent.REPEATED))
        else:
            expected.append((ts, TickEvent.DATA))
            newest = push

    rows = getattr(buffer.take(), table)

    assert list(zip((rows.exch_ns // 10**6).tolist(), rows.event.tolist(), strict=True)) == expected
    assert rows.recv_ns.tolist() == sorted(rows.recv_ns.tolist())


def test_rotation_does_not_turn_the_book_back() -> None:
    """The snapshot that a second connection begins with is older than what the first one has brought: the state stays."""
    buffer = TickBuffer(SYMBOLS)
    level = [(1.0, 1.0)]
    for conn, ts, at in ((1, 1000, 10), (2, 900, 11), (2, 1100, 12), (1, 1050, 13)):
        buffer.append_link("books15", "BTCUSDT", TickEvent.SUBSCRIBED, conn, at)
        append(buffer, book("BTCUSDT", level, level, ts, ts), conn, at)

    books = buffer.take().books

    pushes = books.seq >= 0
    repeated, data = TickEvent.REPEATED, TickEvent.DATA
    assert books.seq[pushes].tolist() == [1000, 900, 1100, 1050]
    assert books.event[pushes].tolist() == [data, repeated, data, repeated]
