"""When misbehaviour strikes: `Conditions` and a seed in, decisions out. No sockets and no clock in here.

    request(path) -> Fate        what becomes of a REST request, before and after it is acted on
    order(symbol) -> OrderFault  whether an accepted order is rejected when it is matched
    login() -> code              whether a login is refused
    line(stream) -> Line         a connection's outgoing frames pass through it (`lines`)
    tick(now_ns)                 takes the steps of the script that are due

Randomness is a counter-based generator (Philox) for each stream of events, keyed by the seed and the stream's name: a
path, a connection ("public 3": the third public one), "orders". So the same seed and the same sequence of events of a
stream misbehave the same, whatever happens on the other streams (but for a rule's `count`, which they share), and a run
is told by its seed and its script.

Every strike is counted in `struck`; what was asked for and never struck is visible there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from hashlib import blake2b
from weakref import WeakSet

import msgspec
import numpy as np

from shared.simulator.faults.conditions import (
    After,
    Change,
    Conditions,
    Latency,
    OrderFault,
    RequestFault,
    Script,
    Step,
    matches,
    matches_path,
)
from shared.simulator.faults.lines import Line
from shared.types import NS

PLACE_PATH = "order/place-order"

Act = Callable[[Change], None]


class Fate(msgspec.Struct, frozen=True):
    """What becomes of one request: waits, and what happens instead of acting on it or instead of its answer."""

    wait_before_ms: float = 0.0
    before: RequestFault | None = None  # None: it is acted on
    wait_after_ms: float = 0.0
    after: RequestFault | None = None  # None: it is answered


POLITE = Fate()


class Draws:
    """Random numbers of one stream of events."""

    def __init__(self, seed: int, name: str) -> None:
        key = int.from_bytes(blake2b(name.encode(), digest_size=8).digest(), "big")
        self._generator = np.random.Generator(np.random.Philox(np.random.SeedSequence((seed, key))))

    def strikes(self, p: float) -> bool:
        return bool(self._generator.random() < p)

    def ms(self, latency: Latency) -> float:
        """Draw a latency; always four numbers, so that the sequence does not depend on its kind."""
        u, spike = self._generator.random(2)
        z = self._generator.standard_normal()
        return latency.at(float(u), float(z)) + (latency.spike_ms if spike < latency.spike_p else 0.0)

    def below(self, n: int) -> int:
        """Draw an integer in [0, n)."""
        return int(self._generator.integers(n))

    def exponential(self, mean: float) -> float:
        return float(self._generator.exponential(mean))


class _Waiting(msgspec.Struct):
    """A step that has not been taken for the last time."""

    step: Step
    due_ns: int | None  # None: it waits for an event
    seen: int = 0  # events so far
    taken: int = 0


class Faults:
    """Decides what goes wrong.

    Args:
        seed: of every draw.
        act: does the deeds of a change (sockets, position mode) and shows its states to whoever keeps copies of them;
            called after the states have changed.
    """

    def __init__(self, seed: int = 0, act: Act = lambda change: None) -> None:
        self.conditions = Conditions()
        self.seed, self.script = seed, Script(seed=seed)
        self.struck: Counter[str] = Counter()
        self._act = act
        self._draws: dict[str, Draws] = {}
        self._connects: Counter[str] = Counter()
        self._lines: WeakSet[Line] = WeakSet()
        self._waiting: list[_Waiting] = []
        self._now_ns = 0

    # ------------------------------------------------------------------------------------- what is wanted

    def change(self, change: Change) -> None:
        """Apply a change now."""
        change.apply(self.conditions)
        self._act(change)
        self.refresh()

    def begin(self, script: Script, now_ns: int) -> None:
        """Begin a script; what it does not name becomes polite, counters and random streams begin anew.

        Args:
            now_ns: of a clock that never goes back, real time; `tick` has the same.
        """
        if script.seed is not None:
            self.seed = script.seed
        self.script = msgspec.structs.replace(script, seed=self.seed)
        polite = Conditions()
        for name in Conditions.__struct_fields__:
            setattr(self.conditions, name, getattr(polite, name))
        self.struck.clear()
        self._draws.clear()
        self._now_ns = now_ns
        self._waiting = [
            _Waiting(step, None if step.at_s is None else now_ns + int(step.at_s * NS)) for step in script.steps
        ]
        for line in self._lines:
            line.restart(self.draws(line.name))
        self.change(script.conditions)
        self.tick(now_ns)

    def tick(self, now_ns: int) -> None:
        """Take the steps that are due by time; steps of one instant are taken in the order of the script."""
        self._now_ns = now_ns
        for waiting in list(self._waiting):
            while waiting in self._waiting and waiting.due_ns is not None and waiting.due_ns <= now_ns:
                self._take(waiting)

    def refresh(self) -> None:
        """Switch lines on or off; called whenever the conditions or the script's triggers have changed."""
        for line in self._lines:
            line.refresh()

    @property
    def steps_left(self) -> int:
        return len(self._waiting)

    @property
    def counts_pushes(self) -> bool:
        """Tell whether a step waits for a push."""
        return any(w.step.after is not None and w.step.after.event == "push" for w in self._waiting)

    # --------------------------------------------------------------------------------------- what strikes

    def request(self, path: str) -> Fate:
        """Decide about one request."""
        told, fate = self.conditions, POLITE
        if (
            told.requests
            or told.refuse_next
            or ((told.lose_next_place or told.timeout_next_place) and path.endswith(PLACE_PATH))
        ):
            fate = self._fate(path)
        if self._waiting:
            self.count("request", path)
        return fate

    def order(self, symbol: str) -> OrderFault | None:
        """Decide about an order that is about to be matched; None: it is matched."""
        for rule in self.conditions.orders:
            if matches(rule.symbol, symbol) and self._hits(rule, self.draws("orders")):
                self.strike(f"order {'rejected' if rule.is_pushed else 'rejected in silence'}")
                return rule
        return None

    def login(self) -> int | None:
        """Return the code that a login is refused with; None: it is looked at."""
        if self.conditions.refuse_logins <= 0:
            return None
        self.conditions.refuse_logins -= 1
        self.strike("login refused")
        return self.conditions.refuse_login_code

    def line(self, stream: str) -> Line:
        """Return the line of a new connection ("public" or "private")."""
        self._connects[stream] += 1
        name = f"{stream} {self._connects[stream]}"
        line = Line(self, stream, name, self.draws(name))
        self._lines.add(line)
        if self._waiting:
            self.count("connect", stream)
        return line

    # ----------------------------------------------------------------------------------------- for lines

    def draws(self, name: str) -> Draws:
        """Return the random numbers of a stream of events."""
        found = self._draws.get(name)
        if found is None:
            found = self._draws[name] = Draws(self.seed, name)
        return found

    def strike(self, what: str) -> None:
        self.struck[what] += 1

    def count(self, event: str, name: str) -> None:
        """Count an event; take the steps that waited for it."""
        for waiting in list(self._waiting):
            after = waiting.step.after
            if after is None or after.event != event or not _is_named(after, name):
                continue
            waiting.seen += 1
            if waiting.seen == after.n:
                self._take(waiting)

    # --------------------------------------------------------------------------------------------- inside

    def _take(self, waiting: _Waiting) -> None:
        step = waiting.step
        waiting.taken += 1
        is_last = step.every_s is None or waiting.taken == step.times
        if is_last:
            self._waiting.remove(waiting)
        else:
            assert waiting.due_ns is not None
            assert step.every_s is not None
            waiting.due_ns = max(waiting.due_ns + int(step.every_s * NS), self._now_ns + 1)
        self.strike(f"step {self.script.steps.index(step)}")
        self.change(step.change)

    def _fate(self, path: str) -> Fate:
        wait_before_ms = wait_after_ms = 0.0
        before = after = None
        told = self.conditions
        for strike in told.refuse_next:
            if path.endswith(strike.path):
                told.refuse_next.remove(strike)
                before = RequestFault(what="refuse", code=strike.code, msg=strike.msg, status=strike.status)
                self.strike(f"refuse before {_tail(path)}")
                break
        if before is None and path.endswith(PLACE_PATH):
            if told.lose_next_place > 0:
                told.lose_next_place -= 1
                before = RequestFault(what="silence")
                self.strike(f"silence before {PLACE_PATH}")
            elif told.timeout_next_place > 0:
                told.timeout_next_place -= 1
                after = RequestFault(what="silence", when="after")
                self.strike(f"silence after {PLACE_PATH}")
        for rule in told.requests:
            is_before = rule.when == "before"
            if rule.what != "delay" and (before is not None or (after is not None and not is_before)):
                continue
            draws = self.draws(f"request {path}")
            if not matches_path(rule.path, path) or not self._hits(rule, draws):
                continue
            self.strike(f"{rule.what} {rule.when} {_tail(path)}")
            if rule.delay is not None:
                wait_before_ms += draws.ms(rule.delay) if is_before else 0.0
                wait_after_ms += draws.ms(rule.delay) if not is_before else 0.0
            elif is_before:
                before = rule
            else:
                after = rule
        if before is not None:  # what is not acted on has no answer to spoil
            after, wait_after_ms = None, 0.0
        return Fate(wait_before_ms, before, wait_after_ms, after)

    @staticmethod
    def _hits(rule: RequestFault | OrderFault, draws: Draws) -> bool:
        """Draw whether a rule strikes, and count it down."""
        if not draws.strikes(rule.p) or rule.count == 0:
            return False
        if rule.count is not None:
            rule.count -= 1
        return True


def _is_named(after: After, name: str) -> bool:
    return matches_path(after.name, name) if after.event == "request" else matches(after.name, name)


def _tail(path: str) -> str:
    """Return the last two parts of a path: what rules and counts call it."""
    return "/".join(path.rsplit("/", 2)[-2:])
