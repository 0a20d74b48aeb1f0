"""Champion, challenger and the way back: aliases, tags, the word in the bundle, and every wrong order of commands."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from live import registry
from pipelines.gate import promotion
from pipelines.gate.__main__ import main
from pipelines.gate.criteria import Verdict, judge
from pipelines.gate.promotion import history, promote, record, rollback, status_of
from pipelines.gate.unseen import Recomputed
from pipelines.tracking import ALIAS, CHAMPION, PAPER_CHAMPION, Tracking
from shared import model as bundles
from shared.errors import ModelMismatch, ModelMissing
from shared.features.catalog import FEATURES
from shared.features.graph import definition_hash
from shared.model import read_bundle
from tests.pipelines.gate.registered import FAST, evidence, register, train


@pytest.fixture
def tracking(made_database: Callable[[Path], str], tmp_path: Path) -> Tracking:
    return Tracking(made_database(tmp_path))


def verdict(version: int, *, passed: bool = True, source: str = "bitget") -> Verdict:
    """Return a verdict about a version, made of good evidence or of none."""
    known = msgspec.structs.replace(evidence().identity, version=version, source=source, backtest_source=source)
    whole = msgspec.structs.replace(evidence(), identity=known)
    venue = promotion.venue_of(source)
    return judge(whole if passed else msgspec.structs.replace(whole, speed=None), venue)


def judged(tracking: Tracking, *, passed: bool = True, source: str = "bitget") -> str:
    """Register a version, record a verdict, return its number."""
    made = train(tracking, source=source)
    found = verdict(made.version, passed=passed, source=source)
    assert found.passed == passed
    record(tracking, tracking.resolve(str(made.version)), found)
    return str(made.version)


def test_a_verdict_is_written_where_live_reads_it(tracking: Tracking) -> None:
    """The tag, the run and the bundle's field say the same; the booster's digest is what it was, and the bundle loads
    where the gate must have passed."""
    first, second = judged(tracking), judged(tracking, passed=False)
    folder = tracking.bundle_folder(tracking.resolve(first))
    features = {"definition_hash": definition_hash(FEATURES), "feature_names": tuple(FEATURES)}

    assert bundles.load(folder, source="bitget", must_have_passed=True, **features).bundle.gate == "passed"  # type: ignore[arg-type]
    assert registry.resolve(tracking.uri, first).folder == folder
    assert sorted(path.name for path in folder.iterdir()) == ["bundle.json", "model.lgb"]
    with pytest.raises(ModelMismatch, match="must have passed the honest-edge gate, found 'refused'"):
        bundles.load(tracking.bundle_folder(tracking.resolve(second)), must_have_passed=True, **features)  # type: ignore[arg-type]
    for version, said in ((first, "passed"), (second, "refused")):
        tags = tracking.resolve(version).tags
        run = tracking.client.get_run(tags["gate_run"])
        assert tags["validation"] == run.data.tags["verdict"] == said
        assert tracking.artifact(run.info.run_id, "gate/verdict.json") is not None
        assert run.data.metrics["passed"] == float(said == "passed")
    assert tracking.resolve(second).tags["gate_failed"] == "speed"


def test_a_judgement_can_be_taken_back(tracking: Tracking) -> None:
    """What passed and is judged again and refused does not pass any more, for live neither."""
    version = judged(tracking)
    promote(tracking, version, "bitget")
    record(tracking, tracking.resolve(version), verdict(int(version), passed=False))

    with pytest.raises(ModelMismatch, match="must have passed"):
        promote(tracking, version, "bitget")
    assert read_bundle(tracking.bundle_folder(tracking.resolve(CHAMPION))).gate == "refused"


def test_what_passed_on_paper_is_never_champion_of_the_real_market(tracking: Tracking) -> None:
    """A generated market's model gets a word and an alias of its own, and real money takes neither."""
    version = judged(tracking, source="simulator-g7-40")

    with pytest.raises(ModelMismatch, match="to be champion, found 'passed on paper'"):
        promote(tracking, version, "bitget")
    assert promote(tracking, version, "simulator").alias == PAPER_CHAMPION
    assert promotion.alias_version(tracking, CHAMPION) is None
    assert read_bundle(tracking.bundle_folder(tracking.resolve(version))).gate == "passed on paper"
    assert status_of(verdict(1, source="import-tardis")) == "passed on paper"


def test_rollback_goes_back_step_by_step_and_ends_with_a_sentence(tracking: Tracking) -> None:
    """Each promotion is remembered once, promoting the champion again changes nothing, and behind the first there is
    nothing to go back to."""
    with pytest.raises(ModelMissing, match="found no version under that alias: nothing was promoted yet"):
        rollback(tracking, "bitget")
    first, second, third = (judged(tracking) for _ in range(3))
    with pytest.raises(ModelMissing, match="found no version under that alias"):
        rollback(tracking, "bitget")
    promoted = [promote(tracking, version, "bitget") for version in (first, second, second, third)]
    assert [p.before for p in promoted] == [None, int(first), None, int(second)]
    assert history(tracking, CHAMPION) == [int(first), int(second)]

    assert rollback(tracking, "bitget").sentence() == f"champion is version {second}, before it version {third}"
    assert rollback(tracking, "bitget").version == int(first)
    with pytest.raises(ModelMissing, match=f"must have had a version before {first} to be rolled back to, found none:"):
        rollback(tracking, "bitget")
    assert promotion.alias_version(tracking, CHAMPION) == int(first)


def test_rollback_passes_over_what_cannot_be_traded(tracking: Tracking) -> None:
    """A version refused since, one whose files are gone and one that was deleted are no way back; if nothing is left it
    says why and the champion stays."""
    versions = [judged(tracking) for _ in range(4)]
    for version in versions:
        promote(tracking, version, "bitget")
    record(tracking, tracking.resolve(versions[2]), verdict(int(versions[2]), passed=False))
    (tracking.bundle_folder(tracking.resolve(versions[1])) / "bundle.json").unlink()

    assert rollback(tracking, "bitget").version == int(versions[0])

    promote(tracking, versions[3], "bitget")
    tracking.client.delete_model_version("crosscut", versions[0])
    with pytest.raises(ModelMissing, match=f"none of version {versions[0]} .* can come back"):
        rollback(tracking, "bitget")
    assert promotion.alias_version(tracking, CHAMPION) == int(versions[3])


def test_a_crash_between_remembering_and_moving_loses_nothing(
    tracking: Tracking, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the alias did not move, the champion is in its own history once too often, which rollback passes over."""
    first, second, third = (judged(tracking) for _ in range(3))
    promote(tracking, first, "bitget")
    promote(tracking, second, "bitget")
    with monkeypatch.context() as patch:
        patch.setattr(Tracking, "promote", lambda self, wanted, alias: (_ for _ in ()).throw(RuntimeError))
        with pytest.raises(RuntimeError):
            promote(tracking, third, "bitget")

    assert promotion.alias_version(tracking, CHAMPION) == int(second)
    assert rollback(tracking, "bitget").version == int(first)


def test_the_commands(
    tracking: Tracking, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Judge and promote, status, rollback and its refusal, challenger: what each prints, and its exit code."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", tracking.uri)
    monkeypatch.setattr("pipelines.gate.gather.measure", lambda folder: FAST)
    monkeypatch.setattr("pipelines.gate.gather._Found._recomputed", lambda self, holdout: Recomputed(rows=9, leak=""))
    lake = ["--lake", str(tmp_path)]

    def said(*arguments: str) -> tuple[int, str, str]:
        code = main([*arguments, *lake])
        out = capsys.readouterr()
        return code, out.out, out.err

    assert said("status")[1] == "no model is registered: run python -m pipelines.train\n"
    assert said("judge")[0] == ModelMissing.exit_code
    assert said("rollback")[0] == ModelMissing.exit_code
    version = register(tracking).version
    code, out, err = said("--model", str(version), "--promote")
    assert (code, err) == (0, f"champion is version {version}\n")
    assert out.strip().endswith(
        f"model version {version} (trained on bitget) passed all 15 criteria for the venue bitget"
    )
    code, out, _ = said("--model", "champion", "--json")
    assert msgspec.json.decode(out)["passed"] is True
    bare = train(tracking).version
    assert said("--model", str(bare), "--promote")[0] == 1
    assert said("--model", str(version), "--promote", "--as", "challenger")[2] == (
        f"{ALIAS} is version {version}, before it version {bare}\n"
    )
    code, _, err = said("rollback")
    assert (code, err.count("\n")) == (ModelMissing.exit_code, 1)
    assert f"must have had a version before {version} to be rolled back to" in err
    assert said("rollback", "--promote")[0] == 2
    lines = said("status")[1].splitlines()
    assert lines[0].split() == ["version", "source", "validation", "judged", "at", "aliases", "failed"]
    assert "refused" in lines[1]
    assert "champion, challenger" in lines[2]
