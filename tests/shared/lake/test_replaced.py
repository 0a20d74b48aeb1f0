"""Files that grow are replaced while others read them: a reader sees the one of before or the one of after."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest

from shared.errors import TableEmpty
from shared.lake import read, sealed, write
from shared.types import NS, Universe
from tests.shared.lake import receipts as r
from tests.shared.lake.test_wal import everything
from tests.shared.lake.test_write import record, seconds_frame

START_NS = r.HOUR * r.HOUR_NS
SNAPSHOTS = 20


def test_universe_is_whole_while_it_is_rewritten(tmp_path: Path) -> None:
    """Read as fast as it goes while snapshots are added, every universe is one that was written, and none is corrupt."""
    written = [
        msgspec.structs.replace(
            r.universe(as_of_ns=START_NS + k),
            contracts=tuple(
                msgspec.structs.replace(contract, tick=Decimal(k + 1)) for contract in r.universe().contracts
            ),
        )
        for k in range(SNAPSHOTS)
    ]
    write.write_universe(tmp_path, written[0])
    is_over = threading.Event()

    def look() -> list[Universe]:
        found = []
        while not is_over.is_set():
            found.append(read.universe_at(tmp_path, r.SOURCE, 2**62))
        return found

    with ThreadPoolExecutor(2) as readers:
        looking = [readers.submit(look) for _ in range(2)]
        try:
            for universe in written[1:]:
                write.write_universe(tmp_path, universe)
        finally:
            is_over.set()
    found = [universe for future in looking for universe in future.result()]

    assert len(found) > 2
    assert all(universe in written for universe in found)


@pytest.mark.parametrize(("module", "step"), [(sealed, "check"), (read, "collect")])
def test_query_reads_one_file_though_it_is_replaced_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: object, step: str
) -> None:
    """Replaced before its bytes are checked or after, a file gives the rows of one version and no alarm."""
    write.write_table(tmp_path, "seconds", r.SOURCE, r.HOUR, seconds_frame(r.HOUR, 50, value=1.0), {})
    whole, calls = getattr(module, step), []

    def replace_then(*args: object, **options: object) -> object:
        calls.append(args)
        if len(calls) == 1:
            write.write_table(tmp_path, "seconds", r.SOURCE, r.HOUR, seconds_frame(r.HOUR, 70, value=2.0), {})
        return whole(*args, **options)

    rows = read.scan(tmp_path, "seconds", r.SOURCE).select("mark", "last")
    monkeypatch.setattr(module, step, replace_then)

    assert set(rows.collect().rows()) == {(2.0, 2.0)}
    assert len(calls) > 1


def test_query_of_a_file_that_never_stays_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that is replaced whenever it is read ends the query in a sentence, not in an endless loop."""
    values = iter(range(100))

    def replace(*args: object) -> None:
        frame = seconds_frame(r.HOUR, 50, value=float(next(values)))
        write.write_table(tmp_path, "seconds", r.SOURCE, r.HOUR, frame, {})

    replace()
    rows = read.scan(tmp_path, "seconds", r.SOURCE)
    monkeypatch.setattr(sealed, "check", replace)

    with pytest.raises(TableEmpty, match="found it replaced: ask again"):
        read.collect(rows)


@pytest.mark.parametrize("call", [1, 3])
def test_file_that_is_replaced_while_it_is_verified_is_verified_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: int
) -> None:
    """Replaced before its bytes are checked or between two of its columns, a file is whole, and no alarm is raised."""
    path = write.write_table(tmp_path, "seconds", r.SOURCE, r.HOUR, seconds_frame(r.HOUR, 50, value=1.0), {}).path
    check, calls = sealed.check, []

    def replace_then(*args: Any) -> None:
        calls.append(args)
        if len(calls) == call:
            write.write_table(tmp_path, "seconds", r.SOURCE, r.HOUR, seconds_frame(r.HOUR, 70, value=2.0), {})
        check(*args)

    monkeypatch.setattr(sealed, "check", replace_then)

    assert read.verify(path).rows == read.footer(path).rows
    assert read.footer(path).rows != seconds_frame(r.HOUR, 50).height


@pytest.mark.parametrize("call", [1, 2])
def test_open_hour_is_read_whole_though_another_seal_replaces_its_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: int
) -> None:
    """An hour of a sealed file, a dead log and a living one: sealed again while it is read, no row is lost or doubled,
    and no alarm is raised."""
    for session, first in (("a", 0), ("b", 3)):
        record(tmp_path, session, START_NS + first * NS, START_NS + (first + 3) * NS)
        if session == "a":
            write.seal(tmp_path, r.SOURCE, r.HOUR)
    living = record(tmp_path, "c", START_NS + 6 * NS, START_NS + 9 * NS, is_closed=False)
    expected = everything(tmp_path)
    check, calls = sealed.check, []

    def replace_then(*args: Any) -> None:
        calls.append(args)
        if len(calls) == call:
            write.seal(tmp_path, r.SOURCE, r.HOUR)
        check(*args)

    monkeypatch.setattr(sealed, "check", replace_then)

    assert r.same(everything(tmp_path), expected, ignore=())
    assert len(calls) > call
    living.abandon()
