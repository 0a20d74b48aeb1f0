"""Recorder, lake and coverage through every kind of misbehaviour, in virtual time, judged by what was sent."""

from __future__ import annotations

from pathlib import Path

import msgspec
import polars as pl
import pytest

from tests.pipelines import faulted
from tests.pipelines.faulted import KINDS, Case, Kind


@pytest.mark.parametrize(("kind", "channel"), [("mixed", "books5"), ("rotate", "books5"), ("mixed", "books")])
def test_every_row_was_sent_and_every_loss_that_can_be_seen_is_marked(kind: Kind, channel: str, tmp_path: Path) -> None:
    """Five minutes of six symbols across the border of an hour: nothing invented, nothing that came is missing, no
    loss that a client could have seen is unmarked; what strikes in the script has struck."""
    found = faulted.run(Case(seed=4, kind=kind, symbols=6, seconds=300, channel=channel), tmp_path)

    assert found.failures() == [], found.examples
    assert found.frames > 15_000
    if kind == "mixed":
        assert sum(found.lost.values()) > 50
        assert {what.split()[0] for what in found.struck} >= {"lose", "duplicate", "reorder", "disconnect"}
    else:  # connections are replaced and the old ones cut: nothing is lost
        assert sum(found.lost.values()) == 0


def test_judge_sees_what_is_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The judge itself: a row that is altered, one that is left out and marks that are missing are all found."""
    case = Case(seed=5, kind="freeze", symbols=4, seconds=300)
    world = faulted.World(case, tmp_path)
    world.record()
    sound = faulted.Judge(world).judge()
    assert sound.failures() == []
    assert sum(sound.lost.values()) > 0

    judge = faulted.Judge(world)
    rows = judge._rows
    monkeypatch.setattr(judge, "_rows", lambda table, batch: rows(table, batch)[1:])
    assert judge.judge().missing >= 1

    judge = faulted.Judge(world)
    monkeypatch.setattr(judge, "_rows", lambda table, batch: _altered(rows(table, batch), table))
    assert judge.judge().invented >= 3

    judge = faulted.Judge(world)
    marks = judge._marks
    monkeypatch.setattr(judge, "_marks", lambda: marks() & False)
    assert judge.judge().violations > 0
    monkeypatch.setattr(judge, "_marks", lambda: marks() | True)
    assert judge.judge().clean_marked > 0


def _altered(rows: pl.DataFrame, table: str) -> pl.DataFrame:
    column = {"book": "bid_size_3", "ticker": "mark", "trade": "price"}[table]
    values = rows[column].to_list()
    values[-1] += 1.0
    return rows.with_columns(pl.Series(column, values))


@pytest.mark.nightly
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("seed", "channel"), [(100, "books5"), (101, "books15"), (102, "books")])
def test_sweep(kind: Kind, seed: int, channel: str, tmp_path: Path) -> None:
    """Twenty minutes of 60 symbols under each kind of fault and many seeds (`benchmarks.sweep` for hours of it)."""
    found = faulted.run(Case(seed=seed, kind=kind, channel=channel), tmp_path)

    assert found.failures() == [], msgspec.to_builtins(found)
