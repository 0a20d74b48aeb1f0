"""What the documents tell people to paste runs."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from pipelines.features import write_features, write_labels
from pipelines.generate import generate
from pipelines.seconds import write_seconds
from shared.lake import coverage, read
from shared.settings import ROOT
from shared.simulator.markets.market import GeneratedMarket

BORDER_S = 1_763_798_400
SOURCE = "simulator-g7-12"


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a `data_lake` of 4 minutes across the border of an hour, with every derived table."""
    folder = tmp_path_factory.mktemp("workplace")
    lake = folder / "data_lake"
    generate(GeneratedMarket(7, 12), lake, BORDER_S - 120, BORDER_S + 120)
    hours = read.hours(lake, "raw/book", SOURCE)
    for write in (write_seconds, coverage.write_coverage, write_features, partial(write_labels, slippage_bps=2.0)):
        for hour in hours:
            write(lake, SOURCE, hour)
    return folder


def blocks(document: str) -> list[str]:
    """Return the Python blocks of a document, in order."""
    return re.findall(r"^```python\n(.*?)^```", (ROOT / document).read_text(), re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("document", ["docs/queries.md", "README.md"])
def test_queries_of_documents_run(document: str, workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every Python block of a document runs, in order, on a generated lake, and every frame it makes has rows."""
    monkeypatch.chdir(workplace)
    names: dict[str, Any] = {}

    for code in blocks(document):
        code = code.replace("simulator-g7-40", SOURCE)
        exec(compile(code, document, "exec"), names)  # noqa: S102 - our own documents

    frames = {name: value for name, value in names.items() if isinstance(value, pl.DataFrame)}
    assert document == "README.md" or len(frames) >= 10
    for name, frame in frames.items():
        assert frame.height > 0, name
        assert not any(frame[column].is_null().all() for column in frame.columns), name
