"""Settings become limits in one place."""

from __future__ import annotations

import ast
from typing import Any

import msgspec
import pytest

from shared.limits import by_default, config_of
from shared.settings import ROOT, Settings
from shared.types import OrderKind

OTHERS: dict[str, Any] = {
    "symbols": ("BTCUSDT",),
    "leverage": 3,
    "daily_loss_limit": 0.5,
    "max_drawdown_pct": 0.5,
    "top_k": 2,
    "decision_seconds": 7,
    "confidence_min": 0.9,
    "confidence_margin_min": 0.3,
    "kill_spread_bps_max": 3.0,
    "kill_depth_usdt_min": 77.0,
    "slippage_bps": 9.0,
    "bandit_mode": "act",
    "explore_bps_per_day": 5.0,
}
"""A value for each setting that limits trading, other than its default."""


@pytest.mark.parametrize("name", OTHERS)
def test_every_limit_that_a_person_sets_reaches_the_engine(name: str) -> None:
    """Kill switches were once declared and never read: changing one changes exactly one limit of the engine."""
    by_default = msgspec.structs.asdict(config_of(Settings(_env_file=None), horizon_s=None))
    changed = msgspec.structs.asdict(config_of(Settings(_env_file=None, **{name: OTHERS[name]}), horizon_s=None))

    differing = {field: value for field, value in changed.items() if value != by_default[field]}

    assert list(differing.values()) == [OTHERS[name]]


def test_horizon_kind_and_symbols_are_those_of_the_caller() -> None:
    """Scores know their horizon, a command line its symbols."""
    config = config_of(Settings(_env_file=None), horizon_s=30, symbols=("AUSDT",), entry_kind=OrderKind.POST_ONLY)

    assert (config.horizon_s, config.symbols, config.entry_kind) == (30, ("AUSDT",), OrderKind.POST_ONLY)


def test_limits_by_default_are_nobodys_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """A report tells what was set: the environment of its reader is not the default."""
    unset = config_of(Settings(_env_file=None), horizon_s=None)
    monkeypatch.setenv("TOP_K", "1")

    assert config_of(Settings(_env_file=None), horizon_s=None).top_k == 1
    assert by_default() == unset


def test_nobody_else_makes_limits() -> None:
    """Two builders drift apart (they did: five orders a second live, eight in the backtest)."""
    makers = [
        path.relative_to(ROOT).as_posix()
        for package in ("shared", "pipelines", "live")
        for path in sorted((ROOT / package).rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "EngineConfig"
    ]

    assert makers == ["shared/limits.py"]
