"""Payloads: what Bitget sends is understood, what is strange is named, and nothing is made up."""

from __future__ import annotations

import json
import math
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.bitget import wire
from shared.errors import ProtocolBroken
from shared.types import CancelOrder, Cause, FundingPaid, OrderKind, OrderStatus, PlaceOrder, Position, Side
from tests.shared.bitget.payloads import FRAMES, PUSHES, REST, compact, frame, json_values

D = Decimal

REQUIRED = {  # golden frame -> fields of a row without which it means nothing
    "books15": ("asks", "bids"),
    "trade_update": ("ts", "price", "size", "side", "tradeId"),
    "order_live": ("orderId", "side", "size", "orderType"),
    "fill": ("tradeId", "orderId", "symbol", "side", "price", "baseVolume", "tradeScope", "feeDetail", "cTime"),
    "positions": ("holdSide", "posMode", "total", "openPriceAvg", "leverage"),
    "account": ("marginCoin", "equity", "available"),
}
TICKER_FLOATS = {
    "lastPr": "last", "bidPr": "bid", "askPr": "ask", "bidSz": "bid_size", "askSz": "ask_size", "markPrice": "mark",
    "indexPrice": "index", "fundingRate": "funding_rate", "holdingAmount": "open_interest",
    "baseVolume": "base_volume_24h", "quoteVolume": "quote_volume_24h", "nextFundingTime": "next_funding_ms",
}  # fmt: skip


def decode(name: str, **changes: Any) -> Any:
    return wire.decode_push(frame(name, **changes))


# ------------------------------------------------------------------------------------------------ what it means


def test_book_push_means_its_levels_and_sequence() -> None:
    """A books15 push decodes to levels best first as floats, with the exchange's own ts and seq."""
    push = decode("books15")

    assert (push.channel, push.symbol, push.unknown) == ("books15", "BTCUSDT", ())
    row = push.rows[0]
    assert row.asks == [(60000.2, 1.5), (60000.3, 0.25), (60001.0, 12.0)]
    assert row.bids == [(60000.1, 2.0), (60000.0, 0.001)]
    assert (row.ts, row.seq) == (1760000000123, 1234567890123)


def test_book_push_of_2024_with_checksum_is_still_known() -> None:
    """The checksum that Bitget sent until May 2026 is a known field, and its absence is no loss."""
    assert decode("books5_of_2024").unknown == ()


def test_trade_push_tells_snapshot_from_update() -> None:
    """The subscribe snapshot of trades is told apart, because its rows repeat."""
    assert decode("trade_snapshot").is_snapshot
    assert not decode("trade_update").is_snapshot
    assert [row.trade_id for row in decode("trade_update").rows] == [1360000000000000004, 1360000000000000003]


def test_ticker_blank_is_nan_and_never_zero() -> None:
    """What Bitget sends blank, null or not at all is NaN in a ticker."""
    row = decode("ticker_with_blanks").rows[0]

    assert row.last == 60000.1
    assert row.quote_volume_24h == 123.5
    for name in ("bid", "ask", "mark", "index", "funding_rate", "open_interest", "base_volume_24h", "next_funding_ms"):
        assert math.isnan(getattr(row, name)), name


@pytest.mark.parametrize("blank", ["", None, "absent"])
@given(names=st.sets(st.sampled_from(sorted(TICKER_FLOATS))))
def test_ticker_fields_go_missing_one_by_one(blank: str | None, names: set[str]) -> None:
    """Whichever fields of a ticker are missing, exactly those are NaN and all others keep their value."""
    payload = json.loads(frame("ticker"))
    whole = wire.decode_push(frame("ticker"))
    for name in names:
        if blank == "absent":
            del payload["data"][0][name]
        else:
            payload["data"][0][name] = blank

    push = wire.decode_push(compact(payload))

    assert isinstance(push, wire.TickerPush)
    assert isinstance(whole, wire.TickerPush)
    for sent, ours in TICKER_FLOATS.items():
        value = getattr(push.rows[0], ours)
        assert math.isnan(value) if sent in names else value == getattr(whole.rows[0], ours), sent


def test_acks_and_errors_say_whom_they_answer() -> None:
    """An ack names its channel and symbol (account: its coin), an error also its code as text."""
    assert decode("subscribed") == wire.Ack("subscribe", "ticker", "BTCUSDT")
    assert decode("account_subscribed") == wire.Ack("subscribe", "account", "default")
    assert decode("unsubscribed") == wire.Ack("unsubscribe", "ticker", "BTCUSDT")
    assert decode("logged_in") == decode("logged_in_as_documented") == wire.Ack("login", "", "")
    error = decode("no_such_symbol")
    assert (error.code, error.op, error.channel, error.symbol) == ("30001", "subscribe", "books15", "NOPEUSDT")
    assert decode("login_failed").code == "30005"
    assert wire.decode_push("pong") is wire.decode_push(b"pong") is wire.Pong.PONG


def test_order_push_carries_its_fill() -> None:
    """An orders push with a trade gives the fill with our sign of the fee, and the state after it."""
    row = decode("order_filled").rows[0]

    fill = wire.filled_of_order(row, 7)
    assert fill is not None
    assert (fill.client_oid, fill.order_id, fill.trade_id) == ("a1", "1360000000000000100", "1360000000000000200")
    assert (fill.symbol, fill.side, fill.price, fill.size) == ("BTCUSDT", Side.BUY, D("60000.2"), D("0.001"))
    assert (fill.fee_usdt, fill.is_maker, fill.exch_ns) == (D("0.03600012"), False, 1760000000450 * 10**6)
    state = wire.order_state(row)
    assert (state.status, state.filled, state.kind, state.price) == (
        OrderStatus.FILLED,
        D("0.001"),
        OrderKind.MARKET,
        None,
    )


def test_order_push_without_trade_has_no_fill() -> None:
    """An ack-like orders push is not a fill."""
    row = decode("order_live").rows[0]

    assert wire.filled_of_order(row, 7) is None
    assert wire.order_state(row).reported(7).filled == 0


def test_fill_push_and_order_push_tell_the_same_fill() -> None:
    """The fill channel and the orders channel give the same `Filled`, so repeats can be told by trade_id."""
    from_orders = wire.filled_of_order(decode("order_filled").rows[0], 7)
    from_fill = wire.filled(decode("fill").rows[0], 7)

    assert from_orders == from_fill


def test_fee_in_another_coin_is_refused() -> None:
    """A fee that was not taken in USDT would be booked at the wrong worth, so it is an error."""
    row = decode("fill", feeDetail=[{"feeCoin": "BGB", "totalFee": "-0.01"}]).rows[0]

    with pytest.raises(ProtocolBroken, match=r"expected the fee of trade .* in USDT, found BGB"):
        wire.filled(row, 7)


def test_position_is_signed_and_hedge_mode_is_refused() -> None:
    """A short position is negative; in hedge mode one symbol has two, which nothing here could hold."""
    short = wire.position(decode("positions").rows[0])
    hedged, _ = wire.parse_rows(REST["positions_hedge"], wire.PositionRow, "positions")

    assert short == Position(symbol="BTCUSDT", size=D("-0.001"), entry_price=D("60000.2"))
    with pytest.raises(ProtocolBroken, match="one-way"):
        wire.position(hedged[0])


def test_contract_states_its_rules() -> None:
    """A contract's tick is priceEndStep x 10^-pricePlace; blank bounds and -1 are None; only perpetuals are listed."""
    rows, unknown = wire.parse_rows(REST["contracts"], wire.ContractRow, "contracts")

    universe = wire.universe(rows, "simulator-test", 5)

    assert unknown == ()
    assert universe.symbols == ("BTCUSDT", "龙虾USDT")
    btc, lobster = universe.contracts
    assert (btc.tick, btc.size_step, btc.size_min, btc.notional_min_usdt) == (D("0.1"), D("0.0001"), D("0.0001"), D(5))
    assert (btc.size_max_limit, btc.size_max_market, btc.off_ms, btc.launch_ms) == (D(1200), D(220), None, None)
    assert (lobster.tick, lobster.size_min, lobster.size_step) == (D("0.00005"), D(10), D(1))
    assert (lobster.size_max_limit, lobster.size_max_market) == (None, None)
    assert (lobster.off_ms, lobster.launch_ms, lobster.status) == (1770000000000, 1750000000000, "limit_open")
    assert (lobster.price_band_buy, lobster.price_band_sell) == (D("0.15"), D("0.1"))
    assert (btc.leverage_max, btc.funding_interval_h, btc.taker_fee, btc.is_rwa) == (150, 8, D("0.0006"), False)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("time", wire.TimeRow),
        ("contracts", wire.ContractRow),
        ("tickers", wire.TickerRow),
        ("merge_depth", wire.BookRow),
        ("account", wire.AccountRow),
        ("positions", wire.PositionRow),
        ("pending", wire.PendingPage),
        ("pending_empty", wire.PendingPage),
        ("detail", wire.OrderRow),
        ("fills", wire.FillPage),
        ("fills_empty", wire.FillPage),
        ("bills", wire.BillPage),
        ("bills_empty", wire.BillPage),
        ("placed", wire.PlacedRow),
        ("leverage", wire.LeverageRow),
        ("leverage_isolated", wire.LeverageRow),
        ("margin_mode", wire.ModeRow),
        ("position_mode", wire.ModeRow),
    ],
)
def test_rest_payload_holds_no_unknown_field(name: str, kind: type[wire.Row]) -> None:
    """Every documented field of the REST payloads in use is known."""
    data = REST[name]

    _, unknown = wire.parse_rows(data if isinstance(data, list) else [data], kind, name)

    assert unknown == ()


@pytest.mark.parametrize("name", sorted(FRAMES))
def test_frame_holds_no_unknown_field(name: str) -> None:
    """Every documented field of the frames in use is known."""
    assert getattr(decode(name), "unknown", ()) == ()


def test_detail_says_state_where_lists_say_status() -> None:
    """`order/detail` names the status `state`; both dialects give the same kind of order."""
    detail = wire.order_state(wire.parse_rows([REST["detail"]], wire.OrderRow, "detail")[0][0])
    pending = wire.order_state(wire.parse_rows([REST["pending"]], wire.PendingPage, "pending")[0][0].entrusted_list[0])

    assert (detail.status, detail.filled, detail.reason) == (OrderStatus.CANCELED, D("0.0005"), "normal_cancel")
    assert (pending.status, pending.filled, pending.kind) == (
        OrderStatus.PARTIALLY_FILLED,
        D("0.0004"),
        OrderKind.POST_ONLY,
    )
    assert (pending.reduce_only, pending.price, detail.reduce_only) == (True, D(59000), False)


def test_bill_of_funding_is_a_settlement_and_no_other_is() -> None:
    """Funding is signed, in USDT and of a symbol; a trade, a transfer or another coin is no settlement."""
    funding, trade, transfer = wire.parse_rows([REST["bills"]], wire.BillPage, "bills")[0][0].bills

    assert wire.funding_paid(funding, 7) == FundingPaid(
        recv_ns=7,
        symbol="BTCUSDT",
        amount_usdt=D("0.006"),
        bill_id="1360000000000000302",
        exch_ns=1_760_025_600_000_000_000,
    )
    for other in (trade, transfer, msgspec.structs.replace(funding, coin="BGB")):
        with pytest.raises(ProtocolBroken, match=other.bill_id):
            wire.funding_paid(other, 7)


def test_empty_lists_may_be_null() -> None:
    """Bitget sends null for an empty page."""
    pages, _ = wire.parse_rows([REST["pending_empty"]], wire.PendingPage, "pending")

    assert pages[0].entrusted_list == []
    assert wire.parse_rows(None, wire.TickerRow, "tickers") == ([], ())


# --------------------------------------------------------------------------------------------- what is strange


@given(name=st.sampled_from(PUSHES), field=st.text(max_size=12), value=json_values)
def test_unknown_field_is_tolerated_and_named(name: str, field: str, value: Any) -> None:
    """A field that nobody knows changes no value, and is reported by its name."""
    plain = decode(name)
    row = FRAMES[name]["data"][0]
    kind = type(plain.rows[0])
    if field in row or field in kind.__struct_encode_fields__ or field in kind.IGNORED.split():
        return

    strange = decode(name, **{field: value})

    assert strange.unknown == (field,)
    fields = wire.TickerRow.__struct_fields__ if name.startswith("ticker") else plain.rows[0].__struct_fields__
    for ours in fields:
        before, after = getattr(plain.rows[0], ours), getattr(strange.rows[0], ours, None)
        if ours in type(strange.rows[0]).__struct_fields__:
            assert before == after or (before != before and after != after), ours


def test_unknown_field_of_a_nested_row_is_named_with_its_place() -> None:
    """A new field inside feeDetail is named with the list that holds it."""
    push = decode("fill", feeDetail=[{"feeCoin": "USDT", "totalFee": "-1", "deductionCoin": "BGB"}])

    assert push.unknown == ("feeDetail.deductionCoin",)


def test_unknown_field_beside_the_rows_is_named() -> None:
    """A new field of the frame or of its arg is named, and the push still counts."""
    payload = FRAMES["books15"] | {"connId": "x"}
    payload["arg"] = payload["arg"] | {"precision": "scale0"}

    push = wire.decode_push(compact(payload))

    assert isinstance(push, wire.BookPush)
    assert push.unknown == ("arg.precision", "connId")
    assert push.rows[0].asks == decode("books15").rows[0].asks


@pytest.mark.parametrize(("name", "field"), [(name, field) for name, fields in REQUIRED.items() for field in fields])
@pytest.mark.parametrize("how", ["absent", "", None])
def test_missing_required_field_is_an_error(name: str, field: str, how: str | None) -> None:
    """No default stands in for a field without which a row means nothing."""
    payload = json.loads(frame(name))
    if how == "absent":
        del payload["data"][0][field]
    else:
        payload["data"][0][field] = how

    with pytest.raises(ProtocolBroken):
        wire.decode_push(compact(payload))


@pytest.mark.parametrize("word", ["nan", "NaN", "inf", "-Infinity", "INF"])
@pytest.mark.parametrize("name", ["books15", "trade_update"])
def test_number_that_is_not_finite_is_an_error(name: str, word: str) -> None:
    """float() reads "nan" and "inf"; a book or trade with one is broken, with or without an unknown field beside it."""
    changes: dict[str, Any] = {"asks": [[word, "1"]]} if name == "books15" else {"price": word}

    for extra in ({}, {"brandNew": 1}):
        with pytest.raises(ProtocolBroken):
            decode(name, **changes, **extra)


@pytest.mark.parametrize("word", ["NaN", "Infinity", "sNaN"])
def test_money_that_is_not_finite_is_an_error(word: str) -> None:
    """Decimal() reads "NaN" and "Infinity"; no price, size or fee may be one."""
    for changes in ({"price": word}, {"feeDetail": [{"feeCoin": "USDT", "totalFee": word}]}):
        with pytest.raises(ProtocolBroken):
            decode("fill", **changes)
    with pytest.raises(ProtocolBroken):
        decode("order_live", size=word)


@given(name=st.sampled_from(PUSHES))
def test_numbers_may_be_json_numbers(name: str) -> None:
    """A number means the same as a string and as a JSON number (merge-depth and some private fields send those)."""

    def bare(value: Any) -> Any:
        if isinstance(value, list):
            return [bare(item) for item in value]
        try:
            return float(value) if isinstance(value, str) and "." in value else value
        except ValueError:
            return value

    row = {key: bare(value) for key, value in FRAMES[name]["data"][0].items() if key not in ("clientOid", "feeDetail")}
    as_numbers = decode(name, **row).rows[0]
    as_strings = decode(name).rows[0]

    for field in type(as_strings).__struct_fields__:
        if field in wire.TickerRow.__struct_fields__ or not name.startswith("ticker"):
            before, after = getattr(as_strings, field), getattr(as_numbers, field, None)
            if isinstance(before, (float, Decimal)) and before == before:
                assert before == after, field


@given(
    name=st.sampled_from(sorted(FRAMES)),
    cut=st.floats(0, 1),
    noise=st.binary(max_size=6),
    keep=st.booleans(),
)
def test_damaged_frame_is_a_frame_or_an_error(name: str, cut: float, noise: bytes, keep: bool) -> None:
    """Whatever bytes arrive, decoding returns a frame or raises ProtocolBroken, and nothing else."""
    raw = frame(name).encode()
    at = int(cut * len(raw))
    damaged = raw[:at] + noise + (raw[at:] if keep else b"")

    try:
        got = wire.decode_push(damaged)
    except ProtocolBroken:
        return

    assert isinstance(got, (wire.Ack, wire.ErrorFrame, wire.Pong)) or got.rows is not None


@given(st.text() | json_values.map(compact))
def test_any_text_is_a_frame_or_an_error(text: str) -> None:
    """Text that Bitget never sent is refused as a protocol error, whatever it is."""
    with pytest.raises(ProtocolBroken, match=r"expected|channel"):
        wire.decode_push(text)


@pytest.mark.parametrize(
    "changed", [{"ts": "99999999999999999999"}, {"tradeId": "99999999999999999999"}, {"side": "none"}]
)
def test_value_out_of_bounds_is_an_error(changed: dict[str, str]) -> None:
    """A time, id or side that no column could hold is an error of the protocol, not an overflow later."""
    with pytest.raises(ProtocolBroken):
        decode("trade_update", **changed)


def test_other_product_or_channel_is_an_error() -> None:
    """A push of a product or channel that was never asked for is not taken for ours."""
    for arg in (
        {"instType": "SPOT", "channel": "trade", "instId": "BTCUSDT"},
        {"instType": "USDT-FUTURES", "channel": "x"},
    ):
        with pytest.raises(ProtocolBroken, match="asked for"):
            wire.decode_push(compact(FRAMES["trade_update"] | {"arg": arg}))


# -------------------------------------------------------------------------------------------------- what we send


@given(st.decimals(allow_nan=False, allow_infinity=False, min_value=D("1e-20"), max_value=D("1e20")))
def test_plain_number_is_exact_and_short(value: Decimal) -> None:
    """A number is written exactly, without exponent and without trailing zeros (Bitget counts decimals)."""
    text = wire.plain(value)

    assert D(text) == value
    assert "e" not in text.lower()
    assert "." not in text or not text.endswith(("0", "."))


def _order(**changes: Any) -> PlaceOrder:
    order: dict[str, Any] = {
        "client_oid": "c1", "symbol": "BTCUSDT", "side": Side.BUY, "kind": OrderKind.MARKET, "size": D("0.0010"),
        "price": None, "reduce_only": False, "stop_price": D("58000.0"), "cause": Cause.ENTRY,
    }  # fmt: skip
    return PlaceOrder(**(order | changes))


def test_entry_carries_its_stop_and_no_trade_side() -> None:
    """An entry in one-way mode has no tradeSide (40774), and its protective stop rides on it."""
    assert wire.place_body(_order()) == {
        "symbol": "BTCUSDT",
        "productType": "USDT-FUTURES",
        "marginMode": "crossed",
        "marginCoin": "USDT",
        "size": "0.001",
        "side": "buy",
        "orderType": "market",
        "clientOid": "c1",
        "reduceOnly": "NO",
        "presetStopLossPrice": "58000",
    }


@pytest.mark.parametrize(
    ("kind", "force"),
    [(OrderKind.LIMIT, "gtc"), (OrderKind.POST_ONLY, "post_only"), (OrderKind.IOC, "ioc"), (OrderKind.FOK, "fok")],
)
def test_limit_kinds_say_their_force(kind: OrderKind, force: str) -> None:
    """Every kind but market is a limit order with its time in force, and an exit says reduceOnly."""
    body = wire.place_body(_order(kind=kind, price=D("60000.10"), reduce_only=True, stop_price=None))

    assert (body["orderType"], body["force"], body["price"], body["reduceOnly"]) == ("limit", force, "60000.1", "YES")
    assert "presetStopLossPrice" not in body


def test_cancel_prefers_the_order_id() -> None:
    """A cancellation names the orderId, and the clientOid only while the ack is missing."""
    by_id = wire.cancel_body(CancelOrder(client_oid="c1", order_id="9", symbol="BTCUSDT"))
    by_oid = wire.cancel_body(CancelOrder(client_oid="c1", order_id="", symbol="BTCUSDT"))

    assert by_id["orderId"] == "9"
    assert "clientOid" not in by_id
    assert by_oid["clientOid"] == "c1"
    assert "orderId" not in by_oid


def test_bodies_agree_with_ccxt(outside: Path) -> None:
    """Our orders say what ccxt's orders said to the same endpoint, apart from case and what we add."""
    log = json.loads((outside / "bitget/fixtures/ccxt/ccxt_4.5.90_request_log.json").read_text("utf-8"))
    bodies = [
        json.loads(entry["body"]) if isinstance(entry.get("body"), str) else entry["body"]
        for entry in _walk(log)
        if str(entry.get("path", entry.get("url", ""))).endswith("/order/place-order") and entry.get("body")
    ]
    market = next(body for body in bodies if body["orderType"] == "market" and body["side"] == "buy" and len(body) == 8)
    ours = wire.place_body(_order(size=D(market["size"]), stop_price=None, symbol=market["symbol"]))

    assert market.pop("force") == "GTC"  # ccxt sends it on market orders too, where it means nothing
    assert {key: ours[key] for key in market} == market
    assert set(ours) - set(market) == {"clientOid", "reduceOnly"}


def _walk(node: Any) -> list[dict[str, Any]]:
    if isinstance(node, dict):
        return [node, *(found for value in node.values() for found in _walk(value))]
    return [found for value in node for found in _walk(value)] if isinstance(node, list) else []


# ----------------------------------------------------------------------------------------------- recorded payloads


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("account_detail_one_way", wire.AccountRow),
        ("account_detail_hedge", wire.AccountRow),
        ("oneway_positions", wire.PositionRow),
        ("hedge_positions", wire.PositionRow),
        ("oneway_fills", wire.FillPage),
        ("oneway_order_detail_close", wire.OrderRow),
        ("hedge_orders_pending_with_close", wire.PendingPage),
        ("orders_pending_empty", wire.PendingPage),
        ("oneway_place_open_long", wire.PlacedRow),
        ("hedge_set_leverage", wire.LeverageRow),
        ("hedge_isolated_leverage_long", wire.LeverageRow),
        ("hedge_set_position_mode", wire.ModeRow),
    ],
)
def test_recorded_answer_is_understood_whole(outside: Path, name: str, kind: type[wire.Row]) -> None:
    """Answers recorded from Bitget's demo trading in October 2026 hold no field that we do not know."""
    data = json.loads((outside / f"bitget/fixtures/recorded_demo_202610/{name}.json").read_text("utf-8"))["data"]

    rows, unknown = wire.parse_rows(data if isinstance(data, list) else [data], kind, name)

    assert rows
    assert unknown == ()


def test_unreadable_contract_does_not_cost_the_others() -> None:
    """Of a list with rows that cannot be read the others are returned and each broken one named; none is an error."""
    good = REST["contracts"][0]
    blank, torn = good | {"symbol": "BLANKUSDT", "minTradeUSDT": ""}, {"symbol": "TORNUSDT"}
    other = good | {"symbol": "OTHERUSDT", "brandNew": "1"}

    rows, unknown, broken = wire.parse_each([blank, good, torn, other, "text"], wire.ContractRow, "contracts")

    assert [row.symbol for row in rows] == [good["symbol"], "OTHERUSDT"]
    assert unknown == ("brandNew",)
    assert [row for row, _ in broken] == [blank, torn, "text"]
    assert all(why for _, why in broken)
    nothing: list[Any] = [[blank], "text", None, {}]
    for payload in nothing:
        with pytest.raises(ProtocolBroken):
            wire.parse_each(payload, wire.ContractRow, "contracts")


def test_two_contracts_of_one_symbol_are_one_or_refused() -> None:
    """The same row twice is one; two that differ are no list to believe, and neither is an absurd number of decimals."""
    (row,), _ = wire.parse_rows(REST["contracts"][:1], wire.ContractRow, "contracts")

    assert len(wire.universe([row, row], "bitget", 0).contracts) == 1
    with pytest.raises(ProtocolBroken, match="two that differ"):
        wire.universe([row, msgspec.structs.replace(row, max_lever=7)], "bitget", 0)
    with pytest.raises(ProtocolBroken, match="pricePlace"):
        wire.universe([msgspec.structs.replace(row, price_place=10**9)], "bitget", 0)


def test_recorded_contracts_are_understood_whole(outside: Path) -> None:
    """Every recorded contract row is understood, and its tick divides its price decimals."""
    payload = json.loads(
        (outside / "bitget/fixtures/rest_contracts_usdt_futures_119rows_20260702.json").read_text("utf-8")
    )
    data = payload["data"] if isinstance(payload, dict) else payload

    rows, unknown = wire.parse_rows(data, wire.ContractRow, "contracts")
    universe = wire.universe(rows, "bitget", 0)

    assert unknown == ()
    assert len(universe.contracts) == len(data)
    assert all(contract.tick > 0 and contract.size_step > 0 for contract in universe.contracts)


def test_recorded_frames_are_understood_whole(outside: Path) -> None:
    """Frames recorded from Bitget's live futures sockets hold no field that we do not know."""
    folder = outside / "bitget/fixtures/recorded_live_202609"
    ticker = wire.decode_push((folder / "ws_v2_ticker_BTCUSDT.json").read_bytes().strip())
    orders = wire.decode_push((folder / "ws_v2_orders_oneway_live_20250321.json").read_bytes().strip())
    errors = [wire.decode_push(line) for line in (folder / "ws_v2_errors.jsonl").read_text("utf-8").splitlines()]

    assert isinstance(ticker, wire.TickerPush)
    assert isinstance(orders, wire.OrderPush)
    assert ticker.unknown == orders.unknown == ()
    assert ticker.rows[0].open_interest == 31911.3455999999605
    assert wire.order_state(orders.rows[0]).status is OrderStatus.LIVE
    assert [error.code for error in errors if isinstance(error, wire.ErrorFrame)] == ["30001", "30016"]


# ------------------------------------------------------------------------------------------------------ quarantine


def test_quarantine_keeps_the_first_and_counts_all() -> None:
    """Nothing strange is lost: it is counted, the first raw payload is kept, notes come at 1, 10, 100."""
    quarantine = wire.Quarantine()

    notes = [quarantine.keep("ticker push", "unknown field x", f"raw {i}") for i in range(100)]

    assert [i + 1 for i, note in enumerate(notes) if note] == [1, 10, 100]
    assert quarantine.counts == {("ticker push", "unknown field x"): 100}
    assert quarantine.samples == {("ticker push", "unknown field x"): "raw 0"}


def test_quarantine_is_bounded() -> None:
    """A flood of ever new strangeness is still counted, in bounded memory."""
    quarantine = wire.Quarantine()

    for i in range(1000):
        quarantine.keep("frame", f"kind {i}", "x" * 100_000)

    assert sum(quarantine.counts.values()) == 1000
    assert len(quarantine.counts) == quarantine.MAX_KINDS + 1
    assert max(map(len, quarantine.samples.values())) == quarantine.MAX_RAW
