"""The exceptions of Crosscut: where the world misbehaves, never where we do (that is an `assert`).

    CrosscutError
    ├── SettingsError          a person's setting is missing, contradictory or dangerous
    ├── LakeError
    │   ├── TableEmpty         nothing stored where something was asked for
    │   ├── TableCorrupt       a file cannot be read, or is not what its footer says
    │   └── SchemaMismatch     a table or journal of a schema version that this code does not know
    ├── ModelError
    │   ├── ModelMissing       no such model, version or alias
    │   └── ModelMismatch      the bundle was made for other features, another source, or was altered
    ├── NotEnoughData          an honest end: too little to train, sample or test on
    ├── ExchangeError
    │   ├── ExchangeRefused    Bitget answered with an error code
    │   ├── ExchangeSilent     no answer in time: what was asked for may have happened
    │   └── ProtocolBroken     a payload that is not what the protocol says
    └── JournalError           the journal cannot be written or does not replay

Messages go expected - found - what to do, in one sentence, without secrets. An entry point prints the
message alone and exits with `exit_code`.
"""

from __future__ import annotations


class CrosscutError(Exception):
    exit_code = 1


class SettingsError(CrosscutError):
    exit_code = 2


class LakeError(CrosscutError):
    exit_code = 3


class TableEmpty(LakeError):
    pass


class TableCorrupt(LakeError):
    pass


class SchemaMismatch(LakeError):
    pass


class ModelError(CrosscutError):
    exit_code = 4


class ModelMissing(ModelError):
    pass


class ModelMismatch(ModelError):
    pass


class NotEnoughData(CrosscutError):
    exit_code = 5


class ExchangeError(CrosscutError):
    exit_code = 6


class ExchangeRefused(ExchangeError):
    """Bitget said no.

    Args:
        code: Bitget's code, a string, e.g. "40085".
        status: HTTP status.
    """

    def __init__(self, code: str, message: str, status: int = 400) -> None:
        super().__init__(f"Bitget refused with {code}: {message}")
        self.code, self.bitget_message, self.status = code, message, status


class ExchangeSilent(ExchangeError):
    pass


class ProtocolBroken(ExchangeError):
    pass


class JournalError(CrosscutError):
    exit_code = 7
