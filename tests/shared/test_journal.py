"""The journal: what goes in comes out, and what was damaged or cut off is said."""

from __future__ import annotations

import errno
import os
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared import journal
from shared.errors import JournalError, SchemaMismatch
from shared.strategy.engine import EngineConfig, Memory
from shared.types import (
    SCHEMA_VERSION,
    Adopted,
    Cause,
    Event,
    LinkChanged,
    Note,
    OrderKind,
    PlaceOrder,
    Position,
    SecondClosed,
    Side,
    Universe,
)


def make_header(**changes: Any) -> journal.Header:
    fields: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "session": "s",
        "source": "simulator-g7-4",
        "started_ns": 1,
        "model": "coin",
        "bundle": None,
        "seed": 7,
        "config": EngineConfig(top_k=3),
        "memory": Memory(),
        "universe": Universe(source="simulator-g7-4", as_of_ns=1, contracts=()),
        "columns": ("last", "mark"),
        "definition_hash": "d",
        "commit": "",
        "numpy": np.__version__,
    }
    return journal.Header(**(fields | changes))


def place(client_oid: str) -> PlaceOrder:
    return PlaceOrder(
        client_oid=client_oid,
        symbol="龙虾USDT",
        side=Side.BUY,
        kind=OrderKind.MARKET,
        size=Decimal("0.10"),
        price=None,
        reduce_only=False,
        stop_price=Decimal("1E-7"),
        cause=Cause.ENTRY,
    )


EVENTS: list[Event] = [
    Adopted(
        recv_ns=1,
        equity_usdt=Decimal("10000.00"),
        available_usdt=Decimal("1"),
        positions=(Position(symbol="龙虾USDT", size=Decimal("-3"), entry_price=Decimal("0.1")),),
        orders=(),
        leverage={"B": 2, "A": 1},
    ),
    LinkChanged(recv_ns=2, link="public", is_up=False),
]


def write(folder: Path, blocks: list[np.ndarray[Any, Any]]) -> bytes:
    """Write events, seconds and decisions; return the whole file."""
    writer = journal.JournalWriter(folder, make_header())
    for event in [*EVENTS, *(SecondClosed(recv_ns=9 + s, second=s, columns=block) for s, block in enumerate(blocks))]:
        writer.add_event(event)
        writer.add_decision([place("a"), Note(event="x.y", fields={"z": np.float64(0.5)})], {"features": "f"})
        writer.commit(is_durable=False)
    writer.close()
    return writer.path.read_bytes()


@given(st.lists(st.tuples(st.integers(1, 4), st.integers(0, 5), st.integers(0, 2**32 - 1)), max_size=6))
def test_journal_reads_back_every_bit(
    tmp_path_factory: pytest.TempPathFactory, shapes: list[tuple[int, int, int]]
) -> None:
    """Blocks come back with all their bits (NaN, -0.0, denormals), events and actions equal what was noted."""
    blocks = [np.random.default_rng(s).integers(0, 2**64, (c, n), np.uint64).view(np.float64) for c, n, s in shapes]
    folder = tmp_path_factory.mktemp("journal")
    write(folder, blocks)

    reader = journal.JournalReader(folder / journal.FILE_NAME)
    records = list(reader)

    seconds = [record.value for record in records if record.kind == journal.SECOND]
    assert [second.columns.tobytes() for second in seconds] == [block.tobytes() for block in blocks]
    assert [record.value for record in records if record.kind == journal.EVENT] == EVENTS
    decisions = [record.value for record in records if record.kind == journal.DECISION]
    assert all(journal.decode_actions(found.actions)[0] == place("a") for found in decisions)
    assert records[0].value == make_header()
    assert (reader.is_closed, reader.torn_bytes) == (True, 0)


@given(
    st.lists(
        st.lists(
            st.one_of(
                st.decimals(0, 100_000, places=4).map(float),
                st.floats(),
                st.sampled_from([0.0, -0.0, float("nan"), float("inf"), 5e-324, 1e300, 0.1 + 0.2]),
            ),
            min_size=6,
            max_size=6,
        ),
        min_size=1,
        max_size=8,
    )
)
def test_blocks_of_prices_and_oddities_read_back_every_bit(rows: list[list[float]]) -> None:
    """Decimals, sums, NaN, infinities and signed zeros following one another in a cell come back exactly."""
    packer, unpacker = journal.BlockCode(), journal.BlockCode()
    for row in rows:
        block = np.array(row).reshape(2, 3)
        assert unpacker.unpack(packer.pack(block), (2, 3)).tobytes() == block.tobytes()


def test_journal_torn_anywhere_reads_the_whole_records_before(tmp_path: Path) -> None:
    """Wherever the last write was cut off, every whole record before it is read and nothing is invented."""
    raw = write(tmp_path, [np.ones((2, 3))])
    whole = [record.offset for record in journal.JournalReader(tmp_path / journal.FILE_NAME)] + [len(raw)]

    for cut in range(whole[1], len(raw)):
        (tmp_path / "cut.bin").write_bytes(raw[:cut])
        reader = journal.JournalReader(tmp_path / "cut.bin")
        n_records = sum(1 for _ in reader)
        assert n_records == sum(1 for start in whole[1:] if start <= cut)
        assert reader.torn_bytes == cut - max(start for start in whole if start <= cut)
        assert not reader.is_closed


def test_journal_flipped_bit_is_named(tmp_path: Path) -> None:
    """A bit flipped in a frame's payload ends the reading with the record's number."""
    raw = write(tmp_path, [np.ones((2, 3))])
    offsets = [record.offset for record in journal.JournalReader(tmp_path / journal.FILE_NAME)]

    for number, offset in enumerate(offsets):
        damaged = bytearray(raw)
        damaged[offset + 8] ^= 1  # the first byte behind length and checksum
        (tmp_path / "damaged.bin").write_bytes(damaged)
        with pytest.raises(JournalError, match=f"record {number} at byte {offset}") as caught:
            list(journal.JournalReader(tmp_path / "damaged.bin"))
        assert "stage 'inputs'" in str(caught.value)


def test_journal_of_another_schema_version_is_refused(tmp_path: Path) -> None:
    """A journal of a version that this code does not know is refused, not misread."""
    journal.JournalWriter(tmp_path, make_header(schema_version=999)).close()
    with pytest.raises(SchemaMismatch, match=f"version {SCHEMA_VERSION}, found 999"):
        list(journal.JournalReader(tmp_path / journal.FILE_NAME))


def test_journal_that_cannot_be_written_stays_broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk raises JournalError, and so does every later commit: a gap is never papered over."""
    writer = journal.JournalWriter(tmp_path, make_header())

    def full(_file: int, _bytes: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    writer.add_event(EVENTS[1])
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        with pytest.raises(JournalError, match="No space left"):
            writer.commit(is_durable=False)
    with pytest.raises(JournalError, match="No space left"):
        writer.commit(is_durable=False)


def test_journal_never_overwrites_a_session(tmp_path: Path) -> None:
    """A second writer of the same folder is refused."""
    journal.JournalWriter(tmp_path, make_header()).close()
    with pytest.raises(JournalError, match="File exists"):
        journal.JournalWriter(tmp_path, make_header())


def test_journal_unchanged_market_costs_next_to_nothing(tmp_path: Path) -> None:
    """A second in which nothing changed takes less than a hundredth of its block."""
    block = np.random.default_rng(1).normal(size=(41, 400))
    one = len(write(tmp_path / "one", [block]))
    two = len(write(tmp_path / "two", [block, block]))
    assert two - one < block.nbytes / 100 + 300  # + the decision's frame


def test_find_takes_folder_name_or_last(tmp_path: Path) -> None:
    """A session is found by folder, by name and as `last`; an unknown one is refused with the known ones."""
    folders = [tmp_path / "journal" / "source=x" / f"session={name}" for name in ("20260101-a", "20260102-b")]
    for folder in folders:
        journal.JournalWriter(folder, make_header()).close()

    assert journal.find(tmp_path, str(folders[0])) == folders[0]
    assert journal.find(tmp_path, "20260101-a") == folders[0]
    assert journal.find(tmp_path, "last") == folders[1]
    with pytest.raises(JournalError, match="20260102-b"):
        journal.find(tmp_path, "nobody")
