"""Journals of live sessions -> the lake's `journal` table, so that a query finds what a session did and why.

Run it: python -m pipelines.sessions [SESSION] [--source NAME]

A session's own file (`journal.bin`) is what replays; the table is for reading: one row per thing that the engine was
told (event) or wanted (action), with its payload as JSON. Sampled seconds are left out, they are in `seconds`.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import polars as pl

from shared import entry, journal
from shared import settings as settings_module
from shared.errors import CrosscutError
from shared.lake import layout, write
from shared.lake.layout import HOUR_NS
from shared.types import Action, Event, Note, PlaceOrder, SecondClosed

SILENT_S = 600.0
"""Seconds after which a journal that nobody writes to is that of a session that was killed: a live one grows each
second."""


class Stored(msgspec.Struct, frozen=True):
    """A session that is in the table now."""

    session: str
    source: str
    rows: int


def rows_of(folder: Path) -> Iterator[tuple[int, str, str, str, str]]:
    """Yield (recv_ns, kind, name, symbol, payload) of a session, in order.

    Raises:
        JournalError: the journal cannot be read.
    """
    now_ns = 0
    symbol_of: dict[str, str] = {}  # client_oid -> symbol: answers name their order only
    for record in journal.JournalReader(folder / journal.FILE_NAME):
        if record.kind == journal.DECISION:
            for action in journal.decode_actions(record.value.actions):
                if isinstance(action, PlaceOrder):
                    symbol_of[action.client_oid] = action.symbol
                yield now_ns, "action", *_told(action, symbol_of)
        elif record.kind in (journal.EVENT, journal.SECOND):
            now_ns = max(now_ns, record.value.recv_ns)
            if not isinstance(record.value, SecondClosed):
                yield now_ns, "event", *_told(record.value, symbol_of)


def _told(message: Event | Action, symbol_of: dict[str, str]) -> tuple[str, str, str]:
    """Return name, symbol and payload."""
    if isinstance(message, Note):
        return message.event, str(message.fields.get("symbol", "")), msgspec.json.encode(message.fields).decode()
    fields: dict[str, Any] = msgspec.to_builtins(message)
    symbol = fields.get("symbol") or symbol_of.get(fields.get("client_oid", ""), "")
    del fields["type"]
    return type(message).__name__, symbol, msgspec.json.encode(fields).decode()


def store(lake: Path, folder: Path) -> Stored:
    """Write a session into the table, in place of an earlier reading of it.

    Raises:
        JournalError: the journal cannot be read.
        LakeError: the disk refuses.
    """
    header = next(iter(journal.JournalReader(folder / journal.FILE_NAME))).value
    names = list(layout.TABLES["journal"].columns)
    frame = pl.DataFrame(
        [(header.session, k, *row) for k, row in enumerate(rows_of(folder))],
        schema={name: layout.TABLES["journal"].columns[name] for name in names},
        orient="row",
    )
    for hour in (frame["recv_ns"] // HOUR_NS).unique().sort():
        part = frame.filter(pl.col("recv_ns") // HOUR_NS == hour)
        provenance = {"session": header.session, "model": header.model, "commit": header.commit}
        write.write_table(lake, "journal", header.source, hour, part, provenance, part=header.session)
    return Stored(header.session, header.source, len(frame))


def sessions_of(lake: Path, source: str | None) -> list[Path]:
    """Return the folders of all sessions of a source, None for every source, oldest first."""
    found = (lake / "journal").glob(f"source={source or '*'}/session=*/{journal.FILE_NAME}")
    return sorted((path.parent for path in found), key=lambda folder: folder.name)


def ended(lake: Path, source: str) -> list[Path]:
    """Return the folders of the sessions of a source that trade no more, oldest first."""
    return [folder for folder in sessions_of(lake, source) if _has_ended(folder)]


def name_of(folder: Path) -> str:
    """Return a session's name, from its folder."""
    return folder.name.removeprefix("session=")


def _has_ended(folder: Path) -> bool:
    if (folder / "session.json").is_file():
        return True
    try:
        return time.time() - (folder / journal.FILE_NAME).stat().st_mtime > SILENT_S
    except FileNotFoundError:
        return False  # removed meanwhile


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m pipelines.sessions", description="Put journals of live sessions into the lake's journal table."
    )
    parser.add_argument("session", nargs="?", help="folder, name or last (default: every session)")
    parser.add_argument("--lake", help="the lake's folder (default: LAKE_URI, which is data_lake)")
    parser.add_argument("--source", help="only sessions of this source")
    args = parser.parse_args(arguments)
    try:
        lake = settings_module.load(lake_uri=args.lake).lake
        folders = [journal.find(lake, args.session)] if args.session else sessions_of(lake, args.source)
        for folder in folders:
            stored = store(lake, folder)
            print(f"{stored.rows:,} rows of session {stored.session} ({stored.source})")
    except CrosscutError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    if not folders:
        print(f"0 sessions in {lake}: python -m live.run --model coin --seconds 60 makes one")
    return 0


if __name__ == "__main__":
    entry.run(main)
