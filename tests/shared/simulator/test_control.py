"""Making things go wrong from outside: conditions and scripts over HTTP, on the command line, and how to repeat them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import subprocess
import sys
import urllib.request
from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path
from typing import Any, get_args, get_type_hints

import aiohttp
import msgspec
import pytest
import pytest_asyncio
import websockets.asyncio.client
from websockets.exceptions import ConnectionClosed

from shared.simulator import __main__ as simulator
from shared.simulator.faults.conditions import POLITE, Change, PushFault, RequestFault, decode_script, polite_change
from shared.simulator.gate import Credentials
from shared.simulator.markets.market import GeneratedMarket
from shared.simulator.server import Server

ROOT = Path(__file__).resolve().parents[3]
MARKET = GeneratedMarket(7, 3)
BOOKS = {
    "op": "subscribe",
    "args": [{"instType": "USDT-FUTURES", "channel": "ticker", "instId": symbol} for symbol in MARKET.symbols],
}


class Person:
    """Somebody with curl."""

    def __init__(self, server: Server, http: aiohttp.ClientSession) -> None:
        self.server, self.http = server, http

    async def get(self, name: str) -> Any:
        async with self.http.get(f"{self.server.rest_url}/_control/{name}") as answer:
            assert answer.status == 200
            return await answer.json()

    async def post(self, name: str, body: Any) -> Any:
        async with self.http.post(f"{self.server.rest_url}/_control/{name}", data=json.dumps(body)) as answer:
            assert answer.status == 200, await answer.text()
            return await answer.json()

    async def refused(self, name: str, raw: str) -> str:
        async with self.http.post(f"{self.server.rest_url}/_control/{name}", data=raw) as answer:
            assert answer.status == 400
            return str((await answer.json())["error"])

    def public(self) -> Any:
        return websockets.asyncio.client.connect(self.server.ws_url + "/public", max_size=None)


async def ended(socket: Any) -> None:
    """Return once the connection has ended."""
    with contextlib.suppress(ConnectionClosed):
        while True:
            await socket.recv()


@pytest_asyncio.fixture
async def person() -> AsyncIterator[Person]:
    server = Server(MARKET, accounts=[Credentials(key, key, key, Decimal(1000)) for key in ("one", "two")])
    await server.start()
    async with aiohttp.ClientSession() as http:
        yield Person(server, http)
    await server.stop()


async def test_state_shows_what_holds_and_what_struck(person: Person) -> None:
    """Every state by its name, what has struck, the seed, and the command that repeats it."""
    assert (await person.get("conditions")).items() >= POLITE.items()

    await person.post("conditions", {"requests": [{"what": "gateway", "path": "public/time", "count": 2}]})
    async with person.http.get(person.server.rest_url + "/api/v2/public/time") as answer:
        assert (answer.status, answer.content_type) == (502, "text/html")
        assert "502 Bad Gateway" in await answer.text()

    state = await person.get("conditions")
    assert state["requests"] == [{"what": "gateway", "path": "public/time", "count": 1}]
    assert state["struck"] == {"gateway before public/time": 1}
    assert state["reproduce"].startswith("python -m shared.simulator")
    assert f"--fault-seed {state['seed']}" in state["reproduce"]


@pytest.mark.parametrize(
    ("name", "raw", "said"),
    [
        ("conditions", "nonsense", "malformed"),
        ("conditions", "[]", "Change"),
        ("conditions", '{"latency_ms": "slow"}', "latency_ms"),
        ("conditions", '{"latency_ms": 9, "contracts": {"NOPEUSDT": {"maxLever": "1"}}}', "NOPEUSDT"),
        ("conditions", '{"latency_ms": 9, "contracts": {"BTCUSDT": {"maxLeverage": "1"}}}', "maxLeverage"),
        ("conditions", '{"latency_ms": 9, "contracts": {"BTCUSDT": {"symbol": "X"}}}', "symbol"),
        ("conditions", '{"latency_ms": 9, "contracts": {"BTCUSDT": {"maxLever": "many"}}}', "numbers"),
        ("conditions", '{"latency_ms": 9, "contracts": {"BTCUSDT": {"minTradeNum": "x"}}}', "numbers"),
        ("conditions", '{"latency_ms": 9, "position_mode": {"mode": "hedge_mode", "account": "three"}}', "three"),
        ("script", "", "truncated"),
        ("script", '{"steps": [{"at_s": 9, "change": {"contracts": {"NOPEUSDT": {"maxLever": "1"}}}}]}', "NOPEUSDT"),
    ],
)
async def test_what_cannot_be_done_changes_nothing(person: Person, name: str, raw: str, said: str) -> None:
    """A wrong document is refused as a whole, with its reason; a script before it begins, not when its step is due."""
    before = await person.get("conditions")

    assert said in await person.refused(name, raw)

    assert await person.get("conditions") == before


async def test_script_runs_by_itself(person: Person) -> None:
    """One document describes a run: a state from the beginning, a step after the second request, a deed in time."""
    script = {
        "seed": 99,
        "conditions": {"latency_ms": 1},
        "steps": [
            {"after": {"event": "request", "name": "public/time", "n": 2}, "change": {"is_frozen": True}},
            {"at_s": 0.2, "every_s": 0.2, "times": 2, "change": {"drop_sockets": "public"}},
        ],
    }
    await person.post("conditions", {"is_private_mute": True})
    drops = 0

    async with asyncio.timeout(10):
        state = await person.post("script", script)
        assert (state["seed"], state["latency_ms"], state["is_private_mute"], state["steps_left"]) == (
            99,
            1.0,
            False,
            2,
        )
        while drops < 2:
            async with person.public() as socket:
                await ended(socket)
                drops += 1
        for _ in range(2):
            assert not (await person.get("conditions"))["is_frozen"]
            async with person.http.get(person.server.rest_url + "/api/v2/public/time") as answer:
                assert answer.status == 200
        state = await person.get("conditions")

    assert (state["is_frozen"], state["steps_left"]) == (True, 0)
    assert state["struck"] == {"step 0": 1, "step 1": 2}
    assert (await person.get("script"))["steps"] == script["steps"]


async def test_shown_script_begins_again(person: Person) -> None:
    """What the simulator shows of a script is a script: saved and begun again it is the same run."""
    first = await person.post(
        "script", {"conditions": {"pushes": [{"what": "late", "p": 0.5, "delay": {"kind": "constant", "ms": 3}}]}}
    )
    shown = await person.get("script")

    again = await person.post("script", shown)

    assert again == first
    assert shown["seed"] == first["seed"]


async def test_position_mode_is_switched_where_it_can_be(person: Person) -> None:
    """Every account or the one that is named; what the venue refuses is counted."""
    await person.post("conditions", {"position_mode": {"mode": "hedge_mode", "account": "two"}})
    venue = person.server.desk.venue

    assert [venue.position_mode(key) for key in ("one", "two")] == ["one_way_mode", "hedge_mode"]
    state = await person.post("conditions", {"position_mode": {"mode": "hedge_mode"}})
    assert [venue.position_mode(key) for key in ("one", "two")] == ["hedge_mode", "hedge_mode"]
    assert state["struck"] == {"position mode switched": 3}


async def test_politeness_can_be_asked_for(person: Person) -> None:
    """One change takes everything back, contract rules by an empty row."""
    await person.post("conditions", {"is_frozen": True, "slow": [{"bytes_per_s": 10}], "clock_skew_ms": 5000})

    person.server.control.check(polite_change())
    state = await person.post("conditions", POLITE)

    assert state.items() >= POLITE.items()
    assert person.server.clock.skew_ms == 0


async def test_line_costs_nothing_once_it_is_polite(person: Person) -> None:
    """A connection whose frames went wrong is back on the fast path when nothing is wanted of it."""
    async with person.public() as socket, asyncio.timeout(10):
        await socket.send(json.dumps(BOOKS))
        await socket.recv()
        (line,) = person.server.faults._lines
        states = [line.is_on]
        await person.post("conditions", {"pushes": [{"what": "duplicate", "channel": "ticker"}]})
        states.append(line.is_on)
        seen: list[str] = []
        while len(seen) == len(set(seen)):
            seen.append(await socket.recv())
        await person.post("conditions", {"pushes": []})
        states.append(line.is_on)

    assert states == [False, True, False]


def test_command_line_begins_a_script(tmp_path: Path) -> None:
    """--conditions FILE runs from the beginning; the ready line tells the seed and the command that repeats the run."""
    path = tmp_path / "storm night.json"
    path.write_text('{"seed": 5, "conditions": {"latency_ms": 3}}')
    command = [sys.executable, "-m", "shared.simulator", "--port", "0", "--symbols", "1", "--with-parent"]
    child = subprocess.Popen(
        [*command, "--conditions", str(path), "--fault-seed=6"],
        cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert child.stdin is not None
    assert child.stdout is not None
    ready: dict[str, Any] = json.loads(child.stdout.readline())
    with urllib.request.urlopen(ready["rest"] + "/_control/conditions") as answer:  # noqa: S310 - our own loopback URL
        state = json.load(answer)
    child.stdin.close()

    assert child.wait(30) == 0
    child.stdout.close()
    assert (ready["fault_seed"], state["latency_ms"], state["seed"]) == (6, 3.0, 6)
    assert ready["reproduce"] == (
        f"python -m shared.simulator --port 0 --symbols 1 --fault-seed 6 --conditions '{path}'"
    )


@pytest.mark.parametrize(
    ("document", "arguments", "said"),
    [
        (None, [], "No such file"),
        ('{"sed": 1}', [], "sed"),
        ('{"conditions": {"contracts": {"NOPEUSDT": {"maxLever": "1"}}}}', [], "NOPEUSDT"),
        ("{}", ["--fault-seed", "-1"], "--fault-seed"),
    ],
)
def test_wrong_script_is_one_sentence_and_exit_2(
    tmp_path: Path, document: str | None, arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Expected, found, what to do; no traceback, no simulator in which nothing goes wrong."""
    path = tmp_path / "script.json"
    if document is not None:
        path.write_text(document)

    code = simulator.main(
        ["--port", "0", "--symbols", "1", "--log-level", "error", "--conditions", str(path), *arguments]
    )

    told = capsys.readouterr()
    assert code == 2
    assert said in told.err
    assert told.err.count("\n") == 1
    assert told.out == ""


def test_documented_examples_are_accepted() -> None:
    """Every example of the documentation is a change or a script that the simulator takes."""
    text = (ROOT / "docs" / "simulator.md").read_text()
    changes = re.findall(r"_control/conditions -d '(\{.*?\})'", text, re.DOTALL)
    changes += re.findall(r'`(\{"(?:orders|disconnects)": .*?\})`', text)
    scripts = re.findall(r"```json\n(.*?)```", text, re.DOTALL)
    named = set(re.findall(r"`([a-z_0-9]+)`", text))

    assert len(changes) >= 7
    assert len(scripts) == 1
    for change in changes:
        msgspec.json.decode(change.encode(), type=Change)
    assert len(decode_script(scripts[0].encode()).steps) == 6
    kinds = [kind for rule in (PushFault, RequestFault) for kind in get_args(get_type_hints(rule)["what"])]
    assert sorted({*Change.__struct_fields__, *kinds} - named) == []
