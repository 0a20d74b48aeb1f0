"""A configuration that contradicts itself, or the universe, refuses to start with the arithmetic."""

from __future__ import annotations

import math

import pytest

from shared.errors import SettingsError
from shared.strategy.config import EngineConfig
from shared.types import Universe
from tests.shared.strategy.made import contract, universe


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"spread_bps_max": 100.0}, r"stop_bps must exceed KILL_SPREAD_BPS_MAX, found 100 against 100"),
        ({"stop_bps": 20.0}, r"found 20 against 20"),
        # 5 x 0.5 x 4000 bps = 1.00 of equity
        ({"stop_bps": 4000.0}, r"LEVERAGE 5 x 0\.5 .* x 4000 bps .* = 1\.00 of it"),
        ({"leverage": 50, "margin_use_max": 1.0, "stop_bps": 200.0}, r"LEVERAGE 50 x 1 .* x 200 bps .* = 1\.00 of it"),
        ({"leverage": 51}, r"LEVERAGE must be one that a traded symbol has, found 51 against 50 of"),
        # one symbol a side: half of gross, or a symbol's share of it
        ({"top_k": 1, "symbol_share_max": 1.0}, r"net_share_max must hold one full order, found 0\.4 .* = 0\.5"),
        ({"top_k": 1, "symbol_share_max": 0.35}, r"cluster_share_max must hold one full order, found 0\.3 .* = 0\.35"),
        ({"symbols": ("NOPEUSDT",)}, r"found NOPEUSDT which simulator-made does not list"),
    ],
)
def test_contradictions_refuse_to_start(changes: dict[str, object], sentence: str) -> None:
    """Each names the settings, the numbers and what to do."""
    with pytest.raises(SettingsError, match=sentence):
        EngineConfig(**changes).check(universe())  # type: ignore[arg-type]


def test_a_leverage_is_refused_only_where_no_traded_symbol_has_it() -> None:
    """A symbol that grants less gets less; where all that are traded grant less, the setting means nothing."""
    listed = Universe(
        source="x", as_of_ns=0, contracts=(contract("AUSDT", leverage_max=20), contract("BUSDT", leverage_max=75))
    )

    EngineConfig(leverage=75).check(listed)
    with pytest.raises(SettingsError, match="found 21 against 20 of AUSDT, the most of 1"):
        EngineConfig(leverage=21, symbols=("AUSDT",)).check(listed)


def test_every_default_is_without_contradiction_also_where_nothing_is_listed() -> None:
    """The defaults start anywhere."""
    EngineConfig().check(universe())
    EngineConfig().check(Universe(source="x", as_of_ns=0, contracts=()))


NUMBERS = [name for name in EngineConfig.__struct_fields__ if isinstance(getattr(EngineConfig(), name), int | float)]


@pytest.mark.parametrize("name", [name for name in NUMBERS if not isinstance(getattr(EngineConfig(), name), bool)])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, -1e9])
def test_every_number_has_bounds(name: str, value: float) -> None:
    """No number of the configuration may be no number, without end, or far below zero."""
    with pytest.raises(SettingsError, match=rf"{name} must lie in"):
        EngineConfig(**{name: value})  # type: ignore[arg-type]
