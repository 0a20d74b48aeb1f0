"""A file that is replaced is the old one or the new one, whatever goes wrong in between."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from shared.replaced import replace_file


@pytest.mark.parametrize("is_durable", [False, True])
def test_a_file_is_made_with_its_folders_and_replaced_whole(is_durable: bool, tmp_path: Path) -> None:
    """First and second content are read back to the byte, and no draft stays beside them."""
    path = tmp_path / "new" / "folder" / "file.json"

    for content in (b"first, and longer", b"second"):
        replace_file(path, content, is_durable=is_durable)

        assert path.read_bytes() == content
        assert os.listdir(path.parent) == ["file.json"]


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_failure_leaves_the_old_file_and_no_draft(step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that fails while the draft is made durable or renamed raises; the file is as it was."""
    path = tmp_path / "file"
    replace_file(path, b"old", is_durable=True)

    def fail(*args: object) -> None:
        raise OSError(28, "No space left on device")

    owner: object = os if step == "fsync" else Path
    monkeypatch.setattr(owner, step, fail)

    with pytest.raises(OSError, match="No space left"):
        replace_file(path, b"new", is_durable=True)
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]


def test_durable_content_is_on_the_disk_before_its_name_and_the_name_before_the_return(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The draft is fsynced before the rename, the folder after it; without `is_durable` nothing is waited for."""
    done: list[str] = []
    sync, rename = os.fsync, Path.replace

    def synced(number: int) -> None:
        done.append("folder" if os.path.isdir(f"/proc/self/fd/{number}") else "draft")
        sync(number)

    def renamed(self: Path, target: Path) -> Path:
        done.append("rename")
        return rename(self, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(Path, "replace", renamed)

    replace_file(tmp_path / "file", b"x", is_durable=True)
    assert done == ["draft", "rename", "folder"]
    done.clear()
    replace_file(tmp_path / "file", b"y", is_durable=False)
    assert done == ["rename"]


def test_two_processes_have_drafts_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The draft's name holds the process: what one is writing, another one does not rename."""
    path = tmp_path / "file"
    foreign = tmp_path / f".file.{os.getpid() + 1}.tmp"
    foreign.write_bytes(b"half of")

    replace_file(path, b"whole", is_durable=False)

    assert path.read_bytes() == b"whole"
    assert foreign.read_bytes() == b"half of"
