"""`python -m pipelines.exact.measured SESSION ...`: the latencies that live sessions lived through, for the exact tier.

A journal says when the engine decided (the time of the event that made it place an order), when the answer came, when
each fill was pushed, and what the exchange's clock said when it traded. From that, order by order:

    answer   the answer's receipt - the decision
    entry    the exchange's time of a market order's first fill - the decision
    push     the receipt of a fill - the exchange's time of it
    decide   when the engine was asked about a second - the second's end

`entry` and `push` are read off two clocks. As NTP does, the offset between them is taken such that the fastest way
there took as long as the fastest way back: nobody can tell more from outside, and sums are right either way. What the
engine itself needs and what waits for a rate limit is part of `entry` and `answer`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec
import numpy as np

from pipelines.exact.exchange import Assumptions
from pipelines.exact.latency import MS_NS, Latencies, empirical
from shared import entry, journal
from shared import settings as settings_module
from shared.errors import CrosscutError, NotEnoughData
from shared.journal import DECISION, EVENT, SECOND, JournalReader, decode_actions
from shared.types import NS, Filled, Floats, OrderAccepted, OrderKind, OrderRefused, PlaceOrder

SAMPLES_MIN = 30
"""Answers, and fills of market orders, below which a table of quantiles says nothing about its tail."""


class Samples(msgspec.Struct, frozen=True):
    """What some sessions lived through, ms; `entry` and `push` on clocks that may differ."""

    decide: list[float]
    entry: list[float]
    answer: list[float]
    push: list[float]


def samples_of(journals: Iterable[Path]) -> Samples:
    """Read what happened to every order of some journals.

    Raises:
        JournalError: one cannot be read.
    """
    found = Samples([], [], [], [])
    for path in journals:
        _read(path, found)
    return found


def _read(path: Path, found: Samples) -> None:
    sent: dict[str, tuple[int, bool]] = {}  # client_oid -> when the engine decided, whether it has not traded yet
    pushed: set[str] = set()
    now_ns = 0
    for record in JournalReader(path):
        value = record.value
        if record.kind == SECOND:
            now_ns = value.recv_ns
            found.decide.append((now_ns - (value.second + 1) * NS) / MS_NS)
        elif record.kind == EVENT:
            now_ns = value.recv_ns
            if isinstance(value, OrderAccepted | OrderRefused) and value.client_oid in sent:
                found.answer.append((now_ns - sent[value.client_oid][0]) / MS_NS)
            elif isinstance(value, Filled) and value.trade_id not in pushed:
                pushed.add(value.trade_id)
                found.push.append((now_ns - value.exch_ns) / MS_NS)
                decided_ns, is_awaited = sent.get(value.client_oid, (0, False))
                if is_awaited:
                    sent[value.client_oid] = decided_ns, False
                    found.entry.append((value.exch_ns - decided_ns) / MS_NS)
        elif record.kind == DECISION:
            for action in decode_actions(value.actions):
                if isinstance(action, PlaceOrder):
                    sent[action.client_oid] = now_ns, action.kind is OrderKind.MARKET


def latencies_of(samples: Samples) -> Latencies:
    """Return the tables of what was measured.

    Raises:
        NotEnoughData: too few orders.
    """
    least = min(len(samples.answer), len(samples.entry))
    if least < SAMPLES_MIN:
        raise NotEnoughData(
            f"{SAMPLES_MIN} market orders that were answered and filled are needed, found {least}: "
            "name more sessions, or longer ones"
        )
    offset_ms = (min(samples.entry) - min(samples.push)) / 2
    return Latencies(
        decide=empirical(_array(samples.decide)),
        entry=empirical(_array(samples.entry) - offset_ms),
        answer=empirical(_array(samples.answer)),
        push=empirical(_array(samples.push) + offset_ms),
    )


def _array(values: list[float]) -> Floats:
    return np.asarray(values, np.float64)


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(
        prog="python -m pipelines.exact.measured",
        description="Measure what orders of live sessions lived through, from their journals, and write it as "
        "assumptions for python -m pipelines.backtest --tier exact. Sessions on the simulator measure the simulator.",
    )
    p.add_argument("sessions", nargs="+", metavar="SESSION", help="folder or name of a session, or `last`")
    p.add_argument("--lake", help="the lake's folder (default: LAKE_URI, which is data_lake)")
    p.add_argument("--out", type=Path, metavar="FILE", help="where the JSON goes (default: stdout)")
    return p


def main(arguments: Sequence[str] | None = None) -> int:
    args = parser().parse_args(arguments)
    try:
        settings = settings_module.load(lake_uri=args.lake)
        folders = [journal.find(settings.lake, session) for session in args.sessions]
        samples = samples_of(folder / journal.FILE_NAME for folder in folders)
        assumptions = Assumptions(latencies=latencies_of(samples))
    except CrosscutError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    encoded = msgspec.json.format(msgspec.json.encode(assumptions))
    if args.out is None:
        print(encoded.decode())
    else:
        args.out.write_bytes(encoded + b"\n")
        print(f"{args.out}: {assumptions.words()} ({len(samples.answer)} orders)")
    return 0


if __name__ == "__main__":
    entry.run(main)
