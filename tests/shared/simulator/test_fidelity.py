"""The server's answers have the structure of Bitget's in the same situations, driven over a real socket.

Two references: payloads recorded by others, read in place where they lie beside the checkout, and payloads of our own
with made-up values, which say the same without them.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from shared.simulator.rest import GROUPS
from tests.shared.simulator.rest_world import ACCOUNT, MIX, serving
from tests.shared.simulator.situations import RECORDED
from tests.shared.simulator.structure import differences

GOLDEN = json.loads((Path(__file__).parents[2] / "golden" / "bitget_private.json").read_text())
DEMO = msgspec.structs.replace(ACCOUNT, is_demo=True)


@pytest.fixture
def recordings(outside: Path) -> Path:
    return outside / "bitget" / "fixtures" / "recorded_demo_202610"


async def answer_in(situation: str) -> Any:
    is_of_plans = "tpsl" in situation or "plan" in situation or situation == "oneway_positions"
    if is_of_plans and not any(MIX + "order/place-tpsl-order" in group.ENDPOINTS for group in GROUPS):
        pytest.skip("plan orders are not served yet")
    async with serving(DEMO) as (client,):
        return await RECORDED[situation](client)


@pytest.mark.parametrize("situation", RECORDED)
async def test_answer_has_the_structure_of_our_own_payload(situation: str) -> None:
    """Keys, types, codes, words, nulls and empty strings, without anything from outside."""
    assert differences(await answer_in(situation), GOLDEN[situation]) == []


@pytest.mark.parametrize("situation", RECORDED)
async def test_answer_has_the_structure_of_the_recording(situation: str, recordings: Path) -> None:
    """The same against what Bitget itself answered."""
    theirs = json.loads((recordings / f"{situation}.json").read_text())

    assert differences(await answer_in(situation), theirs) == []


def test_every_recording_has_its_situation(recordings: Path) -> None:
    """No recorded answer is left out, and none of ours is without one."""
    assert {path.stem for path in recordings.glob("*.json")} == set(RECORDED) == set(GOLDEN)


@pytest.mark.parametrize("situation", RECORDED)
def test_our_own_payloads_have_the_structure_of_the_recordings(situation: str, recordings: Path) -> None:
    """Who checks the checker: the made-up payload of each situation against the recorded one."""
    theirs = json.loads((recordings / f"{situation}.json").read_text())

    assert differences(GOLDEN[situation], theirs) == []
