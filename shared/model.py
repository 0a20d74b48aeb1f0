"""The model bundle: a LightGBM text and everything that says what it means.

A directory holds `model.lgb` (native text, no pickle) and `bundle.json`. Loading checks the digest of the text, the
definition hash of the features (over formulas, not only names) and, where the caller has one, the source: a model is
never fed with something else than it was trained on.
LightGBM is imported when a booster is made, not before: rules and coin need none of it.
"""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from shared.errors import ModelMismatch, ModelMissing
from shared.replaced import replace_file

FORMAT_VERSION = 2
FLAT, LONG, SHORT = 0, 1, 2
CLASSES = ("flat", "long", "short")
MODEL_FILE, BUNDLE_FILE = "model.lgb", "bundle.json"

NOT_JUDGED, PASSED, PASSED_ON_PAPER = "not judged", "passed", "passed on paper"
"""What the honest-edge gate said: `PASSED` is of a model of the real market, the only word that real money takes."""


class BundleCosts(msgspec.Struct, frozen=True, kw_only=True):
    """Costs that the labels were made with."""

    taker_fee: float  # [1] of notional a side
    slippage_bps: float  # a side


class Lineage(msgspec.Struct, frozen=True, kw_only=True):
    """Where a model comes from: enough to make it again."""

    run_id: str = ""
    commit: str = ""
    lake_hash: str = ""
    seed: int = 0
    rows: int = 0
    trained_from_s: int = 0  # first and last second of the training rows
    trained_to_s: int = 0
    books: str = ""  # the setting BOOKS that its rows were recorded under; "": not known


class Calibration(msgspec.Struct, frozen=True, kw_only=True):
    """What a booster's probabilities mean, in plain numbers.

        q_k = p_k · factor_k / Σ_j p_j · factor_j
        calibrated_k = (1 − pull) · q_k + pull · share_k

    The factors give back to each class how often it comes (trees learn with rare classes weighing more); the pull
    takes back what is overconfident. Multiplied, added and divided one by one: the same bits on every CPU.
    """

    factors: tuple[float, float, float]  # > 0
    pull: float  # in [0, 1)
    shares: tuple[float, float, float]  # of the classes, sum 1

    def apply(self, probability: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the calibrated probabilities, shape (…, 3) as given."""
        flat, long, short = (probability[..., k] * self.factors[k] for k in range(3))
        total = (flat + long) + short
        keep = 1.0 - self.pull
        said = [q / total * keep + self.pull * share for q, share in zip((flat, long, short), self.shares, strict=True)]
        return np.stack(said, axis=-1)


class Bundle(msgspec.Struct, frozen=True, kw_only=True):
    """What a booster means."""

    features: tuple[str, ...]  # in the order of the booster's columns
    definition_hash: str
    horizon_s: int
    class_edge_bps: tuple[float, float, float]  # mean gross move of the mid over the horizon, per class of `classes`
    costs: BundleCosts
    source: str
    booster_sha256: str = ""  # written by `save`
    classes: tuple[str, str, str] = CLASSES
    absent: tuple[str, ...] = ()  # features that the training source never had (NaN in every row): not required
    calibration: Calibration | None = None  # None: the booster's probabilities as they are
    lineage: Lineage = Lineage()
    gate: str = NOT_JUDGED  # what the honest-edge gate said (`write_gate`); no part of any digest
    format_version: int = FORMAT_VERSION


class Model:
    """A booster with its bundle; predicts, and holds no state."""

    def __init__(self, bundle: Bundle, booster: Any) -> None:
        self.bundle = bundle
        self._booster = booster
        self._required = np.array([k for k, name in enumerate(bundle.features) if name not in bundle.absent], np.intp)

    @property
    def digest(self) -> str:
        """Return the SHA-256 of the booster's text."""
        return self.bundle.booster_sha256

    def predict(self, features: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return the probabilities of `CLASSES`; a row where any feature but `bundle.absent` is NaN gets NaN.

        Args:
            features: (…, F) in the order of `bundle.features`.

        Returns: (…, 3) [1].
        """
        n_features = len(self.bundle.features)
        assert features.shape[-1] == n_features, f"{features.shape[-1]} features, the model has {n_features}"
        rows = features.reshape(-1, n_features)
        out = np.full((len(rows), len(CLASSES)), np.nan)
        complete = np.flatnonzero(np.isfinite(rows[:, self._required]).all(axis=1))
        if len(complete):
            said = self._booster.predict(np.ascontiguousarray(rows[complete]), num_threads=1)
            out[complete] = said if self.bundle.calibration is None else self.bundle.calibration.apply(said)
        return out.reshape(*features.shape[:-1], len(CLASSES))


def _booster(text: str, origin: str) -> Any:
    import lightgbm

    try:
        return lightgbm.Booster(model_str=text)
    except lightgbm.basic.LightGBMError as error:
        raise ModelMismatch(
            f"{origin} must be a LightGBM text model, found one that does not parse ({error}): train again"
        ) from None


def sha256(text: str) -> str:
    """Return the digest that a bundle records of its booster's text."""
    return hashlib.sha256(text.encode()).hexdigest()


def save(directory: Path, booster_text: str, bundle: Bundle) -> Bundle:
    """Write the two files of a model directory and return the bundle with its digest filled in."""
    directory.mkdir(parents=True, exist_ok=True)
    bundle = msgspec.structs.replace(bundle, booster_sha256=sha256(booster_text))
    (directory / MODEL_FILE).write_bytes(booster_text.encode())
    (directory / BUNDLE_FILE).write_bytes(msgspec.json.format(msgspec.json.encode(bundle), indent=2))
    return bundle


def copy_bundle(source: Path, target: Path) -> None:
    """Put a model's two files beside a journal, which replays when the registry has forgotten them."""
    target.mkdir(parents=True, exist_ok=True)
    for name in (BUNDLE_FILE, MODEL_FILE):
        shutil.copyfile(source / name, target / name)


def write_gate(directory: Path, said: str) -> None:
    """Write what the gate said into the bundle of a model directory, whole or not at all.

    Raises:
        ModelMissing, ModelMismatch: there is no bundle of this format.
    """
    bundle = msgspec.structs.replace(read_bundle(directory), gate=said)
    replace_file(directory / BUNDLE_FILE, msgspec.json.format(msgspec.json.encode(bundle), indent=2), is_durable=True)


def read_bundle(directory: Path) -> Bundle:
    """Read `bundle.json` alone, without the booster and without checks against this code's features.

    Raises:
        ModelMissing: there is no bundle in the directory.
        ModelMismatch: it is of another format.
    """
    path = directory / BUNDLE_FILE
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        raise ModelMissing(
            f"a model directory must hold {BUNDLE_FILE}, found none in {directory}: train a model"
        ) from None
    try:
        bundle = msgspec.json.decode(raw, type=Bundle)
    except msgspec.MsgspecError as error:
        raise ModelMismatch(
            f"{path} must be a bundle of format {FORMAT_VERSION}, found: {error}: train again"
        ) from None
    if bundle.format_version != FORMAT_VERSION:
        raise ModelMismatch(
            f"{path} must be a bundle of format {FORMAT_VERSION}, found {bundle.format_version}: "
            "train again or check out the commit in the bundle"
        )
    if bundle.classes != CLASSES:
        raise ModelMismatch(f"{path} must have classes {CLASSES}, found {bundle.classes}: train again")
    return bundle


def load(
    directory: Path,
    *,
    definition_hash: str,
    feature_names: tuple[str, ...],
    source: str | None = None,
    must_have_passed: bool = False,
) -> Model:
    """Load a model that means what this code means.

    Args:
        definition_hash: `features.graph.definition_hash` of this code's catalog.
        feature_names: `FeatureGraph.names`.
        source: what the model must have been trained on; None: any (the caller warns).
        must_have_passed: refuse a model that the honest-edge gate has not passed.

    Raises:
        ModelMissing: a file is not there.
        ModelMismatch: digest, features, source or gate are not what they must be.
    """
    bundle = read_bundle(directory)
    path = directory / MODEL_FILE
    try:
        text = path.read_bytes().decode()
    except FileNotFoundError:
        raise ModelMissing(
            f"a model directory must hold {MODEL_FILE}, found none in {directory}: train a model"
        ) from None
    name = sha256(text)[:12]
    if sha256(text) != bundle.booster_sha256:
        raise ModelMismatch(
            f"digest of {path} must be {bundle.booster_sha256[:12]}… as its bundle says, found {name}…: "
            "the file was altered, fetch or train it again"
        )
    if bundle.definition_hash != definition_hash:
        raise ModelMismatch(
            f"feature definitions of model {name} are {bundle.definition_hash[:12]}…, "
            f"code has {definition_hash[:12]}…: retrain or check out the commit in "
            f"the bundle ({bundle.lineage.commit or 'not recorded'})"
        )
    if bundle.features != feature_names:
        raise ModelMismatch(
            f"features of model {name} must be this code's {len(feature_names)} in their order, "
            f"found {len(bundle.features)} ({_first_difference(bundle.features, feature_names)}): retrain"
        )
    if source is not None and bundle.source != source:
        raise ModelMismatch(
            f"model {name} must be trained on source {source}, found {bundle.source}: train on {source} data"
        )
    if must_have_passed and bundle.gate != PASSED:
        raise ModelMismatch(
            f"model {name} must have passed the honest-edge gate, found {bundle.gate!r}: judge it first"
        )
    booster = _booster(text, str(path))
    if booster.num_feature() != len(bundle.features) or booster.num_model_per_iteration() != len(CLASSES):
        raise ModelMismatch(
            f"booster of model {name} must have {len(bundle.features)} features and {len(CLASSES)} classes, "
            f"found {booster.num_feature()} and {booster.num_model_per_iteration()}: train again"
        )
    return Model(bundle, booster)


def _first_difference(found: tuple[str, ...], wanted: tuple[str, ...]) -> str:
    for k, (a, b) in enumerate(zip(found, wanted, strict=False)):
        if a != b:
            return f"column {k} is {a}, must be {b}"
    return "one list ends before the other"
