"""Bad input to the entry points: one clear sentence, a non-zero exit, nothing sent."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import structlog

from live import doctor, registry, run
from shared import model as models
from shared import settings as settings_module
from shared import simulator_process
from shared.features.catalog import FEATURES
from shared.features.graph import definition_hash
from shared.model import Bundle, BundleCosts, Lineage
from shared.settings import ROOT
from shared.simulator_process import SimulatorProcess

SETTINGS = ("MARKET", "MARKET_REST_URL", "MARKET_WS_URL", "BITGET_VENUE", "BITGET_REST_URL", "BITGET_WS_URL", "BITGET_API_KEY", "BITGET_API_SECRET",
            "BITGET_PASSPHRASE", "SYMBOL", "SYMBOLS", "SANDBOX", "LAKE_URI", "MLFLOW_TRACKING_URI")  # fmt: skip
REAL_MONEY = {
    "MARKET": "bitget",
    "BITGET_VENUE": "live",
    "SANDBOX": "false",
    "BITGET_API_KEY": "k",
    "BITGET_API_SECRET": "s",
    "BITGET_PASSPHRASE": "p",
}


@pytest.fixture(autouse=True)
def _nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Run in a folder without .env, with no settings and no registry."""
    monkeypatch.chdir(tmp_path)
    for name in SETTINGS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("LAKE_URI", str(tmp_path / "lake"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    yield
    structlog.reset_defaults()


@pytest.fixture(scope="module")
def simulator() -> Iterator[SimulatorProcess]:
    with simulator_process.start(["--symbols", "4", "--seed", "7"]) as running:
        yield running


def ends(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    """Return exit code and last line of what `live.run` says, which must be one sentence without a traceback."""
    code = run.main(list(arguments))
    said = capsys.readouterr()
    assert "Traceback" not in said.err
    return code, said.err.strip().splitlines()[-1]


@pytest.mark.parametrize(
    ("settings", "arguments", "code", "message"),
    [
        ({}, (), 4, r"registry must be at .*mlflow\.db, found no such file: run `python -m pipelines\.train`"),
        ({"BITGET_API_KEY": "k"}, ("--model", "coin"), 2, "found BITGET_API_KEY without BITGET_API_SECRET"),
        ({"SANDBOX": "false"}, ("--model", "coin"), 2, "SANDBOX=false needs BITGET_VENUE=live, found simulator"),
        (REAL_MONEY, ("--model", "coin"), 2, "needs --arm, which is missing"),
        (REAL_MONEY | {"SANDBOX": "true"}, ("--model", "coin", "--arm"), 2, "needs both switches"),
        (REAL_MONEY, ("--model", "coin", "--arm"), 4, "needs a model that passed the honest-edge gate, found --model coin"),
        (REAL_MONEY, ("--model", "rules", "--arm"), 4, "found --model rules"),
        ({"BITGET_VENUE": "demo", "MARKET": "bitget"}, ("--model", "coin"), 2, "needs BITGET_API_KEY"),
        ({"MARKET": "bitget", "MARKET_REST_URL": "http://10.0.0.7:1", "MARKET_WS_URL": "ws://10.0.0.7:1"},
         ("--model", "coin"), 2, "MARKET_REST_URL must be on this machine or https"),
        ({"BITGET_REST_URL": "https://bitget.com.evil.io", "BITGET_WS_URL": "wss://bitget.com.evil.io"},
         ("--model", "coin"), 2, r"on bitget\.com, found 'https://bitget\.com\.evil\.io'"),
        ({"BITGET_REST_URL": "http://127.0.0.1:1"}, ("--model", "coin"), 2, "set together or not at all"),
        ({"BITGET_REST_URL": "http://127.0.0.1:1", "BITGET_WS_URL": "ws://127.0.0.1:1"},
         ("--model", "coin"), 6, "a simulator must answer at http://127.0.0.1:1"),
        ({"LEVERAGE": "many"}, ("--model", "coin"), 2, "LEVERAGE"),
    ],
)  # fmt: skip
def test_settings_that_cannot_trade_are_refused(
    settings: dict[str, str],
    arguments: tuple[str, ...],
    code: int,
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    """Each contradiction is refused before anything connects, says what to do, and leaves nothing behind."""
    for name, value in settings.items():
        monkeypatch.setenv(name, value)

    found, said = ends(capsys, *arguments)

    assert found == code
    assert re.search(message, said)
    assert not (tmp_path / "lake").exists()


def test_taken_port_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    """A simulator that cannot have its port ends the session before it begins."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        code, said = ends(capsys, "--model", "coin", "--simulator", f"--symbols 4 --port {port}")
        assert (code, said) == (
            2,
            f"port {port} on 127.0.0.1 must be free, found it taken: choose another --port, or 0",
        )


@pytest.fixture
def on_simulator(simulator: SimulatorProcess, monkeypatch: pytest.MonkeyPatch) -> SimulatorProcess:
    monkeypatch.setenv("BITGET_REST_URL", simulator.rest)
    monkeypatch.setenv("BITGET_WS_URL", simulator.ws)
    return simulator


def strike(simulator: SimulatorProcess, path: str, code: str, message: str) -> None:
    body = json.dumps({"refuse_next": [{"path": path, "code": code, "msg": message}]}).encode()
    request = urllib.request.Request(  # noqa: S310 - our own loopback
        f"{simulator.rest}/_control/conditions", data=body, headers={"Content-Type": "application/json"}
    )
    urllib.request.urlopen(request, timeout=10).close()  # noqa: S310


def test_symbol_that_is_not_listed_is_named(on_simulator: SimulatorProcess, capsys: pytest.CaptureFixture[str]) -> None:
    """A misspelt symbol is refused by name, with the source that does not list it."""
    code, said = ends(capsys, "--model", "coin", "--symbols", "BTCUSDT,NOPEUSDT")
    assert code == 2
    assert "found NOPEUSDT which simulator-g7-4 does not list" in said


def test_unified_account_is_told_what_to_do(on_simulator: SimulatorProcess, capsys: pytest.CaptureFixture[str]) -> None:
    """Bitget's 40085 becomes: expected a classic account, found a unified one, create a sub-account."""
    strike(
        on_simulator,
        "account/account",
        "40085",
        "You are in Unified Account mode, and the Classic Account API is not supported at this time",
    )
    code, said = ends(capsys, "--model", "coin")
    assert code == 6
    assert "40085" in said
    assert "expected a classic account, found a unified account" in said


def test_wrong_keys_are_told_without_showing_them(
    on_simulator: SimulatorProcess, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A refused key is named by its setting, never by its value."""
    for name in ("BITGET_API_KEY", "BITGET_API_SECRET", "BITGET_PASSPHRASE"):
        monkeypatch.setenv(name, "hunter2")
    code = run.main(["--model", "coin"])
    said = capsys.readouterr()
    assert code == 6
    assert "check BITGET_API_KEY" in said.err
    assert "hunter2" not in said.err + said.out


def test_second_session_on_one_account_is_refused(
    on_simulator: SimulatorProcess, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Two engines on one account would undo each other: the second one does not start."""
    from live import memory

    with memory.account_lock(tmp_path / "lake", memory.account_id(on_simulator.rest, run.SIMULATOR_KEYS.key)):
        code, said = ends(capsys, "--model", "coin", "--seconds", "1")
    assert code == 2
    assert "one session at a time" in said


def test_flatten_beside_a_session_says_so_and_closes_all_the_same(
    on_simulator: SimulatorProcess, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """A session may open again what is closed beside it; in an emergency that is a word, not a refusal."""
    from live import flatten, memory

    with memory.account_lock(tmp_path / "lake", memory.account_id(on_simulator.rest, run.SIMULATOR_KEYS.key)):
        assert flatten.main([]) == 0
    said = capsys.readouterr()
    assert "found one at work on this machine" in said.err
    assert said.out.startswith("flat, equity ")
    assert flatten.main([]) == 0
    assert "at work" not in capsys.readouterr().err


# ----------------------------------------------------------------------------------------------------- models


@pytest.fixture
def bundle() -> Bundle:
    return Bundle(
        features=tuple(FEATURES),
        definition_hash=definition_hash(FEATURES),
        horizon_s=10,
        class_edge_bps=(0.0, 20.0, -20.0),
        costs=BundleCosts(taker_fee=0.0006, slippage_bps=2.0),
        source="simulator-g7-4",
    )


def train(folder: Path, bundle: Bundle) -> Path:
    """Save a real booster of three classes, trained on noise, with this bundle."""
    import lightgbm
    import numpy as np

    rng = np.random.default_rng(7)
    rows = rng.normal(size=(300, len(bundle.features)))
    data = lightgbm.Dataset(rows, rng.integers(0, 3, 300))
    parameters = {"objective": "multiclass", "num_class": 3, "num_leaves": 4, "verbosity": -1, "num_threads": 1}
    booster = lightgbm.train(parameters, data, num_boost_round=2)
    models.save(folder, booster.model_to_string(), bundle)
    return folder


def resolved(monkeypatch: pytest.MonkeyPatch, folder: Path, tags: dict[str, str] | None = None) -> None:
    """Have the registry answer with this folder; how it finds one is test_registry's."""
    version = registry.ModelVersion(
        name="crosscut", version=3, run_id="r", status="READY", folder=folder, tags=tags or {}
    )
    monkeypatch.setattr(registry, "resolve", lambda uri, selector: version)


@pytest.mark.parametrize(
    ("change", "settings", "arguments", "message"),
    [
        ({"definition_hash": "0" * 64}, {}, (), "feature definitions of model .* are 000000000000…, code has"),
        ({}, REAL_MONEY, ("--arm",), "trained on source bitget, found simulator-g7-4"),
        ({"source": "bitget"}, REAL_MONEY, ("--arm",), "must have passed the honest-edge gate, found 'not judged'"),
        ({"format_version": 99}, {}, (), "must be a bundle of format 2, found 99"),
        ({"lineage": Lineage(books="books15")}, {}, (), "found BOOKS=books5 where it was books15: set BOOKS=books15"),
    ],
    ids=["other features", "other source", "no gate", "other format", "other books"],
)
def test_model_that_must_not_trade_is_refused(
    change: dict[str, Any],
    settings: dict[str, str],
    arguments: tuple[str, ...],
    message: str,
    bundle: Bundle,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Other features, another source, no verdict: with real money and without, refused before anything connects."""
    resolved(monkeypatch, train(tmp_path / "model", msgspec.structs.replace(bundle, **change)))
    for name, value in settings.items():
        monkeypatch.setenv(name, value)

    code, said = ends(capsys, *arguments)

    assert code == 4
    assert re.search(message, said)


@pytest.mark.parametrize(
    ("tags", "found"),
    [
        ({}, "found 'not judged' about booster unknown…"),
        ({"validation": "refused"}, "found 'refused' about"),
        ({"validation": "passed on paper"}, "found 'passed on paper' about"),
        ({"validation": "passed", "sha256": "0" * 64}, "found 'passed' about booster 000000000000…"),
    ],
    ids=["no verdict", "refused", "on paper", "another booster"],
)
def test_a_bundle_that_calls_itself_passed_is_not_believed(
    tags: dict[str, str],
    found: str,
    bundle: Bundle,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """With real money the registry must say `passed`, too, and about this very booster."""
    resolved(
        monkeypatch, train(tmp_path / "model", msgspec.structs.replace(bundle, source="bitget", gate="passed")), tags
    )
    for name, value in REAL_MONEY.items():
        monkeypatch.setenv(name, value)

    code, said = ends(capsys, "--arm")

    assert code == 4
    assert "must have passed the honest-edge gate in the registry" in said
    assert found in said


def test_what_passed_is_found_and_a_shadow_need_not_have(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bundle and the registry say the same: real money takes it. Who is scored beside needs neither verdict nor
    source, since it sends nothing."""
    for name, value in REAL_MONEY.items():
        monkeypatch.setenv(name, value)
    chosen = settings_module.load()
    passed = train(tmp_path / "model", msgspec.structs.replace(bundle, source="bitget", gate="passed"))
    digest = models.read_bundle(passed).booster_sha256
    resolved(monkeypatch, passed, {"validation": "passed", "sha256": digest})

    folder, note, _ = run.find_model(chosen, "champion")
    resolved(monkeypatch, train(tmp_path / "other", bundle))
    plan = run.find_shadow(chosen, "challenger")

    assert (folder, note.digest, note.folder) == (passed, digest, "bundle")
    assert plan is not None
    assert plan.bundle_note is not None
    assert plan.bundle_note.folder == "shadow"
    assert run.find_shadow(chosen, "") is None


def test_model_trades_and_its_session_replays_without_the_registry(
    on_simulator: SimulatorProcess,
    bundle: Bundle,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A model of another source warns; its bundle is copied into the session, which replays when the original is gone."""
    from live import replay

    folder = train(tmp_path / "model", msgspec.structs.replace(bundle, source="simulator-g9-4"))
    resolved(monkeypatch, folder)

    code = run.main(["--model", "latest", "--seconds", "2", "--session-dir", str(tmp_path / "session")])

    assert code == 0
    said = capsys.readouterr()
    assert "model.source_differs" in said.err
    assert "model.not_passed" in said.err
    for file in folder.iterdir():
        file.unlink()
    assert replay.main([str(tmp_path / "session")]) == 0
    (tmp_path / "session" / "bundle" / "model.lgb").write_text("tree\n")
    assert replay.main([str(tmp_path / "session")]) == 4


def test_a_shadow_is_scored_beside_and_replays(
    on_simulator: SimulatorProcess,
    bundle: Bundle,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A coin trades, a model is scored on the same seconds: its bundle and its words lie in the session, the summary
    says how long it took, and the session replays."""
    from live import replay
    from shared import shadow

    resolved(monkeypatch, train(tmp_path / "model", bundle))

    code = run.main(
        ["--model", "coin", "--shadow", "challenger", "--seconds", "3", "--session-dir", str(tmp_path / "s")]
    )

    assert code == 0, capsys.readouterr().err
    told = shadow.read(tmp_path / "s")
    summary = json.loads((tmp_path / "s" / "session.json").read_text())
    assert told.header.bundle is not None
    assert told.header.bundle.version == 3
    assert summary["shadow"]["seconds"] == len(told.said) == summary["seconds"] > 0
    assert summary["shadow"]["ended"] is None
    assert (tmp_path / "s" / "shadow" / "model.lgb").exists()
    assert replay.main([str(tmp_path / "s")]) == 0


def test_a_shadow_that_is_not_there_ends_the_session_before_it_begins(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Who asks for a challenger and has none is told; nothing connects."""
    code, said = ends(capsys, "--model", "coin", "--shadow", "challenger")

    assert code == 4
    assert "registry must be at" in said
    assert not (tmp_path / "lake").exists()


# ----------------------------------------------------------------------------------------------------- the rest


def test_import_of_run_is_lean() -> None:
    """Importing the runner loads neither MLflow, Dagster, polars, pandas nor LightGBM."""
    code = "import sys, live.run, live.doctor, live.flatten, live.replay; print(*sorted({n.split('.')[0] for n in sys.modules}))"
    found = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    heavy = {"mlflow", "dagster", "polars", "pyarrow", "pandas", "sklearn", "lightgbm", "scipy", "matplotlib"}
    assert heavy & set(found) == set()


def test_doctor_of_a_simulator_finds_nothing_wrong(
    on_simulator: SimulatorProcess, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every check of a healthy paper set-up is ok, one line each."""
    assert doctor.main(["--model", "coin"]) == 0
    lines = capsys.readouterr().out.strip().splitlines()
    assert [line.split()[0] for line in lines] == ["ok"] * len(lines)
    assert len(lines) == 9


def test_doctor_names_the_first_thing_that_is_wrong(
    on_simulator: SimulatorProcess, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A check that fails says what to do, fails the whole, and what depends on it is not examined."""
    strike(on_simulator, "account/account", "40085", "You are in Unified Account mode")
    assert doctor.main(["--model", "latest"]) == 1
    failed = [line for line in capsys.readouterr().out.splitlines() if line.startswith("FAIL")]
    assert len(failed) == 2
    assert "pipelines.train" in failed[0]
    assert "unified account" in failed[1]


def test_doctor_sees_a_lake_that_cannot_be_written(
    on_simulator: SimulatorProcess, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A session would refuse to start where its journal cannot be written: so does its doctor."""
    monkeypatch.setattr("live.doctor.os.access", lambda path, mode: False)  # a superuser may write everywhere

    assert doctor.main(["--model", "coin"]) == 1
    assert "FAIL  disk: the lake must be writable, found" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("--seconds", "-5"), "must be a number above 0, found '-5'"),
        (("--seconds", "abc"), "must be a number above 0, found 'abc'"),
        (("--seconds", "inf"), "must be a number above 0, found 'inf'"),
        (("--simulator", "'--symbols 4"), "must be words as in a shell"),
    ],
)
def test_argument_that_is_none_is_one_sentence(
    arguments: tuple[str, ...], why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is no length of time, or no list of words, is said before anything is started."""
    with pytest.raises(SystemExit) as ended:
        run.main(["--model", "coin", *arguments])

    assert ended.value.code == 2
    assert why in capsys.readouterr().err


def test_session_that_ends_before_it_begins_compares_no_ledgers(
    on_simulator: SimulatorProcess, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the private stream never came up the ledger was told nothing: it neither equals nor differs."""
    monkeypatch.setattr("live.session.PRIVATE_UP_WITHIN_S", 0.0)

    code = run.main(["--model", "coin", "--seconds", "1"])

    said = capsys.readouterr()
    assert code == 6
    assert "the private stream must be up" in said.err.splitlines()[-1]
    assert "not compared with the venue's" in said.out
