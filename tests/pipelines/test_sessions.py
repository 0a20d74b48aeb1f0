"""Journals in the lake: what a session was told and wanted, as rows."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipelines import sessions
from shared import journal
from shared.lake import read
from shared.strategy.engine import EngineConfig, Memory
from shared.types import (
    NS,
    SCHEMA_VERSION,
    Cause,
    LinkChanged,
    Note,
    OrderAccepted,
    OrderKind,
    PlaceOrder,
    SecondClosed,
    Side,
    Universe,
)

SOURCE = "simulator-g7-4"
HOUR_END_NS = 498_704 * 3600 * NS


def trade_a_little(lake: Path) -> Path:
    """Write a journal whose events lie on both sides of a full hour."""
    header = journal.Header(
        schema_version=SCHEMA_VERSION, session="20260101T000000-coin-abc", source=SOURCE, started_ns=1, model="coin",
        bundle=None, seed=7, config=EngineConfig(), memory=Memory(), columns=("last",), definition_hash="d", commit="",
        numpy="2", universe=Universe(source=SOURCE, as_of_ns=1, contracts=()),
    )  # fmt: skip
    folder = lake / "journal" / f"source={SOURCE}" / f"session={header.session}"
    writer = journal.JournalWriter(folder, header)
    order = PlaceOrder(
        client_oid="o1", symbol="龙虾USDT", side=Side.BUY, kind=OrderKind.MARKET, size=Decimal("0.10"), price=None,
        reduce_only=False, stop_price=None, cause=Cause.ENTRY,
    )  # fmt: skip
    told: list[tuple[Any, list[Any]]] = [
        (LinkChanged(recv_ns=HOUR_END_NS - 2, link="public", is_up=True), []),
        (
            SecondClosed(recv_ns=HOUR_END_NS - 1, second=9, columns=np.zeros((1, 1))),
            [order, Note(event="x.y", fields={})],
        ),
        (OrderAccepted(recv_ns=HOUR_END_NS + 1, client_oid="o1", order_id="77"), []),
    ]
    for event, actions in told:
        writer.add_event(event)
        writer.add_decision(actions, {})
    writer.commit(is_durable=False)
    writer.close()
    return folder


def test_session_becomes_rows_in_order(tmp_path: Path) -> None:
    """Events and actions are rows in the order of the journal, an answer under the symbol of its order."""
    sessions.store(tmp_path, trade_a_little(tmp_path))

    frame = read.scan(tmp_path, "journal", SOURCE).collect().sort("sequence")
    assert frame.select("kind", "name", "symbol").rows() == [
        ("event", "LinkChanged", ""),
        ("action", "PlaceOrder", "龙虾USDT"),
        ("action", "x.y", ""),
        ("event", "OrderAccepted", "龙虾USDT"),
    ]
    assert json.loads(frame["payload"][1])["size"] == "0.10"
    assert len(list((tmp_path / "journal").rglob("*.parquet"))) == 2  # a file an hour


def test_storing_again_changes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The command stores every session it finds; a second time gives the same rows."""
    trade_a_little(tmp_path)

    assert sessions.main(["--lake", str(tmp_path)]) == 0
    first = read.scan(tmp_path, "journal", SOURCE).collect()
    assert sessions.main(["--lake", str(tmp_path)]) == 0

    assert read.scan(tmp_path, "journal", SOURCE).collect().equals(first)
    assert "4 rows of session 20260101T000000-coin-abc" in capsys.readouterr().out


def test_missing_session_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A session that is not there is named, and nothing is written."""
    code = sessions.main(["nobody", "--lake", str(tmp_path)])

    assert code != 0
    assert "nobody" in capsys.readouterr().err
