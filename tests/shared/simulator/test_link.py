"""A relay's connection without the socket: what is sent keeps Bitget's limits, what comes back is believed with care."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.simulator.markets.market import NS
from shared.simulator.relay.link import (
    ACK_NS,
    FRAME_BYTES_MAX,
    FROZEN_NS,
    PING_NS,
    RETRY_NS,
    SILENT_NS,
    Kind,
    Link,
    State,
    Unreadable,
    request_text,
)

NOW = 1_795_330_800 * NS
BTC = ("ticker", "BTCUSDT")


def arg(channel: str, symbol: str) -> dict[str, str]:
    return {"instType": "USDT-FUTURES", "channel": channel, "instId": symbol}


def ack(topic: tuple[str, str], event: str = "subscribe") -> str:
    return json.dumps({"event": event, "arg": arg(*topic)})


def push(topic: tuple[str, str], action: str = "snapshot", data: Any = ()) -> str:
    return json.dumps({"action": action, "arg": arg(*topic), "data": list(data), "ts": 1})


def linked(*topics: tuple[str, str]) -> Link:
    link = Link(0)
    for topic in topics:
        link.add(topic)
    link.opened(NOW)
    link.due(NOW)
    for topic in topics:
        link.heard(ack(topic), NOW)
    return link


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["add", "drop", "renew"]), st.integers(0, 400), st.integers(0, 3 * NS), st.booleans()
        ),
        max_size=60,
    )
)
def test_what_is_sent_stays_within_half_of_the_limits(steps: list[tuple[str, int, int, bool]]) -> None:
    """Whatever is wanted and whenever: 5 messages a second, 120 requests an hour, 4,096 bytes a frame, pings in time."""
    link, now_ns = Link(0), NOW
    link.opened(now_ns)
    sent: list[tuple[int, str]] = []
    for what, number, wait_ns, is_acked in steps:
        topic = ("books15", f"龙虾{number}USDT")
        getattr(link, what)(topic)
        now_ns += wait_ns
        for text in link.due(now_ns):
            sent.append((now_ns, text))
            if text == "ping":
                link.heard("pong", now_ns)
            elif is_acked:
                for one in json.loads(text)["args"]:
                    link.heard(ack((one["channel"], one["instId"])), now_ns)
        link.heard("pong", now_ns)

    assert all(len(text.encode()) <= FRAME_BYTES_MAX for _, text in sent)
    assert all(sum(at <= t < at + NS for t, _ in sent) <= 5 for at, _ in sent)
    requests = [at for at, text in sent if text != "ping"]
    assert len(requests) <= 120
    pings = [NOW, *(at for at, text in sent if text == "ping")]
    assert all(b - a <= PING_NS + 4 * NS for a, b in zip(pings, [*pings[1:], now_ns], strict=True))


def test_every_topic_is_asked_for_once_and_again_when_unanswered() -> None:
    """A request without an ack is repeated after the answer's time, one with an ack is not."""
    link = Link(0)
    topics = [("books15", f"S{n}USDT") for n in range(200)]
    for topic in topics:
        link.add(topic)
    link.opened(NOW)

    first = [one["instId"] for text in link.due(NOW) for one in json.loads(text)["args"]]
    first += [one["instId"] for text in link.due(NOW + NS) for one in json.loads(text)["args"]]
    for topic in topics[1:]:
        link.heard(ack(topic), NOW + NS)
    again = [text for text in link.due(NOW + NS + ACK_NS) if text != "ping"]

    assert first == [symbol for _, symbol in topics]
    assert [json.loads(text)["args"] for text in again] == [[arg(*topics[0])]]


def test_one_request_holds_as_many_topics_as_fit() -> None:
    """A frame ends before the limit, in bytes, and no topic is lost between two."""
    topics = [("books15", f"龙虾{n}USDT") for n in range(100)]

    text, told = request_text("subscribe", topics)

    assert len(text.encode()) <= FRAME_BYTES_MAX < len(text.encode()) + 100
    assert [one["instId"] for one in json.loads(text)["args"]] == [symbol for _, symbol in told]
    assert told == topics[: len(told)]


def test_a_push_is_passed_on_as_it_came() -> None:
    """The text is not touched, and only topics that are carried are heard."""
    link = linked(BTC)
    text = push(BTC, data=[{"lastPr": "1.50"}])

    heard = link.heard(text, NOW + 1)

    assert [(h.kind, h.text, h.is_update, h.recv_ns) for h in heard] == [(Kind.FRAME, text, False, NOW + 1)]
    assert link.heard(push(("ticker", "ETHUSDT")), NOW) == []


def test_push_before_its_ack_links_the_topic_but_an_update_of_before_does_not() -> None:
    """A snapshot of a topic that was asked for is an answer; an update may belong to the subscription before."""
    link = Link(0)
    link.add(("books", "BTCUSDT"))
    link.opened(NOW)
    link.due(NOW)

    early = link.heard(push(("books", "BTCUSDT"), "update"), NOW)
    heard = link.heard(push(("books", "BTCUSDT")), NOW)

    assert early == []
    assert [h.kind for h in heard] == [Kind.LINKED, Kind.FRAME]


def test_loss_names_what_was_linked_and_the_next_connection_begins_anew() -> None:
    """What was only asked for cannot be lost; everything is asked for again."""
    link = linked(BTC)
    link.add(("trade", "BTCUSDT"))

    lost = link.closed(NOW + 1)
    link.opened(NOW + NS)
    (text,) = link.due(NOW + NS)

    assert [(h.kind, h.channel, h.symbol) for h in lost] == [(Kind.LOST, *BTC)]
    assert len(json.loads(text)["args"]) == 2


def test_refused_topic_is_told_and_asked_for_again_later() -> None:
    """A symbol may be listed meanwhile; until then the error is Bitget's own."""
    link = Link(0)
    link.add(BTC)
    link.opened(NOW)
    link.due(NOW)

    error = {"event": "error", "arg": arg(*BTC), "code": 30001, "msg": "doesn't exist", "op": "subscribe"}
    heard = link.heard(json.dumps(error), NOW)
    for k in range(1, 9):
        link.heard("pong", NOW + k * PING_NS)
        link.due(NOW + k * PING_NS)

    assert [(h.kind, h.code, h.text) for h in heard] == [(Kind.REFUSED, 30001, "doesn't exist")]
    assert NOW + 8 * PING_NS >= NOW + RETRY_NS
    assert link.states[BTC] is State.ASKED


def test_renewed_topic_is_ended_and_asked_for() -> None:
    """The exchange answers a new subscription with a new snapshot, and only that mends a book."""
    link = linked(("books", "BTCUSDT"))

    link.renew(("books", "BTCUSDT"))
    texts = [json.loads(text)["op"] for text in link.due(NOW + NS)]

    assert texts == ["unsubscribe", "subscribe"]
    assert link.heard(ack(("books", "BTCUSDT"), "unsubscribe"), NOW + NS) == []
    assert [h.kind for h in link.heard(ack(("books", "BTCUSDT")), NOW + NS)] == [Kind.LINKED]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "<html>502 Bad Gateway</html>",
        '{"action":"snap',
        "[1,2]",
        "null",
        "{}",
        '{"arg":7}',
        '{"action":5}',
        "pung",
        push(BTC)[:-1] + ',"x":' + "[" * 100_000 + "]" * 100_000 + "}",
    ],
    ids=range(10),
)
def test_what_is_no_frame_ends_the_connection(text: str) -> None:
    """What it told is lost, and nobody knows what it was."""
    with pytest.raises(Unreadable):
        linked(BTC).heard(text, NOW)


@given(st.text(max_size=60) | st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=9), lambda
       inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["event", "action", "arg", "data", "code",
       "channel", "instId", "ts", "msg"]), inner, max_size=5), max_leaves=12).map(json.dumps))  # fmt: skip
def test_no_text_does_more_than_end_the_connection(text: str) -> None:
    """Whatever the exchange sends is heard, ignored or `Unreadable`."""
    link = linked(BTC)
    try:
        heard = link.heard(text, NOW)
    except Unreadable:
        return
    assert all((h.channel, h.symbol) in link.states for h in heard)


@pytest.mark.parametrize("code", [30006, "30007"])
def test_error_after_which_bitget_closes_ends_the_connection(code: int | str) -> None:
    """The eleventh message of a second, or one channel too many, is the end whoever says it first."""
    link = linked(BTC)

    link.heard(json.dumps({"event": "error", "code": code, "msg": "request too many"}), NOW)

    assert str(code) in link.dead_because


def test_silent_connection_is_dead() -> None:
    """Two pings without any answer, and TCP may believe what it likes."""
    link = linked(("books", "BTCUSDT"))

    link.due(NOW + SILENT_NS)
    assert not link.dead_because
    link.due(NOW + SILENT_NS + 1)

    assert "silent" in link.dead_because


def test_frozen_connection_is_dead() -> None:
    """One that answers pings but pushes no ticker for half a minute shows a market that no longer is."""
    link = linked(BTC, ("trade", "BTCUSDT"))
    quiet = linked(("trade", "BTCUSDT"))  # nobody has to trade

    for link_ in (link, quiet):
        link_.heard("pong", NOW + FROZEN_NS)
        link_.due(NOW + FROZEN_NS + 1)

    assert "no push" in link.dead_because
    assert not quiet.dead_because
