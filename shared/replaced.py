"""Files that are replaced whole: a reader finds the old content or the new one, never half of either."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path


def replace_file(path: Path, content: bytes, *, is_durable: bool) -> None:
    """Write a draft beside the file, then give it the file's name; folders that are missing are made.

    A rename is atomic, but only what was fsynced is sure to be there after the machine was lost: without it the name
    may be the new one and the content empty. Whoever cannot do without the file asks for that.

    Args:
        is_durable: content and name survive the machine, not only the process.

    Raises:
        OSError: the file is as it was, and no draft is left.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")  # two processes never write into one draft
    try:
        with draft.open("wb") as file:
            file.write(content)
            file.flush()
            if is_durable:
                os.fsync(file.fileno())
        draft.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            draft.unlink(missing_ok=True)
        raise
    if is_durable:
        sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make durable which names a folder holds."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
