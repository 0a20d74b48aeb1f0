"""What Bitget itself sent, through the relay: every contract is readable, every push is passed on and understood."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from shared.simulator.gate import Credentials
from shared.simulator.relay.desk import RelayDesk
from shared.simulator.relay.feed import RelayFeed, RelayMarket
from shared.simulator.relay.kept import keeper
from shared.simulator.relay.link import Kind, Link

NOW = 1_790_358_795_000_000_000
KEYS = Credentials("key", "secret", "pass", Decimal(10_000))


@pytest.fixture
def recorded(outside: Path) -> Path:
    return outside / "bitget" / "fixtures"


def rows(path: Path) -> Any:
    return json.loads(path.read_text())["data"]


@pytest.fixture
def desk(recorded: Path) -> RelayDesk:
    feed = RelayFeed(RelayMarket("bitget", "api.bitget.com"), "https://api.bitget.com", "wss://ws.bitget.com/v2/ws")
    feed.learn(rows(recorded / "recorded_live_202609/rest_contracts_3rows.json"))
    return RelayDesk(feed, [KEYS])


def linked(channel: str, symbol: str) -> Link:
    link = Link(0)
    link.add((channel, symbol))
    link.opened(NOW)
    link.due(NOW)
    arg = {"instType": "USDT-FUTURES", "channel": channel, "instId": symbol}
    link.heard(json.dumps({"event": "subscribe", "arg": arg}), NOW)
    return link


def test_every_recorded_contract_can_be_traded_by(recorded: Path) -> None:
    """Of 119 rows none is left out, and the venue knows each."""
    market = RelayMarket("bitget", "api.bitget.com")
    data = rows(recorded / "rest_contracts_usdt_futures_119rows_20260702.json")

    assert market.learn(data)
    assert market.contracts() == data
    assert len(RelayDesk(RelayFeed(market, "https://x", "wss://x"), [KEYS]).venue.contracts) == len(data) == 119


def test_recorded_books_chain_is_followed_to_its_end(recorded: Path) -> None:
    """Snapshot and updates of MAVUSDT are frames of their topic; a later subscriber gets the book they add up to."""
    lines = (recorded / "recorded_live_202609/ws_v2_books_MAVUSDT_seq_chain.jsonl").read_text().splitlines()
    link, kept = linked("books", "MAVUSDT"), keeper("books")
    pushes = [line for line in lines if '"action"' in line]

    heard = [h for line in lines for h in link.heard(line, NOW)]

    assert [h.text for h in heard] == pushes
    assert [h.kind for h in heard] == [Kind.FRAME] * len(pushes)
    assert all(kept.take(h.text, is_update=h.is_update) for h in heard)
    row = json.loads(kept.snapshot() or "")["data"][0]
    assert (row["seq"], row["pseq"]) == (json.loads(pushes[-1])["data"][0]["seq"], 0)
    assert row["asks"][0][0] > row["bids"][0][0]


def test_recorded_ticker_gives_the_venue_its_marks(recorded: Path, desk: RelayDesk) -> None:
    """Mark, index and funding of the recorded push, digit for digit."""
    text = (recorded / "recorded_live_202609/ws_v2_ticker_BTCUSDT.json").read_text().strip()

    for heard in linked("ticker", "BTCUSDT").heard(text, NOW):
        desk.hear(heard)
    desk._use("BTCUSDT")

    assert desk.venue.mark("BTCUSDT") == Decimal("83692.3")


def test_recorded_errors_are_the_refusals_of_their_topics(recorded: Path) -> None:
    """Code and words of the exchange reach the relay's clients."""
    lines = (recorded / "recorded_live_202609/ws_v2_errors.jsonl").read_text().splitlines()
    found = []
    for line in lines:
        arg = json.loads(line)["arg"]
        link = Link(0)
        link.add((arg["channel"], arg["instId"]))
        link.opened(NOW)
        link.due(NOW)
        found += [(h.kind, h.code, h.text) for h in link.heard(line, NOW)]

    assert [(kind, code) for kind, code, _ in found] == [(Kind.REFUSED, 30001), (Kind.REFUSED, 30016)]
    assert found[1][2] == "Param error"


def test_recorded_risk_ladder_becomes_the_venues(recorded: Path, desk: RelayDesk) -> None:
    """150x up to 200,000 USDT at 0.40 %, and so on."""
    desk.climb("BTCUSDT", rows(recorded / "recorded_live_202609/rest_query_position_lever_BTCUSDT.json"))

    tiers = desk.venue.tiers("BTCUSDT")
    assert [(t.leverage_max, t.end_usdt, t.maintenance_rate) for t in tiers[:2]] == [
        (150, Decimal(200_000), Decimal("0.0040")),
        (100, Decimal(1_000_000), Decimal("0.0050")),
    ]


def test_recorded_tickers_of_rest_value_what_no_push_has_told(recorded: Path, desk: RelayDesk) -> None:
    """Symbols that nobody subscribed still have a mark, from `tickers`."""
    lines = (recorded / "recorded_live_202609/rest_rows_tickers_fundrate_20260915.jsonl").read_text().splitlines()
    row = next(row for row in map(json.loads, lines) if "markPrice" in row)

    desk.value([row])

    assert desk.venue.mark("BTCUSDT") == Decimal(row["markPrice"])
