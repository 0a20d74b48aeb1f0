"""The bandit as the engine uses it: it orders the candidates of a decision, and learns from the trades that close.

    choose_variant          before a second is scored: which scorer and horizon decide now (the second level of arms)
    order                   the candidates that cleared every gate: who gets the slots, each with its probability
    pay                     for an entry that was chosen for what it teaches, at the notional that is sent
    asked, opened, reward   an entry was sent; its first fill came; the position is closed, and earned that much

Two plans are made of every decision: *shadow* ranks by net edge alone, *act* by net edge plus what the arms' past
says, bounded by `BONUS_BPS_MAX`. The mode says which is done; of the other only the probabilities are kept. From
these notes `pipelines.bandit` estimates what the other would have earned.

A reward comes when a trade closes, minutes after other decisions were made. Until then the arm is pending, and the
bandit goes on with what it knows. A position that was found at the exchange teaches nothing: nobody decided it here.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from shared.strategy.bandit.arms import Belief, Evidence, Prior, believe, window_evidence
from shared.strategy.bandit.budget import FLOOR_BPS, Budget
from shared.strategy.bandit.choice import Lottery, Mask, best_of, lottery
from shared.strategy.bandit.draws import SYMBOLS, VARIANTS, Draws
from shared.strategy.bandit.policies import optimism_bps, thompson_bps
from shared.strategy.bandit.records import Record, record_of
from shared.strategy.bandit.state import ArmState, BanditState, Mode, Permit, Policy, Spent, Window
from shared.strategy.clusters import clusters_of
from shared.strategy.config import EngineConfig
from shared.strategy.philox import Philox
from shared.strategy.ranking import first_of, only
from shared.types import Floats, Universe

PROPOSALS: Final = 16
"""Thompson draws of a decision, of which one is acted on. More make probabilities finer and the second dearer; the
estimates stay unbiased with any number."""

BONUS_BPS_MAX: Final = 5.0
"""An arm's past moves it by so much at most: it decides between near equals, the prediction decides the rest."""

PRIOR: Final = Prior()
TOLD: Final = 20  # arms of a level that a summary tells of, most traded first


class Opened(msgspec.Struct, frozen=True):
    """Where an open position came from."""

    decision: int  # second
    variant: int


class Ordered(msgspec.Struct, frozen=True, kw_only=True):
    """Who gets the slots of a decision, and what they are ranked by."""

    chosen: NDArray[np.intp]  # symbols, ascending
    values: Floats  # (N,), those of the chosen come first on their side
    note: dict[str, str | int | float | bool | None]  # the decision's record: who was chosen, with which probability


class _Turn(msgspec.Struct):
    """What belongs to the decision at hand."""

    second: int = -1
    variant: int = 0
    variant_p: float = 1.0  # probability with which the mode's plan chose it
    variant_q: float = 1.0  # and the other plan
    variant_short_bps: float | None = None  # what it is worth less than the exploiting one; None: it is that one
    reserved_bps: float = 0.0
    short_bps: dict[int, float] = {}  # explored symbol -> what it is worth less than the one it displaced


class Bandit:
    """Learn, and order.

    Args:
        variants: what can score, as (name, seconds it looks ahead), the configured one first; (): one without a name.
        permit: None, for another policy, or without a gain: it never acts, whatever the configuration says.
    """

    def __init__(
        self,
        config: EngineConfig,
        universe: Universe,
        *,
        seed: int,
        variants: Sequence[tuple[str, int]] = (),
        state: BanditState | None = None,
        permit: Permit | None = None,
    ) -> None:
        state = _modernised(state if state is not None else BanditState())
        self._config, self._seed, self._philox = config, seed, Philox()
        names, self._horizons_s = zip(*(variants or [("", config.horizon_s)]), strict=True)
        self._n_symbols, self._n_variants = len(universe.symbols), len(names)
        clusters = clusters_of(universe)
        self.clusters = tuple(sorted({str(cluster) for cluster in clusters}))
        self._symbol_cluster = np.array([self.clusters.index(str(cluster)) for cluster in clusters], np.intp)
        self._variant_cluster = np.zeros(self._n_variants, np.intp)
        # What is not listed, or not offered, now: kept and discounted like the rest, never used.
        self._symbols = _Arms(universe.symbols, state.arms, state.window.symbols)
        self._variants = _Arms(names, state.variants, state.window.variants)
        places = zip(state.window.symbol, state.window.variant, state.window.net_bps, strict=True)
        self._window: deque[tuple[int, int, float]] = deque(
            (
                (self._symbols.at[state.window.symbols[n]], self._variants.at[state.window.variants[v]], net_bps)
                for n, v, net_bps in places
            ),
            maxlen=config.bandit_window,
        )
        self._budget = Budget(config.explore_bps_per_day, state.spent)
        self.permit, self._policy = permit, policy_digest(config)
        is_allowed = permit is not None and permit.policy == self._policy and permit.gain_low_bps > 0.0
        self.mode = Mode.ACT if config.bandit_mode is Mode.ACT and is_allowed else Mode.SHADOW
        self._asked: dict[str, Opened] = {}  # by symbol, the last entry that was sent; a symbol has one at a time
        self._opened: dict[str, Opened] = {}
        self._is_watching = self.mode is Mode.ACT or config.explore_bps_per_day > 0.0
        self._turn = _Turn()
        self._beliefs: tuple[_Known, _Known] | None = None  # of symbols and variants; None: a reward came since

    # ------------------------------------------------------------------------------------------------ what it chooses

    def horizon_s(self, symbol: str) -> int:
        """Return how long a position is held: as long as the variant that opened it looks ahead."""
        opened = self._opened.get(symbol)
        return self._horizons_s[opened.variant] if opened is not None else self._config.horizon_s

    def choose_variant(self, second: int, now_ns: int) -> int:
        """Return which variant scores this decision; always the only one where there is one."""
        turn = self._turn = _Turn(second=second)
        if self._n_variants == 1:
            return 0
        draws = Draws(self._seed, second, VARIANTS, self._philox)
        uniforms, ties = draws.uniforms(2), np.arange(self._n_variants).astype(np.float64)
        known = self._known()[1]
        shifts = self._proposals(known, self._variant_cluster, 1, np.arange(self._n_variants), draws)
        mean = known.belief.mean_bps
        configured = mean.copy()
        configured[0] = mean.max()  # in shadow the configured one is what is done, whoever looks better
        # Half of what is left: the symbols' own exploration has the other half.
        left_bps = self._budget.left_bps(now_ns) / 2.0
        act = self._lottery(shifts, mean, ties, 1, self._gross_share, left_bps)
        shadow = self._lottery(configured[None], configured, ties, 1, self._gross_share, left_bps)
        mine, other = (act, shadow) if self.mode is Mode.ACT else (shadow, act)
        chosen, _ = mine.draw(float(uniforms[0]), float(uniforms[1]), draws.uniforms(self._n_variants))
        turn.variant = int(np.argmax(chosen))
        turn.variant_p = float(mine.probability[turn.variant])
        turn.variant_q = float(other.probability[turn.variant])
        for _, short_bps in mine.shortfalls(chosen):
            turn.variant_short_bps = short_bps
            turn.reserved_bps = (short_bps + FLOOR_BPS) * self._gross_share
        return turn.variant

    def order(
        self,
        second: int,
        now_ns: int,
        *,
        net_bps: Floats,
        direction: NDArray[np.int8],
        is_candidate: Mask,
        ties: Callable[[], Floats],
        slots: tuple[int, int],
        is_null: bool = False,
    ) -> Ordered:
        """Return what to rank the candidates by: those chosen come first on their side.

        Args:
            net_bps: (N,) of an entry in `direction` after its costs, more is better; not used where `is_null`.
            direction: (N,) +1 long, -1 short.
            is_candidate: (N,) passed every gate.
            ties: (N,) uniform, the decision's own: who is first among equals. Asked for only where they decide.
            slots: for longs and for shorts.
            is_null: nothing is claimed of anybody, the ties alone decide, also for the other plan's base.
        """
        turn = self._turn = self._turn if self._turn.second == second else _Turn(second=second)
        base = np.zeros(self._n_symbols) if is_null else net_bps
        record = _Record(is_chance=turn.variant_p < 1.0)
        is_long = direction > 0
        sides = [
            ((is_candidate & side).nonzero()[0], free)
            for side, free in zip((is_long, ~is_long), slots, strict=True)
            if free > 0
        ]
        contested = [(at, free) for at, free in sides if free < len(at)]
        taken = [at for at, free in sides if free >= len(at)]
        for at in taken:
            record.add_sure(at)
        if not self._is_watching:  # what acting would have chosen is nobody's question
            for at, free in contested:
                best = np.sort(at[first_of(base[at], only(ties, at), free)])
                record.add_sure(best, free / len(at) if is_null else 1.0)
                taken.append(best)
        if not contested or not self._is_watching:
            return self._ordered(taken, base, record)

        known, tie = self._known()[0], ties()
        mean_bps, values = known.belief.mean_bps, base.copy()
        worth_bps = base + self._config.bandit_weight * self._bounded(mean_bps, known.belief)
        # Both sides alike: the mirrored market must be explored mirrored, so neither is served first.
        left_bps = max(self._budget.left_bps(now_ns) - turn.reserved_bps, 0.0) / 2.0
        dice = self._dice(second, known, contested) if left_bps > 0.0 and not is_null else None
        record.is_chance = record.is_chance or is_null or dice is not None
        for at, free in contested:
            worth, plain, believed = worth_bps[at], base[at], mean_bps[at]
            if dice is not None:
                args = (tie[at], free, self._entry_share, left_bps)
                act = self._lottery(plain + dice.shifts[:, at], worth, *args)
                shadow = self._lottery(plain[None], plain, *args)
                mine, other = (act, shadow) if self.mode is Mode.ACT else (shadow, act)
                chosen, values[at] = mine.draw(dice.u_proposal, dice.u_swap, dice.u_pick[at])
                record.add(at, mine.probability, other.probability, believed, chosen)
                taken.append(at[chosen])
                for position, short_bps in mine.shortfalls(chosen):
                    turn.short_bps[int(at[position])] = short_bps
                continue
            hopeful, plainly = (best_of(row[None], tie[at], free)[0][0] for row in (worth, plain))
            p, q = hopeful.astype(np.float64), plainly.astype(np.float64)
            chosen = plainly
            if is_null:
                record.add(at, np.full(len(at), free / len(at)), p, believed, plainly)
            elif self.mode is Mode.ACT:
                values[at], chosen = worth, hopeful
                record.add(at, p, q, believed, hopeful)
            else:
                record.add(at, q, p, believed, plainly)
            taken.append(at[chosen])
        return self._ordered(taken, values, record)

    def _ordered(self, taken: list[NDArray[np.intp]], values: Floats, record: _Record) -> Ordered:
        chosen = np.sort(np.concatenate(taken)) if taken else np.zeros(0, np.intp)
        return Ordered(chosen=chosen, values=values, note=self._note(record))

    def worth_bps(self, net_bps: Floats) -> Floats:
        """Return what somebody who does not explore ranks by, (N,): in shadow net edge alone."""
        if self.mode is Mode.SHADOW:
            return net_bps
        belief = self._known()[0].belief
        worth: Floats = net_bps + self._config.bandit_weight * self._bounded(belief.mean_bps, belief)
        return worth

    def explores(self, n: int) -> bool:
        """Say whether an entry in symbol n would be sent for what it teaches, and has to be paid for."""
        return n in self._turn.short_bps or self._turn.variant_short_bps is not None

    def pay(self, n: int, now_ns: int, share: float) -> bool:
        """Charge what an entry in symbol n costs beyond exploiting; False: it may not be sent.

        Args:
            share: its notional [1 of equity].
        """
        turn = self._turn
        short_bps = turn.short_bps.get(n)
        cost_bps = 0.0 if short_bps is None else short_bps + FLOOR_BPS
        if turn.variant_short_bps is not None:
            cost_bps += turn.variant_short_bps + FLOOR_BPS
        return cost_bps == 0.0 or self._budget.charge(now_ns, cost_bps * share)

    # --------------------------------------------------------------------------------------------------- what it learns

    def asked(self, symbol: str) -> None:
        """Hear that an entry of the decision at hand was sent; whatever it takes to fill it, it is this decision's."""
        self._asked[symbol] = Opened(self._turn.second, self._turn.variant)

    def opened(self, symbol: str, sent_second: int) -> None:
        """Hear that a fill has opened a position: what it will earn was earned by the decision that asked for it.

        Args:
            sent_second: when the order was sent; one that is older than what was asked last belongs to nobody.
        """
        asked = self._asked.pop(symbol, None)
        if asked is not None and sent_second >= asked.decision:
            self._opened[symbol] = asked
        else:
            self._opened.pop(symbol, None)

    def disowned(self, symbol: str) -> None:
        """Hear that a position is nobody's decision here: adopted, or corrected. It teaches nothing."""
        self._opened.pop(symbol, None)

    def reward(self, symbol: str, net_bps: float) -> Opened | None:
        """Learn from a closed trade; return where it came from, None where nothing was learnt."""
        opened = self._opened.pop(symbol, None)
        if opened is None:
            return None
        assert np.isfinite(net_bps), f"{symbol} earned {net_bps}"
        variant = self._variants.names[opened.variant]
        for arms, name in ((self._symbols, symbol), (self._variants, variant)):
            arms.evidence.discount(self._config.bandit_discount)
            arms.evidence.add_one(arms.at[name], net_bps)
            arms.trades[arms.at[name]] += 1
        self._window.append((self._symbols.at[symbol], opened.variant, net_bps))
        self._beliefs = None
        return opened

    def state(self) -> BanditState:
        """Return what a restart needs; a bandit made from it continues bit for bit."""
        symbols = _Names(self._symbols.names)
        variants = _Names(self._variants.names)
        rows = [(symbols.place(n), variants.place(v), net_bps) for n, v, net_bps in self._window]
        return BanditState(
            arms=self._symbols.state(),
            variants=self._variants.state(),
            window=Window(
                symbols=tuple(symbols.used),
                variants=tuple(variants.used),
                symbol=tuple(row[0] for row in rows),
                variant=tuple(row[1] for row in rows),
                net_bps=tuple(row[2] for row in rows),
            ),
            spent=self._budget.state(),
        )

    # ------------------------------------------------------------------------------------------------- what it shows

    @property
    def n_pending(self) -> int:
        """Return how many open positions will still teach."""
        return len(self._opened)

    @property
    def spent(self) -> Spent:
        """Return what exploration has cost on its last day."""
        return self._budget.state()

    def summary(self) -> dict[str, Any]:
        """Return what a session tells of it at its end: mode, budget, and the records with their uncertainty."""
        records = self.records()
        return {
            "mode": str(self.mode),
            "policy": self._policy,
            "spent_bps": self.spent.bps,
            "pending": self.n_pending,
            "records": {level: msgspec.to_builtins(rows[:TOLD]) for level, rows in records.items()},
        }

    def expected_bps(self) -> Floats:
        """Return what every symbol is believed to earn, net, after borrowing from its cluster, (N,)."""
        return self._known()[0].belief.mean_bps

    def records(self) -> dict[str, list[Record]]:
        """Return the records of the last trades by level: all, variants, clusters, symbols; most trades first."""
        rows = list(self._window)
        if not rows:
            return {}
        symbol = np.array([row[0] for row in rows])
        variant = np.array([row[1] for row in rows])
        net_bps = np.array([row[2] for row in rows])
        unlisted = np.full(len(self._symbols.names) - self._n_symbols, -1)
        cluster = np.concatenate([self._symbol_cluster, unlisted])[symbol]
        levels = {
            "all": (("all",), np.zeros(len(rows), np.intp)),
            "variants": (self._variants.names, variant),
            "clusters": (self.clusters, cluster),
            "symbols": (self._symbols.names, symbol),
        }
        told: dict[str, list[Record]] = {}
        for level, (names, arm) in levels.items():
            found = [record_of(names[k], net_bps[arm == k]) for k in np.unique(arm[arm >= 0])]
            told[level] = sorted(found, key=lambda record: (-record.trades, record.arm))
        return told

    # ------------------------------------------------------------------------------------------------- small things

    def _bounded(self, values: Floats, belief: Belief) -> Floats:
        """Return how far arms stand above the average symbol, within the bound."""
        average_bps = np.cumsum(belief.mean_bps)[-1] / self._n_symbols
        bounded: Floats = (values - average_bps).clip(-BONUS_BPS_MAX, BONUS_BPS_MAX)
        return bounded

    @property
    def _entry_share(self) -> float:
        """Return the most that one entry's notional can be [1 of equity]."""
        return self._gross_share * self._config.symbol_share_max

    @property
    def _gross_share(self) -> float:
        return self._config.leverage * self._config.margin_use_max

    def _lottery(
        self, values: Floats, worth_bps: Floats, ties: Floats, slots: int, share_max: float, left_bps: float
    ) -> Lottery:
        epsilon = self._config.bandit_epsilon
        return lottery(values, worth_bps, ties, slots, epsilon=epsilon, share_max=share_max, left_bps=left_bps)

    def _dice(self, second: int, known: _Known, sides: list[tuple[NDArray[np.intp], int]]) -> _Dice:
        """Return what chance has to say about a decision: one for both sides."""
        draws = Draws(self._seed, second, SYMBOLS, self._philox)
        uniforms, u_pick = draws.uniforms(2), draws.uniforms(self._n_symbols)
        both = np.sort(np.concatenate([at for at, _ in sides]))
        hopes = self._proposals(known, self._symbol_cluster, len(self.clusters), both, draws)
        shifts = np.zeros((len(hopes), self._n_symbols))
        shifts[:, both] = self._config.bandit_weight * self._bounded(hopes, known.belief)
        return _Dice(float(uniforms[0]), float(uniforms[1]), u_pick, shifts)

    def _known(self) -> tuple[_Known, _Known]:
        if self._beliefs is None:
            if self._config.bandit_policy is Policy.SLIDING_UCB:
                symbols, variants = self._windowed()
            else:
                symbols = self._symbols.evidence.take(self._n_symbols)
                variants = self._variants.evidence.take(self._n_variants)
            self._beliefs = (
                _Known(symbols, believe(symbols, self._symbol_cluster, len(self.clusters), PRIOR)),
                _Known(variants, believe(variants, self._variant_cluster, 1, PRIOR)),
            )
        return self._beliefs

    def _windowed(self) -> tuple[Evidence, Evidence]:
        n_symbols, n_variants = len(self._symbols.names), len(self._variants.names)
        rows = list(self._window)
        net_bps = np.array([row[2] for row in rows])
        symbol = np.array([row[0] for row in rows], np.intp)
        variant = np.array([row[1] for row in rows], np.intp)
        return (
            window_evidence(symbol, net_bps, n_symbols).take(self._n_symbols),
            window_evidence(variant, net_bps, n_variants).take(self._n_variants),
        )

    def _proposals(
        self, known: _Known, cluster: NDArray[np.intp], n_clusters: int, at: NDArray[np.intp], draws: Draws
    ) -> Floats:
        """Return what the policy believes, hopes or dreams of the arms at `at`, (M, A) bps."""
        evidence, belief = known.evidence, known.belief
        if self._config.bandit_policy is not Policy.THOMPSON:
            return optimism_bps(belief, evidence.weight, self._pending(known))[None, at]
        part = msgspec.structs.replace(belief, noise=belief.noise[at], noise_dof=belief.noise_dof[at])
        n = len(at)
        width = 1 + n_clusters + n
        z = draws.normals(PROPOSALS * width + n)
        z_noise, z = z[PROPOSALS * width :], z[: PROPOSALS * width].reshape(PROPOSALS, width)
        return thompson_bps(
            part,
            evidence.weight[at],
            evidence.total_bps[at],
            cluster[at],
            PRIOR,
            z_all=z[:, :1],
            z_cluster=z[:, 1 : 1 + n_clusters],
            z_arm=z[:, 1 + n_clusters :],
            z_noise=z_noise,
        )

    def _pending(self, known: _Known) -> Floats | float:
        """Return how many trades of each variant are under way; of a symbol there is one at most, and it has a slot."""
        if not self._opened or known is not self._known()[1]:
            return 0.0
        under_way = [opened.variant for opened in self._opened.values()]
        return np.bincount(under_way, minlength=len(self._variants.names))[: self._n_variants].astype(np.float64)

    def _note(self, record: _Record) -> dict[str, str | int | float | bool | None]:
        turn = self._turn
        return {
            "second": turn.second,
            "mode": str(self.mode),
            "policy": self._policy,
            "is_chance": record.is_chance,
            "variant": self._variants.names[turn.variant],
            "variant_p": turn.variant_p,
            "variant_q": turn.variant_q,
            "symbols": " ".join(self._symbols.names[n] for n in record.symbols),
            "p": " ".join(map(repr, record.p)),
            "q": " ".join(map(repr, record.q)),
            "believed_bps": " ".join(map(repr, record.believed_bps)),
            "direct_q_bps": record.direct_q_bps,
            "unsupported": record.unsupported,
            "explored": " ".join(self._symbols.names[n] for n in sorted(turn.short_bps)),
        }


class _Known(msgspec.Struct, frozen=True):
    evidence: Evidence
    belief: Belief


class _Dice(msgspec.Struct, frozen=True):
    u_proposal: float
    u_swap: float
    u_pick: Floats  # (N,)
    shifts: Floats  # (M, N), what each proposal adds to net edge; 0 where nobody is a candidate


class _Record(msgspec.Struct):
    """The chosen of both sides, and sums over the candidates among whom there was a choice."""

    is_chance: bool = False  # something could have been chosen otherwise: an estimate can learn from it
    symbols: list[int] = []
    p: list[float] = []  # of the plan that was followed
    q: list[float] = []  # of the other
    believed_bps: list[float] = []
    direct_q_bps: float = 0.0  # Σ q · believed over all candidates
    unsupported: float = 0.0  # Σ q where p is 0: what the other plan would do and this one never does

    def add_sure(self, at: NDArray[np.intp], p: float = 1.0) -> None:
        """Note what both plans choose: what is believed of it cancels out, and is not asked for."""
        self.symbols += at.tolist()
        self.p += [p] * len(at)
        self.q += [p] * len(at)
        self.believed_bps += [0.0] * len(at)

    def add(self, at: NDArray[np.intp], p: Floats, q: Floats, believed_bps: Floats, chosen: Mask) -> None:
        self.symbols += at[chosen].tolist()
        self.p += p[chosen].tolist()
        self.q += q[chosen].tolist()
        self.believed_bps += believed_bps[chosen].tolist()
        self.direct_q_bps += np.cumsum(q * believed_bps).item(-1)
        self.unsupported += np.cumsum(np.where(p == 0.0, q, 0.0)).item(-1)


class _Arms:
    """Arms by name: those of now first, then those that are only remembered."""

    def __init__(self, listed: tuple[str, ...], known: dict[str, ArmState], seen: tuple[str, ...]) -> None:
        later = dict.fromkeys(name for name in (*sorted(known), *seen) if name not in set(listed))
        self.names: tuple[str, ...] = (*listed, *later)
        self.at = {name: n for n, name in enumerate(self.names)}
        self.evidence = Evidence.empty(len(self.names))
        self.trades = [0] * len(self.names)
        for name, arm in known.items():
            n = self.at[name]
            self.trades[n] = arm.trades
            self.evidence.weight[n], self.evidence.total_bps[n] = arm.weight, arm.total_bps
            self.evidence.scatter[n], self.evidence.scatter_dof[n] = arm.scatter, arm.scatter_dof

    def state(self) -> dict[str, ArmState]:
        evidence = self.evidence
        return {
            name: ArmState(
                trades=self.trades[n],
                weight=float(evidence.weight[n]),
                total_bps=float(evidence.total_bps[n]),
                scatter=float(evidence.scatter[n]),
                scatter_dof=float(evidence.scatter_dof[n]),
            )
            for name, n in sorted(self.at.items())
            if self.trades[n]
        }


class _Names:
    """Number names by first use."""

    def __init__(self, names: tuple[str, ...]) -> None:
        self._names = names
        self.used: dict[str, int] = {}

    def place(self, n: int) -> int:
        return self.used.setdefault(self._names[n], len(self.used))


def _modernised(state: BanditState) -> BanditState:
    """Return a state of the first format in the present one: sums without scatter, nothing discounted yet."""
    if not state.count:
        return state
    arms = {
        symbol: ArmState(
            trades=count, weight=float(count), total_bps=state.total_bps[symbol], scatter=0.0, scatter_dof=0.0
        )
        for symbol, count in state.count.items()
        if count > 0 and symbol not in state.arms
    }
    return msgspec.structs.replace(state, arms={**arms, **state.arms}, count={}, total_bps={})


def policy_digest(config: EngineConfig) -> str:
    """Return a name for everything that decides what the bandit would choose: a permit is for one of them."""
    parts = (
        str(config.bandit_policy),
        config.bandit_weight,
        config.bandit_discount,
        config.bandit_window,
        config.bandit_epsilon,
        config.variants,
        config.horizon_s,
        str(config.entry_kind),
        PROPOSALS,
        BONUS_BPS_MAX,
        *msgspec.structs.astuple(PRIOR),
    )
    return hashlib.blake2b("\x1f".join(map(repr, parts)).encode(), digest_size=6).hexdigest()
