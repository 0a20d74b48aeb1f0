"""A session without sockets: a real engine and journal, and a venue that fills every order at once."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from decimal import Decimal
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np

from live.runner import Runner
from live.shadow import ShadowPlan, open_beside
from shared import journal
from shared.features.catalog import FEATURES
from shared.features.graph import definition_hash, formulas_of
from shared.features.sampler import COLUMNS
from shared.replay import alternatives_of
from shared.strategy.engine import Engine, EngineConfig, Memory
from shared.strategy.scores import CoinScorer, RulesScorer
from shared.types import (
    NS,
    SCHEMA_VERSION,
    Action,
    Adopted,
    Filled,
    Floats,
    LinkChanged,
    Note,
    OrderAccepted,
    PlaceOrder,
    QueryAccount,
    SecondClosed,
    Universe,
)
from tests.shared.strategy.made import START_S, columns, universe

N_SYMBOLS = 4
D = Decimal


def header(model: str = "coin", **changes: Any) -> journal.Header:
    fields: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "session": "s",
        "source": "simulator-made",
        "started_ns": START_S * NS,
        "model": model,
        "bundle": None,
        "seed": 7,
        "config": EngineConfig(),
        "memory": Memory(),
        "universe": universe(N_SYMBOLS),
        "columns": COLUMNS,
        "definition_hash": definition_hash(FEATURES),
        "formulas": formulas_of(FEATURES),
        "commit": "",
        "numpy": np.__version__,
    }
    return journal.Header(**(fields | changes))


class InstantVenue:
    """Executes for the runner: accepts and fills every placement at 100."""

    def __init__(self) -> None:
        self.runner: Runner | None = None
        self.sent: list[Action] = []
        self.truths = 0
        self.on_submit: Callable[[list[Action]], None] = lambda actions: None
        self._ids = count(1)

    def submit(self, actions: list[Action], on_sent: Callable[[int], None]) -> None:
        assert self.runner is not None
        self.on_submit(actions)
        self.sent += actions
        for order in actions:
            if isinstance(order, QueryAccount) and not self.runner.engine.portfolio.holdings:
                equity = self.runner.engine.portfolio.equity_usdt  # it always counts as we do
                self.runner.tell(
                    Adopted(recv_ns=0, equity_usdt=equity, available_usdt=equity, positions=(), orders=(), leverage={})
                )
            if not isinstance(order, PlaceOrder):
                continue
            on_sent((START_S + 1) * NS)
            order_id = str(next(self._ids))
            self.runner.tell(OrderAccepted(recv_ns=0, client_oid=order.client_oid, order_id=order_id))
            self.runner.tell(
                Filled(
                    recv_ns=0,
                    client_oid=order.client_oid,
                    order_id=order_id,
                    trade_id=order_id,
                    symbol=order.symbol,
                    side=order.side,
                    price=D(100),
                    size=order.size,
                    fee_usdt=D("0.01"),
                    is_maker=False,
                    exch_ns=0,
                )
            )

    def read_account(self) -> None:
        self.truths += 1


class Clock:
    """Time as the test says."""

    def __init__(self) -> None:
        self.now_ns = START_S * NS

    def __call__(self) -> int:
        self.now_ns += 1
        return self.now_ns


class Rig:
    """A runner with its venue, journal and clock."""

    def __init__(self, folder: Path, model: str = "coin", *, shadow: str = "", **changes: Any) -> None:
        said = header(model, **changes)
        scorer = CoinScorer(7) if model == "coin" else RulesScorer(tuple(FEATURES))
        self.clock = Clock()
        self.venue = InstantVenue()
        self.engine = Engine(
            said.config,
            said.universe,
            scorer,
            session="s",
            seed=7,
            memory=said.memory,
            alternatives=alternatives_of(said.config),
        )
        self.journal = journal.JournalWriter(folder, said)
        self.notes: list[Note] = []  # of the shadow
        self.remembered: list[Memory] = []  # what was saved because exploration was charged for
        self.beside = (
            open_beside(
                ShadowPlan(model=shadow, bundle_folder=None, bundle_note=None),
                folder,
                said.config,
                said.universe,
                session="s",
                seed=7,
                log=self.notes.append,
            )
            if shadow
            else None
        )
        self.runner = self.venue.runner = Runner(
            self.engine,
            self.journal,
            self.venue,
            clock=self.clock,
            beside=self.beside,
            remember=lambda: self.remembered.append(self.engine.memory),
        )
        self.second = START_S

    def adopt(self, said: Universe | None = None) -> None:
        symbols = (said or universe(N_SYMBOLS)).symbols
        self.runner.tell(
            Adopted(
                recv_ns=self.clock(),
                equity_usdt=D(10_000),
                available_usdt=D(10_000),
                positions=(),
                orders=(),
                leverage=dict.fromkeys(symbols, 5),
            )
        )
        for link in ("public", "private"):
            self.runner.tell(LinkChanged(recv_ns=self.clock(), link=link, is_up=True))
        self.runner.step()

    def close_second(self, block: Floats | None = None) -> None:
        """Close a second and let everything that follows happen."""
        self.clock.now_ns = max(self.clock.now_ns, (self.second + 1) * NS)
        block = block if block is not None else columns(N_SYMBOLS)
        self.runner.tell(SecondClosed(recv_ns=self.clock(), second=self.second, columns=block))
        self.second += 1
        self.runner.step()
        self.runner.step()

    def trade(self, seconds: int, seed: int = 1) -> None:
        """Close seconds in which the mid walks a little."""
        rng = np.random.default_rng(seed)
        for _ in range(seconds):
            self.close_second(columns(N_SYMBOLS, 100.0 + rng.normal(0.0, 0.02, N_SYMBOLS).round(2)))


def rewrite(folder: Path, kind: int, which: int, change: Callable[[bytes], bytes]) -> None:
    """Alter the body of one record, checksum included, as somebody who means it would."""
    reader = journal.JournalReader(folder / journal.FILE_NAME)
    out = bytearray(journal.MAGIC)
    seen = -1
    for record in reader:
        body = record.body
        if record.kind == kind:
            seen += 1
            body = change(body) if seen == which else body
        payload = bytes((record.kind,)) + body
        out += struct.pack("<II", len(payload), zlib.crc32(payload)) + payload
    (folder / journal.FILE_NAME).write_bytes(out)
