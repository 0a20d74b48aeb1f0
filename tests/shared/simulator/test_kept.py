"""What a later subscriber is told: the state that the pushes so far add up to."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.simulator.relay.kept import CANDLES_MAX, TRADES_MAX, keeper

LEVELS = st.dictionaries(st.integers(90, 110), st.integers(1, 5), max_size=8)
CHANGES = st.dictionaries(st.integers(90, 110), st.integers(0, 5), max_size=8)


def text(channel: str, rows: list[Any], action: str, ts: int = 5) -> str:
    where = {"instType": "USDT-FUTURES", "channel": channel, "instId": "BTCUSDT"}
    return json.dumps({"action": action, "arg": where, "data": rows, "ts": ts}, separators=(",", ":"))


def book(asks: dict[int, int], bids: dict[int, int], seq: int, pseq: int, **more: int) -> dict[str, Any]:
    sides = {name: [[str(p), str(s)] for p, s in side.items()] for name, side in (("asks", asks), ("bids", bids))}
    return {**sides, "ts": str(seq), "seq": seq, "pseq": pseq} | more


@given(LEVELS, LEVELS, st.lists(st.tuples(CHANGES, CHANGES), max_size=12), st.data())
def test_book_of_a_later_subscriber_is_the_book_of_the_first(
    asks: dict[int, int],
    bids: dict[int, int],
    changes: list[tuple[dict[int, int], dict[int, int]]],
    data: st.DataObject,
) -> None:
    """Snapshot plus changes, at any time: same levels, best first, and the next update's pseq fits."""
    kept = keeper("books")
    asks, bids = dict(sorted(asks.items())), dict(sorted(bids.items(), reverse=True))
    seen: dict[str, dict[int, int]] = {"asks": dict(asks), "bids": dict(bids)}
    assert kept.take(text("books", [book(asks, bids, 10, 0)], "snapshot"), is_update=False)
    stop = data.draw(st.integers(0, len(changes)))

    for n, (ask, bid) in enumerate(changes[:stop]):
        assert kept.take(text("books", [book(ask, bid, 11 + n, 10 + n)], "update"), is_update=True)
        seen["asks"] |= ask
        seen["bids"] |= bid

    told = json.loads(kept.snapshot() or "")
    (row,) = told["data"]
    assert (told["action"], row["seq"], row["pseq"]) == ("snapshot", 10 + stop, 0)
    for side, sign in (("asks", 1), ("bids", -1)):
        expected = sorted(((p, s) for p, s in seen[side].items() if s), key=lambda level: sign * level[0])
        assert [(int(p), int(s)) for p, s in row[side]] == expected


def test_broken_chain_is_noticed() -> None:
    """An update that does not continue the one before, or comes before a snapshot, needs a new subscription."""
    kept = keeper("books")
    assert not kept.take(text("books", [book({}, {}, 3, 2)], "update"), is_update=True)
    kept.take(text("books", [book({}, {}, 3, 0)], "snapshot"), is_update=False)

    assert not kept.take(text("books", [book({}, {}, 9, 8)], "update"), is_update=True)


def test_legacy_checksum_is_zero_in_a_snapshot_as_the_exchange_sends_it() -> None:
    """Where updates still carry one, so does the snapshot: 0, as before May 2026."""
    kept = keeper("books")
    kept.take(text("books", [book({100: 1}, {99: 1}, 3, 0, checksum=0)], "snapshot"), is_update=False)
    kept.take(text("books", [book({100: 2}, {}, 4, 3, checksum=-7)], "update"), is_update=True)

    assert json.loads(kept.snapshot() or "")["data"][0]["checksum"] == 0


def test_prices_keep_their_text() -> None:
    """0.5420 stays 0.5420: legacy checksums are computed from the strings."""
    kept = keeper("books")
    row = {"asks": [["0.5420", "1.10"]], "bids": [["0.540", "2"]], "ts": "1", "seq": 1, "pseq": 0}
    kept.take(text("books", [row], "snapshot"), is_update=False)
    kept.take(
        text("books", [row | {"asks": [["0.5430", "7.0"]], "bids": [], "seq": 2, "pseq": 1}], "update"), is_update=True
    )

    told = json.loads(kept.snapshot() or "")["data"][0]

    assert (told["asks"], told["bids"]) == ([["0.5420", "1.10"], ["0.5430", "7.0"]], [["0.540", "2"]])


@given(st.lists(st.integers(1, 4), max_size=90))
def test_trades_of_a_later_subscriber_are_the_newest(frames: list[int]) -> None:
    """Newest first, each once, no more than Bitget sends."""
    kept, trades = keeper("trade"), [f"t{n}" for n in range(3)]
    kept.take(text("trade", [{"tradeId": t} for t in reversed(trades)], "snapshot"), is_update=False)
    for count in frames:
        fresh = [f"t{len(trades) + k}" for k in range(count)]
        trades += fresh
        kept.take(text("trade", [{"tradeId": t} for t in reversed(fresh)], "update"), is_update=True)

    told = json.loads(kept.snapshot() or "")

    assert told["action"] == "snapshot"
    assert [row["tradeId"] for row in told["data"]] == trades[::-1][:TRADES_MAX]


def test_candles_of_a_later_subscriber_hold_the_last_word_on_each() -> None:
    """The forming candle replaces itself; history stays, oldest first, bounded."""
    kept = keeper("candle1m")
    kept.take(text("candle1m", [[str(60 * n), "1"] for n in range(CANDLES_MAX)], "snapshot"), is_update=False)
    kept.take(text("candle1m", [[str(60 * (CANDLES_MAX - 1)), "2"]], "update"), is_update=True)
    kept.take(text("candle1m", [[str(60 * CANDLES_MAX), "3"]], "update"), is_update=True)

    rows = json.loads(kept.snapshot() or "")["data"]

    assert rows == [[str(60 * n), "1"] for n in range(1, CANDLES_MAX - 1)] + [
        [str(60 * (CANDLES_MAX - 1)), "2"],
        [str(60 * CANDLES_MAX), "3"],
    ]


@pytest.mark.parametrize("channel", ["ticker", "books1", "books5", "books15", "trade", "books", "candle1m"])
def test_last_whole_push_is_told_as_it_came(channel: str) -> None:
    """No byte of it is rendered again."""
    kept = keeper(channel)
    assert kept.snapshot() is None
    rows: dict[str, list[Any]] = {"books": [book({}, {}, 3, 0)], "candle1m": [["60000", "1.50"]]}
    came = text(channel, rows.get(channel, [{"a": "1.50"}]), "snapshot").replace(",", ", ")

    kept.take(came, is_update=False)

    assert kept.snapshot() == came


@pytest.mark.parametrize("rows", [[{"asks": 1}], [7], {}, [{"asks": [["x", "1"]], "bids": [], "seq": 1}]])
def test_push_of_another_shape_is_said_to_be_one(rows: Any) -> None:
    """The relay asks for such a topic anew instead of keeping half a state."""
    with pytest.raises((msgspec.MsgspecError, ValueError)):
        keeper("books").take(text("books", rows, "snapshot"), is_update=False)
