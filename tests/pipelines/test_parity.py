"""Parity: what live computed is what research computes from the same seconds, or what differs has a name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from pipelines import journaled, parity
from pipelines.parity import Checked, check, live_parity
from pipelines.seconds import to_frame
from shared import journal
from shared.features.catalog import FEATURES
from shared.features.graph import FeatureGraph, Features
from shared.features.ops import Lag
from shared.features.sampler import COLUMNS
from shared.lake import write
from shared.lake.layout import HOUR_S
from shared.strategy.engine import EngineConfig
from shared.strategy.scores import CoinScorer, RulesScorer, Scores
from shared.types import NS, Floats, Seconds, StopRequested
from tests.live.sessions import N_SYMBOLS, Rig, header, rewrite
from tests.shared.strategy.made import START_S, universe

SOURCE = "simulator-made"
SECONDS = 45
SYMBOLS = universe(N_SYMBOLS).symbols


def trade(lake: Path, model: str = "rules", *, begin_s: int = START_S, seconds: int = SECONDS, **changes: Any) -> Path:
    """Trade a session into a lake; return its folder."""
    folder = lake / "journal" / f"source={SOURCE}" / "session=s"
    rig = Rig(folder, model, started_ns=begin_s * NS, **changes)
    rig.second, rig.clock.now_ns = begin_s, begin_s * NS
    rig.adopt()
    rig.trade(seconds - 3)
    rig.runner.tell(StopRequested(recv_ns=rig.clock(), reason="test"))
    rig.trade(3)
    rig.journal.close()
    return folder


def stage(checked: Checked, name: str) -> tuple[int, int, int]:
    """Return (compared, mismatched, missing)."""
    found = {one.name: one for one in checked.stages}[name]
    return found.compared, found.mismatched, found.missing


def altered(body: bytes) -> bytes:
    """Return a second whose receive time is one bit of another."""
    return bytes([body[0] ^ 1]) + body[1:]


@pytest.mark.parametrize("model", ["coin", "rules"])
def test_session_is_identical_at_every_stage(model: str, tmp_path: Path) -> None:
    """Research gives live's columns, features, scores and decisions, and says how much it compared."""
    checked = check(trade(tmp_path, model, config=EngineConfig(decision_seconds=2)))

    assert checked.is_identical
    assert checked.first is None
    assert (checked.seconds, checked.symbols, checked.rows) == (SECONDS, N_SYMBOLS, SECONDS * N_SYMBOLS)
    assert stage(checked, "inputs") == stage(checked, "columns") == stage(checked, "decisions") == (SECONDS, 0, 0)
    assert ("features" in {one.name for one in checked.stages}) == (model == "rules")
    assert stage(checked, "scores") == (SECONDS // 2 + 1, 0, 0), "live scores the seconds in which it decides"
    assert f"{SECONDS * N_SYMBOLS} rows, 0 mismatches in" in checked.sentence()


def test_bit_of_a_journaled_second_turns_it_red(tmp_path: Path) -> None:
    """One bit of a second's receive time, altered with its checksum, is a mismatch of the inputs from there on."""
    folder = trade(tmp_path)
    rewrite(folder, journal.SECOND, 20, altered)

    checked = check(folder)

    assert not checked.is_identical
    assert stage(checked, "inputs") == (SECONDS, SECONDS - 20, 0)
    assert stage(checked, "columns") == (SECONDS, 0, 0)
    assert stage(checked, "decisions") == (20, 0, SECONDS - 20)
    assert checked.first is not None
    assert (checked.first.stage, checked.first.second) == ("inputs", START_S + 20)


@pytest.mark.parametrize("which", [0, 1])
def test_bit_of_a_block_turns_the_columns_red(which: int, tmp_path: Path) -> None:
    """A bit of the market is a mismatch of the columns, and of the features that are made of it, in that second."""
    folder = trade(tmp_path)

    def change(body: bytes) -> bytes:  # the last bytes are values of cells that changed
        return body[:-1] + bytes([body[-1] ^ (1 << which)])

    rewrite(folder, journal.SECOND, 30, change)

    checked = check(folder)

    assert not checked.is_identical
    assert stage(checked, "columns")[1] >= 1
    assert checked.first is not None
    assert (checked.first.stage, checked.first.second) == ("inputs", START_S + 30)


def test_other_formula_turns_it_red_and_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where this code has another formula than the session had, the features differ, and the sentence says which."""
    folder = trade(tmp_path)
    monkeypatch.setitem(FEATURES, "return_5s", Lag(FEATURES["return_5s"], 1))

    checked = check(folder)

    assert not checked.is_identical
    compared, mismatched, missing = stage(checked, "features")
    assert (compared, missing) == (SECONDS, 0)
    assert mismatched > 30, "every second in which the feature is known"
    assert stage(checked, "columns")[1] == 0
    assert checked.first is not None
    assert (checked.first.stage, checked.first.name) == ("features", "return_5s")
    assert "other formulas" in checked.first.sentence()


def test_wrong_cell_of_research_is_named_with_both_values(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A feature that only whole blocks get wrong, in one second of one symbol, is named to the last digit."""
    folder = trade(tmp_path)
    real = FeatureGraph.step
    f = tuple(FEATURES).index("imbalance_3")

    def step(self: FeatureGraph, block: Mapping[str, Floats], second: int, out: Features | None = None) -> Features:
        found = real(self, block, second, out)
        if len(found) > 1:
            cell = found[START_S + 37 - second, 2]
            cell[f] = np.nextafter(cell[f], np.float32(2))
        return found

    monkeypatch.setattr(FeatureGraph, "step", step)

    checked = check(folder)

    assert stage(checked, "features") == (SECONDS, 1, 0)
    assert stage(checked, "decisions") == (SECONDS, 0, 0)
    first = checked.first
    assert first is not None
    assert (first.stage, first.second, first.symbol, first.name) == (
        "features", START_S + 37, SYMBOLS[2], "imbalance_3",
    )  # fmt: skip
    assert np.nextafter(np.float32(float(first.live)), np.float32(2)) == np.float32(float(first.research))
    assert f"second {START_S + 37}" in checked.sentence()


def test_wrong_score_of_research_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A scorer that says something else of a block than of its rows is found, with the symbol and the score."""
    folder = trade(tmp_path, seconds=60)
    real = RulesScorer.score

    def score(self: RulesScorer, features: Any, block: Any, second: int) -> Scores:
        found = real(self, features, block, second)
        if len(found.edge_bps) > 1:
            found.edge_bps[:, 1] = np.nextafter(found.edge_bps[:, 1], 9.0)
        return found

    monkeypatch.setattr(RulesScorer, "score", score)

    checked = check(folder)

    compared, mismatched, missing = stage(checked, "scores")
    assert 0 < mismatched < compared
    assert missing == 0
    assert stage(checked, "features")[1] == 0
    assert checked.first is not None
    assert (checked.first.symbol, checked.first.name) == (SYMBOLS[1], "edge_bps")


def test_zero_of_the_other_sign_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bits are compared, not values: -0 where live had 0 is a mismatch, and is told as one."""
    real = FeatureGraph.step
    f = tuple(FEATURES).index("imbalance_3")

    def step(self: FeatureGraph, block: Mapping[str, Floats], second: int, out: Features | None = None) -> Features:
        found = real(self, block, second, out)
        found[:, 1, f] = 0.0
        if len(found) > 1:
            found[40, 1, f] = -0.0
        return found

    monkeypatch.setattr(FeatureGraph, "step", step)

    first = check(trade(tmp_path)).first

    assert first is not None
    assert (first.second, first.symbol, first.name) == (START_S + 40, SYMBOLS[1], "imbalance_3")
    assert (first.live, first.research) == ("0.0", "-0.0")


def test_any_of_the_variants_may_have_scored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the bandit chooses among scorers, the scores of a second are those of one of them, or a mismatch."""
    folder = trade(tmp_path)
    monkeypatch.setattr(journaled, "make_scorer", lambda *_: CoinScorer(7))

    alone = check(folder, with_decisions=False)
    monkeypatch.setattr(journaled, "alternatives_of", lambda _: (RulesScorer(tuple(FEATURES)),))
    beside = check(folder, with_decisions=False)

    assert stage(alone, "scores")[1] == SECONDS
    assert beside.is_identical


def test_torn_end_turns_it_red(tmp_path: Path) -> None:
    """A journal that ends within a record lacks what was being written, and what came before it is compared."""
    folder = trade(tmp_path, "coin")
    path = folder / journal.FILE_NAME
    path.write_bytes(path.read_bytes()[:-5])

    checked = check(folder)

    assert not checked.is_identical
    assert stage(checked, "inputs") == (SECONDS, 0, 1)
    assert stage(checked, "scores") == (SECONDS, 0, 0)
    assert "unfinished write" in checked.sentence()


def test_damaged_record_turns_it_red(tmp_path: Path) -> None:
    """What lies before a record that fails its checksum is compared, what lies behind it is missing."""
    folder = trade(tmp_path, "coin")
    path = folder / journal.FILE_NAME
    raw = bytearray(path.read_bytes())
    raw[-40] ^= 1
    path.write_bytes(raw)

    checked = check(folder)

    assert not checked.is_identical
    assert stage(checked, "columns")[1] == 0
    assert "must match its checksum" in checked.sentence()


def test_session_that_was_killed_between_records_is_identical(tmp_path: Path) -> None:
    """A journal without its end mark is whole as far as it goes."""
    folder = trade(tmp_path, "coin")
    path = folder / journal.FILE_NAME
    *_, end = journal.JournalReader(path)
    path.write_bytes(path.read_bytes()[: end.offset])

    checked = check(folder)

    assert checked.is_identical
    assert not checked.is_closed


def test_second_that_was_left_out_turns_it_red(tmp_path: Path) -> None:
    """Live owes the engine every second: a hole in the journal is missing."""
    rig = Rig(tmp_path, "coin")
    rig.adopt()
    rig.trade(5)
    rig.second += 2
    rig.trade(5)
    rig.journal.close()

    checked = check(tmp_path)

    assert not checked.is_identical
    assert stage(checked, "columns") == (10, 0, 2)


def test_model_that_is_gone_is_a_trouble_and_features_are_compared(tmp_path: Path) -> None:
    """Without the session's model its scores and decisions are missing; its features are not."""
    folder = trade(tmp_path)
    note = journal.ModelNote(name="crosscut", version=3, run_id="r", digest="0" * 64, folder="model")

    def change(body: bytes) -> bytes:
        said = msgspec.msgpack.decode(body, type=journal.Header)
        return msgspec.msgpack.encode(msgspec.structs.replace(said, model="latest", bundle=note))

    rewrite(folder, journal.HEADER, 0, change)

    checked = check(folder)

    assert not checked.is_identical
    assert stage(checked, "features") == (SECONDS, 0, 0)
    assert stage(checked, "scores")[2] > 0
    assert stage(checked, "decisions") == (0, 0, SECONDS)
    assert "bundle.json" in checked.sentence()


def test_hours_of_a_session_are_compared_apart(tmp_path: Path) -> None:
    """A session over a full hour is judged in both, with the seconds of each; an altered second reddens its own."""
    border_s = (START_S // HOUR_S + 1) * HOUR_S
    folder = trade(tmp_path, "coin", begin_s=border_s - 50, seconds=90)
    hours = border_s // HOUR_S - 1, border_s // HOUR_S

    before = [live_parity(tmp_path, SOURCE, hour) for hour in hours]
    rewrite(folder, journal.SECOND, 60, altered)
    after = [live_parity(tmp_path, SOURCE, hour) for hour in hours]

    assert [verdict.passed for verdict in before] == [True, True]
    assert [verdict.metadata["rows"] for verdict in before] == [50 * N_SYMBOLS, 40 * N_SYMBOLS]
    assert [verdict.passed for verdict in after] == [True, False]
    assert after[1].metadata["mismatched"] == 30
    assert "stage 'inputs'" in after[1].metadata["wrong"]


def test_hour_without_a_session_passes_and_says_so(tmp_path: Path) -> None:
    """Where nobody traded there is nothing to compare; another hour's session is none of this one."""
    trade(tmp_path)

    for hour in (START_S // HOUR_S - 1, START_S // HOUR_S + 1):
        passed, told = live_parity(tmp_path, SOURCE, hour)

        assert passed
        assert told["sessions"] == 0
        assert "no session" in told["reason"]


def test_journal_of_other_columns_turns_its_hour_red(tmp_path: Path) -> None:
    """A session that this code cannot read is not taken for identical."""
    folder = tmp_path / "journal" / f"source={SOURCE}" / "session=s"
    journal.JournalWriter(folder, header(columns=("last",))).close()

    passed, told = live_parity(tmp_path, SOURCE, START_S // HOUR_S)

    assert not passed
    assert "must have this code's columns" in told["wrong"]


def test_recorder_is_told_and_not_asserted(tmp_path: Path) -> None:
    """Cells that the recorder has otherwise, not at all, or alone are counted by column; the verdict stays green."""
    folder = trade(tmp_path, "coin")
    blocks = [
        record.value for record in journal.JournalReader(folder / journal.FILE_NAME) if record.kind == journal.SECOND
    ]
    values = {name: np.stack([block.columns[c] for block in blocks]) for c, name in enumerate(COLUMNS)}
    values["mark"][7, 1] += 0.25
    values["mark"][8, 2] = np.nan
    values["last"][9:11, 3] = np.nan
    frame = to_frame(SYMBOLS, Seconds(START_S, values))
    write.write_table(tmp_path, "seconds", SOURCE, START_S // HOUR_S, frame, {})

    checked = check(folder, lake=tmp_path)

    assert checked.is_identical
    assert checked.beside is not None
    beside = {one.column: one for one in checked.beside}
    mark, last = beside["mark"], beside["last"]
    assert (mark.cells, mark.mismatched, mark.missing, mark.extra) == (SECONDS * N_SYMBOLS, 1, 1, 0)
    assert mark.worst == (SYMBOLS[1], SYMBOLS[2])
    assert (last.mismatched, last.missing, last.worst) == (0, 2, (SYMBOLS[3],))
    assert sum(one.mismatched + one.missing + one.extra for one in checked.beside) == 4
    told = live_parity(tmp_path, SOURCE, START_S // HOUR_S)
    assert told.passed
    assert "| s | mark |" in told.metadata["beside_the_recorder"].markdown


def test_command_says_what_was_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The command ends with 0 where all is identical, with 1 where not, with 7 where there is no session."""
    folder = trade(tmp_path, "coin")

    assert parity.main(["--session", "last", "--lake", str(tmp_path)]) == 0
    assert "0 mismatches in inputs, columns, scores, decisions" in capsys.readouterr().out
    rewrite(folder, journal.SECOND, 3, altered)
    assert parity.main(["--session", str(folder), "--lake", str(tmp_path)]) == 1
    assert "differs first at stage 'inputs'" in capsys.readouterr().out
    assert parity.main(["--hour", "2020-01-01T00:00", "--lake", str(tmp_path)]) == 5
    assert "no second to compare" in capsys.readouterr().err
    assert parity.main(["--session", "nobody", "--lake", str(tmp_path)]) == 7
    assert "found 'nobody'" in capsys.readouterr().err
