"""The bandit as the engine uses it: what it orders, what it learns, that it comes back exactly, and what it never does."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.errors import SettingsError
from shared.strategy.bandit.learner import BONUS_BPS_MAX, Bandit, Ordered, policy_digest
from shared.strategy.bandit.state import BanditState, Mode, Permit, Policy
from shared.strategy.config import EngineConfig
from shared.types import NS, Floats
from tests.shared.strategy.made import START_S, best_of_sides, universe

N = 12
UNIVERSE = universe(N)
SYMBOLS = UNIVERSE.symbols
VARIANTS = [("model/10s", 10), ("rules/10s", 10), ("model/60s", 60)]

PERMIT = Permit(
    policy="any",
    model="rules",
    source="simulator-made",
    gain_low_bps=0.1,
    gain_bps=0.5,
    entries=1000,
    sessions=("made",),
    made_ns=0,
)

REWARDS = st.lists(st.tuples(st.sampled_from(SYMBOLS), st.floats(-200, 200)), max_size=40)
POLICIES = st.sampled_from([*Policy])


def config(**changes: Any) -> EngineConfig:
    return EngineConfig(
        **{
            "bandit_mode": Mode.ACT,
            "explore_bps_per_day": 50.0,
            "bandit_discount": 0.97,
            "bandit_window": 30,
            **changes,
        }
    )


def bandit(changed: EngineConfig | None = None, **changes: Any) -> Bandit:
    chosen = changed if changed is not None else config()
    permit = msgspec.structs.replace(PERMIT, policy=policy_digest(chosen))
    fields: dict[str, Any] = {"seed": 7, "permit": permit, **changes}
    return Bandit(chosen, fields.pop("universe", UNIVERSE), **fields)


def teach(learner: Bandit, symbol: str, net_bps: float, second: int = START_S) -> None:
    """Let one trade of this symbol be decided, filled and closed."""
    learner.choose_variant(second, second * NS)
    learner.asked(symbol)
    learner.opened(symbol, second)
    learner.reward(symbol, net_bps)


def decide(
    learner: Bandit, second: int, net_bps: Floats, slots: tuple[int, int] = (2, 2), *, is_null: bool = False
) -> Ordered:
    """Ask for the order of a decision whose candidates are those above 0, longs first half."""
    learner.choose_variant(second, second * NS)
    return learner.order(
        second,
        second * NS,
        net_bps=net_bps,
        direction=np.where(np.arange(N) < N // 2, 1, -1).astype(np.int8),
        is_candidate=net_bps > 0,
        ties=lambda: np.random.default_rng(second).random(N),
        slots=slots,
        is_null=is_null,
    )


def chosen_of(ordered: Ordered) -> list[str]:
    return str(ordered.note["symbols"]).split()


# --------------------------------------------------------------------------------------------- state and restarts


@settings(max_examples=8)
@given(POLICIES, st.integers(0, 10_000), st.lists(st.integers(0, 39), max_size=4))
def test_restarts_change_nothing(policy: Policy, seed: int, restarts: list[int]) -> None:
    """A bandit rebuilt at random moments from its journaled state, through msgpack or JSON, decides, spends and learns
    what one that never stopped does, bit for bit."""
    rng = np.random.default_rng(seed)
    chosen = config(bandit_policy=policy, bandit_epsilon=0.3)
    first = again = bandit(chosen, variants=VARIANTS)
    again = bandit(chosen, variants=VARIANTS)
    for step in range(40):
        if step in restarts:
            stored = again.state()
            if step % 2:
                stored = msgspec.json.decode(msgspec.json.encode(stored), type=BanditState)
            else:
                stored = msgspec.msgpack.decode(msgspec.msgpack.encode(stored), type=BanditState)
            assert stored == again.state()
            again = bandit(chosen, variants=VARIANTS, state=stored)
        second, net_bps = START_S + step * 3600, rng.uniform(-5, 20, N)
        share = rng.uniform(0, 0.6)
        told = [decide(one, second, net_bps) for one in (first, again)]
        assert told[0].values.tobytes() == told[1].values.tobytes()
        assert told[0].note == told[1].note
        for symbol in chosen_of(told[0]):
            earned = float(rng.normal(0, 15))
            paid = [one.pay(SYMBOLS.index(symbol), second * NS, share) for one in (first, again)]
            assert paid[0] == paid[1]
            for one in (first, again):
                one.asked(symbol)
                one.opened(symbol, second)
                one.reward(symbol, earned)

    assert first.state() == again.state()
    assert first.records() == again.records()


@given(REWARDS)
def test_arms_of_unlisted_symbols_are_kept(rewards: list[tuple[str, float]]) -> None:
    """A symbol that leaves the universe keeps what was learned about it, older by every trade since, until it is back."""
    whole = bandit()
    for symbol, net_bps in rewards:
        teach(whole, symbol, net_bps)
    smaller = bandit(universe=universe(3), state=whole.state())
    teach(smaller, SYMBOLS[0], 1.0)
    teach(whole, SYMBOLS[0], 1.0)

    back = bandit(state=smaller.state())

    assert back.state() == whole.state()
    assert back.expected_bps().tobytes() == whole.expected_bps().tobytes()


def test_variants_that_are_not_offered_are_kept() -> None:
    """What was learned of a variant survives a session that does without it."""
    whole = bandit(variants=VARIANTS)
    teach(whole, SYMBOLS[0], 5.0)

    alone = bandit(variants=[("else/10s", 10)], state=whole.state())

    assert alone.state() == whole.state()


def test_the_first_format_is_still_read() -> None:
    """State as it was written before there were discounts: counts and sums become evidence, and are written anew."""
    stored = msgspec.msgpack.encode(
        {"count": {SYMBOLS[0]: 40, "GONE": 3}, "total_bps": {SYMBOLS[0]: 200.0, "GONE": 6.0}}
    )

    found = bandit(state=msgspec.msgpack.decode(stored, type=BanditState))

    assert found.expected_bps()[0] > found.expected_bps()[1] > 0
    assert found.state().arms["GONE"].total_bps == 6.0
    assert found.state().count == {}
    assert found.state().arms[SYMBOLS[0]].trades == 40


def test_rewards_are_basis_points() -> None:
    """One number in, the same number in the state: no percent, no fraction in between."""
    learner = bandit()
    teach(learner, SYMBOLS[1], -12.5)

    arm = learner.state().arms[SYMBOLS[1]]

    assert (arm.trades, arm.weight, arm.total_bps, arm.scatter) == (1, 1.0, -12.5, 0.0)
    assert learner.state().window.net_bps == (-12.5,)


# ------------------------------------------------------------------------------------------------- delayed rewards


def test_a_reward_belongs_to_the_decision_and_variant_that_asked() -> None:
    """Trades that close much later, in another order, with other decisions in between, teach what opened them."""
    learner = bandit(config(bandit_epsilon=0.5, bandit_mode=Mode.SHADOW), variants=VARIANTS)
    asked: dict[str, tuple[int, int]] = {}
    for step, symbol in enumerate(SYMBOLS):
        variant = learner.choose_variant(START_S + step, 0)
        learner.asked(symbol)
        asked[symbol] = START_S + step, variant
    for symbol in SYMBOLS:
        learner.opened(symbol, START_S + 50)
    assert learner.n_pending == N
    learner.choose_variant(START_S + 99, 0)

    for symbol in reversed(SYMBOLS):
        found = learner.reward(symbol, 1.0)
        assert found is not None
        assert (found.decision, found.variant) == asked[symbol]
    assert learner.n_pending == 0
    assert {v for _, v in asked.values()} > {0}  # some were explored, so that the claim means something
    trades = {name: arm.trades for name, arm in learner.state().variants.items()}
    assert trades == {VARIANTS[k][0]: count for k in range(3) if (count := sum(v == k for _, v in asked.values()))}


def test_what_nobody_decided_teaches_nothing() -> None:
    """Adopted positions, corrected ones, strangers' fills and orders older than the last entry leave no trace."""
    learner = bandit()
    before = learner.state()

    assert learner.reward(SYMBOLS[0], 5.0) is None  # adopted: never opened here
    learner.choose_variant(START_S, 0)
    learner.asked(SYMBOLS[1])
    learner.opened(SYMBOLS[1], START_S)
    learner.disowned(SYMBOLS[1])
    assert learner.reward(SYMBOLS[1], 5.0) is None  # corrected meanwhile
    learner.asked(SYMBOLS[2])
    learner.opened(SYMBOLS[2], START_S - 9)
    assert learner.reward(SYMBOLS[2], 5.0) is None  # an order of long ago that came alive
    assert learner.reward("NOWHERE", 5.0) is None

    assert learner.state() == before


def test_pending_trades_of_a_variant_make_ucb_ask_another() -> None:
    """With equal evidence, the variant that has ten trades under way waits for what they say."""
    learner = bandit(
        config(bandit_policy=Policy.DISCOUNTED_UCB, bandit_epsilon=0.0, bandit_discount=1.0), variants=VARIANTS
    )
    first = learner.choose_variant(START_S, START_S * NS)
    for symbol in SYMBOLS[:10]:
        learner.asked(symbol)
        learner.opened(symbol, START_S)

    assert learner.choose_variant(START_S + 1, START_S * NS) != first


def test_a_position_is_held_as_long_as_its_variant_looks_ahead() -> None:
    """The horizon is that of the variant which opened the position; of an adopted one the configured one."""
    learner = bandit(config(bandit_mode=Mode.SHADOW, bandit_epsilon=0.5), variants=VARIANTS)
    second = next(s for s in range(START_S, START_S + 200) if learner.choose_variant(s, s * NS) == 2)
    learner.asked(SYMBOLS[0])
    learner.opened(SYMBOLS[0], second)

    assert learner.horizon_s(SYMBOLS[0]) == 60
    assert learner.horizon_s(SYMBOLS[1]) == 10


# --------------------------------------------------------------------------------------------- what it may not do


@settings(max_examples=30)
@given(POLICIES, REWARDS, st.integers(0, 1000), st.sampled_from([*Mode]), st.sampled_from([0.0, 50.0]))
def test_only_candidates_are_chosen_and_each_slot_once(
    policy: Policy, rewards: list[tuple[str, float]], seed: int, mode: Mode, explore: float
) -> None:
    """Whatever was earned: nobody below cost is lifted, as many as there are slots are chosen, and they are those that
    the record names, with probabilities in (0, 1], and that come first by the values that are returned."""
    rng = np.random.default_rng(seed)
    learner = bandit(config(bandit_policy=policy, bandit_mode=mode, bandit_epsilon=0.3, explore_bps_per_day=explore))
    for symbol, earned in rewards:
        teach(learner, symbol, earned)
    net_bps = np.where(rng.random(N) < 0.7, rng.uniform(0, 9, N), -rng.uniform(0, 9, N))
    slots = int(rng.integers(0, 4)), int(rng.integers(0, 4))
    direction = np.where(np.arange(N) < N // 2, 1, -1).astype(np.int8)

    ordered = decide(learner, START_S, net_bps, slots)
    draws = np.random.default_rng(START_S).random(N)
    best = best_of_sides(np.flatnonzero(net_bps > 0), direction, ordered.values, draws, slots)

    assert ordered.chosen.tolist() == sorted(best)
    assert sorted(SYMBOLS[n] for n in best) == sorted(chosen_of(ordered))
    assert all(net_bps[n] > 0 for n in best)
    for side, free in ((1, slots[0]), (-1, slots[1])):
        wanted = int(((direction == side) & (net_bps > 0)).sum())
        assert sum(direction[n] == side for n in best) == min(free, wanted)
    assert all(0 < float(p) <= 1 for p in str(ordered.note["p"]).split())
    assert all(0 <= float(q) <= 1 for q in str(ordered.note["q"]).split())


@given(POLICIES, REWARDS)
def test_an_arms_past_moves_it_by_five_bps_at_most(policy: Policy, rewards: list[tuple[str, float]]) -> None:
    """The bandit decides between near equals: who is predicted to earn 10 bps more than all others is never displaced
    but by exploration that was paid for."""
    learner = bandit(config(bandit_policy=policy, bandit_epsilon=0.0))
    for symbol, earned in rewards:
        teach(learner, symbol, earned)
    net_bps = np.full(N, 1.0)
    net_bps[[2, 9]] += 2 * BONUS_BPS_MAX + 0.001

    ordered = decide(learner, START_S, net_bps, (1, 1))

    assert chosen_of(ordered) == [SYMBOLS[2], SYMBOLS[9]]
    assert ordered.note["p"] == "1.0 1.0"


@pytest.mark.parametrize(
    "permit", [None, PERMIT, msgspec.structs.replace(PERMIT, policy=policy_digest(config()), gain_low_bps=0.0)]
)
def test_without_a_permit_it_stays_in_the_shadow(permit: Permit | None) -> None:
    """Configured to act but without an estimate that allows it, or with one of another policy or without a gain, net
    edge alone decides."""
    learner = bandit(config(explore_bps_per_day=1e-9), permit=permit)
    for _ in range(50):
        teach(learner, SYMBOLS[5], 60.0)
    net_bps = np.full(N, 3.0)
    net_bps[0] = 3.1

    ordered = decide(learner, START_S, net_bps, (1, 1))

    assert learner.mode is Mode.SHADOW
    assert chosen_of(ordered)[0] == SYMBOLS[0]
    assert ordered.note["mode"] == "shadow"
    assert float(str(ordered.note["q"]).split()[0]) == 0.0  # and it says that acting would have chosen another


def test_with_a_permit_it_prefers_what_has_earned() -> None:
    """Between near equals the arm with the better past gets the slot, without any budget: that is no exploration."""
    learner = bandit(config(explore_bps_per_day=0.0))
    for _ in range(50):
        teach(learner, SYMBOLS[5], 60.0)
    net_bps = np.full(N, 3.0)
    net_bps[0] = 3.1

    assert chosen_of(decide(learner, START_S, net_bps, (1, 1)))[0] == SYMBOLS[5]


def test_weight_zero_is_net_edge_alone() -> None:
    """With bandit_weight 0 the past weighs nothing, whatever it was."""
    learner = bandit(config(bandit_weight=0.0, bandit_epsilon=0.0))
    for _ in range(50):
        teach(learner, SYMBOLS[5], 60.0)
    net_bps = np.linspace(2, 1, N)

    assert chosen_of(decide(learner, START_S, net_bps, (1, 1)))[0] == SYMBOLS[0]


@settings(max_examples=10)
@given(POLICIES, st.integers(0, 10_000), st.floats(0, 8), st.lists(st.integers(0, 59), max_size=3))
def test_exploration_never_exceeds_its_budget(policy: Policy, seed: int, limit: float, restarts: list[int]) -> None:
    """Over three days of any candidates, rewards, shares and restarts, what explored entries cost in expectation is
    within each day's budget; and once it is used up, the choice is the exploiting one."""
    rng = np.random.default_rng(seed)
    mode = Mode.ACT if seed % 2 else Mode.SHADOW
    chosen = config(bandit_policy=policy, bandit_epsilon=0.5, explore_bps_per_day=limit, bandit_mode=mode)
    learner = bandit(chosen, variants=VARIANTS)
    cap = chosen.leverage * chosen.margin_use_max * chosen.symbol_share_max
    spent: dict[int, float] = {}
    for step in range(60):
        if step in restarts:
            learner = bandit(chosen, variants=VARIANTS, state=learner.state())
        second = START_S + step * 4320
        before = learner.state().spent
        net_bps = rng.uniform(-5, 12, N)
        ordered = decide(learner, second, net_bps)
        for symbol in chosen_of(ordered):
            learner.pay(SYMBOLS.index(symbol), second * NS, rng.uniform(0, cap))
        after = learner.state().spent
        if after != before:
            day = second // 86_400
            assert after.day == day
            spent[day] = after.bps
        for symbol in chosen_of(ordered):
            learner.asked(symbol)
            learner.opened(symbol, second)
            learner.reward(symbol, float(rng.normal(0, 15)))

    assert all(bps <= limit for bps in spent.values())
    if limit == 0.0:
        assert not spent


def test_a_used_up_budget_only_exploits() -> None:
    """With nothing left, every choice is certain and the one that somebody who does not explore would make."""
    learner = bandit(config(explore_bps_per_day=0.0, bandit_epsilon=0.5))
    rng = np.random.default_rng(3)
    for step in range(40):
        net_bps = rng.uniform(1, 12, N)
        ordered = decide(learner, START_S + step, net_bps)
        worth = learner.worth_bps(net_bps)
        longs = sorted(range(N // 2), key=lambda n: -worth[n])[:2]
        assert set(chosen_of(ordered)) >= {SYMBOLS[n] for n in longs}
        assert set(str(ordered.note["p"]).split()) == {"1.0"}
        assert ordered.note["explored"] == ""
        teach(learner, SYMBOLS[step % N], float(rng.normal(0, 15)), START_S + step)


def test_a_null_scorers_lots_are_even() -> None:
    """The coin claims no edge: everybody has the same chance, slots / candidates, and the record says so."""
    ordered = decide(bandit(), START_S, np.ones(N), (2, 3), is_null=True)

    assert str(ordered.note["p"]).split() == [repr(2 / 6)] * 2 + [repr(3 / 6)] * 3
    assert (ordered.values == 0).all()
    draws = np.random.default_rng(START_S).random(N)
    assert ordered.chosen.tolist() == sorted([*np.argsort(draws[:6])[:2], *(6 + np.argsort(draws[6:])[:3])])


@settings(max_examples=20)
@given(st.integers(0, 1000), POLICIES, st.sampled_from([*Mode]))
def test_both_sides_are_explored_alike(seed: int, policy: Policy, mode: Mode) -> None:
    """In the mirrored market the same symbols are chosen with the same probabilities."""
    rng = np.random.default_rng(seed)
    net_bps, direction = rng.uniform(-1, 9, N), np.where(rng.random(N) < 0.5, 1, -1).astype(np.int8)
    notes = []
    for sign in (1, -1):
        learner = bandit(config(bandit_policy=policy, bandit_mode=mode, bandit_epsilon=0.4))
        for n in range(N):
            teach(learner, SYMBOLS[n], float(n) - 5)
        ordered = learner.order(
            START_S,
            START_S * NS,
            net_bps=net_bps,
            direction=(direction * sign).astype(np.int8),
            is_candidate=net_bps > 0,
            ties=lambda: np.random.default_rng(seed).random(N),
            slots=(2, 2),
        )
        rows = zip(*(str(ordered.note[name]).split() for name in ("symbols", "p", "q")), strict=True)
        notes.append((ordered.values.tobytes(), sorted(rows), ordered.note["explored"]))

    assert notes[0] == notes[1]


def test_a_permit_is_for_one_policy() -> None:
    """Whatever changes what the bandit would choose changes the name of its policy; other limits do not."""
    base = policy_digest(config())

    changes: list[dict[str, Any]] = [
        {"bandit_policy": Policy.SLIDING_UCB},
        {"bandit_weight": 0.5},
        {"bandit_discount": 0.9},
        {"bandit_window": 31},
        {"bandit_epsilon": 0.1},
        {"horizon_s": 20},
        {"variants": ("rules",)},
    ]
    assert len({policy_digest(config(**change)) for change in changes} | {base}) == len(changes) + 1
    assert policy_digest(config(top_k=3, daily_loss_limit=0.05)) == base


def test_records_tell_every_level() -> None:
    """Symbols, clusters, variants and all: the same trades, cut four ways, most traded first."""
    learner = bandit(variants=VARIANTS)
    for k, symbol in enumerate([*SYMBOLS[:3], SYMBOLS[0]]):
        teach(learner, symbol, 4.0 * k - 2)

    told = learner.records()

    assert [sum(record.trades for record in told[level]) for level in told] == [4, 4, 4, 4]
    assert told["symbols"][0].arm == SYMBOLS[0]
    assert told["all"][0].mean_bps == pytest.approx(4.0)
    assert bandit().records() == {}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("bandit_weight", 1.5),
        ("bandit_weight", -0.1),
        ("bandit_discount", 1.0001),
        ("bandit_discount", float("nan")),
        ("bandit_window", 3),
        ("bandit_epsilon", 0.9),
        ("explore_bps_per_day", -1.0),
        ("explore_bps_per_day", 1000.0),
    ],
)
def test_choices_out_of_bounds_refuse_to_start(name: str, value: float) -> None:
    """Every choice about the bandit has bounds, and the refusal names it."""
    changed: dict[str, Any] = {name: value}

    with pytest.raises(SettingsError, match=f"{name} must lie in"):
        EngineConfig(**changed)
