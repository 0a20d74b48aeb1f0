"""Champion and challenger afterwards: the figures are what the journal says, and every mismatch is named."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import scipy.stats

from pipelines import shadow as comparison
from pipelines.shadow import compare, words
from shared import journal
from shared import shadow as file
from shared.errors import JournalError
from shared.features.sampler import COLUMNS
from shared.strategy.config import EngineConfig
from shared.strategy.scores import RulesScorer
from shared.types import Floats, StopRequested
from tests.live.sessions import N_SYMBOLS, Rig
from tests.shared.strategy import made

SECONDS = 150
CONFIG = EngineConfig(confidence_min=0.5, confidence_margin_min=0.0, slippage_bps=0.5, spread_bps_max=90.0)


def lively(folder: Path, model: str, shadow: str, *, seconds: int = SECONDS, seed: int = 1) -> Rig:
    """Return a session on a market that moves by 30 bps a second: some expected moves clear their costs."""
    rig = Rig(folder, model, shadow=shadow, config=CONFIG)
    rig.adopt()
    rng = np.random.default_rng(seed)
    mid = np.full(N_SYMBOLS, 100.0)
    for _ in range(seconds):
        mid = mid * np.exp(3e-3 * rng.standard_normal(N_SYMBOLS))
        block = made.columns(N_SYMBOLS, mid.round(2))
        block[COLUMNS.index("bid_size_1")] *= rng.uniform(0.2, 5.0, N_SYMBOLS)
        rig.close_second(block)
    rig.runner.tell(StopRequested(recv_ns=rig.clock(), reason="test"))
    rig.trade(3)
    rig.journal.close()
    assert rig.beside is not None
    rig.beside.close()
    return rig


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sessions") / "s"
    lively(path, "coin", "rules")
    return path


def test_figures_are_those_of_the_journal(folder: Path) -> None:
    """Rank IC and net of hypothetical entries, computed anew from blocks and records with other tools, are the same."""
    blocks = {
        r.value.second: r.value.columns
        for r in journal.JournalReader(folder / journal.FILE_NAME)
        if r.kind == journal.SECOND
    }
    told = file.read(folder)

    found = compare(folder)

    ics, nets = [], []
    for second, said in told.said.items():
        if second + 11 not in blocks or not np.isfinite(said.edge_bps).all():
            continue
        entry, leave = blocks[second + 1], blocks[second + 11]
        moved = _mid(leave) / _mid(entry) - 1
        ics.append(scipy.stats.spearmanr(said.edge_bps, moved).statistic)
        for n in np.flatnonzero(said.wanted):
            row = "ask_price_1" if said.wanted[n] > 0 else "bid_price_1"
            other = "bid_price_1" if said.wanted[n] > 0 else "ask_price_1"
            paid, got = (b[COLUMNS.index(name), n] for b, name in ((entry, row), (leave, other)))
            nets.append(said.wanted[n] * (got / paid - 1) * 1e4 - 12.0 - 1.0)
    assert found.challenger.ic.mean == pytest.approx(np.mean(ics))
    assert found.challenger.entries == len(nets) > 5
    assert found.challenger.net.mean == pytest.approx(np.mean(nets))
    assert found.differs_at is None
    assert found.seconds == SECONDS + 3 - 11


def test_a_model_beside_itself_differs_by_nothing(tmp_path: Path) -> None:
    """The same scorer as champion and as challenger: every paired difference is 0, and nobody is called better."""
    lively(tmp_path, "rules", "rules")

    found = compare(tmp_path)

    assert found.ic_difference.mean == found.net_difference.mean == 0.0
    assert found.champion.entries == found.challenger.entries > 5
    assert found.champion.ic == found.challenger.ic
    assert words(found)[-1].strip() in ("these seconds do not tell them apart", "too few seconds to tell them apart")


def test_a_challenger_that_says_something_else_now_is_found(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Other code than the session's is told by the second in which it shows first, with exit code 1."""
    assert comparison.main([str(folder)]) == 0
    assert "challenger  rules" in capsys.readouterr().out
    monkeypatch.setattr(RulesScorer, "SKILL", 0.21)

    code = comparison.main([str(folder)])

    assert code == 1
    assert f"first in second {made.START_S + 30}" in capsys.readouterr().err


def test_what_cannot_be_compared_is_one_sentence(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """No shadow, a shadow of another session, another horizon, no session at all."""

    def said(path: Path) -> str:
        assert comparison.main([str(path), "--lake", str(tmp_path)]) == JournalError.exit_code
        err = capsys.readouterr().err
        assert err.count("\n") == 1
        return err

    rig = Rig(tmp_path / "alone", "coin")
    rig.adopt()
    rig.trade(3)
    rig.journal.close()
    assert "run live with --shadow challenger" in said(tmp_path / "alone")
    assert "must be a folder with journal.bin" in said(tmp_path / "nowhere")
    lively(tmp_path / "other", "coin", "rules", seconds=3)
    raw = (tmp_path / "other" / file.FILE_NAME).read_bytes()
    header = msgspec_header(tmp_path / "other", session="another")
    assert header != raw
    assert "must belong to session s with 4 symbols, found another with 4" in said(tmp_path / "other")
    monkeypatch.setattr(RulesScorer.__init__, "__defaults__", (60,))
    assert "must look equally far ahead, found 10 s and 60 s" in said(folder)


def msgspec_header(path: Path, *, session: str) -> bytes:
    """Write the shadow's file anew, of another session; return its bytes."""
    (path / file.FILE_NAME).unlink()
    file.Writer(
        path, file.Header(version=1, session=session, model="rules", bundle=None, seed=7, n_symbols=N_SYMBOLS)
    ).close()
    return (path / file.FILE_NAME).read_bytes()


def test_too_short_a_session_tells_nothing(tmp_path: Path) -> None:
    """A session without a whole horizon has no figure, and says so."""
    lively(tmp_path, "coin", "rules", seconds=5)

    found = compare(tmp_path)

    assert found.seconds == 0
    assert math.isnan(found.ic_difference.mean)
    assert words(found)[-1].strip() == "too few seconds to tell them apart"


def _mid(block: Floats) -> Floats:
    bid, ask = block[COLUMNS.index("bid_price_1")], block[COLUMNS.index("ask_price_1")]
    return np.asarray((bid + ask) / 2)
