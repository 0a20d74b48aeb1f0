"""The model bundle: it loads where it means the same, and says why where it does not."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from shared.errors import ModelMismatch, ModelMissing
from shared.model import (
    BUNDLE_FILE,
    MODEL_FILE,
    Bundle,
    BundleCosts,
    Calibration,
    Lineage,
    Model,
    load,
    read_bundle,
    save,
)
from shared.strategy.scores import ModelScorer

NAMES = ("return_10s", "imbalance_5", "funding_rate")
HASH = "9a3c" * 16


@pytest.fixture(scope="module")
def booster_text() -> str:
    """Train a tiny pooled model: the first feature decides."""
    import lightgbm

    rng = np.random.default_rng(0)
    rows = rng.normal(size=(600, len(NAMES)))
    labels = np.where(rows[:, 0] > 0.5, 1, np.where(rows[:, 0] < -0.5, 2, 0))
    params = {"objective": "multiclass", "num_class": 3, "verbosity": -1, "num_threads": 1, "seed": 1, "num_leaves": 4}
    return str(lightgbm.train(params, lightgbm.Dataset(rows, labels), 5).model_to_string())


def bundle(**changes: object) -> Bundle:
    made = Bundle(
        features=NAMES,
        definition_hash=HASH,
        horizon_s=10,
        class_edge_bps=(0.5, 20.0, -18.0),
        costs=BundleCosts(taker_fee=0.0006, slippage_bps=2.0),
        source="simulator-g7-40",
        lineage=Lineage(run_id="r1", commit="c0ffee", rows=600),
    )
    return msgspec.structs.replace(made, **changes)


def loaded(directory: Path, **changes: object) -> Model:
    asked: dict[str, object] = {"definition_hash": HASH, "feature_names": NAMES, **changes}
    return load(directory, **asked)  # type: ignore[arg-type]


def rows(n: int = 50) -> NDArray[np.float32]:
    return np.random.default_rng(3).normal(size=(n, len(NAMES))).astype(np.float32)


def test_model_predicts_what_lightgbm_predicts(tmp_path: Path, booster_text: str) -> None:
    """What comes back from the directory gives LightGBM's own probabilities, and the bundle comes back whole."""
    import lightgbm

    saved = save(tmp_path, booster_text, bundle())
    model = loaded(tmp_path)

    assert model.bundle == saved
    assert model.digest == saved.booster_sha256
    assert np.array_equal(model.predict(rows()), lightgbm.Booster(model_str=booster_text).predict(rows()))


def test_prediction_does_not_depend_on_the_cut(tmp_path: Path, booster_text: str) -> None:
    """A row's probabilities are the same bits alone, in a second, and in a block of seconds."""
    save(tmp_path, booster_text, bundle())
    model = loaded(tmp_path)
    block = rows(60).reshape(12, 5, len(NAMES))

    whole = model.predict(block)

    assert whole.shape == (12, 5, 3)
    assert all(np.array_equal(whole[t], model.predict(block[t])) for t in range(12))
    assert np.array_equal(whole[3, 2], model.predict(block[3, 2]))


def test_a_missing_feature_gives_no_prediction(tmp_path: Path, booster_text: str) -> None:
    """A NaN in a row is a NaN of its prediction, and of no other row's."""
    save(tmp_path, booster_text, bundle())
    block = rows()
    block[7, 1] = np.nan

    p = loaded(tmp_path).predict(block)

    assert np.isnan(p[7]).all()
    assert np.isfinite(np.delete(p, 7, axis=0)).all()


def test_a_feature_that_the_source_never_had_is_not_required(tmp_path: Path, booster_text: str) -> None:
    """A model trained where funding was never known predicts without it, as it learned to."""
    save(tmp_path, booster_text, bundle(absent=("funding_rate",)))
    block = rows()
    block[:, 2] = np.nan

    assert np.isfinite(loaded(tmp_path).predict(block)).all()


def test_edge_is_the_expected_move_over_classes(tmp_path: Path, booster_text: str) -> None:
    """The scorer's edge is Σ p · class edge; its direction is the likelier of long and short."""
    save(tmp_path, booster_text, bundle())
    scorer = ModelScorer(loaded(tmp_path))
    block = rows(20)[:, None, :]

    scores = scorer.score(block, {}, 0)

    p = scorer.model.predict(block)
    assert np.allclose(scores.edge_bps, p @ np.array([0.5, 20.0, -18.0]), rtol=0, atol=1e-12)
    assert np.array_equal(scores.direction, np.sign(p[..., 1] - p[..., 2]).astype(np.int8))
    assert np.array_equal(scores.confidence, np.maximum(p[..., 1], p[..., 2]))
    assert scorer.horizon_s == 10


def test_an_altered_model_is_refused(tmp_path: Path, booster_text: str) -> None:
    """One changed byte of the text is another digest."""
    save(tmp_path, booster_text, bundle())
    path = tmp_path / MODEL_FILE
    path.write_text(path.read_text().replace("leaf_value=", "leaf_value= ", 1))

    with pytest.raises(ModelMismatch, match=r"digest .* must be .* found .*: the file was altered"):
        loaded(tmp_path)


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        (
            {"definition_hash": "77be" * 16},
            r"feature definitions of model .* are 9a3c.*, code has 77be.*: retrain or check out.*c0ffee",
        ),
        ({"feature_names": NAMES[::-1]}, r"column 0 is return_10s, must be funding_rate"),
        ({"feature_names": NAMES[:2]}, r"this code's 2 .* found 3 \(one list ends before the other\)"),
        ({"source": "bitget"}, r"must be trained on source bitget, found simulator-g7-40: train on bitget data"),
        ({"must_have_passed": True}, r"must have passed the honest-edge gate, found 'not judged': judge it first"),
    ],
)
def test_a_model_that_means_something_else_is_refused(
    tmp_path: Path, booster_text: str, asked: dict[str, object], sentence: str
) -> None:
    """Other definitions, another order, another source, not judged: each ends in its own sentence."""
    save(tmp_path, booster_text, bundle())

    with pytest.raises(ModelMismatch, match=sentence):
        loaded(tmp_path, **asked)


def test_a_model_that_is_not_there_is_missed(tmp_path: Path, booster_text: str) -> None:
    """An empty directory, and a bundle without its booster, say which file is missing."""
    with pytest.raises(ModelMissing, match=BUNDLE_FILE):
        loaded(tmp_path)
    save(tmp_path, booster_text, bundle())
    (tmp_path / MODEL_FILE).unlink()
    with pytest.raises(ModelMissing, match=MODEL_FILE):
        loaded(tmp_path)


@pytest.mark.parametrize(
    ("content", "found"),
    [(b"{", "found: "), (b'{"features": []}', "found: "), (None, "found 99")],
)
def test_a_bundle_of_another_format_is_refused(
    tmp_path: Path, booster_text: str, content: bytes | None, found: str
) -> None:
    """A bundle that does not decode or has another format version is refused before anything is believed."""
    save(tmp_path, booster_text, bundle(format_version=99))
    if content is not None:
        (tmp_path / BUNDLE_FILE).write_bytes(content)

    with pytest.raises(ModelMismatch, match=found):
        read_bundle(tmp_path)


def test_a_booster_that_is_none_is_refused(tmp_path: Path) -> None:
    """A text that LightGBM cannot read ends in our sentence, not in a crash."""
    save(tmp_path, "tree\nthis is no model\n", bundle())

    with pytest.raises(ModelMismatch, match="must be a LightGBM text model"):
        loaded(tmp_path)


def test_a_booster_of_another_shape_is_refused(tmp_path: Path, booster_text: str) -> None:
    """A bundle that lists four features does not load a booster of three."""
    names = (*NAMES, "one_more")
    save(tmp_path, booster_text, bundle(features=names))

    with pytest.raises(ModelMismatch, match="4 features and 3 classes, found 3 and 3"):
        loaded(tmp_path, feature_names=names)


def test_lightgbm_is_imported_only_for_a_booster() -> None:
    """Rules and coin start without LightGBM: importing the engine does not import it."""
    code = "import sys, shared.strategy.engine, shared.model; sys.exit('lightgbm' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_calibration_travels_in_the_bundle(tmp_path: Path, booster_text: str) -> None:
    """What live predicts is the booster's word, calibrated by the numbers of the bundle; cuts change no bit."""
    rule = Calibration(factors=(1.0, 0.3, 0.25), pull=0.1, shares=(0.9, 0.06, 0.04))
    save(tmp_path / "raw", booster_text, bundle())
    save(tmp_path / "calibrated", booster_text, bundle(calibration=rule))
    block = rows(60).reshape(12, 5, len(NAMES))

    whole = loaded(tmp_path / "calibrated").predict(block)

    assert np.array_equal(whole, rule.apply(loaded(tmp_path / "raw").predict(block)))
    assert np.array_equal(whole[3], loaded(tmp_path / "calibrated").predict(block[3]))
