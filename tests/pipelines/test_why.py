"""Why not: every symbol and decision has a reason that can be asked for afterwards, of backtests and of sessions."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from pipelines import why
from pipelines.decisions import GATES
from pipelines.moments import when
from pipelines.seconds import to_frame
from pipelines.simulation import run_backtest
from shared.lake import read, write
from shared.lake.layout import HOUR_S
from shared.limits import config_of
from shared.settings import Settings
from shared.strategy.ranking import SAYS, Gate
from shared.types import NS
from tests.live.sessions import Rig
from tests.pipelines.markets import HOUR, SOURCE, market, universe
from tests.pipelines.test_simulation import PlantedScorer

START = (HOUR + 1) * HOUR_S - 120
END = START + 200
N_SYMBOLS = 4


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A lake with a backtest over a full hour, by a scorer that knows the planted edge; its decisions are run `abc1`."""
    folder = tmp_path_factory.mktemp("why")
    listed = universe(N_SYMBOLS, START * NS, SOURCE)
    write.write_universe(folder, listed)
    frame = to_frame(listed.symbols, market(START, END - START, N_SYMBOLS, seed=3, edge_bps=60.0))
    for hour in (HOUR, HOUR + 1):
        write.write_table(folder, "seconds", SOURCE, hour, frame.filter(pl.col("second") // HOUR_S == hour), {})
    settings = Settings(_env_file=None, confidence_min=0.4, confidence_margin_min=0.0)
    found = run_backtest(
        folder,
        SOURCE,
        scorer=PlantedScorer(),
        config=config_of(settings, horizon_s=10),
        start_s=START,
        end_s=END,
        seed=5,
        with_nulls=False,
        keeps_decisions=True,
    )
    assert found.decisions is not None
    GATES_COUNTED.update(found.main.gates)
    found.decisions.store(folder, SOURCE, "abc1")
    found.decisions.close()
    return folder


GATES_COUNTED: dict[str, int] = {}


def rows_of(lake: Path) -> pl.DataFrame:
    return read.collect(read.scan(lake, "decisions", SOURCE))


def test_every_symbol_and_decision_has_one_row(lake: Path) -> None:
    """A row a symbol and second, on both sides of the full hour, and its gates add up to what the engine counted."""
    frame = rows_of(lake).filter(pl.col("second") < END)
    counts = dict(rows_of(lake).filter(pl.col("gate") != "chosen")["gate"].value_counts().iter_rows())

    assert len(frame) == (END - START) * N_SYMBOLS == frame.select("symbol", "second").n_unique()
    assert read.hours(lake, "decisions", SOURCE) == [HOUR, HOUR + 1]
    assert counts == GATES_COUNTED
    assert set(counts) <= set(GATES)
    assert len(counts) > 3


def test_figures_are_those_that_the_gate_judged(lake: Path) -> None:
    """Net is edge less cost; whoever was not sure enough was not, and the chosen were, with an edge that pays."""
    frame = rows_of(lake)
    scored = frame.filter(pl.col("net_bps").is_finite())

    assert len(scored) > 100
    assert (scored["edge_bps"] - scored["cost_bps"] - scored["net_bps"]).abs().max() < 0.02  # type: ignore[operator]
    assert frame.filter(pl.col("gate") == "confidence")["confidence"].max() < 0.4  # type: ignore[operator]
    chosen = frame.filter(pl.col("gate") == "chosen")
    assert chosen.height > 0
    assert chosen["net_bps"].min() > 0  # type: ignore[operator]
    assert chosen["confidence"].min() >= 0.4  # type: ignore[operator]
    assert set(chosen["direction"].unique()) <= {-1, 1}


def test_one_decision_is_told_with_its_figures_and_surroundings(lake: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """SYMBOL and --at name the decision, in words, and what the seconds around it were stopped by."""
    row = rows_of(lake).filter(pl.col("gate") == "confidence").row(0, named=True)

    code = why.main([row["symbol"], "--at", str(row["second"]), "--lake", str(lake)])

    said = capsys.readouterr().out
    assert code == 0
    assert f"{row['symbol']} at {when(row['second'])}: confidence: {SAYS[Gate.CONFIDENCE]}" in said
    assert f"round trip {row['cost_bps']:.2f} bps; net {row['net_bps']:+.2f} bps" in said
    assert "run abc1" in said


def test_a_run_is_told_by_gates_with_its_nearest_miss(lake: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without --at the shares of the gates add up to everything, and the best that was not chosen is named."""
    assert why.main(["--lake", str(lake), "--run", "abc"]) == 0
    said = capsys.readouterr().out
    shares = [float(line.split()[1].rstrip("%")) for line in said.splitlines() if line.startswith("  ") and "%" in line]
    best = (
        rows_of(lake).filter((pl.col("gate") != "chosen") & pl.col("net_bps").is_finite())["net_bps"].to_numpy().max()
    )

    assert sum(shares) == pytest.approx(100, abs=0.05)
    assert f"net {best:+.2f} bps" in said


def test_everybody_at_a_moment(lake: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """--at alone tells of all symbols at that second."""
    assert why.main(["--at", str(START + 60), "--lake", str(lake)]) == 0
    assert f"{N_SYMBOLS} decisions about {N_SYMBOLS} symbols" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["NOPEUSDT"], "must have decided about NOPEUSDT"),
        (["--at", "2001-01-01"], "found nothing: ask for another --at"),
        (["--run", "zzz"], "found none called zzz"),
        (["--at", "noon"], "a time must be like"),
        (["--source", "simulator-other"], "a run must be a backtest or a session of simulator-other"),
    ],
)
def test_what_cannot_be_told_is_said(
    lake: Path, arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A symbol, a time, a run or a source without decisions ends in a sentence and an exit code."""
    assert why.main([*arguments, "--lake", str(lake)]) != 0
    assert sentence in capsys.readouterr().err


def test_a_beginning_that_two_runs_share_is_not_guessed(
    lake: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two runs that begin alike: more of the name is asked for; the whole name of one is enough."""
    part = rows_of(lake).filter(pl.col("second") // HOUR_S == HOUR)
    for run in ("abc1", "abc12"):
        write.write_table(tmp_path, "decisions", SOURCE, HOUR, part.with_columns(run=pl.lit(run)), {}, part=run)

    assert why.main(["--run", "ab", "--lake", str(tmp_path)]) != 0
    assert "found abc1, abc12: say more" in capsys.readouterr().err
    assert why.main(["--run", "abc1", "--lake", str(tmp_path)]) == 0


def test_session_is_replayed_into_the_same_decisions(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What a live engine decided is what the table says, from the journal alone; a session that went on is read anew."""
    rig = Rig(tmp_path / "journal" / "source=simulator-made" / "session=s", "rules")
    expected: list[tuple[int, str, str]] = []

    def live(seconds: int) -> None:
        for _ in range(seconds):
            rig.trade(1, seed=rig.second)
            expected.extend((rig.second - 1, symbol, gate) for symbol, gate in rig.engine.why_not().items())
        rig.journal.commit(is_durable=False)

    live(2)  # before the exchange's truth is known
    rig.adopt()
    live(38)
    assert why.main(["--lake", str(tmp_path)]) == 0
    first = len(expected)
    assert read.collect(read.scan(tmp_path, "decisions", "simulator-made")).height == first
    live(5)
    rig.journal.close()
    assert why.main(["--lake", str(tmp_path), "--run", "s"]) == 0

    frame = read.collect(read.scan(tmp_path, "decisions", "simulator-made").sort("second", "symbol"))
    assert frame.select("second", "symbol", "gate").rows() == expected
    assert {"not_adopted", "warming_up"} <= set(frame["gate"])
    assert len(expected) > first
    assert not capsys.readouterr().err
