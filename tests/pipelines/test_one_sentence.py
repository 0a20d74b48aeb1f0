"""What a person asks for, or is told: one sentence that says what must be, what was found and what to do."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import dagster as dg
import polars as pl
import pytest

from pipelines import backtest, dataset, demo, drive, history, parity, resources, search, train
from pipelines.beside import Beside
from pipelines.imports import __main__ as imports
from pipelines.moments import second_of, window_of_text
from shared import journal, settings
from shared.errors import JournalError, SettingsError, TableEmpty
from shared.lake import read
from shared.lake.layout import HOUR_S
from shared.settings import ROOT

HOUR = 495_000
SOURCE = "simulator-g7-40"


@pytest.mark.parametrize("text", ["tomorrow", "-5", "1795392120000", "1795392120000000000", "²", "0001-01-01", ""])
def test_what_is_no_second_is_told(text: str) -> None:
    with pytest.raises(SettingsError, match="a time must be like 2026-11-22T08:00"):
        second_of(text)


def test_an_hour_is_read_in_every_spelling() -> None:
    assert {second_of(text) for text in ("2026-11-22T08:00", "2026-11-22T09:00+01:00", "1795334400")} == {1795334400}


def test_an_end_before_the_beginning_is_told() -> None:
    assert window_of_text("2026-11-22T08:00", None) == (1795334400, None)
    for end in ("2026-11-22T07:59", "2026-11-22T08:00"):
        with pytest.raises(SettingsError, match=f"--to must be later than --from, found --from .* --to {end}: correct"):
            window_of_text("2026-11-22T08:00", end)


@pytest.mark.parametrize("command", [train.main, search.main], ids=["train", "search"])
def test_a_window_is_looked_at_before_the_lake(
    command: object, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert callable(command)
    asked = ["--lake", str(tmp_path / "lake"), "--from", "2026-11-22T08:00", "--to", "2026-11-22T07:00"]
    assert command(asked) == 2
    assert "--to must be later" in capsys.readouterr().err
    assert not (tmp_path / "lake").exists()


def test_a_window_beside_what_is_stored_names_what_is_stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(read, "hours", lambda lake, table, source: [HOUR, HOUR + 1])
    with pytest.raises(TableEmpty, match="found those from 2026-06-21 00:00:00Z to 2026-06-21 02:00:00Z"):
        dataset.build_dataset(tmp_path, SOURCE, end_s=HOUR * HOUR_S)
    seconds = pl.LazyFrame({"second": [HOUR * HOUR_S, HOUR * HOUR_S + 90]})
    monkeypatch.setattr(read, "scan", lambda *_, **__: seconds)
    with pytest.raises(TableEmpty, match=r"to 2026-06-21 00:01:31Z in .*: choose --from and --to"):
        backtest.window_of(tmp_path, SOURCE, HOUR * HOUR_S + 91, None)
    with pytest.raises(TableEmpty, match="choose --from and --to"):
        backtest.window_of(tmp_path, SOURCE, None, HOUR * HOUR_S)
    assert backtest.window_of(tmp_path, SOURCE, None, HOUR * HOUR_S + 1) == (HOUR * HOUR_S, HOUR * HOUR_S + 1)


def test_a_simulated_market_never_stands_in_for_bitget(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(read, "sources", lambda lake: ["simulator-g7-12"])
    assert resources.resolve_source(tmp_path, None, settings.load(market="simulator")) == "simulator-g7-12"
    asked = settings.load(market="bitget")
    with pytest.raises(TableEmpty, match=r"source bitget is needed in .* for MARKET=bitget, found simulator-g7-12"):
        resources.resolve_source(tmp_path, None, asked)
    assert resources.resolve_source(tmp_path, "simulator-g7-12", asked) == "simulator-g7-12"
    monkeypatch.setattr(read, "sources", lambda lake: ["import-bitget"])
    assert resources.resolve_source(tmp_path, None, asked) == "import-bitget"


def test_a_file_of_an_unknown_kind_is_refused_by_name_though_it_holds_one_line(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("# hello\n\n")
    with pytest.raises(SettingsError, match=r"README\.md must be a file that ends in \.csv"):
        imports.parts_of("tardis", [tmp_path / "README.md"])


def test_days_are_refused_as_days(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert history.main(["--lake", str(tmp_path), "--days", "100000"]) == 2
    assert capsys.readouterr().err == "--days must be above 0 and at most 3650, found 100000\n"


def test_without_a_session_the_last_one_is_a_command_away(tmp_path: Path) -> None:
    with pytest.raises(
        JournalError, match=r"and no session yet: python -m live\.run --model coin --seconds 60 makes one"
    ):
        journal.find(tmp_path, "last")


def test_a_check_that_failed_is_words_with_its_hour() -> None:
    check = dg.AssetCheckEvaluation(
        asset_key=dg.AssetKey("coverage"),
        check_name="whole_hour",
        passed=False,
        metadata={
            "first_minute": dg.MetadataValue.int(2),
            "last_minute": dg.MetadataValue.int(59),
            "what_to_do": dg.MetadataValue.text("record all of it"),
        },
        severity=dg.AssetCheckSeverity.WARN,
        partition="2026-11-22-22:00",
    )
    assert drive.failing("coverage.whole_hour", check) == (
        "coverage.whole_hour of 2026-11-22-22:00: a warning: first minute 2, last minute 59; record all of it"
    )
    bare = dg.AssetCheckEvaluation(
        asset_key=dg.AssetKey("coverage"),
        check_name="whole_hour",
        passed=False,
        metadata={},
        severity=dg.AssetCheckSeverity.ERROR,
        description="none stored",
    )
    assert drive.failing("coverage.whole_hour", bare) == "coverage.whole_hour: none stored"


def test_a_session_that_nobody_recorded_is_beside_nothing() -> None:
    def told(missing: int) -> str:
        beside = Beside(column="mark", cells=80, mismatched=0, missing=missing, extra=0, worst=("BTCUSDT",))
        return parity.report(
            parity.Checked(
                session="s",
                source=SOURCE,
                start_s=0,
                end_s=0,
                seconds=0,
                symbols=1,
                stages=(),
                first=None,
                beside=(beside,),
            )
        )

    assert "nobody recorded simulator-g7-40 in these seconds" in told(80)
    assert "| mark |" not in told(80)
    assert "| mark | 80 | 0 | 79 |" in told(79)


@pytest.mark.parametrize("module", ["pipelines.train", "live.run"])
def test_a_bare_python_is_told_where_the_prepared_one_is(module: str) -> None:
    bare = subprocess.run(  # -S: without what is installed
        [sys.executable, "-S", "-m", module], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert bare.returncode == 1
    assert bare.stderr.count("\n") == 1
    assert "run it as .venv/bin/python" in bare.stderr


@pytest.mark.parametrize("arguments", [["--hours", "0"], ["--hours", "nan"], ["--seconds", "0"]])
def test_a_demo_of_nothing_is_refused_before_it_begins(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    asked = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        assert demo.main(arguments) == 2
    finally:
        for number, handler in asked.items():
            signal.signal(number, handler)
    told = capsys.readouterr()
    assert told.err.startswith(f"{arguments[0]} must be")
    assert told.out == ""


def test_a_file_in_the_place_of_a_folder_is_told(tmp_path: Path) -> None:
    (tmp_path / "report").write_text("")
    with pytest.raises(SettingsError, match="found: a file of this name: free it, or choose other --out"):
        backtest.check_writable(tmp_path / "report")
