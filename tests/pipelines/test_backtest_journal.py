"""A backtest's journal: what live would do with the same seconds is what the backtest did, or the badge is red."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest

from pipelines import backtest, parity, scoring, verify
from pipelines.backtest import said_of
from pipelines.backtest_journal import JournalPlan
from pipelines.parity import Checked, check, parity_of
from pipelines.simulation import EQUITY_USDT, run_backtest
from pipelines.told import ParityVerdict
from shared import journal
from shared.errors import SettingsError
from shared.features.catalog import FEATURES
from shared.features.graph import FeatureGraph, Features
from shared.lake import write
from shared.limits import config_of
from shared.replay import replay
from shared.settings import Settings
from shared.strategy.config import EngineConfig
from shared.strategy.scores import CoinScorer, RulesScorer, Scorer
from shared.types import NS, Filled
from tests.live.sessions import rewrite
from tests.pipelines.markets import SOURCE, universe, write_lake

ROWS, N = 420, 5


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int, int]:
    """Return a lake whose contracts cost nothing, so that rules find enough to do."""
    folder = tmp_path_factory.mktemp("lake")
    start, end = write_lake(folder, rows=ROWS, n_symbols=N)
    listed = universe(N, start * NS)
    nothing = {"taker_fee": Decimal(0), "maker_fee": Decimal(0)}
    free = tuple(msgspec.structs.replace(one, **nothing) for one in listed.contracts)
    write.write_universe(folder, msgspec.structs.replace(listed, contracts=free))
    return folder, start, end


def config(**changes: Any) -> EngineConfig:
    return msgspec.structs.replace(config_of(Settings(_env_file=None), horizon_s=10), **changes)


def noted(
    lake: tuple[Path, int, int], folder: Path, scorer: Scorer, seconds: int, *, limits: EngineConfig | None = None
) -> Path:
    """Run a backtest that notes its first seconds; return the journal's folder."""
    root, start, end = lake
    plan = JournalPlan(folder=folder, seconds=seconds, model=scorer.name, commit="")
    run_backtest(
        root, SOURCE, scorer=scorer, config=limits or config(), start_s=start + 60, end_s=end, seed=7,
        equity_usdt=EQUITY_USDT, with_nulls=False, journaled=plan,
    )  # fmt: skip
    return folder


EAGER = config(
    confidence_min=0.4,
    confidence_margin_min=0.0,
    slippage_bps=0.0,
    cooldown_s=0,
    side_band=1.0,
    beta_band=10.0,
    decision_seconds=2,
)  # decides every other second, and finds something to do


@pytest.mark.parametrize("seconds", [120, ROWS])
@pytest.mark.parametrize(
    ("scorer", "limits"), [(CoinScorer(7), config()), (RulesScorer(tuple(FEATURES)), EAGER)], ids=["coin", "rules"]
)
def test_live_would_do_the_same_with_the_same_seconds(
    scorer: Scorer, limits: EngineConfig, seconds: int, lake: tuple[Path, int, int], tmp_path: Path
) -> None:
    """Of a sample and of the whole window: columns, features, scores and decisions are identical, and counted."""
    folder = noted(lake, tmp_path / "compared", scorer, seconds, limits=limits)

    checked = check(folder)

    n_seconds = min(seconds, ROWS - 60)
    assert checked.is_identical, checked.sentence()
    assert checked.seconds == n_seconds
    assert checked.decisions >= n_seconds, "each second, and each event that led to something"
    stages = {stage.name: stage.compared for stage in checked.stages}
    assert stages["columns"] == stages["decisions"] == n_seconds
    assert stages["scores"] == n_seconds // limits.decision_seconds
    assert ("features" in stages) == (scorer.name == "rules")
    assert any(isinstance(r.value, Filled) for r in journal.JournalReader(folder / journal.FILE_NAME)), "it traded"
    badge = parity_of(checked, command="again").badge
    assert badge == f"parity: checked, {checked.decisions:,} decisions, 0 mismatches"


def one_bit(body: bytes) -> bytes:
    return body[:-1] + bytes([body[-1] ^ 1])


@pytest.mark.parametrize(
    ("kind", "which", "change"),
    [
        (journal.SECOND, 90, one_bit),  # a value of the market, after thirty seconds that only warm up
        (journal.SECOND, 10, one_bit),  # of the seconds before: what features remember
        (journal.EVENT, 5, one_bit),
    ],
    ids=["second", "warm-up", "event"],
)
def test_an_altered_journal_turns_the_badge_red(
    kind: int, which: int, change: Callable[[bytes], bytes], lake: tuple[Path, int, int], tmp_path: Path
) -> None:
    """One bit of what the engine was told, checksum and all, is a mismatch, and the sentence says where first."""
    folder = noted(lake, tmp_path / "compared", RulesScorer(tuple(FEATURES)), 120, limits=EAGER)
    rewrite(folder, kind, which, change)

    found = parity_of(check(folder), command="again")

    assert found.verdict is ParityVerdict.DIFFERS
    assert found.mismatches > 0
    assert found.badge.startswith("parity: differs, ")
    assert "differs first at stage " in found.sentence
    assert "inputs" in found.sentence.split("differs first at stage ")[1], "nothing was computed otherwise"


def test_a_decision_that_live_would_not_make_turns_the_badge_red(
    lake: tuple[Path, int, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Scores that a backtest handed to its engine and live would not compute: columns agree, scores do not."""
    scorer = RulesScorer(tuple(FEATURES))
    folder = noted(lake, tmp_path / "compared", scorer, 120, limits=EAGER)
    compute = RulesScorer.score

    def other(self: RulesScorer, *arguments: Any) -> Any:
        found = compute(self, *arguments)
        found.confidence[:] = found.confidence * 0.99
        return found

    monkeypatch.setattr(RulesScorer, "score", other)
    checked: Checked = check(folder)

    stages = {stage.name: stage for stage in checked.stages}
    assert not checked.is_identical
    assert stages["columns"].is_identical
    assert stages["features"].is_identical
    assert stages["scores"].mismatched > 0
    assert replay(folder).difference is not None


def test_blocks_have_no_borders(lake: tuple[Path, int, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Features carry over from block to block: what a live engine computes second by second sees no border; one at which
    the memory is lost is found."""
    monkeypatch.setattr(scoring, "BLOCK_S", 50)
    scorer = RulesScorer(tuple(FEATURES))
    assert check(noted(lake, tmp_path / "whole", scorer, 120, limits=EAGER)).is_identical

    class Forgetful(FeatureGraph):
        def step(self, columns: Any, first_second: int, out: Features | None = None) -> Features:
            if len(next(iter(columns.values()))) > self.lookback:  # a block, and not what comes before the window
                self.__init__(FEATURES, self.symbols)  # type: ignore[misc]
            return super().step(columns, first_second, out)

    monkeypatch.setattr(scoring, "FeatureGraph", Forgetful)
    found = check(noted(lake, tmp_path / "forgot", scorer, 120, limits=EAGER))

    stages = {stage.name: stage for stage in found.stages}
    assert stages["columns"].is_identical
    assert stages["features"].mismatched > 0


def test_seconds_that_are_not_the_lakes_turn_the_badge_red(lake: tuple[Path, int, int], tmp_path: Path) -> None:
    """A backtest that was told other seconds than the lake holds differs, whatever it made of them."""
    root, start, end = lake
    folder = noted(lake, tmp_path / "compared", CoinScorer(7), 120)
    assert said_of(check(folder, lake=root), end - start).verdict is ParityVerdict.IDENTICAL
    other = tmp_path / "other"
    write_lake(other, rows=ROWS, n_symbols=N, seed=4)

    found = said_of(check(folder, lake=other), end - start)

    assert found.verdict is ParityVerdict.DIFFERS
    assert found.mismatches > 1000
    assert "Its seconds are not the lake's: " in found.sentence


def test_the_page_shows_the_comparison_and_how_to_make_it_again(
    lake: tuple[Path, int, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A backtest's page says checked, how many decisions of how much of the window; the command that it names agrees.
    The journal stays only where it differs: beside the page, whose command finds the difference; the next report of the
    same folder takes it away."""
    root, start, _ = lake
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    out = tmp_path / "out"
    arguments = [
        "--model",
        "coin",
        "--source",
        SOURCE,
        "--lake",
        str(root),
        "--from",
        str(start + 60),
        "--out",
        str(out),
    ]

    assert backtest.main([*arguments, "--compare", "100"]) == 0
    text = (out / "report.html").read_text()
    assert '<li class="good"' in text
    assert "parity: checked, " in text
    assert "The first 100 of 360 seconds told again to a fresh engine" in text
    assert f"<code>python -m pipelines.verify {out}</code>" in text
    assert not (out / "compared").exists()
    assert verify.main([str(out), "--lake", str(root)]) == 0

    judge_parity = parity.check
    with pytest.MonkeyPatch.context() as patch:

        def altered(folder: Path, **named: Any) -> Checked:
            rewrite(folder, journal.SECOND, 40, one_bit)
            return judge_parity(folder, **named)

        patch.setattr(parity, "check", altered)
        assert backtest.main([*arguments, "--compare", "100"]) == 0
    text = (out / "report.html").read_text()
    assert "parity: differs, " in text
    assert f"<code>python -m pipelines.parity --session {out / 'compared'}</code>" in text
    assert parity.main(["--session", str(out / "compared"), "--lake", str(root)]) == 1
    capsys.readouterr()
    assert verify.main([str(out), "--lake", str(root)]) == 1
    assert "different: the journal of its first seconds" in capsys.readouterr().err

    assert backtest.main([*arguments, "--compare", "none"]) == 0
    assert "parity: not checked" in (out / "report.html").read_text()
    assert not (out / "compared").exists()
    assert verify.main([str(out), "--lake", str(root)]) == 0


@pytest.mark.parametrize(("text", "seconds"), [("all", None), ("none", 0), ("0", 0), ("60", 60)])
def test_how_much_is_compared(text: str, seconds: int | None) -> None:
    """A number of seconds, all, or none."""
    assert backtest.compared_of(text) == seconds


@pytest.mark.parametrize("text", ["", "-1", "some", "1.5"])
def test_what_is_no_number_of_seconds_is_one_sentence(text: str) -> None:
    """Anything else is refused by name."""
    with pytest.raises(SettingsError, match="--compare must be a number of seconds"):
        backtest.compared_of(text)
