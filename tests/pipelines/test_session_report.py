"""A session's report: from its journal alone, with the files of a backtest's, and recomputed by `verify`."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import polars as pl
import pytest

from pipelines import report, verify
from pipelines.provenance import read_report
from pipelines.session_report import page_of
from pipelines.told import ParityVerdict
from pipelines.trades import METRICS
from shared import journal
from shared.errors import JournalError
from shared.types import StopRequested
from tests.live.sessions import Rig, rewrite


@pytest.fixture(params=["coin", "rules"])
def session(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Return the folder of a session of forty seconds that ended cleanly."""
    rig = Rig(tmp_path / "session", request.param)
    rig.adopt()
    rig.trade(40)
    rig.runner.tell(StopRequested(recv_ns=rig.clock(), reason="test"))
    rig.trade(3)
    rig.journal.close()
    return tmp_path / "session"


def test_report_of_a_session_has_the_files_of_a_backtest(
    session: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Page, trades and metrics; the replay is identical, and the gap to the backtest of its orders is explained."""
    assert report.main(["--session", str(session), "--out", str(tmp_path / "out")]) == 0

    said = capsys.readouterr().out
    header, values = list(csv.reader((tmp_path / "out" / "metrics.csv").open()))
    trades = pl.read_parquet(tmp_path / "out" / "trades.parquet")
    text = (tmp_path / "out" / "report.html").read_text()
    assert said.startswith("net ")
    assert "residual 0" in said
    assert tuple(header) == METRICS
    assert float(values[0]) == len(trades) == len(pl.read_csv(tmp_path / "out" / "trades.csv"))
    assert re.search(r'<li class="good" title="[^"]*">parity: checked, [0-9,]+ decisions, 0 mismatches</li>', text)
    assert "the order intents are identical" in text


def test_coverage_of_a_session_is_what_its_engine_knew(session: Path) -> None:
    """In symbol-seconds, by channel: all of what was received, and nothing of what was not."""
    page, _ = page_of(session)

    found = {one.channel: one for one in page.told.coverage or ()}
    assert page.told.coverage_unit == "symbol-seconds"
    assert set(found) == {"book", "ticker", "trade"}
    for one in found.values():
        assert one.complete + one.gap + one.stale == (page.end_s - page.start_s) * page.symbols
    assert found["book"].share == 1.0


def test_gap_of_a_session_is_explained_to_the_last_digit(tmp_path: Path) -> None:
    """A venue that fills everything at 100 differs from books that walk: in price, not in what was asked for."""
    rig = Rig(tmp_path / "session")
    rig.adopt()
    rig.trade(60)
    rig.journal.close()

    page, replayed = page_of(tmp_path / "session")

    gap = page.gap
    assert gap is not None
    assert replayed.difference is None
    assert gap.intents_identical
    assert gap.orders == page.main.orders > 10
    assert gap.residual_usdt == 0
    assert gap.parts["price"] != 0
    assert gap.parts["fees"] != 0
    assert gap.parts["adjustments"] == 0
    assert float(gap.session_usdt) == pytest.approx(page.main.equity_usdt[-1] - page.main.equity_usdt[0])


def test_session_is_verified_from_its_journal(
    session: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`verify` finds the session by name, replays it and says equal; an altered journal is refused by a sentence."""
    lake = tmp_path / "lake"
    home = lake / "journal" / "source=simulator-made" / "session=s"
    home.parent.mkdir(parents=True)
    session.rename(home)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    assert report.main(["--session", "s", "--lake", str(lake)]) == 0
    capsys.readouterr()

    page = home / "report" / "report.html"
    assert verify.main([str(page), "--lake", str(lake)]) == 0
    assert capsys.readouterr().out.startswith("equal")

    rewrite(home, journal.SECOND, 3, lambda body: bytes([body[0] ^ 1]) + body[1:])
    assert verify.main([str(page), "--lake", str(lake)]) == JournalError.exit_code
    assert f"the journal of s must be {read_report(page).journal[:12]}" in capsys.readouterr().err


def test_a_session_that_replays_otherwise_says_so(session: Path) -> None:
    """The page ends where the replay leaves the journal, and its badge is red."""
    rewrite(session, journal.SECOND, 20, lambda body: bytes([body[0] ^ 1]) + body[1:])

    page, _ = page_of(session)

    parity = page.told.parity
    assert parity.verdict is ParityVerdict.DIFFERS
    assert parity.mismatches > 0
    assert "differs first at stage 'inputs'" in parity.sentence
    assert parity.sentence.endswith("This page ends where they part.")


def test_a_session_without_a_second_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing lived, nothing to report."""
    rig = Rig(tmp_path / "session")
    rig.journal.close()

    assert report.main(["--session", str(tmp_path / "session")]) == JournalError.exit_code
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "must have lived a second" in said
