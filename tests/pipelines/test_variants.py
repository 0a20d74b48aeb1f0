"""Variants in a backtest are those of live: the same scorers, drawn by the same probabilities, held for their horizons."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import msgspec
import numpy as np
import polars as pl
import pytest

from live import replay
from pipelines.seconds import to_frame
from pipelines.simulation import Backtest, run_backtest
from shared import journal
from shared.errors import SettingsError
from shared.features.catalog import FEATURES
from shared.features.sampler import COLUMNS
from shared.lake import write
from shared.lake.layout import HOUR_S
from shared.strategy.bandit.learner import Bandit
from shared.strategy.config import EngineConfig
from shared.strategy.engine import Engine
from shared.strategy.scores import CoinScorer, RulesScorer
from shared.types import NS, Action, Cause, Event, Note, SecondClosed, Seconds, StopRequested, Universe
from tests.live.sessions import N_SYMBOLS, Rig
from tests.pipelines import markets
from tests.shared.strategy import made

ROWS = 480
N = 6
START_S = (markets.HOUR + 1) * HOUR_S - ROWS // 2
NAMES = ("rules/10s", "rules/30s")
EPSILON = 0.5
EXPLORING = EngineConfig(
    variants=("rules/30s",), bandit_epsilon=EPSILON, explore_bps_per_day=100.0, cooldown_s=0, side_band=1.0,
    beta_band=10.0, top_k=2, confidence_min=0.4, confidence_margin_min=0.0, slippage_bps=0.0, decay_decisions=0,
    horizons_max=1, daily_loss_limit=1.0, drawdown_max=1.0,
)  # fmt: skip

Draws = dict[int, tuple[int, float, float | None]]
"""Second -> which variant, with which probability, and the other plan's; None once a trade has taught: venues differ, and
with them what is learnt."""


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a lake whose imbalance tells where prices go, and whose contracts cost nothing: rules find enough to do."""
    folder = tmp_path_factory.mktemp("variants")
    markets.write_lake(folder, rows=ROWS, n_symbols=N)
    write.write_universe(folder, free(markets.universe(N, START_S * NS)))
    return folder


def free(listed: Universe) -> Universe:
    costs_nothing = {"taker_fee": Decimal(0), "maker_fee": Decimal(0)}
    return msgspec.structs.replace(
        listed, contracts=tuple(msgspec.structs.replace(one, **costs_nothing) for one in listed.contracts)
    )


def rules() -> RulesScorer:
    return RulesScorer(tuple(FEATURES))


def run(lake: Path, *, config: EngineConfig = EXPLORING, with_nulls: bool = False) -> Backtest:
    return run_backtest(
        lake, markets.SOURCE, scorer=rules(), config=config, start_s=START_S, end_s=START_S + ROWS, seed=5,
        with_nulls=with_nulls,
    )  # fmt: skip


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[Action]]:
    """Return what engines do from now on, by session."""
    log: dict[str, list[Action]] = {}
    original = Engine.on_event

    def listened(self: Engine, event: Event) -> list[Action]:
        actions = original(self, event)
        log.setdefault(self.session, []).extend(actions)
        return actions

    monkeypatch.setattr(Engine, "on_event", listened)
    return log


@pytest.fixture
def draws(monkeypatch: pytest.MonkeyPatch) -> Draws:
    """Return which variant is drawn for a second, and the probabilities; the caller clears it between two runs."""
    found: Draws = {}
    original = Bandit.choose_variant

    def listened(self: Bandit, second: int, now_ns: int) -> int:
        chosen = original(self, second, now_ns)
        found[second] = chosen, self._turn.variant_p, None if self.state().variants else self._turn.variant_q
        return chosen

    monkeypatch.setattr(Bandit, "choose_variant", listened)
    return found


def chose(actions: list[Action]) -> list[Note]:
    return [action for action in actions if isinstance(action, Note) and action.event == "bandit.chose"]


def test_block_scores_of_variants_are_what_an_engine_scores_itself(
    lake: Path, said: dict[str, list[Action]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Handed the scores of every variant in blocks, or none, as live is: the same actions, byte for byte, and both trade."""
    run(lake)
    [blocks] = said.values()
    said.clear()
    listened = Engine.on_event

    def without_scores(self: Engine, event: Event) -> list[Action]:
        is_second = isinstance(event, SecondClosed)
        return listened(self, msgspec.structs.replace(event, scores=None) if is_second else event)

    monkeypatch.setattr(Engine, "on_event", without_scores)
    run(lake)
    [alone] = said.values()

    assert msgspec.msgpack.encode(blocks) == msgspec.msgpack.encode(alone)
    notes = chose(blocks)
    probability = {NAMES[0]: 1 - EPSILON / 2, NAMES[1]: EPSILON / 2}
    assert {note.fields["variant"] for note in notes} == set(NAMES)
    assert all(note.fields["variant_p"] == probability[str(note.fields["variant"])] for note in notes)


def test_every_trade_is_held_as_its_variant_looks_ahead(lake: Path, said: dict[str, list[Action]]) -> None:
    """Trades that end with their horizon last ten or thirty seconds, as the variant that decided them says."""
    run(lake)
    [actions] = said.values()
    variant = {
        (note.fields["second"], symbol): note.fields["variant"]
        for note in chose(actions)
        for symbol in str(note.fields["symbols"]).split()
    }

    held: dict[object, set[int]] = {}
    for note in actions:
        if isinstance(note, Note) and note.event == "trade.closed" and note.fields["cause"] == Cause.HORIZON:
            by = variant[note.fields["decision"], str(note.fields["symbol"])]
            held.setdefault(by, set()).add(round(float(str(note.fields["duration_s"]))))

    assert held == {NAMES[0]: {10}, NAMES[1]: {30}}


def test_nulls_stand_beside_variants(lake: Path, said: dict[str, list[Action]]) -> None:
    """The coin has none; shuffled are the scores of all of them, and chosen among as the model's are."""
    backtest = run(lake, with_nulls=True)

    assert [null.name for null in backtest.nulls] == ["coin", "shuffled"]
    assert all(null.trades for null in backtest.nulls)
    variants = {name: {note.fields["variant"] for note in chose(actions)} for name, actions in said.items()}
    assert variants["backtest-coin"] == {"coin/10s"}
    assert variants["backtest-shuffled"] == set(NAMES)


def test_variants_that_live_refuses_are_refused(lake: Path) -> None:
    """One that nobody knows, one that repeats the model, and any beside a coin: a sentence each, as in live."""
    for variants, match in ((("nobody",), "must be rules"), (("rules",), "variants must differ")):
        with pytest.raises(SettingsError, match=match):
            run(lake, config=msgspec.structs.replace(EXPLORING, variants=variants))
    with pytest.raises(SettingsError, match="variants must differ"):
        run_backtest(
            lake, markets.SOURCE, scorer=CoinScorer(1), config=EXPLORING, start_s=START_S, end_s=START_S + ROWS, seed=5
        )


def test_a_session_with_variants_replays_and_its_backtest_draws_the_same(
    tmp_path: Path, draws: Draws, capsys: pytest.CaptureFixture[str]
) -> None:
    """Live between two variants: its journal replays byte for byte, and a backtest of the very seconds draws for each of
    them the variant that live drew, with the same probabilities."""
    listed = free(made.universe(N_SYMBOLS))
    rig = Rig(tmp_path / "session", "rules", config=EXPLORING, universe=listed)
    rig.adopt()
    rng, mid = np.random.default_rng(3), np.full(N_SYMBOLS, 100.0)
    blocks = []
    for _ in range(150):
        mid = (mid * (1.0 + rng.normal(0.0, 8e-4, N_SYMBOLS))).round(2)
        blocks.append(made.columns(N_SYMBOLS, mid))
        rig.close_second(blocks[-1])
    rig.runner.tell(StopRequested(recv_ns=rig.clock(), reason="test"))
    rig.trade(3)
    rig.journal.close()
    live, first = dict(draws), made.START_S
    draws.clear()

    assert replay.main([str(tmp_path / "session")]) == 0
    assert capsys.readouterr().out.startswith("identical")
    assert draws == live
    events = [record.value for record in journal.JournalReader(tmp_path / "session" / journal.FILE_NAME)]
    header = events[0]
    assert header.config.variants == EXPLORING.variants
    assert rig.venue.sent

    seconds = Seconds(first, dict(zip(COLUMNS, np.stack(blocks, axis=1), strict=True)))
    frame = to_frame(listed.symbols, seconds)
    write.write_universe(tmp_path, msgspec.structs.replace(listed, as_of_ns=first * NS))
    for (hour,), rows in frame.group_by(pl.col("second") // HOUR_S):
        assert isinstance(hour, int)
        write.write_table(tmp_path, "seconds", listed.source, hour, rows.sort("symbol", "second"), {})
    draws.clear()
    run_backtest(
        tmp_path, listed.source, scorer=rules(), config=header.config, start_s=first, end_s=first + len(blocks),
        seed=header.seed, with_nulls=False,
    )  # fmt: skip

    inside = range(first, first + len(blocks))
    taught = [second for second in inside if live[second][2] is None or draws[second][2] is None]
    untaught = range(first, taught[0])
    assert {second: draws[second] for second in untaught} == {second: live[second] for second in untaught}
    assert [draws[second][:2] for second in inside] == [live[second][:2] for second in inside]
    assert {chosen for chosen, _, _ in live.values()} == {0, 1}
    assert all(p == (1 - EPSILON / 2, EPSILON / 2)[chosen] for chosen, p, _ in live.values())
