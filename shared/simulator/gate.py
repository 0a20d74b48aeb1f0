"""Who may ask what, and how often: accounts, signatures, rate limits, refusals.

Codes, messages and the order of the checks: Bitget v2, REST -> Signature and Error codes, as probed in September 2026
(key before everything else), the rest inferred.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections import deque
from collections.abc import Iterable, Mapping
from decimal import Decimal, InvalidOperation
from urllib.parse import unquote

import msgspec

from shared.errors import SettingsError

WINDOW_MS = 30_000
"""A request or login signed longer ago, or further ahead, is refused (40008)."""


class Refused(Exception):
    """Bitget's answer to a request that it does not like: HTTP 400 and a code, unless stated otherwise."""

    def __init__(self, code: str, message: str, status: int = 400) -> None:
        super().__init__(f"{code} {message}")
        self.code, self.message, self.status = code, message, status


class Credentials(msgspec.Struct, frozen=True):
    """An account of the simulator; printing it shows no secret."""

    key: str
    secret: str
    passphrase: str
    deposit_usdt: Decimal

    def __repr__(self) -> str:
        return f"Credentials({self.key}, [redacted], {self.deposit_usdt} USDT)"

    __str__ = __repr__


DEFAULT_ACCOUNT = Credentials("simulator", "simulator", "simulator", Decimal(10_000))


def parse_account(text: str) -> Credentials:
    """Return the account that `KEY:SECRET:PASSPHRASE:USDT` describes.

    Raises:
        SettingsError: it is not four parts, or the money is not a positive number.
    """
    parts = text.split(":")
    try:
        key, secret, passphrase, money = parts
        deposit = Decimal(money)
        is_good = all((key, secret, passphrase)) and deposit.is_finite() and deposit > 0
    except (ValueError, InvalidOperation):
        is_good = False
    if not is_good:
        raise SettingsError(
            f"--account must be KEY:SECRET:PASSPHRASE:USDT with a positive amount, found {len(parts)} parts: correct it"
        )
    return Credentials(key, secret, passphrase, deposit)


class Gate:
    """Verifies signed requests and logins.

    Args:
        accounts: who is known.
    """

    def __init__(self, accounts: Iterable[Credentials]) -> None:
        self._accounts = {account.key: account for account in accounts}

    def check(self, method: str, target: str, headers: Mapping[str, str], body: str, *clocks_ms: int) -> str:
        """Return the key of who signed a REST request.

        Args:
            target: path and query exactly as received; the signature may cover it percent-encoded or decoded (clients
                in production do either), never re-sorted.
            clocks_ms: what the time may be: market time and, where that is accelerated, the wall clock's.

        Raises:
            Refused: key, passphrase, time or signature is not right.
        """
        key = headers.get("ACCESS-KEY")
        if not key:
            raise Refused("40006", "Invalid ACCESS_KEY")
        account = self._accounts.get(key)
        if account is None:
            raise Refused("40037", "Apikey does not exist")
        sign, stamp, passphrase = (headers.get(f"ACCESS-{name}") for name in ("SIGN", "TIMESTAMP", "PASSPHRASE"))
        if not passphrase:
            raise Refused("40011", "Invalid ACCESS_PASSPHRASE")
        if not sign:
            raise Refused("40002", "Invalid ACCESS_SIGN")
        if not stamp:
            raise Refused("40003", "Invalid ACCESS_TIMESTAMP")
        if not hmac.compare_digest(passphrase.encode(), account.passphrase.encode()):
            raise Refused("40012", "apikey/password is incorrect")
        if not (stamp.isascii() and stamp.isdigit() and len(stamp) <= 16):
            raise Refused("40005", "Invalid ACCESS_TIMESTAMP")
        if all(abs(int(stamp) - now_ms) > WINDOW_MS for now_ms in clocks_ms):
            raise Refused("40008", "Request timestamp expired")
        candidates = {f"{stamp}{method}{text}{body}" for text in (target, unquote(target))}
        if not any(_is_same(sign, signature(account.secret, text)) for text in candidates):
            raise Refused("40009", "sign signature error")
        return key

    def check_login(self, arg: Mapping[str, object], *clocks_s: int) -> str | tuple[int, str]:
        """Return the key of who logs in to the private WebSocket, or (code, message) of the error frame.

        The timestamp is in seconds here; milliseconds, as Bitget's prose has it, are far outside the window.
        """
        account = self._accounts.get(str(arg.get("apiKey")))
        if account is None:
            return 30011, "invalid ACCESS_KEY"
        if not hmac.compare_digest(str(arg.get("passphrase")).encode(), account.passphrase.encode()):
            return 30012, "invalid ACCESS_PASSPHRASE"
        stamp = str(arg.get("timestamp"))
        if not (stamp.isascii() and stamp.isdigit() and len(stamp) <= 16):
            return 30013, "invalid ACCESS_TIMESTAMP"
        if all(abs(int(stamp) - now_s) * 1000 > WINDOW_MS for now_s in clocks_s):
            return 30014, "Request timestamp expired"
        if not _is_same(str(arg.get("sign")), signature(account.secret, f"{stamp}GET/user/verify")):
            return 30015, "Invalid sign"
        return account.key


class RateLimit:
    """Calls per second and caller, one budget an endpoint (a sliding second)."""

    def __init__(self) -> None:
        self._calls: dict[tuple[str, str], deque[float]] = {}

    def take(self, caller: str, endpoint: str, per_s: int, now_s: float) -> int:
        """Spend one call and return how many remain in this second.

        Raises:
            Refused: HTTP 429, nothing remains.
        """
        calls = self._calls.setdefault((caller, endpoint), deque())
        while calls and now_s - calls[0] >= 1.0:
            calls.popleft()
        if len(calls) >= per_s:
            raise Refused("429", "Too Many Requests", 429)
        calls.append(now_s)
        return per_s - len(calls)


def signature(secret: str, prehash: str) -> str:
    """Return base64(HMAC-SHA256(secret, prehash))."""
    return base64.b64encode(hmac.new(secret.encode(), prehash.encode(), hashlib.sha256).digest()).decode()


def _is_same(given: str, right: str) -> bool:
    return hmac.compare_digest(given.encode(), right.encode())
