"""Sealing on its own: the same hours as within a recorder, from a child or from the command line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from pipelines import seal
from shared.errors import LakeError
from shared.lake import layout, read, write
from shared.lake.layout import RAW
from shared.types import NS, TickEvent
from tests.shared.lake import receipts as r
from tests.shared.lake.test_wal import START_NS, open_log


def record(root: Path, session: str, *, is_closed: bool) -> None:
    log = open_log(root, session)
    log.append(r.concat([r.links(TickEvent.SUBSCRIBED, START_NS), r.receipts(1, START_NS, START_NS + 9 * NS)]))
    if is_closed:
        log.close(START_NS + 9 * NS)
    else:
        log.flush(START_NS + 9 * NS)
        log.abandon()


async def test_child_seals_what_the_process_itself_would(tmp_path: Path) -> None:
    for name in ("here", "beside"):
        record(tmp_path / name, "a", is_closed=True)
        record(tmp_path / name, "b", is_closed=False)

    (here,) = write.seal_all(tmp_path / "here", r.SOURCE)
    (beside,) = await seal.seal_beside(tmp_path / "beside", r.SOURCE)

    assert {table: file.content_hash for table, file in beside.files.items()} == {
        table: file.content_hash for table, file in here.files.items()
    }
    assert (beside.sessions, beside.dead_sessions, beside.rows) == (here.sessions, here.dead_sessions, here.rows)
    assert all(file.path.is_relative_to(tmp_path / "beside") for file in beside.files.values())
    assert write.unsealed(tmp_path / "beside", r.SOURCE) == []


async def test_what_the_child_says_is_what_we_raise(tmp_path: Path) -> None:
    record(tmp_path, "a", is_closed=True)
    write.seal(tmp_path, r.SOURCE, r.HOUR)
    path = layout.partition_path(tmp_path, "raw/book", r.SOURCE, r.HOUR)
    path.write_bytes(path.read_bytes()[:100])
    record(tmp_path, "b", is_closed=True)

    with pytest.raises(LakeError, match=r"raw/book/.*must be a Parquet file"):
        await seal.seal_beside(tmp_path, r.SOURCE)

    assert write.unsealed(tmp_path, r.SOURCE) == [r.HOUR]  # the log is still there


def test_command_seals_every_source_and_again_changes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record(tmp_path, "a", is_closed=True)
    log = tmp_path / ".wal"
    shutil.copytree(log / f"source={r.SOURCE}", log / "source=simulator-other")

    assert seal.main(["--lake", str(tmp_path)]) == 0
    first = capsys.readouterr()
    assert seal.main(["--lake", str(tmp_path)]) == 0
    second = capsys.readouterr()

    reports = json.loads(first.out)
    assert sorted(report["source"] for report in reports) == sorted([r.SOURCE, "simulator-other"])
    assert all(set(report["files"]) == set(RAW) for report in reports)
    assert f"{r.SOURCE}: sealed {layout.hour_name(r.HOUR)}" in first.err
    assert json.loads(second.out) == []
    assert read.sources(tmp_path) == sorted([r.SOURCE, "simulator-other"])


def test_living_log_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    living = open_log(tmp_path, "a")
    living.append(r.concat([r.links(TickEvent.SUBSCRIBED, START_NS), r.receipts(1, START_NS, START_NS + NS)]))
    living.flush(START_NS + NS)

    assert seal.main(["--lake", str(tmp_path), "--source", r.SOURCE]) == 0

    assert json.loads(capsys.readouterr().out) == []
    living.close(START_NS + NS)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--source", "../x"], "a source must consist"),
        (["--lake", "ftp://x"], "LAKE_URI must be a folder"),
    ],
)
def test_wrong_input_is_one_sentence(
    tmp_path: Path, words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert seal.main(["--lake", str(tmp_path), *words]) == 2
    assert said in capsys.readouterr().err
