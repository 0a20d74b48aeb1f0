"""Permits of the bandit, as files beside the journals they were estimated from: written by pipelines, read by live.

One per source and model: `bandit-permit-<model>.json`. Removing the file takes the permit back.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from shared.errors import JournalError, SettingsError
from shared.journal import Header
from shared.replaced import replace_file
from shared.strategy.bandit.learner import policy_digest
from shared.strategy.bandit.state import Permit
from shared.strategy.config import EngineConfig


def model_key(model: str, digest: str | None) -> str:
    """Return what a permit is for: the booster itself, or the scorer's name where nothing was learnt."""
    return digest[:16] if digest is not None else model


def key_of(header: Header) -> str:
    return model_key(header.model, header.bundle.digest if header.bundle is not None else None)


def permit_path(lake: Path, source: str, key: str) -> Path:
    return lake / "journal" / f"source={source}" / f"bandit-permit-{key}.json"


def save_permit(path: Path, permit: Permit) -> None:
    """Replace the file, whole or not at all.

    Raises:
        JournalError: it cannot be written.
    """
    try:
        replace_file(path, msgspec.json.format(msgspec.json.encode(permit), indent=2), is_durable=True)
    except OSError as error:
        raise JournalError(f"a permit must be writable at {path}, found: {error}: free the folder") from None


def load_permit(path: Path, config: EngineConfig) -> Permit:
    """Return the permit to act under this configuration.

    Raises:
        SettingsError: there is none, it cannot be read, or it is for another policy.
    """
    wanted = policy_digest(config)
    what_to_do = (
        "let it run in BANDIT_MODE=shadow with EXPLORE_BPS_PER_DAY above 0, then python -m pipelines.bandit --grant"
    )
    try:
        permit = msgspec.json.decode(path.read_bytes(), type=Permit)
    except FileNotFoundError:
        raise SettingsError(
            f"BANDIT_MODE=act needs an estimate that the bandit earns more, found no permit at {path}: {what_to_do}"
        ) from None
    except (OSError, msgspec.MsgspecError) as error:
        raise SettingsError(f"a permit must be readable at {path}, found: {error}: {what_to_do}") from None
    if permit.policy != wanted:
        raise SettingsError(
            f"BANDIT_MODE=act needs a permit for policy {wanted}, found one for {permit.policy} at {path}: "
            f"set the bandit as it was, or {what_to_do}"
        )
    return permit
