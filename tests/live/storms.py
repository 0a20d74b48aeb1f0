"""Seeded failure runs for whole sessions: what may go wrong while one trades, and must not change how it ends.

A storm is a script of the simulator (docs/simulator.md). Everything in the menu is something that the exchange or the
network may do to a session which must trade on, end flat and know what it has: nothing that would rightly end it (keys
that are refused, an account that somebody else switches).
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import msgspec

from shared.simulator.faults.conditions import POLITE, Script, decode_script

CALM_S = 5.0
"""Politeness at the end of a storm: the session is told to stop in it, and closes what it has."""

PLACE, CANCEL = "order/place-order", "order/cancel-order"


def storm(seed: int, seconds: float, n_steps: int = 10) -> dict[str, Any]:
    """Return a script of `n_steps` random changes within `seconds`, and politeness after them."""
    dice = random.Random(seed)
    steps: list[dict[str, Any]] = []
    for at_s in sorted(dice.uniform(0.0, seconds) for _ in range(n_steps)):
        change: dict[str, Any] = {}
        for _ in range(dice.randint(1, 4)):
            change |= _MENU[dice.randrange(len(_MENU))](dice)
        steps.append({"at_s": round(at_s, 2), "change": change})
    steps.append({"at_s": seconds, "change": POLITE})
    return {"seed": seed, "steps": steps}


def check(script: dict[str, Any]) -> Script:
    """Return the script as the simulator reads it."""
    return decode_script(msgspec.json.encode(script))


def _latency(dice: random.Random) -> dict[str, Any]:
    if dice.random() < 0.1:  # longer than a session waits: accepted after it was given up
        return {"kind": "constant", "ms": 8000}
    if dice.random() < 0.5:
        return {"kind": "uniform", "ms_min": 0, "ms_max": dice.choice([20, 200, 1000])}
    p50 = dice.choice([2, 20, 100])
    return {"kind": "lognormal", "p50_ms": p50, "p99_ms": p50 * dice.choice([3, 20]), "spike_p": 0.01, "spike_ms": 3000}


def _requests(dice: random.Random) -> dict[str, Any]:
    rules: list[dict[str, Any]] = []
    for _ in range(dice.randint(1, 3)):
        what = dice.choice(["delay", "silence", "reset", "refuse", "gateway", "torn", "not_json", "empty"])
        rule: dict[str, Any] = {"what": what, "p": dice.choice([0.05, 0.2, 0.5])}
        rule["path"] = dice.choice(["*", "order/*", PLACE, f"{PLACE}|{CANCEL}", "position/*|account/*", "order/detail"])
        rule["when"] = "after" if what == "torn" else dice.choice(["before", "after"])
        if what == "delay":
            rule["delay"] = _latency(dice)
        if what == "refuse":
            rule["code"] = dice.choice(["429", "40010", "40015", "40725", "45001", "40200"])
            if rule["code"] in ("429", "40200"):
                rule["when"] = "before"  # the exchange does not say that it did not do what it did
        if what == "gateway":
            rule["status"] = dice.choice([500, 502, 503, 504])
        rules.append(rule)
    return {"requests": rules}


def _private_pushes(dice: random.Random) -> dict[str, Any]:
    return {"pushes": [_push(dice, "private") for _ in range(dice.randint(1, 3))]}


def _public_pushes(dice: random.Random) -> dict[str, Any]:
    return {"pushes": [_push(dice, "public") for _ in range(dice.randint(1, 3))]}


def _push(dice: random.Random, stream: str) -> dict[str, Any]:
    kinds = [
        "lose",
        "duplicate",
        "reorder",
        "late",
        "delay",
        "tear",
        "not_json",
        "unknown_field",
        "wrong_symbol",
        "cut",
    ]
    rule: dict[str, Any] = {"what": dice.choice(kinds), "stream": stream}
    rule["p"] = dice.choice([0.02, 0.2, 1.0] if rule["what"] in kinds[:5] else [0.002, 0.02])
    if rule["what"] in ("late", "delay"):
        rule["delay"] = _latency(dice)
    if stream == "private":
        rule["channel"] = dice.choice(["*", "orders", "fill", "orders|fill"])
    return rule


_MENU: list[Callable[[random.Random], dict[str, Any]]] = [
    _requests,
    _requests,
    _requests,
    _private_pushes,
    _private_pushes,
    _public_pushes,
    lambda dice: {"timeout_next_place": dice.randint(1, 3)},
    lambda dice: {"lose_next_place": dice.randint(1, 3)},
    lambda dice: {"orders": [{"p": dice.choice([0.1, 0.5]), "is_pushed": dice.random() < 0.5}]},
    lambda dice: {"drop_sockets": dice.choice(["private", "public", "all"])},
    lambda dice: {"disconnects": [{"every_s": dice.choice([2, 5]), "how": dice.choice(["abort", "close"])}]},
    lambda dice: {"latency_ms": dice.choice([1, 50, 300])},
    lambda dice: {"match_ms": dice.choice([0, 100, 1000])},
    lambda dice: {"position_delay_ms": dice.choice([50, 500, 2000])},
    lambda dice: {"bill_delay_ms": dice.choice([0, 500])},
    lambda dice: {"is_private_mute": dice.random() < 0.5},
    lambda dice: {"is_frozen": dice.random() < 0.5},
    lambda dice: {"rate_limit_scale": dice.choice([0.5, 1.0])},
    lambda dice: {"stop_never_triggers": dice.random() < 0.5},
    lambda dice: {"slow": [{"bytes_per_s": dice.choice([100_000, 1_000_000]), "stream": "public"}]},
    lambda dice: POLITE,
]  # fmt: skip
