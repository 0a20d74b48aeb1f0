"""The challenger beside a session: written down, repeatable, and nothing that happens to it reaches the champion."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest

from live import replay
from live import shadow as live_shadow
from shared import journal
from shared import shadow as file
from shared.errors import JournalError, SchemaMismatch
from shared.features.catalog import FEATURES
from shared.journal import JournalDamaged
from shared.strategy.config import EngineConfig
from shared.strategy.pricing import Pricing, View
from shared.strategy.scores import RulesScorer, Scores
from shared.strategy.shadow import Said, Shadow, wanted
from shared.types import StopRequested
from tests.live.sessions import N_SYMBOLS, Rig
from tests.shared.strategy import made


def session(folder: Path, model: str = "coin", shadow: str = "rules", seconds: int = 45) -> Rig:
    """Return a session that ended cleanly; the shadow works at the end of every second."""
    rig = Rig(folder, model, shadow=shadow)
    rig.adopt()
    rig.trade(seconds)
    rig.runner.tell(StopRequested(recv_ns=rig.clock(), reason="test"))
    rig.trade(3)
    rig.journal.close()
    if rig.beside is not None:
        rig.beside.close()
    return rig


@pytest.mark.parametrize(("model", "shadow"), [("coin", "rules"), ("rules", "rules"), ("rules", "coin")])
def test_a_shadow_changes_no_byte_of_the_session(tmp_path: Path, model: str, shadow: str) -> None:
    """The journal with a challenger is that without, orders and all, and it replays."""
    with_it, without = session(tmp_path / "with", model, shadow), session(tmp_path / "without", model, "")

    assert (tmp_path / "with" / journal.FILE_NAME).read_bytes() == (
        tmp_path / "without" / journal.FILE_NAME
    ).read_bytes()
    assert with_it.venue.sent == without.venue.sent
    assert len(with_it.venue.sent) > 0 or model == "rules"
    assert replay.main([str(tmp_path / "with")]) == 0


def test_a_shadow_says_every_second_what_its_scorer_says(tmp_path: Path) -> None:
    """Of 48 seconds 48 are told, also where the champion needs no features and the shadow makes its own; the scores are
    those of the scorer on the session's blocks, as soon as its windows are full."""
    session(tmp_path)
    told = file.read(tmp_path)
    shadow = Shadow(EngineConfig(), made.universe(N_SYMBOLS), RulesScorer(tuple(FEATURES)))
    blocks = [r.value for r in journal.JournalReader(tmp_path / journal.FILE_NAME) if r.kind == journal.SECOND]

    again = [shadow.see(block.second, block.columns, None) for block in blocks]

    assert sorted(told.said) == [block.second for block in blocks]
    assert told.header.model == "rules"
    assert told.torn_bytes == 0
    for said in again:
        assert said is not None
        kept = told.said[said.second]
        assert kept.edge_bps.tobytes() == said.edge_bps.tobytes()
        assert kept.wanted.tobytes() == said.wanted.tobytes()
    assert np.isnan(told.said[made.START_S].edge_bps).all()
    assert np.isfinite(told.said[max(told.said)].edge_bps).all()


def test_a_shadow_that_breaks_ends_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error of the challenger's scorer is one line in the log; the champion trades on and its journal replays."""
    real = RulesScorer.score
    calls = 0

    def score(self: RulesScorer, *arguments: object) -> Scores:
        nonlocal calls
        calls += 1
        if calls == 20:
            raise ZeroDivisionError("a bug of the challenger")
        return real(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(RulesScorer, "score", score)
    rig = session(tmp_path)

    assert rig.beside is not None
    assert [note.fields["reason"] for note in rig.notes] == ["ZeroDivisionError: a bug of the challenger"]
    assert rig.beside.summary()["ended"] == "ZeroDivisionError: a bug of the challenger"
    assert len(file.read(tmp_path).said) == 19
    assert rig.runner.tally.seconds == 48
    assert replay.main([str(tmp_path)]) == 0


def test_a_full_disk_ends_the_shadow_and_not_the_session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The challenger's file cannot grow: nothing of it reaches the journal."""

    def add(self: file.Writer, record: file.Record) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(file.Writer, "add", add)
    rig = session(tmp_path)

    assert "No space left on device" in str(rig.notes[0].fields["reason"])
    assert rig.runner.journal_error is None
    assert replay.main([str(tmp_path)]) == 0


def test_a_slow_shadow_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three seconds in a row beyond its time, and it is over: an exchange's answer would wait for it."""
    clock = iter(np.arange(1000.0))
    monkeypatch.setattr("live.shadow.time.perf_counter", lambda: next(clock))
    rig = session(tmp_path)

    assert rig.beside is not None
    assert "took more than 100 ms, the last 1000 ms" in rig.beside.ended
    assert rig.beside.seconds == live_shadow.SLOW_MAX


def test_a_shadow_that_lags_passes_seconds_over(tmp_path: Path) -> None:
    """The queue is bounded: what the champion's features were made of long ago is not scored any more, and told so."""
    rig = Rig(tmp_path, "rules", shadow="rules")
    assert rig.beside is not None
    rig.adopt()
    work, rig.beside.work = rig.beside.work, lambda: None  # type: ignore[method-assign]
    rig.trade(20)
    rig.beside.work = work  # type: ignore[method-assign]
    rig.trade(2)
    rig.beside.close()

    told = file.read(tmp_path)

    assert len(told.passed_over) == rig.beside.passed_over == 16
    assert len(told.said) == 6
    assert sorted([*told.passed_over, *told.said]) == list(range(made.START_S, made.START_S + 22))


def test_a_torn_end_is_told_and_damage_is_named(tmp_path: Path) -> None:
    """A killed process leaves a whole beginning; an altered byte, another version and another file are refused."""
    session(tmp_path)
    path = tmp_path / file.FILE_NAME
    raw = path.read_bytes()

    path.write_bytes(raw[:-7])
    assert len(file.read(tmp_path).said) == 47
    assert file.read(tmp_path).torn_bytes > 0
    path.write_bytes(raw[:200] + bytes((raw[200] ^ 1,)) + raw[201:])
    with pytest.raises(JournalDamaged, match="it was damaged"):
        file.read(tmp_path)
    path.write_bytes(b"something else")
    with pytest.raises(JournalError, match="no shadow of Crosscut"):
        file.read(tmp_path)
    path.write_bytes(file.MAGIC)
    with pytest.raises(JournalError, match="must hold a header"):
        file.read(tmp_path)
    path.unlink()
    file.Writer(tmp_path, file.Header(version=2, session="s", model="m", bundle=None, seed=1, n_symbols=1)).close()
    with pytest.raises(SchemaMismatch, match="must be of version 1, found 2"):
        file.read(tmp_path)
    path.unlink()
    with pytest.raises(JournalError, match="run live with --shadow challenger"):
        file.read(tmp_path)


def test_a_file_that_is_there_is_not_written_over(tmp_path: Path) -> None:
    """A second shadow in one folder is refused before the session begins."""
    session(tmp_path / "a")

    with pytest.raises(JournalError, match="leave --shadow out"):
        live_shadow.open_beside(
            live_shadow.ShadowPlan(model="rules", bundle_folder=None, bundle_note=None),
            tmp_path / "a", EngineConfig(), made.universe(N_SYMBOLS), session="s", seed=7, log=lambda note: None,
        )  # fmt: skip


# --------------------------------------------------------------------------------------------- what it would enter


def view(directions: list[int], **changes: object) -> View:
    """Return a decision's sight of symbols with these directions, everything else good."""
    config = EngineConfig()
    market = Shadow(config, made.universe(len(directions)), RulesScorer(tuple(FEATURES)))._market
    market.take(made.START_S, made.columns(len(directions)))
    said = msgspec.structs.replace(made.scores(directions), **changes)
    return Pricing(config, made.universe(len(directions))).look(made.START_S, said, market)


def test_what_would_be_entered_is_what_clears_its_costs() -> None:
    """Long and short alike; no opinion, no score, too little confidence or an edge below the cost: nothing."""
    found = wanted(view([1, -1, 0, 1]), EngineConfig(), is_null=False)
    assert found.tolist() == [1, -1, 0, 1]

    edge_bps = np.array([40.0, -5.0, 0.0, np.nan])
    is_valid = np.array([True, True, True, False])
    confidence = np.array([0.5, 0.9, 0.9, 0.9])
    assert not wanted(view([1, -1, 0, 1], edge_bps=edge_bps, is_valid=is_valid, confidence=confidence),
                      EngineConfig(), is_null=False).any()  # fmt: skip


def test_the_best_k_of_each_side_are_wanted() -> None:
    """Most net edge first, ties by symbol; mirrored scores give mirrored wishes."""
    edge_bps = np.array([40.0, 60.0, 40.0, -50.0, -70.0])
    sight = view([1, 1, 1, -1, -1], edge_bps=edge_bps)
    config = EngineConfig(top_k=2)

    assert wanted(sight, config, is_null=False).tolist() == [1, 1, 0, -1, -1]
    mirrored = view([-1, -1, -1, 1, 1], edge_bps=-edge_bps)
    assert wanted(mirrored, config, is_null=False).tolist() == [-1, -1, 0, 1, 1]


def test_record_keeps_bits() -> None:
    """NaN and the smallest numbers come back as they were."""
    edge_bps = np.array([np.nan, -0.0, 1e-42, 3.5], np.float32)
    record = file.record_of(Said(7, edge_bps, np.array([0, 1, -1, 0], np.int8)))

    assert np.frombuffer(record.edge_bps, "<f4").tobytes() == edge_bps.tobytes()
