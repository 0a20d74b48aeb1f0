"""Verify: a report computed again is equal, or the first difference is named; changed inputs are refused."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import msgspec
import polars as pl
import pytest

from pipelines import backtest, verify
from pipelines.provenance import Provenance, encoded, read_report
from shared.lake import layout, write
from tests.pipelines.markets import HOUR, SOURCE, write_lake


class Made:
    """A report of the coin on a small lake, and a lake that can be changed."""

    def __init__(self, folder: Path) -> None:
        self.lake, self.page = folder / "lake", folder / "out" / "report.html"
        self.start, self.end = write_lake(self.lake, rows=300, n_symbols=3)
        self.arguments = ["--lake", str(self.lake)]
        code = backtest.main(
            ["--model", "coin", "--source", SOURCE, "--from", str(self.start + 60), "--out", str(self.page.parent),
             *self.arguments]
        )  # fmt: skip
        assert code == 0

    def verify(self) -> int:
        return verify.main([str(self.page), *self.arguments])


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Made:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    found = Made(tmp_path)
    capsys.readouterr()
    return found


def alter(page: Path, change: Callable[[Provenance], Provenance]) -> None:
    text = page.read_text()
    changed = encoded(change(read_report(page)))
    page.write_text(
        re.sub(r"(crosscut-provenance\">).*?(</script>)", lambda m: m[1] + changed + m[2], text, flags=re.S)
    )


def test_a_report_is_computed_again_and_what_changed_is_named(made: Made, capsys: pytest.CaptureFixture[str]) -> None:
    """Equal as it is, from page, file or folder; a figure or a digest that was altered is named; another commit is
    told and does not decide; another hour of the lake is refused, and so is one that is gone."""
    for place in (made.page, made.page.parent / "report.json", made.page.parent):
        assert read_report(place) == read_report(made.page)
    assert made.verify() == 0
    assert capsys.readouterr().out.startswith("equal: every trade")

    whole = made.page.read_text()
    alter(made.page, lambda told: msgspec.structs.replace(told, commit="0123abc"))
    assert made.verify() == 0
    assert "the report was made by code 0123abc, this is" in capsys.readouterr().out

    def better(told: Provenance) -> Provenance:
        first = told.results[0]
        metrics = first.metrics | {"net_pnl_usdt": 1e6}
        return msgspec.structs.replace(told, results=(msgspec.structs.replace(first, metrics=metrics),))

    made.page.write_text(whole)
    alter(made.page, better)
    assert made.verify() == 1
    assert "different: net_pnl_usdt of coin is 1000000.0 in the report" in capsys.readouterr().err

    made.page.write_text(whole)
    alter(made.page, lambda told: msgspec.structs.replace(told, seed=told.seed + 1))
    assert made.verify() == 1
    assert "different: " in capsys.readouterr().err

    made.page.write_text(whole)
    path = layout.partition_path(made.lake, "seconds", SOURCE, HOUR + 1)
    rows = pl.read_parquet(path)
    write.write_table(made.lake, "seconds", SOURCE, HOUR + 1, rows.head(len(rows) - 1), {})
    assert made.verify() == 3
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert f"seconds of {SOURCE} must be what the report was computed from" in said
    path.unlink()
    assert made.verify() == 3
    assert "gone" in capsys.readouterr().err


def test_a_model_that_is_gone_or_another_is_one_sentence(made: Made, capsys: pytest.CaptureFixture[str]) -> None:
    """A version that the database does not know, or whose booster differs, computes nothing."""
    alter(made.page, lambda told: msgspec.structs.replace(told, model="3", model_digest="ab" * 32))
    assert made.verify() == 4
    assert "model" in capsys.readouterr().err

    alter(made.page, lambda told: msgspec.structs.replace(told, model="coin"))
    assert made.verify() == 4
    assert "must have the booster abababababab…" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("<html></html>", "found no element crosscut-provenance"),
        ('<script type="application/json" id="crosscut-provenance">{"form</script>', "it was altered or cut"),
        ('<script type="application/json" id="crosscut-provenance">{"format": 99}</script>', "found 99"),
        ('<script type="application/json" id="crosscut-provenance">[]</script>', "found None"),
        ('<script type="application/json" id="crosscut-provenance">{"format": 1}</script>', "missing required field"),
        (None, "No such file"),
    ],
)
def test_what_is_no_report_is_one_sentence(
    text: str | None, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Another page, a cut one, another format, nothing at all: told, not traced."""
    if text is not None:
        (tmp_path / "report.html").write_text(text)

    assert verify.main([str(tmp_path / "report.html"), "--lake", str(tmp_path)]) == 1

    found = capsys.readouterr().err
    assert found.count("\n") == 1
    assert said in found


def test_hours_are_compared_one_by_one() -> None:
    """Gone, new, and another: the first in time is named."""
    assert verify.first_changed({"a": "1", "b": "2"}, {"a": "1", "b": "2"}) is None
    assert verify.first_changed({"a": "1", "b": "2"}, {"a": "1"}) == "b gone"
    assert verify.first_changed({"a": "1"}, {"a": "1", "b": "2"}) == "b, which was not there"
    assert verify.first_changed({"a": "1"}, {"a": "2"}) == "a with 2… instead of 1…"
