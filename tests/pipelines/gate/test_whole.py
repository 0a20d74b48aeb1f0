"""The gate at the end of the whole road: a lake, features, labels, a pooled model walked forward, MLflow, an
out-of-sample backtest with its nulls, and the verdict, by the commands that a person types.

`lakes` and `worlds` say what is known of the worlds. Every limit is the gate's own. Speed is measured and told; where it
alone says no, which is this machine's doing, the verdict is given again with another machine's.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipelines import backtest, dataset, train
from pipelines.gate import __main__ as gate
from pipelines.gate import gather
from pipelines.generate import generate
from pipelines.prepare import prepare
from pipelines.tracking import PAPER_CHAMPION, Tracking
from shared.lake import read
from shared.lake.layout import HOUR_S
from shared.model import read_bundle
from shared.simulator.markets.market import PREDICTABILITY_MAX, GeneratedMarket
from tests.pipelines.gate import lakes
from tests.pipelines.gate.registered import FAST
from tests.pipelines.markets import HOUR

pytestmark = [pytest.mark.nightly, pytest.mark.timeout(3600)]

Road = Callable[..., dict[str, Any]]

UNSURE = {"confidence_min": 0.0, "confidence_margin_min": 0.0}
"""An engine that trades on no confidence: else it would do the refusing, for want of anything to be sure of."""


@pytest.fixture
def road(
    tmp_path: Path,
    made_database: Callable[[Path], str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Road:
    """Return train, backtest and gate in a row, as commands; it answers with the gate's verdict."""
    monkeypatch.setenv("LAKE_URI", str(tmp_path))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", made_database(tmp_path))
    monkeypatch.setenv("SLIPPAGE_BPS", "0")  # books are deep here: what is allowed for beyond the touch is never paid

    def judged() -> dict[str, Any]:
        backtested = capsys.readouterr().out
        code = gate.main(["--model", "latest", "--promote", "--json"])
        said = capsys.readouterr()
        verdict: dict[str, Any] = json.loads(said.out)
        with capsys.disabled():
            print(
                "", backtested.strip(), *(f"{c['name']}: {c['found']}" for c in verdict["criteria"]), said.err, sep="\n"
            )
        assert code == (0 if verdict["passed"] else gate.REFUSED_CODE)
        return verdict

    def go(source: str, **changes: float) -> dict[str, Any]:
        assert train.main(["--source", source]) == 0, capsys.readouterr().err
        chosen = [f"--set={name}={value}" for name, value in {"horizons_max": 1, **changes}.items()]
        assert backtest.main(["--model", "latest", *chosen]) == 0, capsys.readouterr().err
        verdict = judged()
        if no(verdict) == {"speed"}:  # measured, on this machine now: no property of what was planted
            monkeypatch.setattr(gather, "measure", lambda folder: FAST)
            verdict = judged()
        return verdict

    return go


def no(verdict: dict[str, Any]) -> set[str]:
    """Return the criteria that say no."""
    return {criterion["name"] for criterion in verdict["criteria"] if not criterion["passed"]}


def test_an_edge_that_survives_its_costs_becomes_champion(road: Road, tmp_path: Path) -> None:
    """8 bps of drift in ten seconds against 5 bps of costs: about three bps a trade are left, and every criterion says
    yes."""
    lakes.write_planted(tmp_path, seed=1, edge_bps=8.0)

    verdict = road(lakes.SOURCE)

    assert no(verdict) == set()
    trades = read.collect(read.scan(tmp_path, "backtests", lakes.SOURCE))
    assert trades["run"].n_unique() == 1
    assert 2.0 < trades["net_bps"].to_numpy().mean() < 4.0
    tracking = Tracking(f"sqlite:///{tmp_path / 'mlflow.db'}")
    champion = tracking.resolve(PAPER_CHAMPION)
    assert int(champion.version) == verdict["version"]
    assert read_bundle(tracking.bundle_folder(champion)).gate == "passed on paper"


def test_nothing_to_find_is_refused_where_nothing_costs_anything(road: Road, tmp_path: Path) -> None:
    """No drift, no fee, a spread of a hundredth of a basis point, and an engine that is told to trade on no confidence at
    all: thousands of trades that cost nothing, and no edge in them."""
    lakes.write_planted(tmp_path, seed=2, edge_bps=0.0, taker_fee="0", tick="0.0001")

    verdict = road(lakes.SOURCE, **UNSURE)

    assert not verdict["passed"]
    assert {"net edge", "deflated Sharpe"} <= no(verdict)
    assert not {"source", "window", "features", "trades", "scored twice", "calibration"} & no(verdict)


@pytest.mark.parametrize(("name", "lead_s"), [("imbalance_1", 1), ("return_10s", 11)])
def test_a_feature_that_looks_ahead_is_refused(
    road: Road,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    name: str,
    lead_s: int,
) -> None:
    """Training refuses it by name; where that check is blind, the gate is not, whatever the holdout looks like."""
    lakes.write_planted(tmp_path, seed=3, edge_bps=8.0)
    prepare(tmp_path, lakes.SOURCE, slippage_bps=0.0)
    lakes.look_ahead(tmp_path, name, lead_s)

    assert train.main(["--source", lakes.SOURCE]) == 3
    assert f"found {name} = " in capsys.readouterr().err

    monkeypatch.setattr(dataset, "check_features", lambda *_: 0)
    verdict = road(lakes.SOURCE)

    assert not verdict["passed"]
    assert "features" in no(verdict)
    if lead_s > 1:  # the return that will be earned: believed in by training, and by nobody who has to live through it
        assert "scored twice" in no(verdict)


class WithoutFees(GeneratedMarket):
    """The simulator's market at the best fee tier that one can think of; the spread is paid all the same."""

    def contracts(self, second: int | None = None) -> list[dict[str, Any]]:
        return [row | {"takerFeeRate": "0", "makerFeeRate": "0"} for row in super().contracts(second)]


@pytest.mark.parametrize("predictability", [0.0, PREDICTABILITY_MAX])
def test_the_simulators_own_market_passes_where_it_can_be_predicted_and_traded_for_nothing(
    road: Road, tmp_path: Path, predictability: float
) -> None:
    """From pushes in Bitget's wire format on: collector, log, seal, sampler, and the rest of the road."""
    market, start_s = WithoutFees(7, 20, predictability), HOUR * HOUR_S
    generate(market, tmp_path, start_s, start_s + lakes.SECONDS)

    verdict = road(market.source, **({} if predictability else UNSURE))

    if predictability:
        assert no(verdict) == set()
    else:
        assert {"net edge", "deflated Sharpe"} <= no(verdict)
        assert not {"source", "window", "features", "trades", "calibration"} & no(verdict)
