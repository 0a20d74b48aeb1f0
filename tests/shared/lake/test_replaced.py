"""Files that grow are replaced while others read them: a reader sees the one of before or the one of after."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path

import msgspec

from shared.lake import read, write
from shared.types import Universe
from tests.shared.lake import receipts as r

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
