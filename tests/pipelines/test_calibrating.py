"""Calibration: probabilities become frequencies, by numbers that live applies to the same bits."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.calibrating import PULL_MAX, calibrate
from pipelines.evidence import calibration
from pipelines.validation import log_loss
from shared.model import Calibration


def drawn(seed: int, rows: int, *, sharp: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Return true probabilities of rare classes, and labels drawn from them."""
    rng = np.random.Generator(np.random.Philox(seed))
    logits = sharp * rng.standard_normal((rows, 3)) + np.array([2.5, 0.0, 0.0])
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    label = (rng.random((rows, 1)) > p.cumsum(axis=1)[:, :2]).sum(axis=1).astype(np.int8)
    return p, label


def balanced(p: np.ndarray, weights: tuple[float, ...] = (0.2, 2.0, 3.0)) -> np.ndarray:
    """Return what trees say that were taught with class weights."""
    told = p * weights
    return np.asarray(told / told.sum(axis=1, keepdims=True))


def test_class_weights_are_taken_back() -> None:
    """Probabilities learnt from weighted classes become the true ones again, on rows that the numbers never saw."""
    p, label = drawn(3, 60_000)
    half = len(label) // 2
    usual = np.bincount(label[:half], minlength=3) / half

    found = calibrate(balanced(p[:half]), label[:half], usual)

    after = found.apply(balanced(p[half:]))
    assert found.pull < 0.05
    assert np.abs(after - p[half:]).max() < 0.03
    for k in (1, 2):
        raw = calibration(balanced(p[half:])[:, k], label[half:] == k).error
        assert calibration(after[:, k], label[half:] == k).error < 0.01 < raw


def test_overconfidence_is_pulled_to_the_shares() -> None:
    """What says a lot and knows nothing ends near the class shares, and still orders the rows."""
    _, label = drawn(4, 20_000)
    said, _ = drawn(5, 20_000, sharp=2.0)
    usual = np.bincount(label, minlength=3) / len(label)

    found = calibrate(said, label, usual)

    after = found.apply(said)
    assert 0.9 < found.pull <= PULL_MAX
    assert log_loss(label, after) == pytest.approx(log_loss(label, np.tile(usual, (len(label), 1))), abs=2e-3)
    assert len(np.unique(after[:, 1])) > 1000


@pytest.mark.parametrize("rows", [0, 5])
def test_a_class_that_did_not_come_is_not_impossible(rows: int) -> None:
    """A block without rows, or without a class, leaves every probability above zero."""
    found = calibrate(np.full((rows, 3), 1 / 3), np.zeros(rows, np.int8), np.array([0.97, 0.02, 0.01]))

    after = found.apply(np.full((4, 3), 1 / 3))

    assert (after > 0).all()
    assert after[0, 0] > after[0, 1] > after[0, 2]
    assert after.sum(axis=1) == pytest.approx(1.0)


@given(
    p=st.lists(st.tuples(*[st.floats(1e-6, 1.0)] * 3), min_size=1, max_size=20),
    factors=st.tuples(*[st.floats(1e-3, 1.0)] * 3),
    pull=st.floats(0.0, 0.99),
)
def test_applied_numbers_are_plain_arithmetic(
    p: list[tuple[float, float, float]], factors: tuple[float, float, float], pull: float
) -> None:
    """An array gives bit for bit what + - * / on single doubles give: nothing depends on the shape or the CPU."""
    shares = (0.9, 0.06, 0.04)
    rule = Calibration(factors=factors, pull=pull, shares=shares)

    block = rule.apply(np.array(p))

    for row, said in zip(block, p, strict=True):
        q = [a * b for a, b in zip(said, factors, strict=True)]
        total = (q[0] + q[1]) + q[2]
        assert row.tolist() == [x / total * (1.0 - pull) + pull * share for x, share in zip(q, shares, strict=True)]
        assert row.sum() == pytest.approx(1.0)
