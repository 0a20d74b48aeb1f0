"""Remove hours of the lake: for every reader all of it at once, whenever the remover dies.

Files of several tables cannot be removed in one step, and an hour with books but without their trades would read as
an hour in which nobody traded. So removing is two steps:

1. a marker `.removing/source=…/date=…/hour=HH/<table>+<table>…` says what goes; it is there as a whole or not at all.
   From here on these tables have no such hour: readers leave it out (`marked`), whatever files are still there;
2. the files are removed, and when that is durable, the marker.

Whoever holds the hour next finishes what a killed remover has begun (`finish`, called by `write.hour_lock`), so new
rows of an old hour never meet what is left of it. In an object store markers and files are objects; the same holds.

What does not come through `shared.lake.read` (DuckDB over the files, say) sees the files as they go.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

from shared.errors import LakeError
from shared.lake import layout
from shared.lake.remote import Remote, remote_of
from shared.replaced import sync_folder

FOLDER = ".removing"


def marked(root: Path, source: str) -> frozenset[tuple[str, int]]:
    """Return (table, epoch hour) of everything that is being removed: for a reader it is gone."""
    return frozenset(
        (table, hour) for hour, tables, _ in _markers(root, source, f"source={source}") for table in tables
    )


def files(root: Path, table: str, source: str, hour: int | None = None) -> dict[int, dict[Path, int]]:
    """Return epoch hour -> the files of a table and their bytes, oldest first; also of what is being removed.

    Args:
        hour: only this one; None: every hour.
    """
    folder = root / table / f"source={layout.check_name(source, 'source')}"
    if hour is not None:
        folder = layout.partition_path(root, table, source, hour).parent
    remote = remote_of(root)
    if remote is None:
        pattern = "*.parquet" if hour is not None else "date=*/hour=*/*.parquet"
        sizes = dict(_sizes(layout.paths_below(folder, pattern)))
    else:
        prefix = folder.relative_to(root).as_posix()
        sizes = {root / key: size for key, size in remote.sizes(prefix).items() if key.endswith(".parquet")}
    found: dict[int, dict[Path, int]] = {}
    for path, size in sorted(sizes.items()):
        for hour_of in layout.hours_of([(path.parents[1].name, path.parent.name)]):
            found.setdefault(hour_of, {})[path] = size
    return dict(sorted(found.items()))


def remove(root: Path, source: str, hour: int, tables: Collection[str]) -> int:
    """Remove one hour of these tables and return how many bytes that freed; the caller holds the hour.

    Raises:
        LakeError: the disk or the store refuses; for readers the hour is there as a whole, or gone as a whole.
    """
    sizes = [size for table in tables for paths in files(root, table, source, hour).values() for size in paths.values()]
    if not sizes:
        return 0
    marker = _folder(root, source, hour) / "+".join(sorted(table.replace("/", ".") for table in tables))
    with _disk(root, source, hour):
        unfinished = root / ".tmp" / f"removing-{source}-{hour}"  # the hour's lock makes it ours
        unfinished.parent.mkdir(parents=True, exist_ok=True)
        marker.parent.mkdir(parents=True, exist_ok=True)
        unfinished.write_text("what the name says is being removed; python -m pipelines.retention finishes it\n")
        _publish(unfinished, marker, remote_of(root))
    finish(root, source, hour)
    return sum(sizes)


def drop_copies(root: Path, source: str) -> int:
    """Remove local copies of what a store does not hold any more, and return their bytes; a folder has no copies.

    Another machine removed the objects; nobody reads the copies, but they take room. One that was made a moment ago may
    go, too: it is fetched again when it is asked for.
    """
    if remote_of(root) is None:
        return 0
    freed = 0
    for table in layout.TABLES:
        held = {path for paths in files(root, table, source).values() for path in paths}
        copies = layout.paths_below(root / table / f"source={source}", "date=*/hour=*/*.parquet")
        for path, size in _sizes(path for path in copies if path not in held):
            path.unlink(missing_ok=True)
            freed += size
    return freed


def begun(root: Path, source: str) -> list[int]:
    """Return the epoch hours of which a removal was begun and not finished, sorted."""
    return sorted({hour for hour, _, _ in _markers(root, source, f"source={source}")})


def finish(root: Path, source: str, hour: int) -> None:
    """Finish what was begun of an hour; the caller holds it.

    Raises:
        LakeError: the disk or the store refuses.
    """
    for _, tables, marker in _markers(root, source, layout.hour_folder(source, hour)):
        with _disk(root, source, hour):
            remote = remote_of(root)
            for table in tables:
                folder = layout.partition_path(root, table, source, hour).parent
                for paths in files(root, table, source, hour).values():
                    for path in paths:
                        _unlink(path, remote)
                _remove_folders(folder)
            _unlink(marker, remote)
            _remove_folders(marker.parent, upto=root)


# ---------------------------------------------------------------------------------------------------- inside


def _folder(root: Path, source: str, hour: int) -> Path:
    return root / FOLDER / layout.hour_folder(source, hour)


def _markers(root: Path, source: str, below: str) -> Iterator[tuple[int, tuple[str, ...], Path]]:
    """Yield hour, tables and path of each marker below a folder of `.removing`."""
    layout.check_name(source, "source")
    folder = root / FOLDER / below
    remote = remote_of(root)
    if remote is None:
        # Most of the time there is no such folder, and readers ask often.
        paths = [p for p in layout.paths_below(folder, "**/*") if p.is_file()] if folder.is_dir() else []
    else:
        paths = [root / key for key in remote.listing(folder.relative_to(root).as_posix())]
    for path in paths:
        tables = tuple(name.replace(".", "/") for name in path.name.split("+"))
        for hour in layout.hours_of([(path.parents[1].name, path.parent.name)]):
            yield hour, tuple(table for table in tables if table in layout.TABLES), path


def _sizes(paths: Iterable[Path]) -> Iterator[tuple[Path, int]]:
    for path in paths:
        with contextlib.suppress(FileNotFoundError):  # removed while we looked
            yield path, path.stat().st_size


def _publish(unfinished: Path, path: Path, remote: Remote | None) -> None:
    if remote is None:
        unfinished.rename(path)
    else:
        remote.publish(unfinished, path, is_merged=False)
    sync_folder(path.parent)


def _unlink(path: Path, remote: Remote | None) -> None:
    if remote is not None:
        remote.remove(path)
    else:
        path.unlink(missing_ok=True)
    if path.parent.is_dir():
        sync_folder(path.parent)  # a file that came back after a power cut would be half an hour


def _remove_folders(folder: Path, upto: Path | None = None) -> None:
    """Remove an hour's folder, and with `upto` those above it, as far as they are empty.

    The folders of a day and a source stay in a table: a writer may be about to make an hour in them.
    """
    while folder != upto:
        with contextlib.suppress(FileNotFoundError):
            try:
                folder.rmdir()
            except OSError:
                return
        if upto is None:
            return
        folder = folder.parent


@contextlib.contextmanager
def _disk(root: Path, source: str, hour: int) -> Iterator[None]:
    """Turn what the disk says into one sentence."""
    try:
        yield
    except OSError as error:
        raise LakeError(
            f"{layout.hour_name(hour)} of {source} in {root} cannot be removed: {error}; readers find it as a whole or "
            "not at all: restore the permission or make room, then run python -m pipelines.retention again"
        ) from error
