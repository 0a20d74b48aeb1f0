"""A lake in an object store: sealed files live there, the folder that readers are given is their cache.

`LAKE_URI=s3://bucket/prefix` makes a local folder with the file `.remote` in it, which says where the lake is. What
must be near stays in that folder: write-ahead logs, locks, journals, reports. What is sealed is PUT under its path
relative to the lake (atomic: a reader sees the old object or the new one) and counts as written when the store has
said so. A reader lists the store, fetches what it lacks, and works on local files as it does in any lake: the same
code, the same checks of every byte, and no second download while the object's ETag stays the same.

Beside the files, below `.remote.d`, lies the ETag that each local copy had when it was read or written. A raw hour and
a universe are merged with what is there, so they are replaced only while the store still holds what was merged
(`If-Match`, `If-None-Match`): two machines that seal one hour do not lose each other's rows, the second one is told.
Derived tables are a function of their inputs and are overwritten.

Credentials, region and endpoint come from the environment, as for every S3 client: AWS_ACCESS_KEY_ID,
AWS_SECRET_ACCESS_KEY, AWS_REGION, and AWS_ENDPOINT_URL for a store that is not Amazon's.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, TypeVar

import obstore
from obstore import exceptions
from obstore.store import S3Store

from shared.errors import LakeError, SettingsError

if TYPE_CHECKING:
    from obstore import ObjectMeta, PutMode

T = TypeVar("T")

MARKER = ".remote"
WHOLE_BYTES_MAX = 64_000_000
"""A larger file is uploaded in parts, which S3 cannot make conditional: its ETag is asked for just before."""

_ETAGS = ".remote.d"
RETRIES = 5
"""Of a request that the store did not answer, or answered with an error of its own; 100 ms to 15 s apart."""
_MISSING = (FileNotFoundError, exceptions.NotFoundError)
_CHANGED = (exceptions.PreconditionError, exceptions.AlreadyExistsError)


def remote_of(root: Path) -> Remote | None:
    """Return the store that a lake's folder stands for, None where the folder is the lake.

    Raises:
        SettingsError: the store's address cannot be used.
        LakeError: the folder may not be looked into.
    """
    try:
        stat = (root / MARKER).stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except PermissionError as error:
        raise LakeError(f"{root} must be readable, found {error}: restore the permission, then run it again") from error
    return _remote(root, stat.st_mtime_ns)


@lru_cache(maxsize=64)
def _remote(root: Path, mtime_ns: int) -> Remote:
    return Remote(root, (root / MARKER).read_text().strip())


class Remote:
    """The objects of one lake.

    Args:
        root: the lake's local folder.
        uri: s3://bucket/prefix.

    Raises:
        SettingsError: the address cannot be used.
    """

    def __init__(self, root: Path, uri: str) -> None:
        self.root, self.uri = root, uri
        is_plain = os.environ.get("AWS_ENDPOINT_URL", "").startswith("http://")
        try:
            self._store = S3Store.from_url(
                uri,
                retry_config={"max_retries": RETRIES},
                client_options={"connect_timeout": "5s", "timeout": "300s", "allow_http": is_plain},
            )
        except (exceptions.BaseError, ValueError) as error:
            raise SettingsError(
                f"LAKE_URI must be s3://bucket/prefix, found {uri!r} ({_first_line(error)}): correct it"
            ) from None

    def listing(self, prefix: str) -> dict[str, str | None]:
        """Return the paths below a folder, relative to the lake, sorted, with their ETags."""
        return dict(sorted((meta["path"], meta["e_tag"]) for meta in self._list(prefix)))

    def sizes(self, prefix: str) -> dict[str, int]:
        """Return the paths below a folder, relative to the lake, sorted, with their bytes."""
        return dict(sorted((meta["path"], meta["size"]) for meta in self._list(prefix)))

    def folders(self, prefix: str) -> list[str]:
        """Return the names of the folders directly below a folder, sorted."""
        with self._asking(prefix):
            found = _again(lambda: obstore.list_with_delimiter(self._store, prefix)["common_prefixes"])
        return sorted(PurePosixPath(path).name for path in found)

    def fetch(self, path: Path, standing: str | None = None) -> bool:
        """Bring the local copy of a file up to date; False where the store has none (any more).

        Args:
            standing: the ETag that the store has told a moment ago; None: it is asked for.
        """
        key = self._key(path)
        known = self._etag(key)
        with self._asking(key):
            try:
                if known and path.exists() and known == (standing or obstore.head(self._store, key)["e_tag"]):
                    return True
                with self._unfinished(path) as unfinished:
                    etag = _again(lambda: self._download(key, unfinished))
                    self._forget(key)  # a copy without an ETag is fetched anew, whatever happens from here to the end
                    unfinished.rename(path)
            except _MISSING:
                self._forget(key)
                path.unlink(missing_ok=True)
                return False
            self._remember(key, etag)
        return True

    def publish(self, unfinished: Path, path: Path, *, is_merged: bool) -> None:
        """Upload a finished file as `path`, then make it the local copy; it is written when this returns.

        Args:
            is_merged: it holds what was there before, so the store must still hold just that.

        Raises:
            LakeError: the store does not take it, or has been written by somebody else meanwhile.
        """
        key = self._key(path)
        base = self._etag(key)
        with self._asking(key):
            try:
                etag = self._put(unfinished, key, base, is_merged=is_merged)
            except _CHANGED:
                # A PUT whose answer was lost is sent again by the client, and meets itself.
                if not _again(lambda: self._holds(key, unfinished)):
                    raise LakeError(
                        f"{self.uri}/{key} must stay as it was while it is rewritten, found it changed by another "
                        "writer: let one machine record a source, then run it again"
                    ) from None
                etag = self._standing(key)
        self._forget(key)
        unfinished.rename(path)
        self._remember(key, etag)

    def remove(self, path: Path) -> None:
        """Remove a file from the store and its copy."""
        key = self._key(path)
        with self._asking(key), contextlib.suppress(*_MISSING):
            obstore.delete(self._store, key)
        self._forget(key)
        path.unlink(missing_ok=True)

    # ------------------------------------------------------------------------------------------------ inside

    def _list(self, prefix: str) -> list[ObjectMeta]:
        with self._asking(prefix):
            return _again(lambda: [meta for batch in obstore.list(self._store, prefix) for meta in batch])

    def _download(self, key: str, unfinished: Path) -> str | None:
        answer = obstore.get(self._store, key)
        with unfinished.open("wb") as file:
            for chunk in answer.stream():
                file.write(chunk)
        return answer.meta["e_tag"]

    def _key(self, path: Path) -> str:
        return path.relative_to(self.root).as_posix()

    def _put(self, file: Path, key: str, base: str | None, *, is_merged: bool) -> str | None:
        if not is_merged:
            return obstore.put(self._store, key, file)["e_tag"]
        if file.stat().st_size > WHOLE_BYTES_MAX:
            if self._standing(key) != base:
                raise exceptions.PreconditionError(key)
            return obstore.put(self._store, key, file)["e_tag"]
        mode: PutMode = "create" if base is None else {"e_tag": base}
        return obstore.put(self._store, key, file, mode=mode, use_multipart=False)["e_tag"]

    def _holds(self, key: str, file: Path) -> bool:
        """Tell whether the store holds just this file."""
        meta = obstore.head(self._store, key)
        return meta["size"] == file.stat().st_size and bytes(obstore.get(self._store, key).bytes()) == file.read_bytes()

    def _standing(self, key: str) -> str | None:
        try:
            return obstore.head(self._store, key)["e_tag"]
        except _MISSING:
            return None

    def _etag(self, key: str) -> str | None:
        try:
            return self._etag_path(key).read_text()
        except FileNotFoundError:
            return None

    def _etag_path(self, key: str) -> Path:
        return self.root / _ETAGS / f"{key}.etag"

    def _remember(self, key: str, etag: str | None) -> None:
        if etag is not None:
            path = self._etag_path(key)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(etag)

    def _forget(self, key: str) -> None:
        self._etag_path(key).unlink(missing_ok=True)

    @contextlib.contextmanager
    def _unfinished(self, path: Path) -> Iterator[Path]:
        unfinished = self.root / ".tmp" / f"fetch-{'-'.join(path.relative_to(self.root).parts)}"
        unfinished.parent.mkdir(parents=True, exist_ok=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield unfinished
        finally:
            unfinished.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _asking(self, key: str) -> Iterator[None]:
        """Turn what the store says into one sentence."""
        try:
            yield
        except (exceptions.BaseError, OSError) as error:
            raise LakeError(
                f"{self.uri} must answer for {key or 'its root'}, found: {_first_line(error)}: "
                "check the bucket, its permissions and the AWS_… settings, then run it again"
            ) from error


def _again(ask: Callable[[], T]) -> T:
    """Ask, and ask again where an answer broke off: the client repeats requests, but no answer that had begun."""
    for _ in range(RETRIES):
        try:
            return ask()
        except exceptions.GenericError as error:
            if "response body" not in str(error):
                raise
    return ask()


def _first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
