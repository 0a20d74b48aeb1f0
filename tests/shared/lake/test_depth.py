"""Full books in the lake: what was told comes back at any time, whatever hour, connection, seal or death lies between."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.bitget import wire
from shared.bitget.chain import ChainedBook
from shared.bitget.ticks import TickBuffer
from shared.errors import TableEmpty
from shared.lake import layout, read, wal, write
from shared.lake.chains import FullBook, FullBooks
from shared.lake.depth import Book, book_at, books_at
from shared.lake.layout import DEPTH, RAW
from shared.types import FULL_BOOKS, NS, TickEvent, Ticks
from tests.shared.bitget.depths import Exchange, Sent, Side
from tests.shared.lake import receipts as r

BORDER_NS = (r.HOUR + 1) * r.HOUR_NS
SUBSCRIBED, DISCONNECTED, GAP = TickEvent.SUBSCRIBED, TickEvent.DISCONNECTED, TickEvent.GAP

Known = tuple[Side, Side] | None


class Recorder:
    """Connections that follow full books by hand, and what they know at every receipt."""

    def __init__(self, seed: int, start_ns: int, symbols: tuple[str, ...] = r.SYMBOLS[:2]) -> None:
        self.symbols = symbols
        self.exchange = Exchange(seed, symbols)
        self.buffer = TickBuffer(r.SYMBOLS, has_depth=True)
        self.now_ns = start_ns
        self.known: dict[str, list[tuple[int, Known]]] = {symbol: [(0, None)] for symbol in symbols}
        self._books: dict[tuple[int, str], ChainedBook] = {}
        self.sent: list[Sent] = []
        self._up: dict[tuple[int, str], Sent] = {}  # links that are up -> the last push

    def subscribe(self, conn: int, symbol: str) -> None:
        sent = self.exchange.snapshot(symbol)
        self.buffer.append_link(FULL_BOOKS, symbol, SUBSCRIBED, conn, self._tick())
        self._up[conn, symbol] = sent
        self._take(conn, sent, self.now_ns)

    def update(self, symbol: str) -> None:
        """Let every connection that has the book receive the next push, one after another."""
        sent = self.exchange.update(symbol)
        for conn, of in list(self._books):
            if of == symbol:
                self._take(conn, sent, self._tick())

    def doubt(self, conn: int, symbol: str) -> None:
        """Break a link; its next update will show that nothing was lost."""
        if (conn, symbol) in self._up:
            self.buffer.append_link(FULL_BOOKS, symbol, GAP, conn, self._tick())
            del self._up[conn, symbol]
            self._note(symbol)

    def end(self, conn: int, symbol: str) -> None:
        if self._books.pop((conn, symbol), None) is not None:
            self.buffer.append_link(FULL_BOOKS, symbol, DISCONNECTED, conn, self._tick())
            self._up.pop((conn, symbol), None)
            self._note(symbol)

    def wait(self, ns: int) -> None:
        self.now_ns += ns

    def at(self, symbol: str, at_ns: int) -> Known:
        return [known for ns, known in self.known[symbol] if ns <= at_ns][-1]

    def _take(self, conn: int, sent: Sent, recv_ns: int) -> None:
        push = wire.decode_push(sent.text)
        assert isinstance(push, wire.DepthPush)
        row = push.rows[0]
        if sent.is_snapshot:
            self._books[conn, sent.symbol] = ChainedBook(row)
        else:
            self._books[conn, sent.symbol].update(row)
            if (conn, sent.symbol) not in self._up:  # it was in doubt
                self.buffer.append_link(FULL_BOOKS, sent.symbol, SUBSCRIBED, conn, recv_ns)
            self._up[conn, sent.symbol] = sent
        self.sent.append(sent)
        book, n = self._books[conn, sent.symbol], self.buffer.index[sent.symbol]
        self.buffer.append_full_book(n, book, row, conn, recv_ns, is_snapshot=sent.is_snapshot)
        self._note(sent.symbol)

    def _note(self, symbol: str) -> None:
        up = [sent for (_, of), sent in self._up.items() if of == symbol]
        newest = max(up, key=lambda sent: sent.seq, default=None)
        self.known[symbol].append((self.now_ns, None if newest is None else (newest.asks, newest.bids)))

    def _tick(self) -> int:
        self.now_ns += 1000
        return self.now_ns


def open_log(root: Path, session: str = "s") -> wal.WriteAheadLog:
    return wal.WriteAheadLog(root, r.SOURCE, session, r.universe(), has_depth=True)


def live(recorder: Recorder, seed: int, n: int, conns: tuple[int, ...] = (0, 1)) -> None:
    """Let `n` things happen."""
    draw = random.Random(seed)
    for _ in range(n):
        symbol, conn = draw.choice(recorder.symbols), draw.choice(conns)
        what = draw.random()
        if what < 0.08:
            recorder.end(conn, symbol)
            recorder.subscribe(conn, symbol)
        elif what < 0.12:
            recorder.end(conn, symbol)
        elif what < 0.18:
            recorder.doubt(conn, symbol)
        else:
            recorder.update(symbol)
        recorder.wait(draw.randrange(1, NS // 5))


def levels(book: Book | None) -> Known:
    if book is None:
        return None
    assert np.all(np.diff(book.ask_price) > 0)
    assert np.all(np.diff(book.bid_price) < 0)
    asks, bids = ((book.ask_price, book.ask_size), (book.bid_price, book.bid_size))
    return (
        dict(zip(asks[0].tolist(), asks[1].tolist(), strict=True)),
        dict(zip(bids[0].tolist(), bids[1].tolist(), strict=True)),
    )


def check(root: Path, recorder: Recorder, seed: int, *, until_ns: int = 2**62, n: int = 12) -> None:
    """Compare the rebuilt books with what was known at random times, at receipts, and at the border of the hour."""
    draw = random.Random(seed)
    for symbol in recorder.symbols:
        moments = [ns for ns, _ in recorder.known[symbol][1:] if ns <= until_ns]
        times = [draw.choice(moments) + draw.choice((-1, 0, 1)) for _ in range(n)]
        times += [draw.randrange(moments[0], min(recorder.now_ns, until_ns) + 1) for _ in range(n)]
        times += [ns for ns in (BORDER_NS - 1, BORDER_NS) if moments[0] <= ns <= min(recorder.now_ns, until_ns)]
        for at_ns, book in zip(times, books_at(root, r.SOURCE, symbol, times), strict=True):
            assert levels(book) == recorder.at(symbol, at_ns), (symbol, at_ns)


@settings(max_examples=6, deadline=None)
@given(seed=st.integers(0, 10**6), n_batches=st.integers(1, 8))
def test_book_of_any_time_is_rebuilt(seed: int, n_batches: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Over the border of an hour, two connections, doubts and ends: open or sealed, the rebuilt book is what was known."""
    root = tmp_path_factory.mktemp("lake")
    recorder, log = Recorder(seed, BORDER_NS - 3 * NS), open_log(root)
    for conn in (0, 1):
        for symbol in recorder.symbols:
            recorder.subscribe(conn, symbol)
    for batch in range(n_batches):
        live(recorder, seed + batch, 60 // n_batches)
        log.append(recorder.buffer.take())
    log.flush(recorder.now_ns)

    check(root, recorder, seed)
    log.close(recorder.now_ns + 1)
    for hour in write.unsealed(root, r.SOURCE):
        write.seal(root, r.SOURCE, hour)
    assert read.hours(root, DEPTH, r.SOURCE) == read.hours(root, "raw/book", r.SOURCE)
    check(root, recorder, seed)


def test_changes_come_back_as_they_were_sent(tmp_path: Path) -> None:
    """Every level of every push is a row, in the order of the frame, with the numbers of the chain; deletions too."""
    recorder, log = Recorder(5, BORDER_NS), open_log(tmp_path)
    symbol = recorder.symbols[0]
    recorder.subscribe(0, symbol)
    for _ in range(40):
        recorder.update(symbol)
    log.append(recorder.buffer.take())
    log.close()
    write.seal(tmp_path, r.SOURCE, r.HOUR + 1)

    rows = read.collect(read.scan(tmp_path, DEPTH, r.SOURCE)).filter(pl.col("event") == int(TickEvent.DATA))

    expected = []
    for one in recorder.sent:
        push = wire.decode_push(one.text)
        assert isinstance(push, wire.DepthPush)
        row = push.rows[0]
        told = [(-1, p, s) for p, s in row.asks] + [(1, p, s) for p, s in row.bids]
        expected += [(row.seq, row.pseq, one.is_snapshot, *level) for level in told or [(0, -1.0, 0.0)]]
    found = rows.with_columns(pl.col("price").fill_nan(-1.0)).select(
        "seq", "pseq", "is_snapshot", "side", "price", "size"
    )
    assert found.rows() == expected
    assert any(row[3] == 0 for row in expected), "a push that changes nothing is a row, too"


def test_books_that_nobody_records_have_no_files(tmp_path: Path) -> None:
    """Without full books there is neither a stream nor a file for them, and asking says what to do."""
    log = wal.WriteAheadLog(tmp_path, r.SOURCE, "s", r.universe())
    log.append(r.receipts(1, BORDER_NS, BORDER_NS + 2 * NS))
    log.close()

    assert not list(tmp_path.rglob("depth*"))
    report = write.seal(tmp_path, r.SOURCE, r.HOUR + 1)
    assert set(report.files) == set(RAW)
    assert not list(tmp_path.rglob("*depth*"))
    with pytest.raises(TableEmpty, match="BOOKS"):
        book_at(tmp_path, r.SOURCE, r.SYMBOLS[0], BORDER_NS)


def test_killed_recorder_ends_its_books(tmp_path: Path) -> None:
    """After a death nothing is claimed: the book is known up to what was flushed, and unknown from there on."""
    recorder, log = Recorder(9, BORDER_NS), open_log(tmp_path)
    symbol = recorder.symbols[0]
    for of in recorder.symbols:
        recorder.subscribe(0, of)
    for _ in range(20):
        recorder.update(symbol)
    log.append(recorder.buffer.take())
    flushed_ns = recorder.now_ns
    log.flush(flushed_ns)
    recorder.update(symbol)
    log.append(recorder.buffer.take())
    log.abandon()

    for _ in range(2):  # read from the log, then sealed
        check(tmp_path, recorder, 1, until_ns=flushed_ns)
        assert book_at(tmp_path, r.SOURCE, symbol, flushed_ns + 1) is None
        for hour in write.unsealed(tmp_path, r.SOURCE):
            write.seal(tmp_path, r.SOURCE, hour)


def test_book_in_doubt_is_carried_in_doubt(tmp_path: Path) -> None:
    """An hour that begins while a book is in doubt claims nothing of it; the next update shows it whole, without what
    lies in the hour before."""
    recorder, log = Recorder(13, BORDER_NS - NS), open_log(tmp_path)
    symbol = recorder.symbols[0]
    recorder.subscribe(0, symbol)
    recorder.update(symbol)
    recorder.doubt(0, symbol)
    recorder.wait(2 * NS)
    log.append(recorder.buffer.take())
    log.flush(recorder.now_ns)
    in_doubt_ns = recorder.now_ns
    recorder.update(symbol)
    log.append(recorder.buffer.take())
    log.close(recorder.now_ns + 1)
    for hour in write.unsealed(tmp_path, r.SOURCE):
        write.seal(tmp_path, r.SOURCE, hour)

    assert [book_at(tmp_path, r.SOURCE, symbol, ns) for ns in (BORDER_NS, in_doubt_ns)] == [None, None]
    found = book_at(tmp_path, r.SOURCE, symbol, recorder.now_ns)
    assert found is not None
    assert levels(found) == recorder.at(symbol, recorder.now_ns)


def test_recorders_that_overlap_keep_a_chain_each(tmp_path: Path) -> None:
    """Two recorders tell the same pushes: both chains stay whole, sealed in any order and more than once."""
    symbol = r.SYMBOLS[0]
    recorder = Recorder(11, BORDER_NS, (symbol,))
    logs = [open_log(tmp_path, name) for name in ("a", "b")]
    recorder.subscribe(0, symbol)
    logs[0].append(recorder.buffer.take())
    recorder.subscribe(1, symbol)
    logs[1].append(recorder.buffer.take())
    for i in range(30):
        recorder.update(symbol)
        ticks = recorder.buffer.take()
        for conn, log in enumerate(logs):
            log.append(of_conn(ticks, conn))
            log.flush(recorder.now_ns)
        if i == 10:
            write.seal(tmp_path, r.SOURCE, r.HOUR + 1)  # both are alive
        if i == 20:
            recorder.end(0, symbol)
            logs[0].append(recorder.buffer.take())
            logs[0].close(recorder.now_ns + 1)
            write.seal(tmp_path, r.SOURCE, r.HOUR + 1)
            logs[0] = open_log(tmp_path, "c")
    logs[1].close(recorder.now_ns + 1)
    logs[0].close(recorder.now_ns + 1)

    for _ in range(2):
        for hour in write.unsealed(tmp_path, r.SOURCE) or [r.HOUR + 1]:
            write.seal(tmp_path, r.SOURCE, hour)
        check(tmp_path, recorder, 2)
        rows = read.collect(read.scan(tmp_path, DEPTH, r.SOURCE))
        assert rows["conn"].n_unique() == 2
        updates = rows.filter(~pl.col("is_snapshot") & (pl.col("seq") > 0)).unique(["conn", "seq"])
        assert updates.height == 21 + 30


def test_chain_with_a_link_missing_is_no_book() -> None:
    """A reader trusts the numbers, not the marks: where an update is missing the book is unknown until a snapshot."""
    recorder = Recorder(15, BORDER_NS)
    symbol = recorder.symbols[0]
    recorder.subscribe(0, symbol)
    for _ in range(3):
        recorder.update(symbol)
    missing = recorder.sent[-1].seq
    recorder.update(symbol)
    at_ns = recorder.now_ns
    recorder.subscribe(0, symbol)
    depth = recorder.buffer.take().depth
    assert depth is not None
    rows = r.take(depth, depth.seq != missing)  # type: ignore[type-var]

    books = FullBooks()
    books.take(r.take(rows, rows.recv_ns <= at_ns))  # type: ignore[type-var]
    assert books.of(0) == []
    books.take(r.take(rows, rows.recv_ns > at_ns))  # type: ignore[type-var]
    assert [book.seq for book in books.of(0)] == [recorder.sent[-1].seq]


def test_deleted_levels_do_not_pile_up() -> None:
    """A book whose levels come and go for a day holds those that are there, and a bound of others."""
    book = FullBook(0)
    for i in range(100):
        prices = [float(-1000 * i - k) for k in range(1, 1000)]
        book.put(prices, [1.0] * len(prices))
        book.put(prices, [0.0] * len(prices))
        assert len(book._levels) <= 4096 + 1000
    assert [len(side) for side in book.asks()] == [0, 0]


def of_conn(ticks: Ticks, conn: int) -> Ticks:
    assert ticks.depth is not None
    which = ticks.depth.conn == conn
    depth = type(ticks.depth)(**{name: getattr(ticks.depth, name)[which] for name in ticks.depth.__struct_fields__})
    books = r.take(ticks.books, ticks.books.conn == conn)
    return Ticks(books, ticks.trades, ticks.tickers, depth)


def test_depth_has_the_promised_types() -> None:
    """Every column has the type that the table says, also in an empty batch, and links hold no level."""
    recorder = Recorder(1, BORDER_NS)
    for symbol in recorder.symbols:
        recorder.subscribe(0, symbol)
    full = recorder.buffer.take().depth
    empty = recorder.buffer.take().depth
    assert full is not None
    assert empty is not None
    assert len(empty.recv_ns) == 0
    for rows in (full, empty):
        frame = layout.rows_to_frame(DEPTH, rows, r.SYMBOLS)
        assert dict(frame.schema) == dict(layout.TABLES[DEPTH].columns)
    links = full.event == SUBSCRIBED
    assert np.isnan(full.price[links]).all()
    assert (full.side[links] == 0).all()
    assert (full.seq[links] == -1).all()
