"""What the repository itself promises: no secrets, no addresses in locks, no forbidden packages, rooms kept apart."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests import secrets

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.parametrize("name", [".env", ".env.local", "data_lake/raw/x.parquet", "mlruns/mlflow.db", ".dagster/x"])
def test_local_files_are_ignored(name: str) -> None:
    """Secrets, the lake and MLflow's database cannot be committed by accident."""
    answer = subprocess.run(["git", "check-ignore", "-q", name], cwd=ROOT, check=False)

    assert answer.returncode == 0


def test_secret_scan_finds_a_planted_key(tmp_path: Path) -> None:
    """The scan sees a key that somebody pastes into a source file, and prints where, not what."""
    planted = tmp_path / "settings.py"
    planted.write_text('API_SECRET = "' + "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b" + '"\n')

    found = secrets.findings([planted])

    assert found
    assert "9f86d081" not in " ".join(found)


@pytest.mark.parametrize("lock", ["requirements.lock", "requirements-live.lock", "requirements-oracles.lock"])
def test_locks_hold_names_and_hashes_only(lock: str) -> None:
    """A lock names no index, is hashed throughout, and pulls in no compiler of numeric code (an oracle may have one)."""
    text = (ROOT / lock).read_text()
    packages = re.findall(r"^([a-z0-9._-]+)==", text, re.MULTILINE)

    assert not re.search(r"https?://|file:|--index", text)
    assert len(packages) >= 20
    assert text.count("--hash=sha256:") >= len(packages)
    assert bool({"numba", "llvmlite"} & set(packages)) is (lock == "requirements-oracles.lock")


def test_live_lock_is_lean_and_agrees_with_the_full_one() -> None:
    """What live installs is a small part of the full lock, at the same versions."""
    pins = [
        dict(re.findall(r"^([a-z0-9._-]+)==(\S+)", (ROOT / lock).read_text(), re.MULTILINE))
        for lock in ("requirements-live.lock", "requirements.lock")
    ]
    lean, full = pins

    assert not {"dagster", "mlflow", "mlflow-skinny", "polars", "pyarrow", "pandas", "scikit-learn"} & set(lean)
    assert {name: full.get(name) for name in lean} == lean


def test_randomness_in_shared_is_seeded_philox_only() -> None:
    """The thinking part knows no randomness but Philox(seed, decision): replay depends on it."""
    wrong = []
    for room in ("features", "strategy"):
        for path in sorted((ROOT / "shared" / room).rglob("*.py")):
            for number, line in enumerate(path.read_text().splitlines(), 1):
                if re.search(r"default_rng|RandomState|np\.random\.(?!Philox|Generator)|uuid|(?<![\w.])hash\(", line):
                    wrong.append(f"{path.name}:{number}: {line.strip()}")

    assert wrong == []
