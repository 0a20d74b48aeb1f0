"""What a lake holds: sources, hours, and the files and logs of one hour, here or in a store."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from shared.errors import TableEmpty
from shared.lake import layout, removal
from shared.lake.layout import RECEIPTS, TABLES
from shared.lake.remote import remote_of


def sources(root: Path) -> list[str]:
    """Return every source that has rows in any table, sorted."""
    remote = remote_of(root)
    if remote is None:
        found = {path.name for table in TABLES for path in (root / table).glob("source=*") if layout.hours_below(path)}
    else:
        found = {name for table in TABLES for name in remote.folders(table) if name.startswith("source=")}
    found |= {path.name for path in (root / ".wal").glob("source=*") if layout.hours_below(path)}
    return sorted(name.removeprefix("source=") for name in found)


def hours(root: Path, table: str, source: str) -> list[int]:
    """Return the epoch hours that have rows, sorted; for raw tables also those that are not sealed."""
    layout.check_name(source, "source")
    gone = removal.marked(root, source)
    sealed = {hour for hour in _sealed_hours(root, table, source) if (table, hour) not in gone}
    logged = layout.hours_below(root / ".wal" / f"source={source}") if table in RECEIPTS else []
    return sorted(sealed | {hour for hour in logged if has_logs(root, table, source, hour)})


def _sealed_hours(root: Path, table: str, source: str) -> set[int]:
    remote = remote_of(root)
    if remote is None:
        found = layout.hours_below(root / table / f"source={source}")
        return {hour for hour in found if _local_parts(root, table, source, hour)}
    keys = [PurePosixPath(key) for key in remote.listing(f"{table}/source={source}")]
    return set(layout.hours_of((key.parents[1].name, key.parent.name) for key in keys if key.suffix == ".parquet"))


def parts(root: Path, table: str, source: str, hour: int) -> list[Path]:
    """Return the sealed files of one hour, as local files that are up to date."""
    remote = remote_of(root)
    if remote is None:
        return _local_parts(root, table, source, hour)
    folder = layout.partition_path(root, table, source, hour).parent
    listing = remote.listing(folder.relative_to(root).as_posix())
    return [root / key for key, etag in listing.items() if key.endswith(".parquet") and remote.fetch(root / key, etag)]


def _local_parts(root: Path, table: str, source: str, hour: int) -> list[Path]:
    path = layout.partition_path(root, table, source, hour)
    return layout.paths_below(path.parent, f"{path.stem}*.parquet")


def sealed_file(root: Path, table: str, source: str, hour: int) -> Path | None:
    """Return the file of an hour of a table that has one an hour, as a local file that is up to date, or None."""
    path = layout.partition_path(root, table, source, hour)
    remote = remote_of(root)
    is_there = path.exists() if remote is None else remote.fetch(path)
    return path if is_there else None


def has_logs(root: Path, table: str, source: str, hour: int) -> bool:
    """Tell whether an hour of a raw table has rows that are not sealed."""
    if table not in RECEIPTS:
        return False
    return bool(layout.paths_below(layout.log_folder(root, source, hour), f"session=*/{TABLES[table].leaf}.arrow"))


def empty(root: Path, table: str, source: str, what: str) -> TableEmpty:
    """Return the error that says what is not there, and what to run."""
    known = sources(root)
    hint = "" if source in known else f" (sources here: {', '.join(known) or 'none'})"
    return TableEmpty(
        f"{table} of {source} in {root} must hold {what}, found nothing{hint}: run {TABLES[table].made_by}"
    )
