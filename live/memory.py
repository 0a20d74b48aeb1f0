"""What outlives a session: limits per account, what the bandit learned per model; and one session per account.

A latch holds over restarts and crashes: it is saved when it falls, and with everything else every ten seconds. A
person lifts it with `--forget-risk`. The account of a simulator that a session starts for itself ends with it, so
its limits are not carried over.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import msgspec

from shared.errors import JournalError, SettingsError
from shared.replaced import replace_file
from shared.strategy.bandit.state import BanditState
from shared.strategy.engine import Memory
from shared.strategy.risk import RiskState


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """The file's content."""

    risk: RiskState | None = None
    bandits: dict[str, BanditState] = {}  # model, as asked for -> what was learned

    def begin(self, model: str, *, forget_risk: bool) -> Memory:
        """Return what a session of this model starts from; what exploration has cost today is of the whole account."""
        bandit = self.bandits.get(model, BanditState())
        spent = max(
            (known.spent for known in (bandit, *self.bandits.values())), key=lambda spent: (spent.day, spent.bps)
        )
        bandit = msgspec.structs.replace(bandit, spent=spent)
        return Memory(risk=None if forget_risk else self.risk, bandit=bandit)

    def after(self, model: str, found: Memory) -> Kept:
        """Return what to keep after a session of this model."""
        return Kept(risk=found.risk, bandits={**self.bandits, model: found.bandit})


def account_id(rest_url: str, key: str) -> str:
    """Return a name for the account that tells nothing about its key."""
    return hashlib.blake2b(f"{rest_url}\x1f{key}".encode(), digest_size=6).hexdigest()


def path_of(root: Path, account: str) -> Path:
    return root / f"memory-{account.replace(' ', '-')}.msgpack"


def load(path: Path) -> Kept:
    """Return what was kept, nothing where nothing was.

    Raises:
        JournalError: the file is there and cannot be read: a lost limit must not pass for none.
    """
    try:
        return msgspec.msgpack.decode(path.read_bytes(), type=Kept)
    except FileNotFoundError:
        return Kept()
    except (OSError, msgspec.MsgspecError) as error:
        raise JournalError(
            f"the limits of earlier sessions must be readable at {path}, found: {error}: "
            "restore the file, or remove it to begin with fresh limits"
        ) from None


def save(path: Path, kept: Kept, *, is_durable: bool = True) -> None:
    """Replace the file, whole or not at all.

    Args:
        is_durable: as of `replace_file`; what is saved every few seconds need not wait for the disk.

    Raises:
        JournalError: it cannot be written.
    """
    try:
        replace_file(path, msgspec.msgpack.encode(kept), is_durable=is_durable)
    except OSError as error:
        raise JournalError(f"the session's limits must be writable at {path}, found: {error}: make room") from None


def _lock_of(lake: Path, account: str) -> Path:
    return lake / "journal" / f".account-{account}.lock"


def is_traded(lake: Path, account: str) -> bool:
    """Return whether a session of this machine holds the account; writes nothing, and what cannot be read is no."""
    try:
        file = os.open(_lock_of(lake, account), os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(file)
    return False


@contextlib.contextmanager
def account_lock(lake: Path, account: str) -> Iterator[None]:
    """Hold the account for one session of this machine: two engines on one account undo each other.

    Raises:
        SettingsError: another session trades it.
    """
    path = _lock_of(lake, account)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise JournalError(f"the lake must be writable at {path}, found: {error}: free it or set LAKE_URI") from None
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise SettingsError(
                "one session at a time may trade an account, found another one at work: stop it first"
            ) from None
        yield
    finally:
        os.close(file)
