"""What the documents tell people to paste runs, and prints what stands under it."""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import re
import shlex
from functools import partial
from itertools import zip_longest
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pytest

from pipelines import history
from pipelines.features import write_features, write_labels
from pipelines.generate import main as generate
from pipelines.seconds import write_seconds
from pipelines.simulation import run_backtest
from shared.features.catalog import FEATURES
from shared.lake import coverage, read
from shared.lake.layout import TABLES
from shared.limits import config_of
from shared.settings import ROOT, Settings
from shared.simulator.clock import Clock
from shared.simulator.markets.market import GeneratedMarket
from shared.simulator.server import Server
from shared.strategy.scores import RulesScorer

SOURCE = "simulator-g7-12"
DOCUMENTS = ("docs/queries.md", "README.md")
IS_WRITING = bool(os.environ.get("CROSSCUT_WRITE_DOCUMENTS"))
"""Put what the blocks print into the documents in place of comparing it."""


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the `data_lake` that docs/queries.md tells people to make, with every derived table."""
    folder = tmp_path_factory.mktemp("workplace")
    lake = folder / "data_lake"
    command = re.search(r"-m pipelines\.generate (.*)", (ROOT / "docs/queries.md").read_text())
    assert command is not None
    assert generate([*shlex.split(command[1]), "--lake", str(lake)]) == 0
    assert read.sources(lake) == [SOURCE]
    hours = read.hours(lake, "raw/book", SOURCE)
    for write in (write_seconds, coverage.write_coverage, write_features, partial(write_labels, slippage_bps=2.0)):
        for hour in hours:
            write(lake, SOURCE, hour)
    asyncio.run(tell_funding(lake))
    decide(lake)
    return folder


def decide(lake: Path) -> None:
    """Run the backtest whose decisions docs/queries.md asks for."""
    seconds = read.scan(lake, "seconds", SOURCE)
    ends = read.collect(seconds.select(first=pl.col("second").min(), last=pl.col("second").max()))
    found = run_backtest(
        lake,
        SOURCE,
        scorer=RulesScorer(tuple(FEATURES)),
        config=config_of(Settings(_env_file=None), horizon_s=10),
        start_s=ends.item(0, "first"),
        end_s=ends.item(0, "last") + 1,
        seed=7,
        with_nulls=False,
        keeps_decisions=True,
    )
    assert found.decisions is not None
    found.decisions.store(lake, SOURCE, "rules")
    found.decisions.close()


async def tell_funding(lake: Path) -> None:
    """Fetch three days of settled funding from a simulator whose clock stands at the end of the history."""
    last_ns = read.collect(read.scan(lake, "raw/book", SOURCE).select(pl.col("recv_ns").max())).item()
    server = Server(GeneratedMarket(7, 12), clock=Clock(start_ns=last_ns))
    await server.start()
    try:
        await history.fetch(f"http://127.0.0.1:{server.port}", lake, SOURCE, hours=72, tables=("funding",))
    finally:
        await server.stop()


def blocks(text: str) -> list[tuple[str, str]]:
    """Return (language, content) of a document's blocks of Python and of what they print, in order."""
    return re.findall(r"^```(python|text)\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def differences(shown: str, found: str) -> list[str]:
    """Return the words in which two outputs differ; a number may differ in its last digit, rules in their length."""
    return [
        f"{a} is shown, {b} was found"
        for a, b in zip_longest(shown.split(), found.split(), fillvalue="nothing")
        if not (a == b or set(a + b) <= set("|-") or _is_near(a, b))
    ]


def _is_near(a: str, b: str) -> bool:
    if not all(re.fullmatch(r"-?\d+(\.\d+)?", word) for word in (a, b)):
        return False
    digits = len(a.partition(".")[2])
    return bool(digits) and abs(float(a) - float(b)) < 1.5 * 10.0**-digits


@pytest.mark.parametrize("document", DOCUMENTS)
def test_blocks_of_documents_print_what_they_show(
    document: str, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every Python block of a document runs, in order; what one prints is the text block that follows it.

    Blocks that stand together over one text, polars and SQL, print the same.
    """
    monkeypatch.chdir(workplace)
    text = (ROOT / document).read_text()
    names: dict[str, Any] = {}
    wrong: list[str] = []
    waiting: list[str] = []
    outputs: list[str] = []
    with pl.Config():  # which puts back what the blocks set
        for language, content in blocks(text):
            if language == "python":
                out = io.StringIO()
                with contextlib.redirect_stdout(out):
                    exec(compile(content, document, "exec"), names)  # noqa: S102 - our own documents
                waiting += [out.getvalue()] if out.getvalue() else []
                continue
            assert waiting, f"nothing prints {content}"
            outputs.append(waiting[0])
            for found in waiting:
                wrong += differences(waiting[0] if IS_WRITING else content, found)
            waiting = []
    if IS_WRITING:
        new = iter(outputs)
        written = re.sub(
            r"^```text\n.*?^```", lambda _: f"```text\n{next(new)}```", text, flags=re.DOTALL | re.MULTILINE
        )
        (ROOT / document).write_text(written)

    assert wrong == [], "CROSSCUT_WRITE_DOCUMENTS=1 pytest tests/test_documents.py writes what is printed now"
    assert not waiting, "what is printed must be shown"
    assert len(outputs) >= (10 if document == "docs/queries.md" else 1)
    for name, frame in names.items():
        if isinstance(frame, pl.DataFrame):
            assert frame.height > 0, name
            assert not any(frame[column].is_null().all() for column in frame.columns), name


def test_comparison_sees_other_words_and_other_numbers() -> None:
    """Rounding is forgiven, and nothing else."""
    assert differences("| 1.23 | BTC |", "| 1.24 | BTC |") == []
    assert differences("|----|", "|-----|") == []
    for other in ("| 1.25 | BTC |", "| 1.23 | ETH |", "| 1.23 |", "| 1.23 | BTC | 1 |", "| nan | BTC |"):
        assert differences("| 1.23 | BTC |", other)
    assert differences("17", "18")


@pytest.mark.parametrize("document", DOCUMENTS)
def test_globs_of_documents_meet_tables_alone(document: str, workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is being written, logged, locked or removed matches no glob that a document shows."""
    monkeypatch.chdir(workplace)
    hour = f"source={SOURCE}/date=2025-11-22/hour=07"
    hidden = [f".tmp/seconds-{SOURCE}-7-seconds.parquet", f".wal/{hour}/session=a/book.parquet", ".lock/a.parquet"]
    for path in (*hidden, f".removing/{hour}/seconds.parquet"):
        planted = workplace / "data_lake" / path
        planted.parent.mkdir(parents=True, exist_ok=True)
        planted.write_bytes(b"half a file")
    shown = set(re.findall(r"data_lake/[^'\"`\s]*\.parquet", (ROOT / document).read_text()))
    globs = {
        glob.replace("{source}", SOURCE).replace("{table}", table).replace("…", "*")
        for glob in shown
        for table in TABLES
    }

    found = set()
    for glob in globs:
        found |= {path for (path,) in duckdb.execute("SELECT file FROM glob(?)", [glob]).fetchall()}
        found |= {str(path.relative_to(workplace)) for path in workplace.glob(glob)}

    assert len(found) >= 2
    assert not [path for path in found if any(part.startswith(".") for part in Path(path).parts)]
