"""What can be made to go wrong: every bad wish is refused, every good one changes what it names and nothing else."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.simulator.faults.conditions import (
    Change,
    Conditions,
    Constant,
    Lognormal,
    PushFault,
    RequestFault,
    Script,
    Uniform,
    decode_script,
    matches,
    matches_path,
)

DEEDS = {"drop_sockets", "position_mode"}


def test_every_condition_can_be_changed() -> None:
    """A state that `Change` does not know could never be set; a deed is no state."""
    assert set(Change.__struct_fields__) == set(Conditions.__struct_fields__) | DEEDS


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "latency_ms": st.floats(0, 1000),
            "is_frozen": st.booleans(),
            "lose_next_place": st.integers(0, 9) | st.just(True),
            "rate_limit_scale": st.floats(0.1, 2),
            "pushes": st.just([{"what": "lose"}]),
            "clock_skew_ms": st.floats(-1e5, 1e5),
        },
    )
)
def test_change_changes_what_it_names(wish: dict[str, Any]) -> None:
    """What a change does not name stays as it is; true counts as one."""
    conditions = Conditions(match_ms=7.0, latency_ms=3.0, bill_delay_ms=2.0)
    before = msgspec.to_builtins(conditions)

    msgspec.convert(wish, Change).apply(conditions)

    after = msgspec.to_builtins(conditions)
    assert {name for name in after if after[name] != before[name]} <= set(wish)
    for name, value in wish.items():
        assert getattr(conditions, name) == (msgspec.convert(value, list[PushFault]) if name == "pushes" else value)


def test_contract_rules_are_merged_and_given_back() -> None:
    """A symbol's rules replace its former ones, others stay, an empty row is the market's own again."""
    conditions = Conditions()

    Change(contracts={"A": {"pricePlace": "1"}, "B": {"minLever": "2"}}).apply(conditions)
    Change(contracts={"A": {"maxLever": "9"}}).apply(conditions)
    assert conditions.contracts == {"A": {"maxLever": "9"}, "B": {"minLever": "2"}}
    Change(contracts={"B": {}}).apply(conditions)

    assert conditions.contracts == {"A": {"maxLever": "9"}}


def test_rules_count_down_without_their_script() -> None:
    """A step that is taken twice has its counts twice: what is spent is a copy."""
    change, conditions = Change(requests=[RequestFault(what="silence", count=3)]), Conditions()
    change.apply(conditions)

    conditions.requests[0].count = 0
    change.apply(conditions)

    assert conditions.requests[0].count == 3


@pytest.mark.parametrize(
    ("document", "said"),
    [
        (b"{", "truncated"),
        (b'{"sed":1}', "sed"),
        (b'{"seed":-1}', "seed"),
        (b'{"conditions":{"timeout_next_plaice":1}}', "timeout_next_plaice"),
        (b'{"conditions":{"latency_ms":-1}}', "latency_ms"),
        (b'{"conditions":{"latency_ms":"1"}}', "latency_ms"),
        (b'{"conditions":{"rate_limit_scale":0}}', "rate_limit_scale"),
        (b'{"conditions":{"drop_sockets":"none"}}', "drop_sockets"),
        (b'{"conditions":{"requests":[{"what":"explode"}]}}', "explode"),
        (b'{"conditions":{"requests":[{"what":"refuse","p":1.5}]}}', "p"),
        (b'{"conditions":{"requests":[{"what":"delay"}]}}', "needs a delay"),
        (b'{"conditions":{"requests":[{"what":"torn"}]}}', "answer to tear"),
        (b'{"conditions":{"requests":[{"what":"gateway","status":99}]}}', "status"),
        (b'{"conditions":{"pushes":[{"what":"late"}]}}', "need a delay"),
        (b'{"conditions":{"pushes":[{"what":"lose","delay":{"kind":"constant","ms":1}}]}}', "need a delay"),
        (b'{"conditions":{"pushes":[{"what":"lose","stream":"both"}]}}', "both"),
        (b'{"conditions":{"pushes":[{"what":"late","delay":{"kind":"normal","ms":1}}]}}', "normal"),
        (
            b'{"conditions":{"pushes":[{"what":"late","delay":{"kind":"uniform","ms_min":2,"ms_max":1}}]}}',
            "must not exceed",
        ),
        (b'{"conditions":{"disconnects":[{"every_s":0}]}}', "every_s"),
        (b'{"steps":[{"change":{}}]}', "at_s or after"),
        (b'{"steps":[{"at_s":1,"after":{"event":"push"},"change":{}}]}', "at_s or after"),
        (b'{"steps":[{"after":{"event":"push"},"every_s":1,"change":{}}]}', "every_s needs at_s"),
        (b'{"steps":[{"at_s":1,"times":2,"change":{}}]}', "times needs every_s"),
        (b'{"steps":[{"after":{"event":"fill"},"change":{}}]}', "fill"),
        (b'{"steps":[{"after":{"event":"push","n":0},"change":{}}]}', "n"),
    ],
)
def test_wrong_script_is_refused_with_the_place(document: bytes, said: str) -> None:
    """A misspelt or impossible wish is an error that names it, not a run in which nothing goes wrong."""
    with pytest.raises(msgspec.DecodeError, match=said):
        decode_script(document)


def test_script_survives_its_own_json() -> None:
    """What the simulator shows of a script can be saved and begun again."""
    script = decode_script(
        b"""{"seed": 5, "conditions": {"is_frozen": true, "drop_sockets": true}, "steps": [
            {"at_s": 1, "every_s": 2, "times": 3, "change": {"requests": [
                {"what": "delay", "delay": {"kind": "lognormal", "p50_ms": 1, "p99_ms": 9, "spike_p": 0.5}}]}},
            {"after": {"event": "push", "name": "fill", "n": 3}, "change": {"contracts": {"A": {"maxLever": "9"}}}}]}"""
    )

    again = msgspec.json.decode(msgspec.json.encode(script), type=Script)

    assert again == script
    assert isinstance(again.steps[0].change.requests, list)


def test_latencies_have_the_percentiles_they_name() -> None:
    """p50 and p99 of a lognormal are what was asked for, a uniform stays within its bounds, spikes are added."""
    rng = np.random.default_rng(7)
    u, z = rng.random(200_000), rng.standard_normal(200_000)
    lognormal = Lognormal(p50_ms=20.0, p99_ms=300.0)
    uniform = Uniform(ms_min=3.0, ms_max=5.0)

    drawn = np.array([lognormal.at(*pair) for pair in zip(u.tolist(), z.tolist(), strict=True)])
    flat = np.array([uniform.at(x, 0.0) for x in u.tolist()])

    # The standard error of a quantile is sqrt(q(1-q)/n)/density; 5 of them in logarithms.
    sigma = math.log(15.0) / 2.3263478740408408
    assert abs(math.log(np.quantile(drawn, 0.5) / 20.0)) < 5 * sigma * 1.2533 / math.sqrt(len(u))
    assert abs(math.log(np.quantile(drawn, 0.99) / 300.0)) < 5 * sigma * 3.73 / math.sqrt(len(u))
    assert flat.min() >= 3.0
    assert flat.max() <= 5.0
    assert abs(flat.mean() - 4.0) < 5 * 2 / math.sqrt(12 * len(u))
    assert Constant(ms=4.0).at(0.3, 2.0) == 4.0


@pytest.mark.parametrize(
    ("pattern", "name", "fits"),
    [
        ("*", "books15", True),
        ("books*|trade", "trade", True),
        ("books*|trade", "ticker", False),
        ("books", "books15", False),
        ("BTCUSDT", "btcusdt", False),
        ("", "books", False),
    ],
)
def test_patterns_fit_whole_names(pattern: str, name: str, fits: bool) -> None:
    """A pattern fits a whole name, case and all, and "|" stands between alternatives."""
    assert matches(pattern, name) is fits


@pytest.mark.parametrize(
    ("pattern", "fits"),
    [
        ("*", True),
        ("order/place-order", True),
        ("place-order", True),
        ("/api/v2/mix/order/place-order", True),
        ("*/order/*", True),
        ("position/*|order/*", True),
        ("e-order", False),
        ("order/place", False),
    ],
)
def test_path_patterns_fit_ends_at_a_slash(pattern: str, fits: bool) -> None:
    """A pattern fits the whole path or its end from a slash on: `cancel-order` does not fit `batch-cancel-order`."""
    assert matches_path(pattern, "/api/v2/mix/order/place-order") is fits
