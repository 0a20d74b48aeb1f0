"""Replay is live: identical from the journal alone, or the first stage that differs by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from live import replay
from shared import journal
from shared.features.graph import FeatureGraph
from shared.strategy.scores import CoinScorer, RulesScorer, Scores
from shared.types import Floats, StopRequested
from tests.live.sessions import Rig, rewrite


@pytest.fixture(params=["coin", "rules"])
def session(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Return the folder of a session of forty seconds that ended cleanly."""
    rig = Rig(tmp_path / "session", request.param)
    rig.adopt()
    rig.trade(40)
    rig.runner.tell(StopRequested(recv_ns=rig.clock(), reason="test"))
    rig.trade(3)
    rig.journal.close()
    return tmp_path / "session"


def test_replay_of_a_session_is_identical(session: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The same events give the same actions, byte for byte, and the command says so."""
    assert replay.main([str(session)]) == 0
    assert capsys.readouterr().out.startswith("identical: session s, 43 seconds")


def test_replay_of_a_crashed_session_is_identical_up_to_its_end(
    session: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A journal that was cut off anywhere replays to its last whole record, and the cut is said."""
    path = session / journal.FILE_NAME
    raw = path.read_bytes()
    for cut in np.random.default_rng(5).integers(len(raw) // 2, len(raw), 5):
        path.write_bytes(raw[: int(cut)])
        assert replay.main([str(session)]) == 0
        assert "without its end mark" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("kind", "which"),
    [(journal.SECOND, 20), (journal.EVENT, 0), (journal.HEADER, 0)],
    ids=["second", "event", "header"],
)
def test_altered_inputs_are_named(session: Path, kind: int, which: int, capsys: pytest.CaptureFixture[str]) -> None:
    """One digit of a second's time, of the account or of the configuration, altered with its checksum, is found as `inputs`."""

    def change(body: bytes) -> bytes:
        if kind == journal.SECOND:
            return bytes([body[0] ^ 1]) + body[1:]
        old, new = (b"10000", b"10001") if kind == journal.EVENT else (b"simulator-made", b"simulator-fade")
        assert old in body
        return body.replace(old, new, 1)

    rewrite(session, kind, which, change)

    assert replay.main([str(session)]) == 1
    assert "stage 'inputs'" in capsys.readouterr().err


@pytest.mark.parametrize("place", [40, 300, -9])
def test_altered_block_is_named_as_inputs(session: Path, place: int, capsys: pytest.CaptureFixture[str]) -> None:
    """A byte of the market, altered with its checksum, is found as `inputs`, whether it still decodes or not."""
    rewrite(
        session, journal.SECOND, 0, lambda body: body[:place] + bytes([body[place] ^ 1]) + body[place + 1 or None :]
    )

    assert replay.main([str(session)]) == 1
    assert "stage 'inputs'" in capsys.readouterr().err


def test_flipped_bit_is_named_as_inputs(session: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Plain damage shows in the checksum, with the record and its place."""
    raw = bytearray((session / journal.FILE_NAME).read_bytes())
    raw[len(raw) // 2] ^= 4
    (session / journal.FILE_NAME).write_bytes(raw)

    assert replay.main([str(session)]) == 1
    assert "stage 'inputs': record" in capsys.readouterr().err


def test_altered_action_is_named(session: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An order whose size was altered in the record is found as `actions`."""

    def change(body: bytes) -> bytes:
        decision = msgspec.msgpack.decode(body, type=journal.Decision)
        actions = decision.actions.replace(b"decision.made", b"decision.fake")
        return msgspec.msgpack.encode(msgspec.structs.replace(decision, actions=actions))

    rewrite(session, journal.DECISION, 12, change)

    assert replay.main([str(session)]) == 1
    said = capsys.readouterr().err
    assert "stage 'actions'" in said
    assert "decision.fake" in said
    assert "decision.made" in said


def test_code_that_computes_other_scores_is_named(session: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A scorer that differs in one bit is found as `scores`, in the first second."""
    for scorer in (CoinScorer, RulesScorer):
        real = scorer.score

        def other(self: object, *args: object, real: Callable[..., Scores] = real) -> Scores:
            found = real(self, *args)
            return msgspec.structs.replace(found, edge_bps=np.nextafter(found.edge_bps, 1.0))

        monkeypatch.setattr(scorer, "score", other)

    found = replay.replay(session).difference

    # Rules have no scores to differ in until their windows are full: NaN plus a bit is NaN.
    assert found is not None
    assert found.stage == "scores"


def test_code_that_computes_other_features_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A feature that differs is found as `features`, before the scores that follow from it."""
    rig = Rig(tmp_path, "rules")
    rig.adopt()
    rig.trade(12)
    rig.journal.close()
    real = FeatureGraph.step

    def other(self: FeatureGraph, block: dict[str, Floats], second: int) -> NDArray[np.float32]:
        found = real(self, block, second)
        return np.asarray(found + np.float32(1e-6), np.float32)

    monkeypatch.setattr(FeatureGraph, "step", other)

    found = replay.replay(tmp_path).difference

    assert found is not None
    assert found.stage == "features"


def test_journal_cut_between_records_is_found_by_the_summary(session: Path) -> None:
    """Where session.json says how long the journal was, a journal that lost its end whole is found."""
    told = {"journal": {"seconds": 43, "events": 99}}
    (session / "session.json").write_bytes(msgspec.json.encode(told))

    found = replay.replay(session).difference

    assert found is not None
    assert (found.stage, found.expected) == ("inputs", "43 seconds and 99 events")


@pytest.mark.parametrize("content", ["{bad", "[]", "{}", '{"journal": 7}'])
def test_damaged_summary_is_one_sentence(session: Path, content: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A session.json that is none is named, with what to do, and no replay passes by it."""
    (session / "session.json").write_text(content)

    assert replay.main([str(session)]) == 7
    said = capsys.readouterr()
    assert said.out == ""
    assert "session.json must be the session's summary" in said.err
    assert said.err.count("\n") == 1


def test_unknown_session_is_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A session that is not there is refused with those that are."""
    monkeypatch.setenv("LAKE_URI", str(tmp_path))
    assert replay.main(["nobody"]) == 7
    assert "found 'nobody'" in capsys.readouterr().err
