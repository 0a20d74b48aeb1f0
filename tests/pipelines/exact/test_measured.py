"""Latencies of live sessions, read off their journals."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import msgspec
import numpy as np
import pytest

from pipelines.exact import measured
from pipelines.exact.exchange import load
from pipelines.exact.latency import MS_NS
from pipelines.exact.measured import SAMPLES_MIN, latencies_of, samples_of
from shared import journal
from shared.errors import NotEnoughData, SettingsError
from shared.types import NS, Cause, Filled, OrderAccepted, OrderKind, OrderRefused, PlaceOrder, SecondClosed, Side
from tests.shared.test_journal import make_header

START_S = 1_795_330_800
CLOCK_MS = 1_500  # that the exchange's clock is ahead of ours


def order(oid: str, kind: OrderKind = OrderKind.MARKET) -> PlaceOrder:
    return PlaceOrder(
        client_oid=oid, symbol="AUSDT", side=Side.BUY, kind=kind, size=Decimal(1),
        price=None if kind is OrderKind.MARKET else Decimal(1), reduce_only=False, stop_price=None, cause=Cause.ENTRY,
    )  # fmt: skip


def fill(oid: str, trade: str, recv_ns: int, exch_ns: int) -> Filled:
    return Filled(
        recv_ns=recv_ns, client_oid=oid, order_id=oid, trade_id=trade, symbol="AUSDT", side=Side.BUY, price=Decimal(1),
        size=Decimal(1), fee_usdt=Decimal(0), is_maker=False, exch_ns=exch_ns,
    )  # fmt: skip


def write_session(folder: Path, n_orders: int) -> tuple[list[float], list[float], list[float]]:
    """Write a session whose orders live through drawn latencies; return (entry, answer, push), ms."""
    draw = np.random.Generator(np.random.Philox(5))
    writer = journal.JournalWriter(folder, make_header())
    entries, answers, pushes = [], [], []
    for n in range(n_orders):
        decided_ns = (START_S + n + 1) * NS + 4 * MS_NS
        entry, answer, push = (float(20 + round(draw.exponential(30))) for _ in range(3))
        # The fastest way there takes as long as the fastest way back: then a clock's offset can be told.
        entry, push = (20.0, 20.0) if n == 0 else (entry, push)
        matched_ns = decided_ns + round(entry * MS_NS)
        block = np.zeros((2, 0))
        writer.add_event(SecondClosed(recv_ns=decided_ns, second=START_S + n, columns=block))
        writer.add_decision([order(f"m{n}"), order(f"p{n}", OrderKind.POST_ONLY)], {})
        told = [
            OrderAccepted(recv_ns=decided_ns + round(answer * MS_NS), client_oid=f"m{n}", order_id=f"m{n}"),
            *(
                fill(f"m{n}", f"{n}-{k}", matched_ns + round(push * MS_NS), matched_ns + CLOCK_MS * MS_NS)
                for k in (0, 1, 1)  # the last is told twice
            ),
        ]
        for event in sorted(told, key=lambda event: event.recv_ns):
            writer.add_event(event)
        entries.append(entry)
        answers.append(answer)
        pushes += [push, push]
    writer.add_event(OrderRefused(recv_ns=decided_ns + NS // 2, client_oid="nobody", code="1", message=""))
    writer.close()
    return entries, answers, pushes


def test_journal_gives_back_what_orders_lived_through(tmp_path: Path) -> None:
    """Entry, answer and push as they were, although the exchange's clock is a second and a half ahead."""
    entries, answers, pushes = write_session(tmp_path, 60)

    latencies = latencies_of(samples_of([tmp_path / journal.FILE_NAME]))

    for found, was in ((latencies.entry, entries), (latencies.answer, answers), (latencies.push, pushes)):
        for q in (0.0, 0.25, 0.5, 0.9, 1.0):
            assert found.quantile_ms(q) == pytest.approx(float(np.quantile(was, q)), abs=1e-3), q
    assert latencies.decide.quantile_ms(0.5) == pytest.approx(4.0)


def test_few_orders_measure_nothing(tmp_path: Path) -> None:
    """A tail cannot be read off a handful of orders: refused with what to do."""
    write_session(tmp_path, SAMPLES_MIN - 1)

    with pytest.raises(NotEnoughData, match=f"{SAMPLES_MIN} market orders .* found {SAMPLES_MIN - 1}"):
        latencies_of(samples_of([tmp_path / journal.FILE_NAME]))


def test_command_writes_assumptions_that_a_backtest_reads(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The file is what --assumptions takes; a session that is not there is a sentence and the journal's exit code."""
    write_session(tmp_path / "session", 40)
    out = tmp_path / "measured.json"

    assert measured.main([str(tmp_path / "session"), "--out", str(out), "--lake", str(tmp_path)]) == 0
    assert "40 orders" in capsys.readouterr().out
    assert load(out).latencies.answer.quantile_ms(1.0) > 20
    assert measured.main(["nowhere", "--lake", str(tmp_path)]) == 7
    out.write_bytes(msgspec.json.encode({"latencies": {"entry": "soon"}}))
    with pytest.raises(SettingsError, match=r"measured\.json"):
        load(out)
