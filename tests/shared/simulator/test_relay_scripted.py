"""A relay of an upstream that does exactly what a test says: fills, staleness, listings, and nonsense of every kind."""

from __future__ import annotations

import asyncio
import json
from decimal import Decimal
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed

from shared.errors import ExchangeSilent, ProtocolBroken
from shared.simulator.relay import desk as relay_desk
from shared.simulator.relay.feed import PAUSE_NS, RelayFeed, RelayMarket, relay
from shared.simulator.relay.link import Heard, Kind
from shared.simulator.relay.upstream import Upstream
from tests.shared.simulator.relay_world import (
    KEYS,
    MARKET,
    MIX,
    VENUE,
    WITHIN_S,
    Frame,
    argument,
    has,
    pushes,
    relaying,
    scripted,
    until,
)


async def test_taken_liquidity_is_gone_until_the_next_book() -> None:
    """What our own orders took nobody takes again, until the upstream shows a new book."""
    async with scripted() as upstream, relaying(upstream) as (client, _, _):
        asks = ("80000", "0.01"), ("80001", "0.02"), ("80005", "1")

        async def show() -> None:
            await until(has(upstream, *VENUE))
            await upstream.book(*asks)

        showing = asyncio.create_task(show())
        first = await client.fills(await client.place())  # the order waits for the first book
        await showing
        second = await client.fills(await client.place(size="0.015"))
        await upstream.book(*asks)
        third = await client.fills(await client.place(size="0.02"))

    assert first == [(Decimal(80000), Decimal("0.01"))]
    assert second == [(Decimal(80001), Decimal("0.015"))]
    assert third == [(Decimal(80000), Decimal("0.01")), (Decimal(80001), Decimal("0.01"))]


async def test_resting_order_fills_by_trades_and_marks_move_equity() -> None:
    """Public trades fill what rests at their price; the ticker's mark values the position."""
    async with scripted() as upstream, relaying(upstream) as (client, _, desk), client.stream(*VENUE) as socket:
        await until(has(upstream, *VENUE))
        await upstream.book(("80000", "1"))
        await pushes(socket, lambda found: bool(found))
        placed = await client.place(orderType="limit", price="79995", force="gtc")
        rows = [
            {"ts": "2", "price": "79995", "size": "0.004", "side": "sell", "tradeId": "2"},
            {"ts": "1", "price": "79996", "size": "9", "side": "sell", "tradeId": "1"},
        ]
        await until(lambda: bool(desk.venue.resting_symbols()))
        await upstream.push("trade", *rows)  # what a snapshot repeats was before
        await upstream.push("trade", *rows, action="update")
        await upstream.push("trade", {**rows[0], "size": "1", "tradeId": "3"}, action="update")
        fills = await client.fills(placed)
        await upstream.push("ticker", {"markPrice": "80095", "indexPrice": "80094", "fundingRate": "0.0001"})
        await until(lambda: desk.venue.unrealised("key") == Decimal("1.00"))

    assert sum(size for _, size in fills) == Decimal("0.01")
    assert {price for price, _ in fills} == {Decimal(79995)}


async def test_symbol_is_followed_while_something_is_open(monkeypatch: pytest.MonkeyPatch) -> None:
    """Marks reach what is held however long ago its last order was; a symbol that is flat is left alone, and found
    again, as the exchange shows it now, by its next order."""
    monkeypatch.setattr(relay_desk, "FOLLOW_NS", 0)
    async with scripted() as upstream, relaying(upstream) as (client, _, desk), client.stream(*VENUE) as socket:
        await until(has(upstream, *VENUE))
        await upstream.book(("80000", "1"))
        await pushes(socket, lambda found: bool(found))
        await client.fills(await client.place())
        monkeypatch.undo()
        await until(lambda: "BTCUSDT" in desk._followed_ns)
        await upstream.push("ticker", {"markPrice": "80100"})
        await until(lambda: desk.venue.unrealised("key") == Decimal(1))
        await client.fills(await client.place(side="sell", reduceOnly="YES"))
        desk._followed_ns.clear()
        await upstream.book(("80500", "1"))
        await pushes(socket, lambda found: bool(found))
        found = await client.fills(await client.place())

    assert found == [(Decimal(80500), Decimal("0.01"))]


async def test_risk_ladder_is_the_upstreams() -> None:
    """Maintenance margin of a paper position follows the tiers that the exchange shows its clients."""
    async with scripted() as upstream, relaying(upstream) as (client, _, desk), client.stream(*VENUE) as socket:
        await until(has(upstream, *VENUE))
        await upstream.book(("80000", "1"))
        await pushes(socket, lambda found: bool(found))
        await client.fills(await client.place())
        await until(lambda: len(desk.venue.tiers("BTCUSDT")) == 2)
        asked = [path for path in upstream.asked if "query-position-lever" in path]

    assert [(tier.end_usdt, tier.leverage_max, tier.maintenance_rate) for tier in desk.venue.tiers("BTCUSDT")] == [
        (Decimal(50_000), 125, Decimal("0.0040")),
        (Decimal(900_000), 40, Decimal("0.0110")),
    ]
    assert asked == [f"{MIX}market/query-position-lever?productType=USDT-FUTURES&symbol=BTCUSDT"]


async def test_error_of_our_own_ends_the_relay_loudly() -> None:
    """A relay whose connection died of a bug does not go on in silence."""
    async with scripted() as upstream, relaying(upstream, fails=True) as (client, feed, _):

        def fail(heard: Any) -> None:
            raise ZeroDivisionError

        feed.upstream._on_heard = fail
        async with client.stream(("ticker", "BTCUSDT")):
            with pytest.raises(ZeroDivisionError):
                await asyncio.wait_for(client.server.run_until(asyncio.Event()), WITHIN_S)


async def test_stale_upstream_takes_no_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection that lives and says nothing is no market to trade on; one push makes it one again."""
    async with scripted() as upstream, relaying(upstream) as (client, _, desk), client.stream(*VENUE) as socket:
        await until(has(upstream, *VENUE))
        await upstream.book(("80000", "1"))
        await pushes(socket, lambda found: bool(found))
        taken = await client.place()
        monkeypatch.setattr(relay_desk, "STALE_NS", 100_000_000)
        await until(lambda: not desk.is_fresh("BTCUSDT"))
        refused = [
            await client.place(),
            await client.private("POST", "order/close-positions", {"productType": "USDT-FUTURES"}),
        ]
        monkeypatch.undo()
        await upstream.push("ticker", {"markPrice": "80000"})
        await until(lambda: desk.is_fresh("BTCUSDT"))
        again = await client.place()

    assert [taken["code"], again["code"]] == ["00000", "00000"]
    assert [one["code"] for one in refused] == ["40725", "40725"]


async def test_symbol_that_is_listed_later_becomes_available_and_one_that_goes_trades_no_more() -> None:
    """Who is listed is asked for again and again: sockets, REST and the venue follow."""
    topic = "ticker", "SOLUSDT"
    async with scripted() as upstream, relaying(upstream, listing_s=0.05) as (client, feed, desk):
        async with client.stream(topic) as socket:
            refusal = json.loads(await socket.recv())
        upstream.rows = [MARKET.contracts()[2], MARKET.contracts()[0]]
        await until(lambda: feed.knows("SOLUSDT") and not feed.knows("ETHUSDT"))
        async with client.stream(topic) as socket:
            await until(has(upstream, topic))
            text = await upstream.push(*topic[:1], {"lastPr": "1"}, symbol="SOLUSDT")
            told = await pushes(socket, lambda found: bool(found))
        listed = await client.get("market/contracts", productType="USDT-FUTURES")
        gone = await client.place(symbol="ETHUSDT")

    assert MARKET.contracts()[2]["symbol"] == "SOLUSDT"
    assert (refusal["event"], refusal["code"]) == ("error", 30001)
    assert told[topic] == [text]
    assert [row["symbol"] for row in listed["data"]] == ["SOLUSDT", "BTCUSDT"]
    assert gone["code"] != "00000"
    assert desk.venue.contracts["ETHUSDT"].status == "off"


async def test_ack_waits_for_the_upstreams_and_so_does_its_refusal() -> None:
    """An ack says that from here on silence means nothing happened: only the upstream can make that true."""
    async with scripted() as upstream, relaying(upstream) as (client, _, _):
        upstream.unknown = {"ETHUSDT"}
        async with client.stream(("ticker", "ETHUSDT"), ("ticker", "BTCUSDT")) as socket:
            first, second = [json.loads(await asyncio.wait_for(socket.recv(), WITHIN_S)) for _ in range(2)]

    answers = {frame["arg"]["instId"]: frame for frame in (first, second)}
    assert answers["BTCUSDT"] == {"event": "subscribe", "arg": argument("ticker", "BTCUSDT")}
    assert (answers["ETHUSDT"]["code"], answers["ETHUSDT"]["msg"]) == (30001, "doesn't exist")


@pytest.mark.parametrize("text", ["<html>502 Bad Gateway</html>", '{"action":"snapshot","arg":{"ch'])
async def test_unreadable_text_ends_a_connection_and_nothing_else(text: str) -> None:
    """The relay connects anew; those who listened are cut off, because nobody knows what they missed."""
    async with scripted() as upstream, relaying(upstream) as (client, _, _):
        async with client.stream(("ticker", "BTCUSDT")) as socket:
            await socket.recv()
            await upstream.say(text)
            with pytest.raises(ConnectionClosed):
                await asyncio.wait_for(socket.recv(), WITHIN_S)
        async with client.stream(("ticker", "BTCUSDT")) as socket:
            await asyncio.wait_for(socket.recv(), WITHIN_S)
            pushed = await upstream.push("ticker", {"lastPr": "1"})
            assert await asyncio.wait_for(socket.recv(), WITHIN_S) == pushed


@pytest.mark.parametrize(
    "row",
    [
        {"asks": [["abc", "1"]], "bids": []},
        {"asks": [["NaN", "1"]], "bids": []},
        {"asks": 7},
        {"markPrice": "?", "price": "1"},
        {"markPrice": {}, "side": None, "price": "1", "size": "1"},
    ],
)
async def test_nonsense_in_a_push_reaches_clients_and_never_the_venue(row: Frame) -> None:
    """What is passed on is passed on as it came; after a book that it cannot read the venue waits for one that it can."""
    async with scripted() as upstream, relaying(upstream) as (client, _, _desk), client.stream(*VENUE) as socket:
        await until(has(upstream, *VENUE))
        await upstream.book(("80000", "1"))
        await pushes(socket, lambda found: bool(found))
        assert (await client.place())["code"] == "00000"
        said = [await upstream.push(channel, row, action="update") for channel, _ in VENUE]
        told = await pushes(socket, lambda found: sum(map(len, found.values())) >= 3)
        refused = await client.place()
        await upstream.book(("80001", "1"))
        await pushes(socket, lambda found: bool(found))
        filled = await client.fills(await client.place())

    assert sorted(said) == sorted(text for texts in told.values() for text in texts)
    assert refused["code"] == "40725"
    assert filled[0][0] == Decimal(80001)


async def test_what_came_is_told_whatever_the_wall_clock_does_and_not_after_a_pause(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A clock that is set back loses nothing; what came while pushes were frozen is not told late, but is known."""
    now_ns = 0
    feed = RelayFeed(
        RelayMarket("bitget", "host"), "http://127.0.0.1:9", "ws://127.0.0.1:9", monotonic_ns=lambda: now_ns
    )
    wanted = {"ticker": {"BTCUSDT"}}

    def hear(text: str) -> None:
        feed._hear(Heard(Kind.FRAME, "ticker", "BTCUSDT", now_ns, text))

    def told() -> list[str]:
        return [text for *_, text in feed.frames(0, 0, wanted)]

    async with feed.upstream:
        hear("first")
        monkeypatch.setattr("time.time_ns", lambda: 0)  # the clock is set back, by half a century
        hear("second")
        both = told()
        hear("frozen")
        now_ns += 2 * PAUSE_NS
        hear("thawed")
        fresh = told()
        hear("frozen again")
        now_ns += 2 * PAUSE_NS
        nothing = told()

    assert (both, fresh, nothing) == (["first", "second"], ["thawed"], [])
    assert feed.snapshot(0, "ticker", "BTCUSDT") == "frozen again"


async def test_candles_are_relayed_and_a_later_subscriber_has_them_all() -> None:
    """Snapshot and update as they came; who comes later gets both in one."""
    topic = "candle1m", "BTCUSDT"
    rows = [[str(60_000 * n), "1", "2", "0.5", "1.50", "3", "4", "4"] for n in range(3)]
    async with scripted() as upstream, relaying(upstream) as (client, _, _), client.stream(topic) as socket:
        await until(has(upstream, topic))
        said = [await upstream.push(topic[0], *rows[:2])]
        told = await pushes(socket, lambda found: bool(found))
        said.append(await upstream.push(topic[0], rows[2], action="update"))
        told[topic] += (await pushes(socket, lambda found: bool(found)))[topic]
        async with client.stream(topic) as other:
            later = await pushes(other, lambda found: bool(found))

    assert told[topic] == said
    assert json.loads(later[topic][0])["data"] == rows


async def test_broken_sequence_is_subscribed_anew() -> None:
    """After a gap in `books` the relay asks for a new snapshot, and later subscribers wait for it."""
    topic = "books", "BTCUSDT"

    def row(seq: int, pseq: int) -> Frame:
        return {"asks": [["80000", str(seq)]], "bids": [], "ts": "1", "seq": seq, "pseq": pseq}

    async with scripted() as upstream, relaying(upstream) as (client, _, _), client.stream(topic) as socket:
        await until(has(upstream, topic))
        await upstream.push("books", row(5, 0))
        await pushes(socket, lambda found: bool(found))
        said = await upstream.push("books", row(9, 8), action="update")
        told = await pushes(socket, lambda found: bool(found))
        await until(lambda: len(upstream.requests) == 3)
        await upstream.push("books", row(12, 0))
        await pushes(socket, lambda found: bool(found))
        async with client.stream(topic) as other:
            later = await pushes(other, lambda found: bool(found))

    assert upstream.requests == [("subscribe", "books"), ("unsubscribe", "books"), ("subscribe", "books")]
    assert told[topic] == [said]
    assert json.loads(later[topic][0])["data"][0]["seq"] == 12


@pytest.mark.parametrize(
    "answer",
    [
        (200, "<html>hello</html>"),
        (502, "Bad Gateway"),
        (200, '{"code":"00000","da'),
        (503, '{"code":"45001","msg":"busy"}'),
        (200, "[" * 100_000 + "]" * 100_000),
    ],
)
async def test_bad_rest_answers_are_bitgets_word_for_later(answer: tuple[int, str]) -> None:
    """HTML, 5xx and torn JSON reach a client as 40725; the next good answer is passed on again."""
    async with scripted() as upstream, relaying(upstream) as (client, _, _):
        upstream.answer = answer
        bad = await client.get("market/tickers", productType="USDT-FUTURES", x="1")
        upstream.answer = None
        good = await client.get("market/tickers", productType="USDT-FUTURES", x="1")

    assert (bad["code"], bad["data"]) == ("40725", None)
    assert good["code"] == "00000"


async def test_rest_numbers_keep_their_digits_and_equal_requests_share_an_answer() -> None:
    """merge-depth has prices as JSON numbers: 0.00001042 stays so; ten clients cost the upstream one request."""
    async with scripted() as upstream, relaying(upstream) as (client, _, _):
        url = f"{client.server.rest_url}{MIX}market/merge-depth?productType=USDT-FUTURES&symbol=BTCUSDT"

        async def ask() -> str:
            async with client.http.get(url) as answer:
                return await answer.text()

        texts = await asyncio.gather(*(ask() for _ in range(10)))
        asked = [path for path in upstream.asked if "merge-depth" in path]

    assert all("[0.00001042,100.0]" in text for text in texts)
    assert len(asked) == 1


async def test_topics_are_spread_over_connections_a_symbols_own_on_one() -> None:
    """120 symbols of three channels are eight connections of at most 50 topics; what is no longer wanted is ended."""
    topics = [(channel, f"S{n}USDT") for n in range(120) for channel in ("books15", "ticker", "trade")]
    heard: list[Heard] = []
    async with scripted() as upstream, Upstream(upstream.rest_url, upstream.ws_url, heard.append) as sockets:
        sockets.want(topics)
        await until(has(upstream, *topics))
        await until(lambda: len(heard) == len(topics))
        shares = [link.states.keys() for link in sockets.links]
        sockets.want(topics[3:])
        await until(lambda: upstream.topics == set(topics[3:]))
        n_sockets, kinds = len(upstream.sockets), {h.kind for h in heard}

    assert kinds == {Kind.LINKED}
    assert n_sockets == len(shares) == 8
    assert max(map(len, shares)) <= 50
    assert all(len({number for number, share in enumerate(shares) if any(s == symbol for _, s in share)}) == 1
               for _, symbol in topics[3:])  # fmt: skip


async def test_upstream_is_asked_within_half_of_its_limits() -> None:
    """Of 60 different requests at once to an endpoint of 10 a second, five a second get through, the others are 429s."""
    async with scripted() as upstream, relaying(upstream) as (_, feed, _):
        async with asyncio.timeout(WITHIN_S):
            answers = await asyncio.gather(
                *(feed.upstream.fetch(f"{MIX}market/oi-limit", f"symbol={n}") for n in range(60))
            )
        asked = [path for path in upstream.asked if "oi-limit" in path]

    codes = [answer.code for answer in answers if answer is not None]
    assert codes.count("00000") == len(asked) <= 5 * 3
    assert codes.count("429") == 60 - len(asked)


# --------------------------------------------------------------------------------------------------- bad beginnings


async def test_upstream_that_cannot_be_relayed_is_one_sentence() -> None:
    """Nobody there, no simulator, no perpetuals, no WebSocket: each is said before anything is served."""
    async with scripted() as upstream:
        nobody = "http://127.0.0.1:9"
        cases: list[tuple[str, str, tuple[int, str] | None, type[Exception], str]] = [
            (nobody, upstream.ws_url, None, ExchangeSilent, "must be a running simulator, found ClientConnectorError"),
            (upstream.rest_url, upstream.ws_url, (200, "<html>"), ProtocolBroken, "names its source, found"),
            (upstream.rest_url, upstream.ws_url, (200, '{"source":"x"}'), ExchangeSilent, "no answer that can be read"),
            (
                upstream.rest_url, upstream.ws_url, (200, '{"source":"x","code":"40404","msg":"","data":null}'),
                ProtocolBroken, "must list perpetuals as Bitget does, found code '40404'",
            ),
            (upstream.rest_url, "ws://127.0.0.1:9/v2/ws", None, ExchangeSilent, "must accept WebSockets"),
        ]  # fmt: skip
        for rest_url, ws_url, answer, error, why in cases:
            upstream.answer = answer
            with pytest.raises(error, match=why) as caught:
                async with relay(rest_url, ws_url, [KEYS]):
                    pass
            assert "\n" not in str(caught.value)
