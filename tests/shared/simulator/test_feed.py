"""Public pushes: the same whatever the windows, exactly Bitget's JSON, and chains that rebuild the book."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.simulator.feed import CHANNELS, HISTORY, LIVE, PublicFeed
from shared.simulator.market import NS, GeneratedMarket, depth_at

START_S = 1_795_330_795  # five seconds before an hour, so that windows cross blocks and the hour
MARKET = GeneratedMarket(7, 20)
SYMBOL = "龙虾USDT"
EVERYTHING = dict.fromkeys(CHANNELS, MARKET.symbols)


def pushes(cadence: Any = LIVE, seconds: int = 10, wanted: Any = None) -> list[tuple[int, str, str, str]]:
    return list(PublicFeed(MARKET, cadence).frames(START_S * NS, (START_S + seconds) * NS, wanted))


def rows(text: str) -> Any:
    return json.loads(text)["data"]


@settings(max_examples=15)
@given(st.lists(st.integers(0, 10 * NS), max_size=30))
def test_windows_do_not_change_what_is_pushed(cuts: list[int]) -> None:
    """However time is cut into windows, the same frames come in the same order."""
    feed, edges = PublicFeed(MARKET), sorted({0, 10 * NS, *cuts})

    pieces = [
        frame
        for begin, end in itertools.pairwise(edges)
        for frame in feed.frames(START_S * NS + begin, START_S * NS + end, EVERYTHING)
    ]

    assert pieces == pushes(wanted=EVERYTHING)


@pytest.mark.parametrize("cadence", [LIVE, HISTORY], ids=["live", "history"])
def test_pushes_come_in_time_order_and_in_their_second(cadence: Any) -> None:
    """Times never go back, and the state of second s is told within [s, s + 1)."""
    found = pushes(cadence)

    times = [time_ns for time_ns, *_ in found]
    assert times == sorted(times)
    for time_ns, channel, symbol, text in found:
        if channel == "books15":
            n, depth = MARKET.symbols.index(symbol), depth_at(MARKET, time_ns // NS)
            assert float(rows(text)[0]["bids"][0][0]) == depth.bid_price[n, 0]


def test_history_tells_each_second_once() -> None:
    """At the history cadence every symbol has one book and one ticker a second, and one frame of trades at most."""
    found = [(time_ns // NS, channel, symbol) for time_ns, channel, symbol, _ in pushes(HISTORY)]

    assert len(found) == len(set(found))
    for channel in ("books15", "ticker"):
        assert sum(one == channel for _, one, _ in found) == 10 * len(MARKET.symbols)


def test_cadence_changes_no_trade() -> None:
    """Live and history push the same trades, only cut into other frames."""

    def trades(cadence: Any) -> list[Any]:
        found = [row for _, channel, _, text in pushes(cadence) if channel == "trade" for row in rows(text)]
        return sorted((row["tradeId"], row["price"], row["size"], row["side"], row["ts"]) for row in found)

    assert trades(LIVE) == trades(HISTORY)
    assert len(trades(LIVE)) > 50


def test_trades_of_a_frame_are_newest_first() -> None:
    """Bitget sends the newest trade first; ids grow with time."""
    for _, channel, _, text in pushes(HISTORY):
        if channel == "trade":
            ids = [int(row["tradeId"]) for row in rows(text)]
            assert ids == sorted(ids, reverse=True)


@pytest.mark.parametrize("offset_ms", [0, 3, 70, 500, 999])
def test_book_chain_rebuilds_the_book(offset_ms: int) -> None:
    """A `books` snapshot and the updates after it chain by seq and pseq and give the visible book of each second."""
    feed, begin_ns = PublicFeed(MARKET), START_S * NS + offset_ms * 1_000_000
    snapshot = feed.snapshot(begin_ns, "books", SYMBOL)
    assert snapshot is not None
    first = rows(snapshot)[0]
    book = {side: dict(first[side]) for side in ("asks", "bids")}
    seq, updates = first["seq"], 0

    for time_ns, _, _, text in feed.frames(begin_ns, begin_ns + 8 * NS, {"books": [SYMBOL]}):
        update = rows(text)[0]
        assert update["pseq"] == seq
        seq, updates = update["seq"], updates + 1
        for side in ("asks", "bids"):
            for price, size in update[side]:
                if size == "0":
                    del book[side][price]
                else:
                    book[side][price] = size
        asks, bids = feed.book_rows(time_ns, SYMBOL, 15)
        assert book == {side: {row[0]: row[1] for row in levels} for side, levels in (("asks", asks), ("bids", bids))}

    assert first["pseq"] == 0
    assert updates >= 7


@pytest.mark.parametrize("channel", CHANNELS)
def test_snapshot_of_every_channel_is_bitgets_envelope(channel: str) -> None:
    """A new subscriber gets a snapshot that echoes its argument; the outer ts is a number, the inner one text."""
    text = PublicFeed(MARKET).snapshot(START_S * NS, channel, SYMBOL)

    assert text is not None
    frame = json.loads(text)
    assert frame["action"] == "snapshot"
    assert frame["arg"] == {"instType": "USDT-FUTURES", "channel": channel, "instId": SYMBOL}
    assert isinstance(frame["ts"], int)
    assert all(isinstance(row["ts"], str) for row in frame["data"])


def test_trade_snapshot_repeats_only_the_past() -> None:
    """What a new subscriber is told of has already happened, so the next update is new to it."""
    feed, now_ns = PublicFeed(MARKET), START_S * NS + 400_000_000
    text = feed.snapshot(now_ns, "trade", "BTCUSDT")
    assert text is not None

    known = {row["tradeId"] for row in rows(text)}
    later = {
        row["tradeId"]
        for _, _, _, update in feed.frames(now_ns, now_ns + 3 * NS, {"trade": ["BTCUSDT"]})
        for row in rows(update)
    }

    assert max(int(row["ts"]) for row in rows(text)) <= now_ns // 1_000_000
    assert later
    # A frame collects 20 ms of trades, so one that began before us may repeat some of them.
    assert len(known & later) <= 5


def test_books_of_less_depth_are_the_top_of_books15() -> None:
    """books1 and books5 are cut from the same book."""
    feed = PublicFeed(MARKET)
    deep, five, one = (rows(feed.snapshot(START_S * NS, c, SYMBOL) or "")[0] for c in ("books15", "books5", "books1"))

    assert len(deep["asks"]) == 15
    assert (five["asks"], five["bids"]) == (deep["asks"][:5], deep["bids"][:5])
    assert (one["asks"], one["bids"]) == (deep["asks"][:1], deep["bids"][:1])


def test_numbers_are_plain_decimals() -> None:
    """No exponent, no trailing zeros, also where a tick is 10^-10 (PEPE)."""
    texts = {
        value
        for _, channel, symbol, text in pushes(HISTORY, 2)
        if channel in ("books15", "ticker")
        for row in rows(text)
        for value in [
            *(row.values() if channel == "ticker" else ()),
            *(v for level in row.get("bids", ()) for v in level),
        ]
        if isinstance(value, str) and value != symbol
    }

    assert not [t for t in texts if "e" in t or ("." in t and t.endswith(("0", ".")))]


@pytest.mark.parametrize(
    ("channel", "recorded"), [("ticker", "ws_v2_ticker_BTCUSDT.json"), ("books", "ws_v2_books_MAVUSDT_seq_chain.jsonl")]
)
def test_push_has_the_keys_and_types_of_a_recorded_one(outside: Path, channel: str, recorded: str) -> None:
    """Keys, their order and the types of their values are those of a payload recorded from Bitget."""
    lines = (outside / "bitget/fixtures/recorded_live_202609" / recorded).read_text().splitlines()
    theirs = next(frame for frame in map(json.loads, lines) if frame.get("action") == "snapshot")

    ours = json.loads(PublicFeed(MARKET).snapshot(START_S * NS, channel, "BTCUSDT") or "")

    assert list(ours) == list(theirs)
    assert [(k, type(v)) for k, v in ours["data"][0].items()] == [(k, type(v)) for k, v in theirs["data"][0].items()]
