"""Verify: a report computed again is equal, or the first difference is named; changed inputs are refused."""

from __future__ import annotations

import math
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import msgspec
import polars as pl
import pytest

from pipelines import backtest, verify
from pipelines.backtest import Candidate
from pipelines.provenance import Provenance, encoded, read_report
from pipelines.report import render
from pipelines.told import Told
from pipelines.tracking import Tracking
from shared.lake import layout, write
from shared.strategy.scores import CoinScorer
from tests.pipelines.markets import HOUR, SOURCE, write_lake


class Made:
    """A report of the coin on a small lake, and a lake that can be changed."""

    def __init__(self, folder: Path) -> None:
        self.lake, self.page = folder / "lake", folder / "out" / "report.html"
        self.tracking = Tracking(f"sqlite:///{folder / 'mlflow.db'}")
        self.arguments = ["--lake", str(self.lake)]

    def make(self) -> None:
        start, _ = write_lake(self.lake, rows=300, n_symbols=3)
        code = backtest.main(
            ["--model", "coin", "--source", SOURCE, "--from", str(start + 60), "--out", str(self.page.parent),
             *self.arguments]
        )  # fmt: skip
        assert code == 0

    def verify(self) -> int:
        return verify.main([str(self.page), *self.arguments])


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make the report once; what alters it alters a copy."""
    folder = tmp_path_factory.mktemp("original")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder / 'mlflow.db'}")
        Made(folder).make()
    return folder


@pytest.fixture
def made(original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Made:
    shutil.copytree(original, tmp_path, dirs_exist_ok=True)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    return Made(tmp_path)


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
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(verify, "code_commit", lambda: "0123abc")
        assert made.verify() == 0
    assert ", this is 0123abc" in capsys.readouterr().out
    alter(made.page, lambda told: msgspec.structs.replace(told, commit="0123abc"))
    assert made.verify() == 1
    assert '"commit": "0123abc"' in capsys.readouterr().err

    made.page.write_text(whole)

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
    shutil.move(made.page, made.page.parent.parent / "mailed.html")
    assert verify.main([str(made.page.parent.parent / "mailed.html"), *made.arguments]) == 0, "a page alone"
    assert verify.main([str(made.page.parent), *made.arguments]) == 0, "its folder without the page"
    said = capsys.readouterr().out
    assert "report.html is not there" not in said
    shutil.move(made.page.parent.parent / "mailed.html", made.page)
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


def test_a_commit_while_a_backtest_runs_is_not_in_its_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], original: Path
) -> None:
    """Code is named as it was at the beginning, everywhere: else the journal said one commit and the report another,
    and the very same code did not verify it."""
    shutil.copytree(original, tmp_path, dirs_exist_ok=True)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    made, commits = Made(tmp_path), iter(["first", "second", "third", "fourth", "fifth"])
    monkeypatch.setattr(backtest, "code_commit", lambda: next(commits))
    made.make()
    monkeypatch.setattr(verify, "code_commit", lambda: "first")

    told = read_report(made.page)

    assert told.commit == told.told.lineage["code of the backtest"] == "first"
    assert made.verify() == 0, capsys.readouterr().err


def test_a_setting_that_none_can_have_is_one_sentence_about_the_report(
    made: Made, capsys: pytest.CaptureFixture[str]
) -> None:
    """A bound that a digit was put before: the report was altered, and not a person's setting."""
    whole = made.page.read_text()
    made.page.write_text(whole.replace('"margin_use_max":0', '"margin_use_max":9'))

    assert made.verify() == 1

    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "margin_use_max must lie in" in said
    assert "it was altered or cut" in said


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("end_s", 10**15, "window cannot be"),
        ("end_s", 0, "window cannot be"),
        ("start_s", -5, "window cannot be"),
        ("end_s", 1_900_000_000, "must be of hours whose seconds it names"),
        ("compared_s", 241, "compared_s cannot be 241"),
        ("compared_s", -1, "compared_s cannot be -1"),
        ("seed", -1, "seed cannot be -1"),
        ("equity_usdt", '"abc"', "equity_usdt cannot be abc"),
        ("equity_usdt", '"NaN"', "equity_usdt cannot be NaN"),
        ("tier", '"exact"', "tier and its assumptions cannot be exact"),
        ("config", "7", "Expected `object`"),
    ],
)
def test_a_field_that_no_result_can_have_is_one_sentence(
    field: str, value: object, said: str, made: Made, capsys: pytest.CaptureFixture[str]
) -> None:
    """Refused before anything is computed: an altered window made verify count the hours of thirty million years."""
    text = re.sub(rf'("{field}":)(?:"[^"]*"|[-0-9]+|{{[^{{}}]*}})', rf"\g<1>{value}", made.page.read_text(), count=1)
    assert text != made.page.read_text()
    made.page.write_text(text)

    assert made.verify() != 0

    found = capsys.readouterr().err
    assert found.count("\n") == 1
    assert said in found


def test_a_file_that_was_altered_or_removed_is_named(made: Made) -> None:
    """Each file beside a report, row by row: a digit, a row more, a column less, another kind of file, nothing at all."""
    folder, told = made.page.parent, read_report(made.page)
    page, difference = verify._backtest(made.lake, told, made.tracking, verify.locate(made.page), [], is_same=True)
    where = verify.locate(folder)
    assert difference is None

    def found() -> str | None:
        return verify.files_difference(told, page, where, notes)

    notes: list[str] = []
    assert found() is None
    for name in ("report.json", "trades.csv", "metrics.csv", "minutes.csv"):
        path = folder / name
        whole = path.read_text()
        digits = [m.start() for m in re.finditer("[0-9]", whole)]
        for at in digits[:: max(1, len(digits) // 20)]:
            path.write_text(f"{whole[:at]}{(int(whole[at]) + 1) % 10}{whole[at + 1 :]}")
            if name == "report.json" and verify._says(path, told):
                continue  # the seventeenth digit of a number: the same number
            assert str(found()).startswith(f"different: {name}, line "), whole[at - 20 : at + 20]
        for altered in (whole + "1\n", whole.rsplit("\n", 2)[0], ""):
            path.write_text(altered)
            assert str(found()).startswith(f"different: {name}, line ")
        path.write_bytes(b"\xff\xfe")
        assert "no text" in str(found())
        path.unlink()
        assert found() is None
        assert notes.pop() == f"{name} is not there"
        path.write_text(whole)

    path = folder / "trades.parquet"
    frame, whole_bytes = pl.read_parquet(path), path.read_bytes()
    for name, kind in frame.schema.items():
        other = pl.lit("x") if kind == pl.String else pl.col(name) + 1
        frame.with_columns(pl.when(pl.int_range(pl.len()) == 2).then(other).otherwise(name).alias(name)).cast(
            frame.schema
        ).write_parquet(path)
        assert str(found()).startswith(f"different: trades.parquet, {name} of row 2, is ")
    for part in (frame.head(3), frame.drop("symbol")):
        part.write_parquet(path)
        assert "different: trades.parquet is" in str(found())
    path.write_bytes(whole_bytes[:-9])
    assert "no table" in str(found())
    path.write_bytes(whole_bytes)
    assert found() is None


def test_every_figure_of_the_page_is_compared(made: Made) -> None:
    """Whatever digit of the page is altered, in words, tables, pictures or in what no browser shows: it is named."""
    told = read_report(made.page)
    page, _ = verify._backtest(made.lake, told, made.tracking, verify.locate(made.page), [], is_same=True)
    again = render(msgspec.structs.replace(page, told=told.told, provenance=told))
    whole = made.page.read_text()
    assert verify.page_difference(whole, again, has_pictures=True) is None
    lines = whole.splitlines()

    def is_found(altered: str, has_pictures: bool) -> bool:
        return verify.page_difference(altered, again, has_pictures=has_pictures) is not None

    shown = re.sub(r"<svg.*?</svg>|<style>.*?</style>", lambda m: "\0" * len(m[0]), whole, flags=re.DOTALL)
    digits = [m.start() for m in re.finditer("[0-9]", shown)]
    assert len(digits) > 1000
    for at in digits:
        altered = f"{whole[:at]}{(int(whole[at]) + 1) % 10}{whole[at + 1 :]}"
        if at % 7 == 0:  # the whole of them takes a minute
            assert is_found(altered, has_pictures=False), whole[at - 30 : at + 30]
    drawn = whole.index("<svg") + whole[whole.index("<svg") :].index("M ") + 2
    altered = f"{whole[:drawn]}9{whole[drawn:]}"
    assert is_found(altered, has_pictures=True)
    assert not is_found(altered, has_pictures=False), "another matplotlib may draw it otherwise"
    assert is_found("\n".join(lines[:-9]), has_pictures=False)

    laid_out = (
        again.replace("<td>", '<td class="other">').replace("trades", "round trips").replace("max-width: 64rem", "")
    )
    assert verify.shown_difference(laid_out, again) is None, "another commit may lay it out otherwise"
    for at in digits:
        cell = whole[max(0, at - 200) : at].rpartition("<")[2]
        if at % 11 == 0 and ">" in cell and "title=" not in cell and "provenance" not in whole[at - 30000 : at]:
            altered = f"{whole[:at]}{(int(whole[at]) + 1) % 10}{whole[at + 1 :]}"
            assert str(verify.shown_difference(altered, again)).startswith("different: figure "), whole[
                at - 30 : at + 9
            ]
    assert is_found(whole + "more\n", has_pictures=False)


def test_the_comparison_with_live_is_made_again(
    made: Made, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The journal is written again and compared again: another digest, another number of decisions, or no comparison
    where the report boasts of one is a difference. By other code the digest does not decide, the comparison does."""
    whole, told = made.page.read_text(), read_report(made.page)
    said = told.told.parity
    assert told.compared_s == 240
    assert not (made.page.parent / "compared").exists()
    mailed = made.page.parent.parent / "mailed.html"

    def found(changed: Provenance) -> str:
        mailed.write_text(whole)
        alter(mailed, lambda told: changed)
        made_again = verify.main([str(mailed), *made.arguments])
        text = capsys.readouterr()
        assert (made_again == 0) == (text.err == "")
        return text.err

    assert found(told) == ""
    assert "different: the journal of its first seconds (SHA-256) is abab" in found(
        msgspec.structs.replace(told, journal="ab" * 32)
    )
    better = msgspec.structs.replace(said, decisions=said.decisions + 1)
    assert "different: the badge is parity: checked, " in found(
        msgspec.structs.replace(told, told=msgspec.structs.replace(told.told, parity=better))
    )
    prettier = msgspec.structs.replace(said, sentence="All of it is identical.")
    assert "different: parity is All of it is identical. in the report, All of 240 seconds" in found(
        msgspec.structs.replace(told, told=msgspec.structs.replace(told.told, parity=prettier))
    )
    assert "in the report, not compared computed again" in found(msgspec.structs.replace(told, compared_s=0))
    monkeypatch.setattr(verify, "code_commit", lambda: "0123abc")
    assert found(msgspec.structs.replace(told, journal="ab" * 32)) == ""

    kept = made.page.parent / "compared"
    kept.mkdir()
    (kept / "journal.bin").write_bytes(b"another")
    assert made.verify() == 1
    assert "different: compared/journal.bin (SHA-256) is" in capsys.readouterr().err


def test_what_a_report_says_of_its_model_is_compared_with_mlflow() -> None:
    """A figure of the training, or a line of the lineage, that MLflow does not know."""
    told = Told(
        run="r",
        training={"rank_ic": 0.1, "r2": None},
        lineage={"trained on": "a", "model": "gate: refused", "this run": "b"},
    )
    judged = Candidate(
        scorer=CoinScorer(1), name="1", source="s", holdout_from_s=1, training={"rank_ic": 0.1, "r2": math.nan},
        lineage={"trained on": "a", "model": "gate: refused"},
    )  # fmt: skip

    def found(**changes: Any) -> str | None:
        holder = msgspec.structs.replace(told, **changes)
        return verify._model_difference(cast(Any, msgspec.defstruct("Holder", ["told"])(holder)), judged)

    assert found() is None
    assert found(training={"rank_ic": 0.2, "r2": None}) == (
        "different: rank_ic of the training is 0.2 in the report, 0.1 computed again"
    )
    assert "r2 of the training is 1.0 in the report, undefined" in str(found(training={"rank_ic": 0.1, "r2": 1.0}))
    assert "of where it comes from is x in the report, a" in str(found(lineage={"trained on": "x"}))
    assert found(lineage={"trained on": "a", "model": "gate: not judged"}) is None, "the gate judges afterwards"


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
        ('<script type="application/json" id="crosscut-provenance">{"format": 2}</script>', "found 2"),
        ('<script type="application/json" id="crosscut-provenance">{"format": 3}</script>', "missing required field"),
        (None, "no such file"),
    ],
)
def test_what_is_no_report_is_one_sentence(
    text: str | None, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Another page, a cut one, another format, nothing at all: told, not traced."""
    if text is not None:
        (tmp_path / "report.html").write_text(text)

    assert verify.main([str(tmp_path / "report.html"), "--lake", str(tmp_path)]) == (1 if text is not None else 2)

    found = capsys.readouterr().err
    assert found.count("\n") == 1
    assert said in found


def test_hours_are_compared_one_by_one() -> None:
    """Gone, new, and another: the first in time is named."""
    assert verify.first_changed({"a": "1", "b": "2"}, {"a": "1", "b": "2"}) is None
    assert verify.first_changed({"a": "1", "b": "2"}, {"a": "1"}) == "b gone"
    assert verify.first_changed({"a": "1"}, {"a": "1", "b": "2"}) == "b, which was not there"
    assert verify.first_changed({"a": "1"}, {"a": "2"}) == "a with 2… instead of 1…"
