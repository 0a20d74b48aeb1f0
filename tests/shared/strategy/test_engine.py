"""The engine as a whole: what it does with a second, with an order's life, and with the exchange's truth."""

from __future__ import annotations

from decimal import Decimal

import msgspec
import numpy as np
import pytest

from shared.errors import SettingsError
from shared.strategy.engine import EngineConfig
from shared.strategy.orders import ABSENT_AFTER_NS
from shared.strategy.ranking import Gate
from shared.strategy.scores import CoinScorer
from shared.types import (
    NS,
    CancelRefused,
    Cause,
    Filled,
    LinkChanged,
    OrderAbsent,
    OrderKind,
    OrderRefused,
    OrderStatus,
    OrderTimedOut,
    PendingOrder,
    Position,
    Side,
    StopRequested,
    Universe,
)
from tests.shared.strategy.made import (
    AT,
    START_S,
    D,
    Fixed,
    Script,
    account_queries,
    cancels,
    columns,
    contract,
    notes,
    places,
    queries,
    scores,
    universe,
)


def config(**changes: object) -> EngineConfig:
    return EngineConfig(**{"cooldown_s": 0, **changes})  # type: ignore[arg-type]


# ------------------------------------------------------------------------------------------------- beginning


def test_before_adoption_nothing_is_sent() -> None:
    """A process that has not read the exchange's truth sends no order, however sure the scores are."""
    script = Script(3, is_adopted=False)
    script.links(True)

    actions = [a for _ in range(5) for a in script.close_second(scores([1, -1, 1]))]

    assert not actions
    assert set(script.reasons) == {"not_adopted"}


def test_links_start_as_down() -> None:
    """Until both streams are said to be up, nothing is opened."""
    script = Script(1, is_adopted=False)
    script.adopt()

    assert not places(script.close_second(scores([1])))
    assert script.reasons == ["link_down"]
    script.links(True)
    assert places(script.close_second(scores([1])))


def test_fill_before_adoption_asks_for_the_truth_again() -> None:
    """A fill that crosses the first reading is in it or not: the account is read once more."""
    script = Script(1, is_adopted=False)
    stray = Filled(
        recv_ns=script.wait(), client_oid="", order_id="9", trade_id="9", symbol=script.symbols[0], side=Side.BUY,
        price=D(100), size=D(1), fee_usdt=D(0), is_maker=False, exch_ns=0,
    )  # fmt: skip

    script.tell(stray)

    assert account_queries(script.adopt())


# ---------------------------------------------------------------------------------------------- a round trip


def test_entry_and_horizon_exit_make_one_trade_with_both_fees() -> None:
    """A position is opened by the scores, closed reduce-only at the horizon, and the trade counts both fees."""
    script = Script(1)

    entry = script.open_position()
    quiet = script.pass_seconds(9)
    [leave] = places(script.close_second())
    script.complete(leave)

    assert not places(quiet)
    assert (entry.side, entry.reduce_only, entry.cause, entry.price) == (Side.BUY, False, Cause.ENTRY, None)
    assert (leave.side, leave.reduce_only, leave.cause) == (Side.SELL, True, Cause.HORIZON)
    assert leave.size == entry.size
    [trade] = script.engine.trades
    assert trade.fees_usdt == (D("100.01") + D("99.99")) * entry.size * D("0.0006")
    assert trade.net_usdt == (D("99.99") - D("100.01")) * entry.size - trade.fees_usdt
    assert trade.spread_usdt == D("0.02") * entry.size
    assert trade.entry_spread_usdt == trade.exit_spread_usdt == D("0.01") * entry.size
    assert trade.slippage_usdt == trade.gross_usdt == 0
    assert script.engine.portfolio.equity_usdt == D(10_000) + trade.net_usdt


def test_one_percent_at_five_times_on_a_hundred_of_margin_is_five_dollars() -> None:
    """A 1 % move of 500 USDT, 100 of margin at 5x, earns 5.00 gross: leverage is not counted twice."""
    script = Script(1)
    entry = script.open_position()
    script.close_second(market=columns(1, 101.0))
    script.pass_seconds(8)
    [leave] = places(script.close_second())
    script.complete(leave)
    [trade] = script.engine.trades

    notional = entry.size * 100
    assert trade.gross_usdt == notional * D("0.01")
    assert trade.gross_usdt / notional * 500 == 5


def test_the_bandit_learns_net_bps_from_fills() -> None:
    """Percent and fractions were mixed once: what a closed trade teaches is its own net in bps, costs included."""
    script = Script(1)
    script.open_position()
    script.close_second(market=columns(1, 101.0))
    script.pass_seconds(8)
    [leave] = places(script.close_second())
    script.complete(leave)
    [trade] = script.engine.trades

    [learnt] = script.engine.memory.bandit.window.net_bps

    assert learnt == trade.net_bps
    assert learnt == pytest.approx(float(trade.net_usdt / trade.opened_usdt) * 1e4)
    assert 50 < learnt < 100


def test_scores_against_a_position_reverse_it() -> None:
    """Scores that would enter on the other side close the position with cause reversal, before its horizon."""
    script = Script(1)
    script.open_position()

    [leave] = places(script.close_second(scores([-1])))

    assert leave.cause is Cause.REVERSAL
    assert leave.reduce_only


def test_scores_against_a_position_below_cost_do_not_reverse_it() -> None:
    """A weak opinion on the other side that an entry would not clear does not pay for an exit either."""
    script = Script(1)
    script.open_position()

    assert not places(script.close_second(scores([-1], edge_bps=5.0)))


def test_coin_holds_until_the_horizon() -> None:
    """The null never reverses: its coin falls anew every second and means nothing."""
    script = Script(2, scorer=Fixed(is_null=True))
    script.open_position()

    assert not places(script.close_second(scores([-1, -1])))


def test_target_ends_a_position() -> None:
    """A move of the mid beyond the target closes with cause target."""
    script = Script(1, config(target_bps=30.0))
    script.open_position()

    assert not places(script.close_second(market=columns(1, 100.2)))
    [leave] = places(script.close_second(market=columns(1, 100.4)))

    assert leave.cause is Cause.TARGET


def test_target_below_round_trip_cost_is_refused_with_the_arithmetic() -> None:
    """A target of 10 bps against 6 + 6 bps of fees and 2 + 2 of slippage does not start, and the message adds it up."""
    arithmetic = r"found 10 against 6 \(fee of an entry in AAAUSDT\) \+ 6 \(exit fee\) \+ 2 \+ 2 .*= 16 bps"
    with pytest.raises(SettingsError, match=arithmetic):
        Script(1, config(target_bps=10.0))


def test_target_of_a_maker_is_held_against_what_its_entry_may_become() -> None:
    """Post-only costs 2 + 6 + 2 bps; where it may fall back to taking, the target must pay a taker's 16."""
    assert Script(1, config(target_bps=11.0, entry_kind=OrderKind.POST_ONLY, entry_fallback=False))
    with pytest.raises(SettingsError, match=r"2 \(fee of a post-only entry in AAAUSDT\) .*= 10 bps"):
        Script(1, config(target_bps=10.0, entry_kind=OrderKind.POST_ONLY, entry_fallback=False))
    with pytest.raises(SettingsError, match=r"6 \(fee of an entry that falls back to taking in AAAUSDT\) .*= 16 bps"):
        Script(1, config(target_bps=15.0, entry_kind=OrderKind.POST_ONLY))


def test_target_is_held_against_the_dearest_symbol_that_is_traded() -> None:
    """One symbol whose own fees eat the target refuses the start by its name, unless it is not traded."""
    fees = {"BAAUSDT": {"taker_fee": D("0.0010")}}
    contracts = tuple(contract(symbol, **fees.get(symbol, {})) for symbol in ("AAAUSDT", "BAAUSDT"))
    listed = Universe(source="simulator-made", as_of_ns=0, contracts=contracts)

    assert Script(config=config(target_bps=20.0, symbols=("AAAUSDT",)), listed=listed)
    with pytest.raises(SettingsError, match=r"10 \(fee of an entry in BAAUSDT\) \+ 10 \(exit fee\) .*= 24 bps"):
        Script(config=config(target_bps=20.0), listed=listed)


def test_decisions_fall_on_seconds_divisible_by_the_interval() -> None:
    """With decision_seconds = 5, entries are sent at one second in five, whatever second the process started in."""
    script = Script(1, config(decision_seconds=5))

    sent = [START_S + t for t in range(10) if places(script.close_second(scores([1])))]

    assert sent == [START_S]
    assert START_S % 5 == 0


# -------------------------------------------------------------------------------------------------- why not


@pytest.mark.parametrize(
    ("column", "value", "reason"),
    [
        ("bid_price_1", np.nan, "no_book"),
        ("ask_price_1", 103.0, "spread"),
        ("bid_depth_10bps_usdt", 4000.0, "depth"),
        ("ask_depth_10bps_usdt", np.nan, "depth"),
        ("buy_volume_usdt", np.nan, "not_covered"),
    ],
)
def test_a_market_that_is_missing_or_bad_stops_the_symbol(column: str, value: float, reason: str) -> None:
    """Each kill switch on market data stops an entry by its own name; missing is as bad as bad."""
    script = Script(2)
    market = columns(2)
    market[AT[column], 0] = value

    placed = places(script.close_second(scores([1, 1]), market=market))

    assert [order.symbol for order in placed] == [script.symbols[1]]
    assert script.reasons == [reason, "chosen"]


def test_stale_book_stops_after_five_seconds_without_book_or_ticker() -> None:
    """Five seconds of silence are borne, the sixth is stale; a ticker alone keeps a quiet book alive."""
    script = Script(2)
    script.close_second()
    silent = columns(2)
    silent[AT["book_updates"]] = 0.0
    silent[AT["ticker_updates"]] = [0.0, 1.0]
    script.close_second(market=silent)
    script.pass_seconds(4)

    script.close_second(scores([1, 1]))

    assert script.reasons == ["stale_book", "chosen"]


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (scores([1], confidence=0.55), "confidence"),
        (scores([1], edge_bps=17.0), "net_edge"),
        (scores([0]), "confidence"),
        (msgspec.structs.replace(scores([1]), is_valid=np.zeros(1, np.bool_)), "warming_up"),
    ],
)
def test_scores_that_are_not_good_enough_are_named(said: object, reason: str) -> None:
    """An entry needs valid scores, confidence, and an edge above 12 bps of fees + 4 of slippage + the spread (2)."""
    script = Script(1)

    assert not places(script.close_second(said))  # type: ignore[arg-type]
    assert script.reasons == [reason]


def test_margin_gate_compares_with_the_next_class() -> None:
    """A direction that leads the next class by less than the margin is not clear enough."""
    script = Script(1, config(confidence_min=0.4))
    said = scores([1], confidence=0.5)
    said = msgspec.structs.replace(said, p_flat=np.array([0.45]), p_short=np.array([0.05]))

    script.close_second(said)

    assert script.reasons == ["margin"]


def test_a_second_that_comes_late_opens_nothing() -> None:
    """A second handed over more than five seconds after it closed is history, not a market."""
    script = Script(1)
    script.now_ns += 7 * NS

    script.close_second(scores([1]))

    assert script.reasons == ["late"]


def test_symbols_that_may_not_be_traded_say_why() -> None:
    """Outside SYMBOLS, not normal, or without a leverage: three names, no order."""
    listed = universe(4)
    halted = msgspec.structs.replace(listed.contracts[1], status="maintain")
    listed = msgspec.structs.replace(listed, contracts=(listed.contracts[0], halted, *listed.contracts[2:]))
    wanted = tuple(s for n, s in enumerate(listed.symbols) if n != 0)
    script = Script(config=config(symbols=wanted), listed=listed, is_adopted=False)
    script.adopt(leverage={s: 5 for s in listed.symbols if s != listed.symbols[2]})
    script.links(True)

    placed = places(script.close_second(scores([1, 1, 1, 1])))

    assert [order.symbol for order in placed] == [listed.symbols[3]]
    assert script.reasons == ["not_wanted", "not_tradable", "leverage_absent", "chosen"]


def test_unlisted_symbol_is_refused_by_name() -> None:
    """SYMBOLS with a name that the exchange does not list ends in one sentence that has the name in it."""
    with pytest.raises(SettingsError, match="NOPEUSDT"):
        Script(1, config(symbols=("NOPEUSDT",)))


def test_every_symbol_has_exactly_one_reason_per_decision() -> None:
    """After a decision each symbol is chosen or has the first gate that said no; the counts add up."""
    script = Script(30, config(top_k=2))

    actions = script.close_second(scores([1] * 10 + [-1] * 10 + [0] * 10))

    [note] = notes(actions, "decision.made")
    stopped = sum(int(v) for k, v in note.fields.items() if k.startswith("no_") and isinstance(v, int))
    assert stopped + len(places(actions)) == 30
    assert script.reasons.count("rank") == 16
    assert script.engine.why_second == START_S


def test_best_net_edges_are_taken_on_each_side() -> None:
    """Top K longs and bottom K shorts by edge after this symbol's own cost, best first."""
    script = Script(6, config(top_k=1))
    said = scores([1, 1, 1, -1, -1, -1])
    said = msgspec.structs.replace(said, edge_bps=np.array([40.0, 60.0, 50.0, -70.0, -90.0, -80.0]))

    placed = places(script.close_second(said))

    assert [(o.symbol, o.side) for o in placed] == [(script.symbols[4], Side.SELL), (script.symbols[1], Side.BUY)]


def test_cost_is_that_of_the_symbol_now() -> None:
    """The same edge clears a tight book and not a wide one."""
    script = Script(2)
    market = columns(2)
    market[AT["ask_price_1"], 1] = 100.15

    script.close_second(scores([1, 1], edge_bps=25.0), market=market)

    assert script.reasons == ["chosen", "net_edge"]


def test_order_rate_is_bounded_per_second() -> None:
    """Twenty chosen symbols give eight placements in a second, and the rest wait for the next one."""
    script = Script(20)

    first = places(script.close_second(scores([1] * 10 + [-1] * 10)))
    second = places(script.close_second(scores([1] * 10 + [-1] * 10)))

    assert (len(first), len(second)) == (8, 8)
    assert not {o.symbol for o in first} & {o.symbol for o in second}


def test_small_account_gets_an_honest_answer() -> None:
    """With 5 USDT of equity an entry is below the exchange's minimum: refused by size, not rounded up."""
    script = Script(1, is_adopted=False)
    script.adopt("5")
    script.links(True)

    assert not places(script.close_second(scores([1])))
    assert script.reasons == ["size"]


# ---------------------------------------------------------------------------------------- an order's doubtful life


def test_timed_out_placement_is_queried_and_never_sent_again() -> None:
    """A placement without an answer is asked about every two seconds, holds the symbol, and is never repeated."""
    script = Script(1)
    [entry] = places(script.close_second(scores([1])))

    asked = queries(script.tell(OrderTimedOut(recv_ns=script.wait(), client_oid=entry.client_oid)))
    later = [a for _ in range(12) for a in script.close_second(scores([1]))]

    assert asked
    assert len(queries(later)) == 6
    assert {q.client_oid for q in queries(later)} == {entry.client_oid}
    assert not places(later)
    assert script.reasons == ["has_order"]


def test_absence_counts_only_after_the_signature_window() -> None:
    """`order/detail` not knowing an order proves nothing for 30 s and a margin; then the symbol is free again."""
    script = Script(1)
    [entry] = places(script.close_second(scores([1])))
    sent_ns = script.now_ns
    script.tell(OrderTimedOut(recv_ns=script.wait(), client_oid=entry.client_oid))

    while script.now_ns < sent_ns + ABSENT_AFTER_NS - 2 * NS:
        script.close_second(scores([1]))
        script.tell(OrderAbsent(recv_ns=script.wait(), client_oid=entry.client_oid))
    assert script.engine.orders.n_unknown == 1
    script.pass_seconds(3)
    script.tell(OrderAbsent(recv_ns=script.wait(), client_oid=entry.client_oid))

    assert not script.engine.orders.n_working
    [again] = places(script.close_second(scores([1])))
    assert again.client_oid != entry.client_oid


def test_timed_out_placement_that_filled_is_found() -> None:
    """An unknown order that turns out to be filled becomes a position like any other."""
    script = Script(1)
    [entry] = places(script.close_second(scores([1])))
    script.tell(OrderTimedOut(recv_ns=script.wait(), client_oid=entry.client_oid))
    script.pass_seconds(3)

    script.fill(entry)
    script.report(entry, OrderStatus.FILLED, entry.size)

    assert script.engine.portfolio.size(entry.symbol) == entry.size
    assert not script.engine.orders.n_working


def test_fill_without_our_name_is_found_by_the_exchanges() -> None:
    """REST fills carry no clientOid: the order's exchange name is enough."""
    script = Script(1)
    [entry] = places(script.close_second(scores([1])))
    order_id = script.accept(entry)

    script.tell(
        Filled(
            recv_ns=script.wait(),
            client_oid="",
            order_id=order_id,
            trade_id="t",
            symbol=entry.symbol,
            side=entry.side,
            price=D("100.01"),
            size=entry.size,
            fee_usdt=D("0.1"),
            is_maker=False,
            exch_ns=0,
        )
    )

    assert script.engine.portfolio.holdings[entry.symbol].entry_cause is Cause.ENTRY
    assert not script.engine.orders.n_working


def test_repeated_fills_count_once() -> None:
    """The same trade told by push and by query moves the position once."""
    script = Script(1)
    [entry] = places(script.close_second(scores([1])))

    script.fill(entry, trade_id="one")
    script.fill(entry, trade_id="one")

    assert script.engine.portfolio.size(entry.symbol) == entry.size


def test_report_before_its_fills_keeps_the_exposure_and_asks() -> None:
    """An order reported as filled whose fills were lost stays working and is asked about until they come."""
    script = Script(1)
    [entry] = places(script.close_second(scores([1])))
    script.accept(entry)
    script.report(entry, OrderStatus.FILLED, entry.size)

    asked = queries(script.pass_seconds(3))
    assert asked
    assert script.engine.orders.n_working == 1
    script.fill(entry)

    assert script.engine.orders.n_working == 0
    assert script.engine.portfolio.size(entry.symbol) == entry.size


def test_silence_after_sending_counts_as_a_time_out() -> None:
    """Ten seconds without ack, refusal or time-out: our own shell lost it, and the order is unknown."""
    script = Script(1)
    script.close_second(scores([1]))

    actions = script.pass_seconds(10)

    assert notes(actions, "order.timed_out")
    assert queries(actions)


def test_too_many_unknown_orders_stop_new_risk() -> None:
    """With three placements unresolved nothing more is opened anywhere."""
    script = Script(8)
    said = scores([1, 1, 1] + [0] * 5)
    for order in places(script.close_second(said)):
        script.tell(OrderTimedOut(recv_ns=script.wait(), client_oid=order.client_oid))

    script.close_second(scores([1] * 8))

    assert set(script.reasons) == {"unknown_orders"}


def test_partial_exit_is_followed_by_another() -> None:
    """An exit that fills in part and is cancelled leaves a rest, which the next second closes under a new name."""
    script = Script(1)
    script.open_position()
    script.pass_seconds(9)
    [leave] = places(script.close_second())
    script.accept(leave)
    half = leave.size / 2
    script.fill(leave, size=half)
    script.report(leave, OrderStatus.CANCELED, half)

    [rest] = places(script.close_second())

    assert rest.size == leave.size - half
    assert rest.client_oid != leave.client_oid


def test_refused_exit_is_tried_again_with_growing_patience() -> None:
    """A refused exit comes back after 1, 2, 4 … seconds, each time under a new name, and never two at a time."""
    script = Script(1)
    script.open_position()
    script.pass_seconds(9)
    sent = []
    for t in range(20):
        for order in places(script.close_second()):
            sent.append(t)
            script.tell(
                OrderRefused(recv_ns=script.wait(), client_oid=order.client_oid, code="45001", message="unknown error")
            )

    assert sent == [0, 2, 5, 10, 19]


def test_refused_entry_rests_its_symbol() -> None:
    """After a refused entry the symbol is left alone for half a minute."""
    script = Script(1)
    [entry] = places(script.close_second(scores([1])))

    script.tell(OrderRefused(recv_ns=script.wait(), client_oid=entry.client_oid, code="40762", message="balance"))

    assert not [o for _ in range(30) for o in places(script.close_second(scores([1])))]
    assert script.reasons == ["cooldown"]
    assert places(script.close_second(scores([1])))


def test_storm_of_refusals_latches() -> None:
    """More refusals in a minute than the limit latch: something is wrong with us, not with the market."""
    script = Script(40, config(refusals_per_minute_max=10))
    for _ in range(3):
        for order in places(script.close_second(scores([1] * 20 + [-1] * 20))):
            script.tell(OrderRefused(recv_ns=script.wait(), client_oid=order.client_oid, code="40762", message="no"))

    script.close_second(scores([1] * 40))

    assert set(script.reasons) == {"risk_latched"}


def test_late_refusal_of_a_live_order_changes_nothing() -> None:
    """A refusal for an order that is known to live is said aloud and asked about, not believed."""
    script = Script(1)
    [entry] = places(script.close_second(scores([1])))
    script.report(entry, OrderStatus.LIVE, D(0))

    actions = script.tell(OrderRefused(recv_ns=script.wait(), client_oid=entry.client_oid, code="1", message=""))

    assert notes(actions, "order.surprised")
    assert queries(actions)
    assert script.engine.orders.n_working == 1


# ------------------------------------------------------------------------------------- exits have one authority


def test_stop_at_the_exchange_closes_the_ledger_with_cause_stop() -> None:
    """A fill that is not ours and reduces is the protective stop: the trade ends with cause stop, nothing is sent."""
    script = Script(1)
    entry = script.open_position()

    script.tell(
        Filled(
            recv_ns=script.wait(),
            client_oid="",
            order_id="x",
            trade_id="x",
            symbol=entry.symbol,
            side=Side.SELL,
            price=D("98.99"),
            size=entry.size,
            fee_usdt=D("0.5"),
            is_maker=False,
            exch_ns=0,
        )
    )

    [trade] = script.engine.trades
    assert trade.exit_cause is Cause.STOP
    assert not places(script.close_second())
    assert script.engine.is_flat_and_quiet


def test_exit_refused_for_want_of_a_position_reads_the_truth() -> None:
    """22002 means that the stop was faster: the account is read, nothing more is sent, and what every reading says corrects us."""
    script = Script(1)
    entry = script.open_position()
    script.pass_seconds(9)
    [leave] = places(script.close_second())

    actions = script.tell(
        OrderRefused(recv_ns=script.wait(), client_oid=leave.client_oid, code="22002", message="No position to close")
    )
    assert account_queries(actions)
    assert not places(script.pass_seconds(3))
    script.adopt("9990")
    assert script.engine.portfolio.size(entry.symbol) == entry.size
    for _ in range(7):
        script.close_second()
        script.adopt("9990")
    script.adopt("9990")

    assert script.engine.is_flat_and_quiet
    assert script.engine.portfolio.equity_usdt == D(9990)
    assert script.engine.trades[0].exit_cause is Cause.ADOPTED


def listed(symbol: str, size: Decimal, *, trade_id: str, order_id: str = "stop", exch_ns: int) -> Filled:
    """Return a sale as the account's fills list it: without a client_oid."""
    return Filled(
        recv_ns=exch_ns, client_oid="", order_id=order_id, trade_id=trade_id, symbol=symbol, side=Side.SELL,
        price=D("98.99"), size=size, fee_usdt=D("0.5"), is_maker=False, exch_ns=exch_ns,
    )  # fmt: skip


def test_stop_whose_push_was_lost_is_booked_from_the_accounts_fills() -> None:
    """The account is asked for fills since the position was opened, and the stop among them closes the trade at its
    own price: nothing is corrected, nothing adjusted. Told again, by whomever, it changes nothing."""
    script = Script(1)
    opened_ns = script.now_ns
    entry = script.open_position()
    stop = listed(entry.symbol, entry.size, trade_id="s", exch_ns=script.wait(3000))
    script.pass_seconds(9)
    [leave] = places(script.close_second())

    [asked] = account_queries(
        script.tell(OrderRefused(recv_ns=script.wait(), client_oid=leave.client_oid, code="22002", message=""))
    )
    engine = script.engine
    before = engine.portfolio.equity_usdt
    actions = script.adopt("9990", fills=(stop,))

    assert asked.fills_since_ns <= opened_ns
    [trade] = engine.trades
    assert (trade.exit_cause, trade.exit_price) == (Cause.STOP, D("98.99"))
    assert [note.fields["trade_id"] for note in notes(actions, "fill.missed")] == ["s"]
    assert not notes(actions, "ledger.corrected")
    assert not engine.truth.doubts
    assert engine.portfolio.adjustments_usdt == 0
    after = engine.portfolio.equity_usdt
    assert after < before
    script.tell(msgspec.structs.replace(stop, recv_ns=script.wait()))
    script.adopt(after, fills=(stop,))
    assert engine.portfolio.equity_usdt == after
    assert len(engine.trades) == 1


def test_fills_that_the_adopted_positions_contain_are_never_booked() -> None:
    """What the first reading lists is in its positions; so is what is older, should a later reading list it."""
    script = Script(1, is_adopted=False)
    symbol = script.symbols[0]
    known = listed(symbol, D(1), trade_id="a", exch_ns=script.now_ns - NS)
    older = listed(symbol, D(1), trade_id="b", exch_ns=script.now_ns - 600 * NS)
    held = Position(symbol=symbol, size=D(-1), entry_price=D("98.99"))

    asked = account_queries(script.adopt("10000", (held,), fills=(known,)))
    script.adopt("10000", (held,), fills=(older, known))

    assert asked  # a fill so close to the reading may have come between its requests
    assert script.engine.portfolio.size(symbol) == -1
    assert not script.engine.truth.doubts


def test_listed_fill_waits_while_one_of_our_orders_has_no_name() -> None:
    """A listed fill carries no client_oid: while an order in the symbol waits for its answer, it may be that one's."""
    script = Script(1)
    [entry] = places(script.close_second(scores([-1])))
    script.tell(OrderTimedOut(recv_ns=script.wait(), client_oid=entry.client_oid))
    fill = listed(entry.symbol, entry.size, trade_id="t", order_id="9", exch_ns=script.wait())

    script.adopt("10000", (Position(symbol=entry.symbol, size=-entry.size, entry_price=D("98.99")),), fills=(fill,))
    assert script.engine.portfolio.size(entry.symbol) == 0
    script.report(entry, OrderStatus.FILLED, entry.size, order_id="9")
    script.adopt("10000", (Position(symbol=entry.symbol, size=-entry.size, entry_price=D("98.99")),), fills=(fill,))

    holding = script.engine.portfolio.holdings[entry.symbol]
    assert (holding.size, holding.entry_cause) == (-entry.size, Cause.ENTRY)
    assert not script.engine.truth.doubts


def test_exit_refused_and_position_still_there_is_sent_again() -> None:
    """Where the truth still shows the position, the doubt ends and the exit is tried again."""
    script = Script(1)
    entry = script.open_position()
    script.pass_seconds(9)
    [leave] = places(script.close_second())
    script.tell(OrderRefused(recv_ns=script.wait(), client_oid=leave.client_oid, code="22002", message=""))
    held = Position(symbol=entry.symbol, size=entry.size, entry_price=D("100.01"))

    script.adopt("10000", (held,))

    [again] = places(script.close_second())
    assert again.size == entry.size


def test_our_own_stop_comes_where_the_exchanges_does_not() -> None:
    """A mark beyond the stop for longer than the grace closes with cause stop; a spike shorter than that does not."""
    script = Script(1, config(stop_bps=100.0, stop_grace_s=2, horizon_s=60))
    script.open_position()
    below = columns(1, 98.5)

    assert not places(script.close_second(market=below))
    assert not places(script.close_second(market=columns(1)))
    assert not places(script.close_second(market=below))
    assert not places(script.close_second())
    [leave] = places(script.close_second())

    assert leave.cause is Cause.STOP


def test_stop_rides_on_the_entry_and_is_rounded_away() -> None:
    """Every entry carries its protective stop: a multiple of the tick, further away rather than nearer."""
    listed = universe(2, tick=D("0.3"))
    script = Script(config=config(spread_bps_max=99.0), listed=listed)
    market = columns(2, 99.9, half_spread=0.3)

    long, short = sorted(
        places(script.close_second(scores([1, -1], edge_bps=99.0), market=market)), key=lambda o: o.side
    )

    assert long.stop_price == D("98.7")  # 99.9 − 0.999 = 98.901, down to a multiple of 0.3
    assert short.stop_price == D("101.1")  # 100.899, up


def test_entry_still_working_is_cancelled_before_the_exit() -> None:
    """A position whose post-only entry still rests gets its exit only after the entry is cancelled."""
    script = Script(1, config(entry_kind=OrderKind.POST_ONLY, entry_wait_s=100))
    [entry] = places(script.close_second(scores([1])))
    script.accept(entry)
    script.fill(entry, "99.99", size=D("0.5"))

    first = script.tell(StopRequested(recv_ns=script.wait(), reason="test"))
    assert cancels(first)
    assert not places(first)
    script.report(entry, OrderStatus.CANCELED, D("0.5"))
    [leave] = places(script.close_second())

    assert leave.size == D("0.5")


# --------------------------------------------------------------------------------------------- post-only entries


def test_post_only_entry_rests_at_the_touch_and_is_cancelled_when_it_waited() -> None:
    """A maker's entry is priced at its own touch, waits entry_wait_s, and is cancelled once."""
    script = Script(1, config(entry_kind=OrderKind.POST_ONLY))
    [entry] = places(script.close_second(scores([1])))
    script.accept(entry)

    actions = script.pass_seconds(4)

    assert (entry.kind, entry.price) == (OrderKind.POST_ONLY, D("99.99"))
    [cancel] = cancels(actions)
    assert cancel.client_oid == entry.client_oid
    script.report(entry, OrderStatus.CANCELED, D(0))
    assert script.engine.orders.n_working == 0


def test_cancel_that_lost_the_race_is_asked_about() -> None:
    """A refused cancel usually means a fill: the order is queried at once."""
    script = Script(1, config(entry_kind=OrderKind.POST_ONLY))
    [entry] = places(script.close_second(scores([1])))
    script.accept(entry)
    script.pass_seconds(4)

    actions = script.tell(
        CancelRefused(recv_ns=script.wait(), client_oid=entry.client_oid, code="40768", message="Order does not exist")
    )

    assert queries(actions)


def test_unknown_order_is_not_cancelled_before_it_is_found() -> None:
    """A cancel could overtake a placement that is still on its way: first found, then cancelled."""
    script = Script(1, config(entry_kind=OrderKind.POST_ONLY))
    [entry] = places(script.close_second(scores([1])))
    script.tell(OrderTimedOut(recv_ns=script.wait(), client_oid=entry.client_oid))
    assert not cancels(script.pass_seconds(5))

    actions = script.report(entry, OrderStatus.LIVE, D(0), order_id="77")

    [cancel] = cancels(actions)
    assert cancel.order_id == "77"


# ------------------------------------------------------------------------------------------------------- stopping


def test_clean_stop_flattens_and_becomes_quiet() -> None:
    """A stop closes every position reduce-only at market with cause operator, opens nothing more, and is quiet once
    the exchange's equity has been read while flat."""
    script = Script(3)
    script.open_position()

    leaves = places(script.tell(StopRequested(recv_ns=script.wait(), reason="SIGTERM")))
    for order in leaves:
        script.complete(order)
    script.close_second(scores([1, 1, 1]))
    was_quiet = script.engine.is_flat_and_quiet
    script.agree()

    assert [o.cause for o in leaves] == [Cause.OPERATOR] * 3
    assert all(o.reduce_only and o.kind is OrderKind.MARKET for o in leaves)
    assert len(account_queries(script.log)) == 1
    assert not was_quiet
    assert script.engine.is_flat_and_quiet
    assert set(script.reasons) == {"stopping"}


def test_stop_waits_for_unknown_orders() -> None:
    """A session with an unresolved placement is not quiet: it may become a position."""
    script = Script(1)
    [entry] = places(script.close_second(scores([1])))
    script.tell(OrderTimedOut(recv_ns=script.wait(), client_oid=entry.client_oid))
    script.tell(StopRequested(recv_ns=script.wait(), reason="test"))

    script.pass_seconds(5)
    assert not script.engine.is_flat_and_quiet
    script.fill(entry)
    script.report(entry, OrderStatus.FILLED, entry.size)
    [leave] = places(script.close_second())
    script.complete(leave)
    script.agree()

    assert script.engine.is_flat_and_quiet


def test_private_stream_that_returns_asks_for_everything() -> None:
    """What was pushed while the private stream was down is lost: account and working orders are asked again."""
    script = Script(1, config(entry_kind=OrderKind.POST_ONLY, entry_wait_s=100))
    [entry] = places(script.close_second(scores([1])))
    script.accept(entry)
    script.tell(LinkChanged(recv_ns=script.wait(), link="private", is_up=False))

    actions = script.tell(LinkChanged(recv_ns=script.wait(5000), link="private", is_up=True))

    assert account_queries(actions)
    assert [q.client_oid for q in queries(actions)] == [entry.client_oid]


# -------------------------------------------------------------------------------------------------------- adoption


def test_adopted_positions_are_kept_until_the_horizon() -> None:
    """A position found at the start is neither forgotten nor thrown away: it leaves by the same rules as ours."""
    script = Script(2, is_adopted=False)
    script.adopt(positions=(Position(symbol=script.symbols[1], size=D("-3"), entry_price=D(101)),))
    script.links(True)

    early = script.pass_seconds(10)
    [leave] = places(script.close_second())
    script.complete(leave)

    assert not places(early)
    assert (leave.side, leave.size, leave.reduce_only) == (Side.BUY, D(3), True)
    [trade] = script.engine.trades
    assert trade.entry_cause is Cause.ADOPTED
    assert script.engine.memory.bandit.arms == {}


def test_adopted_position_outside_the_universe_is_closed_at_a_stop() -> None:
    """A position in a symbol that is not listed any more is not forgotten when we leave."""
    script = Script(1, is_adopted=False)
    script.adopt(positions=(Position(symbol="GONEUSDT", size=D(2), entry_price=D(5)),))

    [leave] = places(script.tell(StopRequested(recv_ns=script.wait(), reason="test")))

    assert (leave.symbol, leave.side, leave.size) == ("GONEUSDT", Side.SELL, D(2))


def test_orders_of_a_dead_process_are_cancelled() -> None:
    """An order that rests at the exchange and is not ours is taken over and cancelled."""
    script = Script(1, is_adopted=False)
    left = PendingOrder(
        client_oid="old", order_id="5", symbol=script.symbols[0], side=Side.BUY, kind=OrderKind.LIMIT, size=D(1),
        filled=D(0), price=D(90), reduce_only=False,
    )  # fmt: skip

    [cancel] = cancels(script.adopt(orders=(left,)))

    assert (cancel.client_oid, cancel.order_id) == ("old", "5")
    assert not script.engine.is_flat_and_quiet


def test_lost_fill_is_corrected_after_five_seconds_of_equal_readings() -> None:
    """One reading that differs may have crossed a fill on its way, more of them a position that is listed late."""
    script = Script(1)
    entry = script.open_position()
    theirs = Position(symbol=entry.symbol, size=entry.size / 2, entry_price=D("100.01"))

    asked = account_queries(script.adopt("10000", (theirs,)))
    assert asked
    assert script.engine.portfolio.size(entry.symbol) == entry.size
    script.pass_seconds(4)
    script.adopt("10000", (theirs,))
    assert script.engine.portfolio.size(entry.symbol) == entry.size
    script.pass_seconds(2)
    script.adopt("10000", (theirs,))

    assert script.engine.portfolio.size(entry.symbol) == entry.size / 2


# ------------------------------------------------------------------------------------------------------------ risk


def test_daily_loss_latches_flattens_and_ends_with_the_day() -> None:
    """A loss of the day's limit closes everything with cause risk; the next UTC day may trade again."""
    far = {"stop_bps": 3000.0, "position_risk_bps": 1000.0, "kelly_share": 1.0}
    script = Script(1, config(daily_loss_limit=0.001, horizon_s=3600, cooldown_s=0, **far))
    script.open_position()

    actions = script.close_second(market=columns(1, 80.0))
    [leave] = places(actions)
    script.complete(leave)

    assert leave.cause is Cause.RISK
    assert notes(actions, "risk.latched")
    script.close_second(scores([1]))
    assert script.reasons == ["risk_latched"]
    tomorrow = (START_S // 86_400 + 1) * 86_400
    script.second, script.now_ns = tomorrow, tomorrow * NS
    assert places(script.close_second(scores([1])))


def test_drawdown_latch_survives_a_restart() -> None:
    """A drawdown stays latched over midnight and over a restart that hands the memory on."""
    far = {"stop_bps": 3000.0, "position_risk_bps": 1000.0, "kelly_share": 1.0}
    script = Script(1, config(drawdown_max=0.001, daily_loss_limit=1.0, horizon_s=3600, **far))
    script.open_position()
    [leave] = places(script.close_second(market=columns(1, 80.0)))
    script.complete(leave)

    again = Script(1, memory=script.engine.memory, is_adopted=False)
    again.now_ns, again.second = script.now_ns + 100_000 * NS, script.second + 100_000
    again.adopt(script.engine.portfolio.equity_usdt)
    again.links(True)
    again.close_second(scores([1]))

    assert again.reasons == ["risk_latched"]


def test_coin_trades_the_minimum_whatever_the_market_says() -> None:
    """The coin needs no features, claims no edge, and trades the smallest order of each symbol."""
    script = Script(6, scorer=CoinScorer(3))
    script.now_ns = (script.second + 1) * NS

    from shared.types import SecondClosed

    actions = script.tell(SecondClosed(recv_ns=script.wait(), second=script.second, columns=columns(6)))

    placed = places(actions)
    assert len(placed) == 6
    assert {order.size for order in placed} == {D("0.06")}  # 5 USDT x 1.1 at 100 in steps of 0.01
    assert {order.side for order in placed} <= {Side.BUY, Side.SELL}


def test_gates_are_named_once() -> None:
    """Every gate has a name of its own and fits the byte it is stored in."""
    assert len({gate.name for gate in Gate}) == len(Gate)
    assert max(Gate) < 256
    assert isinstance(Decimal(0), Decimal)
