"""The bandit inside the engine: variants with their own horizons, delayed rewards, and the gate that it cannot pass."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.errors import SettingsError
from shared.replay import alternatives_of
from shared.strategy.bandit.learner import policy_digest
from shared.strategy.bandit.state import ArmState, BanditState, Mode, Permit, Policy
from shared.strategy.config import EngineConfig
from shared.strategy.engine import Engine, Memory
from shared.strategy.ranking import Gate
from shared.strategy.scores import CoinScorer, RulesScorer, Scores
from shared.types import NS, Action, Cause, Floats, OrderStatus, PlaceOrder, SecondClosed
from tests.shared.strategy.made import START_S, Script, notes, places, scores, universe

N = 6
WIDE: dict[str, Any] = {"cooldown_s": 0, "side_band": 1.0, "beta_band": 10.0, "horizons_max": 1, "decay_decisions": 0}


class Said:
    """A scorer that says what it was made to say."""

    needs_features = False
    is_null = False

    def __init__(self, name: str, horizon_s: int, edge_bps: float) -> None:
        self.name, self.horizon_s = name, horizon_s
        self._edge_bps = edge_bps

    def score(self, features: object, columns: Any, first_second: int) -> Scores:
        said = scores([1, -1] * (N // 2), edge_bps=self._edge_bps + 0.01 * (first_second % 7))
        return Scores(*(getattr(said, name)[None] for name in Scores.__struct_fields__))


def engine_of(config: EngineConfig, *scorers: Said, memory: Memory | None = None) -> Script:
    """Return a script whose engine has these scorers, the first one configured."""
    script = Script(N, config, is_adopted=False)
    script.engine = Engine(
        config, script.universe, scorers[0], session="test", seed=7, memory=memory, alternatives=scorers[1:]
    )
    script.adopt()
    script.links(True)
    return script


def close(script: Script, given_scores: Any = None) -> list[Action]:
    script.now_ns = max(script.now_ns, (script.second + 1) * NS)
    event = SecondClosed(recv_ns=script.wait(), second=script.second, columns=script.market.copy(), scores=given_scores)
    script.second += 1
    return script.tell(event)


def run(script: Script, seconds: int, given_scores: Any = None) -> list[PlaceOrder]:
    """Let seconds pass in which every order fills at once, and return the orders."""
    sent = []
    for _ in range(seconds):
        for order in places(close(script, given_scores(script.second) if given_scores is not None else None)):
            script.complete(order)
            sent.append(order)
    return sent


def exploring(**changes: Any) -> EngineConfig:
    return EngineConfig(**{**WIDE, "bandit_epsilon": 0.5, "explore_bps_per_day": 90.0, "top_k": 2, **changes})


def test_each_position_is_held_as_long_as_its_variant_looks_ahead() -> None:
    """Two variants trade in turn; every trade is attributed to the one that decided it, and held for its horizon."""
    slow, fast = Said("slow", 10, 40.0), Said("fast", 3, 40.0)
    script = engine_of(exploring(), slow, fast)
    run(script, 150)

    by_decision = {
        (note.fields["second"], symbol): note.fields["variant"]
        for note in notes(script.log, "bandit.chose")
        for symbol in str(note.fields["symbols"]).split()
    }
    closed = [note for note in notes(script.log, "trade.closed") if note.fields["cause"] == Cause.HORIZON]
    held = {"slow/10s": set[float](), "fast/3s": set[float]()}
    for note in closed:
        variant = by_decision[note.fields["decision"], str(note.fields["symbol"])]
        held[str(variant)].add(round(float(str(note.fields["duration_s"]))))
    assert held == {"slow/10s": {10}, "fast/3s": {3}}
    learnt = {name: arm.trades for name, arm in script.engine.bandit.state().variants.items()}
    assert learnt == {
        name: sum(by_decision[n.fields["decision"], str(n.fields["symbol"])] == name for n in closed) for name in held
    }


def test_given_scores_of_every_variant_change_nothing() -> None:
    """A caller that scores blocks hands over a tuple, and the actions are the bytes of an engine that scored itself."""
    scorers = Said("slow", 10, 40.0), Said("fast", 3, 40.0)
    alone, given_both = engine_of(exploring(), *scorers), engine_of(exploring(), *scorers)

    run(alone, 60)
    run(given_both, 60, lambda second: tuple(s.score(None, None, second).row(0) for s in scorers))

    assert msgspec.msgpack.encode(alone.log) == msgspec.msgpack.encode(given_both.log)


def test_probabilities_of_variants_are_logged() -> None:
    """In shadow the other variant has ε/2, and the configured one the rest; both are in the record."""
    script = engine_of(exploring(), Said("slow", 10, 40.0), Said("fast", 3, 40.0))
    run(script, 100)

    found = {(note.fields["variant"], note.fields["variant_p"]) for note in notes(script.log, "bandit.chose")}

    assert {("slow/10s", 0.75), ("fast/3s", 0.25)} <= found


def test_variants_must_differ_and_claim_an_edge() -> None:
    """The same scorer twice, or a coin among them, refuses to start with a sentence."""
    config, listed = exploring(), universe(N)
    for other in (Said("slow", 10, 1.0), CoinScorer(1)):
        with pytest.raises(SettingsError, match="variants must differ"):
            Engine(config, listed, Said("slow", 10, 1.0), session="s", seed=1, alternatives=(other,))


def test_a_session_names_its_further_scorers_and_no_unknown_one() -> None:
    """What the configuration names is what a replay makes again."""
    rules, patient = alternatives_of(EngineConfig(variants=("rules", "rules/30s")))

    assert (rules.name, rules.horizon_s) == (patient.name, RulesScorer.REACH_S) == ("rules", 10)
    assert patient.horizon_s == 30
    for unknown in ("coin", "rules/0s", "rules/s", "rules/30", "ruless"):
        with pytest.raises(SettingsError, match="must be rules"):
            alternatives_of(EngineConfig(variants=(unknown,)))


@settings(max_examples=12)
@given(st.sampled_from([*Policy]), st.sampled_from([*Mode]), st.integers(0, 1000))
def test_no_past_lifts_a_symbol_over_its_cost(policy: Policy, mode: Mode, seed: int) -> None:
    """With hundreds of bps earned before, exploring and acting: what does not clear its cost now is never entered, and
    its "why not" is its net edge."""
    config = exploring(bandit_policy=policy, bandit_mode=mode, top_k=2)
    rng = np.random.default_rng(seed)
    rich = ArmState(trades=500, weight=500.0, total_bps=500 * 400.0, scatter=500 * 225.0, scatter_dof=499.0)
    dear = {universe(N).symbols[n] for n in (0, 3)}
    permit = Permit(
        policy=policy_digest(config), model="", source="", gain_low_bps=1.0, gain_bps=2.0, entries=900, sessions=(),
        made_ns=0,
    )  # fmt: skip
    memory = Memory(bandit=BanditState(arms=dict.fromkeys(sorted(dear), rich)), permit=permit)
    script = Script(N, config, memory=memory)
    assert script.engine.bandit.mode is mode
    for _ in range(15):
        said = scores(rng.choice([-1, 1], N), edge_bps=40.0)
        edge: Floats = rng.uniform(20, 40, N)
        edge[[0, 3]] = rng.uniform(0, 12, 2)  # below the round trip of 18
        said.edge_bps[:] = said.direction * edge
        for order in places(script.close_second(said)):
            assert order.reduce_only or order.symbol not in dear
            script.complete(order)
        assert {script.reasons[n] for n in (0, 3)} == {Gate.NET_EDGE.name.lower()}
    assert script.engine.trades or script.engine.portfolio.holdings


def test_partial_fills_make_one_reward_of_what_was_filled() -> None:
    """An entry that fills in two parts, and of a third nothing, teaches once: the net bps of what was opened."""
    script = Script(1, EngineConfig(**WIDE))
    [order] = places(script.close_second(scores([1])))
    order_id, quarter = script.accept(order), order.size / 4
    script.fill(order, size=quarter, order_id=order_id)
    script.fill(order, size=quarter, order_id=order_id)
    script.report(order, OrderStatus.CANCELED, quarter * 2, order_id)
    for _ in range(12):
        for leave in places(script.close_second()):
            script.complete(leave)

    [trade] = script.engine.trades
    assert trade.size == quarter * 2
    window = script.engine.bandit.state().window
    assert window.net_bps == (trade.net_bps,)
    assert notes(script.log, "trade.closed")[0].fields["decision"] == START_S
