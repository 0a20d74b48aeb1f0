"""When misbehaviour strikes: seeded, counted, scripted, and nothing at all while everything is polite."""

from __future__ import annotations

import math
from typing import Any, Literal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.simulator.faults.conditions import (
    Change,
    Conditions,
    Constant,
    Disconnect,
    OrderFault,
    PushFault,
    RequestFault,
    Script,
    Strike,
    Uniform,
    decode_script,
)
from shared.simulator.faults.faults import POLITE, Fate, Faults
from shared.types import NS

PLACE = "/api/v2/mix/order/place-order"
DETAIL = "/api/v2/mix/order/detail"
TIME = "/api/v2/public/time"
PATHS = st.sampled_from([PLACE, DETAIL, TIME])
CHANCES = [
    RequestFault(what="silence", when="after", path="order/*", p=0.3),
    RequestFault(what="delay", p=0.5, delay=Uniform(ms_min=1.0, ms_max=9.0)),
    RequestFault(what="gateway", p=0.2),
]


def rude(seed: int, *rules: RequestFault, **changes: Any) -> Faults:
    faults = Faults(seed)
    faults.change(Change(requests=list(rules), **changes))
    return faults


def script(text: str) -> Script:
    return decode_script(text.encode())


# ------------------------------------------------------------------------------------------------------ requests


@given(st.lists(PATHS, max_size=50))
def test_polite_faults_do_nothing(paths: list[str]) -> None:
    """Nothing was asked for: every request is acted on and answered, no order is rejected, no login refused."""
    faults = Faults(7)

    assert all(faults.request(path) is POLITE for path in paths)
    assert faults.order("BTCUSDT") is None
    assert faults.login() is None
    assert not faults.line("public").is_on
    assert not faults.struck


@given(st.integers(0, 2**32), st.lists(PATHS, min_size=1, max_size=60))
def test_same_seed_same_fates(seed: int, paths: list[str]) -> None:
    """A run is told by its seed and what was asked: a second one meets the same faults."""
    one, two = (rude(seed, *CHANCES) for _ in range(2))

    assert [one.request(path) for path in paths] == [two.request(path) for path in paths]
    assert one.struck == two.struck


@given(st.integers(0, 2**32), st.lists(PATHS, min_size=1, max_size=60))
def test_paths_have_their_own_luck(seed: int, paths: list[str]) -> None:
    """What happens on one path does not depend on what is asked between: tasks may run in any order."""
    mixed, alone = (rude(seed, *CHANCES) for _ in range(2))

    fates = [(path, mixed.request(path)) for path in paths]

    assert [fate for path, fate in fates if path == PLACE] == [alone.request(PLACE) for _ in range(paths.count(PLACE))]


def test_seeds_differ() -> None:
    """Another seed is another run."""
    one, two = rude(1, *CHANCES), rude(2, *CHANCES)

    assert [one.request(PLACE) for _ in range(50)] != [two.request(PLACE) for _ in range(50)]


@pytest.mark.parametrize("p", [0.0, 0.01, 0.3, 0.99, 1.0])
def test_chance_strikes_as_often_as_it_says(p: float) -> None:
    """Out of n requests, np are struck, within five standard errors; 0 is never and 1 is always."""
    n, faults = 5000, rude(3, RequestFault(what="silence", p=p))

    struck = sum(faults.request(TIME).before is not None for _ in range(n))

    assert abs(struck - n * p) <= 5 * math.sqrt(n * p * (1 - p))


def test_count_is_spent() -> None:
    """A rule with a count strikes so many times, then its path is polite again; the state shows what is left."""
    faults = rude(7, RequestFault(what="reset", path="order/detail", count=2))

    fates = [faults.request(path).before for path in (DETAIL, PLACE, DETAIL, DETAIL)]

    assert [fate and fate.what for fate in fates] == ["reset", None, "reset", None]
    assert faults.conditions.requests[0].count == 0
    assert faults.struck == {"reset before order/detail": 2}


def test_lost_request_has_no_answer_to_spoil() -> None:
    """What happens before the request is acted on wins: its answer does not exist."""
    late = RequestFault(what="delay", when="after", delay=Constant(ms=5.0))
    faults = rude(7, RequestFault(what="torn", when="after"), late, RequestFault(what="silence"))

    fate = faults.request(PLACE)

    assert fate == Fate(before=RequestFault(what="silence"))


def test_delays_add_up_and_the_first_other_rule_wins() -> None:
    """Every delay that strikes counts; of what is done instead of an answer, only the first."""
    slow = RequestFault(what="delay", delay=Constant(ms=5.0, spike_p=1.0, spike_ms=100.0))
    back = RequestFault(what="delay", when="after", delay=Constant(ms=7.0))
    faults = rude(
        7, slow, slow, back, RequestFault(what="empty", when="after"), RequestFault(what="torn", when="after")
    )

    fate = faults.request(TIME)

    assert (fate.wait_before_ms, fate.before, fate.wait_after_ms) == (210.0, None, 7.0)
    assert fate.after is not None
    assert fate.after.what == "empty"


def test_next_placements_are_lost_or_unanswered() -> None:
    """The two counters of placements strike placements only: lost ones first, then those without an answer."""
    faults = Faults()
    faults.change(Change(lose_next_place=1, timeout_next_place=True))

    fates = [faults.request(path) for path in (DETAIL, PLACE, PLACE, PLACE)]

    assert [(f.before and f.before.what, f.after and f.after.what) for f in fates] == [
        (None, None), ("silence", None), (None, "silence"), (None, None),
    ]  # fmt: skip


def test_refusal_speaks_bitgets_words() -> None:
    """A code without a message has the exchange's own, 429 its own status, and a strike is spent at once."""
    faults = rude(7, RequestFault(what="refuse", code="429", count=1), RequestFault(what="refuse", code="45001"))
    faults.change(Change(refuse_next=[Strike(path="order/detail", code="1", msg="m", status=503)]))

    struck, many, maintained = (faults.request(DETAIL).before for _ in range(3))

    assert struck
    assert many
    assert maintained
    assert (struck.code, struck.message, struck.http_status) == ("1", "m", 503)
    assert (many.message, many.http_status) == ("Too Many Requests", 429)
    assert (maintained.code, maintained.http_status) == ("45001", 400)


def test_orders_and_logins_are_refused_as_counted() -> None:
    """An order fault meets its symbols only; refused logins count down with their code."""
    faults = Faults()
    faults.change(Change(orders=[OrderFault(symbol="BTC*", count=1)], refuse_logins=1, refuse_login_code=30011))

    assert faults.order("ETHUSDT") is None
    assert faults.order("BTCUSDT") is not None
    assert faults.order("BTCUSDT") is None
    assert [faults.login(), faults.login()] == [30011, None]


# -------------------------------------------------------------------------------------------------------- scripts


def test_steps_are_taken_in_time() -> None:
    """A step is taken once its time has come, again as often as it says, and the script ends when all are taken."""
    deeds: list[Change] = []
    faults = Faults(act=deeds.append)
    faults.begin(
        script(
            """{"steps": [{"at_s": 1, "change": {"is_frozen": true}},
                          {"at_s": 2, "every_s": 1, "times": 3, "change": {"drop_sockets": "private"}},
                          {"at_s": 3, "change": {"is_frozen": false}}]}"""
        ),
        now_ns=100 * NS,
    )

    seen = []
    for tenths in range(0, 60, 5):
        faults.tick(100 * NS + tenths * NS // 10)
        seen.append((faults.conditions.is_frozen, sum(bool(deed.drop_sockets) for deed in deeds)))

    frozen, drops = [one for one, _ in seen], [two for _, two in seen]
    assert frozen == [False] * 2 + [True] * 4 + [False] * 6
    assert drops == [0, 0, 0, 0, 1, 1, 2, 2, 3, 3, 3, 3]
    assert faults.steps_left == 0
    assert (faults.struck["step 0"], faults.struck["step 1"]) == (1, 3)


def test_late_clock_takes_a_repeated_step_once() -> None:
    """After a stall the repetitions that were missed are not made up for in a burst."""
    faults = Faults()
    faults.begin(script('{"steps": [{"at_s": 1, "every_s": 1, "change": {"latency_ms": 1}}]}'), 0)

    faults.tick(60 * NS)

    assert faults.struck["step 0"] == 1


@pytest.mark.parametrize("event", ["request", "push", "connect"])
def test_step_waits_for_the_nth_event(event: Literal["request", "push", "connect"]) -> None:
    """The n-th event of a name is the last polite one."""
    name = {"request": "order/place-order", "push": "fill", "connect": "private"}[event]
    faults = Faults()
    faults.begin(
        script(
            f'{{"steps": [{{"after": {{"event": "{event}", "name": "{name}", "n": 2}}, "change": {{"is_frozen": true}}}}]}}'
        ),
        0,
    )
    assert faults.counts_pushes is (event == "push")

    states = []
    for path, stream in ((DETAIL, "public"), (PLACE, "private"), (PLACE, "private")):
        faults.request(path)
        faults.count("push", {"public": "orders", "private": "fill"}[stream])
        faults.line(stream)
        states.append(faults.conditions.is_frozen)

    assert states == [False, False, True]
    assert not faults.counts_pushes


def test_script_begins_from_politeness() -> None:
    """What held before a script does not hold in it; counts and luck begin anew, so that it can be repeated."""
    faults = rude(1, RequestFault(what="silence"), is_frozen=True, contracts={"A": {"maxLever": "1"}})
    faults.request(PLACE)
    chance = Script(seed=9, conditions=Change(requests=list(CHANCES)))

    runs = []
    for _ in range(2):
        faults.begin(chance, 0)
        runs.append([faults.request(PLACE) for _ in range(30)])
        assert faults.conditions.is_frozen is False
        assert faults.conditions.contracts == {}

    fresh = rude(9, *CHANCES)
    assert runs[0] == runs[1] == [fresh.request(PLACE) for _ in range(30)]
    assert (faults.seed, faults.script.seed) == (9, 9)


def test_conditions_object_stays_the_same() -> None:
    """Whoever keeps the conditions sees every change: a script changes them in place."""
    faults = Faults()
    kept = faults.conditions

    faults.begin(Script(conditions=Change(latency_ms=5.0)), 0)

    assert kept is faults.conditions
    assert kept.latency_ms == 5.0


@given(st.lists(st.sampled_from([PLACE, DETAIL, TIME]), max_size=40), st.integers(0, 5))
def test_state_is_always_shown(paths: list[str], n: int) -> None:
    """Whatever strikes, the conditions remain what their type says: they can be shown and read again."""
    rules: list[Any] = [msgspec.structs.replace(rule, count=n) for rule in CHANCES]
    faults = rude(
        7, *rules, pushes=[PushFault(what="lose")], disconnects=[Disconnect(every_s=1.0)], timeout_next_place=n
    )

    for path in paths:
        faults.request(path)

    shown = msgspec.json.encode(faults.conditions)
    assert msgspec.json.decode(shown, type=Conditions) == faults.conditions
