"""Who may ask what, and how often: accounts, signatures, permissions, rate limits, refusals.

Codes and messages: Bitget v2, REST -> Signature and Error codes. Order of the checks: the key before everything else
(probed in September 2026), then passphrase, time, signature, address and permission (inferred); the environment of a
key (40099) is looked at as soon as the key is known, and the generation of its account (40085) last.

Demo and live keys differ here as at Bitget: a demo key needs the header `paptrading: 1`, a live key must not send it.
The WebSocket has no such header (Bitget separates the two by host name), and this machine is one host: either logs in.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import ipaddress
from collections import deque
from collections.abc import Iterable, Mapping
from decimal import Decimal, InvalidOperation
from urllib.parse import unquote

import msgspec

from shared.errors import SettingsError

WINDOW_MS = 30_000
"""A request or login signed longer ago, or further ahead, is refused (40008)."""

CALLS_PER_MINUTE_MAX = 6000
BLOCK_S = 300.0
"""Bitget v2, rate limits: 6000 requests a minute and address, then about five minutes of refusals."""

PERMISSIONS = frozenset({"read", "trade", "transfer"})


class Refused(Exception):
    """Bitget's answer to a request that it does not like: HTTP 400 and a code, unless stated otherwise."""

    def __init__(self, code: str, message: str, status: int = 400) -> None:
        super().__init__(f"{code} {message}")
        self.code, self.message, self.status = code, message, status


class Credentials(msgspec.Struct, frozen=True):
    """An account of the simulator with its one key; printing it shows no secret.

    Args:
        permissions: of `PERMISSIONS`; who may trade may also read.
        addresses: IP addresses or networks that may use the key; (): any.
        is_demo: a key of the demo environment.
        is_unified: its account is a unified one, which the classic (v2) API does not serve.
    """

    key: str
    secret: str
    passphrase: str
    deposit_usdt: Decimal
    permissions: frozenset[str] = PERMISSIONS
    addresses: tuple[str, ...] = ()
    is_demo: bool = False
    is_unified: bool = False

    def __repr__(self) -> str:
        return f"Credentials({self.key}, [redacted], {self.deposit_usdt} USDT)"

    __str__ = __repr__


DEFAULT_ACCOUNT = Credentials("simulator", "simulator", "simulator", Decimal(10_000))

DEPOSIT_MAX = Decimal("1e12")
"""With more, eight decimals would not fit into 28 digits."""

ACCOUNT_FORM = "KEY:SECRET:PASSPHRASE:USDT[:OPTION,...]"
ACCOUNT_OPTIONS = "read, trade, transfer (what the key may do; none of them: everything), ip=ADDRESS, demo, unified"


def parse_account(text: str) -> Credentials:
    """Return the account that `KEY:SECRET:PASSPHRASE:USDT[:OPTION,...]` describes.

    Raises:
        SettingsError: a part is missing, the money is not a positive number, or an option is unknown.
    """
    parts = text.split(":", 4)  # an IPv6 address among the options keeps its colons
    try:
        key, secret, passphrase, money = parts[:4]
        deposit = Decimal(money)
        is_good = all((key, secret, passphrase)) and deposit.is_finite() and 0 < deposit <= DEPOSIT_MAX
    except (ValueError, InvalidOperation):
        is_good = False
    if not is_good:
        raise SettingsError(
            f"--account must be {ACCOUNT_FORM} with a positive amount up to 1e12, found {len(parts)} parts: correct it"
        )
    permissions: set[str] = set()
    addresses: list[str] = []
    flags: set[str] = set()
    for option in parts[4].split(",") if len(parts) > 4 else ():
        if option in PERMISSIONS:
            permissions.add(option)
        elif option.startswith("ip=") and _network(option[3:]) is not None:
            addresses.append(option[3:])
        elif option in ("demo", "unified"):
            flags.add(option)
        else:
            raise SettingsError(
                f"an option of --account must be one of {ACCOUNT_OPTIONS}, found one that is not: correct it"
            )
    return Credentials(
        key, secret, passphrase, deposit, frozenset(permissions) or PERMISSIONS, tuple(addresses),
        is_demo="demo" in flags, is_unified="unified" in flags,
    )  # fmt: skip


class Gate:
    """Verifies signed requests and logins.

    Args:
        accounts: who is known.
    """

    def __init__(self, accounts: Iterable[Credentials]) -> None:
        self._accounts = {account.key: account for account in accounts}

    def account(self, key: str) -> Credentials:
        return self._accounts[key]

    def check(
        self, method: str, target: str, headers: Mapping[str, str], body: str, *clocks_ms: int, remote: str = ""
    ) -> str:
        """Return the key of who signed a REST request.

        Args:
            target: path and query exactly as received; the signature may cover it percent-encoded or decoded (clients
                in production do either), never re-sorted.
            clocks_ms: what the time may be: market time and, where that is accelerated, the wall clock's.
            remote: the address that it came from.

        Raises:
            Refused: key, environment, passphrase, time, signature or address is not right.
        """
        key = headers.get("ACCESS-KEY")
        if not key:
            raise Refused("40006", "Invalid ACCESS_KEY")
        account = self._accounts.get(key)
        if account is None:
            raise Refused("40037", "Apikey does not exist")
        if account.is_demo != (headers.get("paptrading", "").strip() == "1"):
            raise Refused("40099", "exchange environment is incorrect")
        sign, stamp, passphrase = (headers.get(f"ACCESS-{name}") for name in ("SIGN", "TIMESTAMP", "PASSPHRASE"))
        if not passphrase:
            raise Refused("40011", "ACCESS_PASSPHRASE cannot be empty")
        if not sign:
            raise Refused("40002", "ACCESS_SIGN cannot be empty")
        if not stamp:
            raise Refused("40005", "Invalid ACCESS_TIMESTAMP")
        if not _is_same(passphrase, account.passphrase):
            raise Refused("40012", "apikey/password is incorrect")
        if not (stamp.isascii() and stamp.isdigit() and len(stamp) <= 16):
            raise Refused("40005", "Invalid ACCESS_TIMESTAMP")
        if all(abs(int(stamp) - now_ms) > WINDOW_MS for now_ms in clocks_ms):
            raise Refused("40008", "Request timestamp expired")
        candidates = {f"{stamp}{method}{text}{body}" for text in (target, unquote(target))}
        if not any(_is_same(sign, signature(account.secret, text)) for text in candidates):
            raise Refused("40009", "sign signature error")
        if not _is_listed(account, remote):
            raise Refused("40038", "The current ip is not in the apikey ip whitelist")
        return key

    def permit(self, key: str, permission: str, *, is_classic: bool = True) -> None:
        """Check that the key may "read" or "trade", and that its account is of the API's generation.

        Raises:
            Refused: it may not, or the account is unified and the API classic (v2), or the other way round (v3).
        """
        account = self._accounts[key]
        if permission == "trade" and "trade" not in account.permissions:
            raise Refused("40014", "Incorrect permissions, need future order write permissions")
        if not account.permissions & {"read", "trade"}:
            raise Refused("40014", "Incorrect permissions, need future order read or future order write permissions")
        if account.is_unified == is_classic:
            have, asked = ("Unified", "Classic") if is_classic else ("Classic", "Unified")
            raise Refused(
                "40085" if is_classic else "40084",
                f"You are in {have} Account mode, and the {asked} Account API is not supported at this time",
            )

    def check_login(self, arg: Mapping[str, object], *clocks_s: int, remote: str = "") -> str | tuple[int, str]:
        """Return the key of who logs in to the private WebSocket, or (code, message) of the error frame.

        The timestamp is in seconds here; milliseconds, as Bitget's prose has it, are far outside the window.
        """
        account = self._accounts.get(str(arg.get("apiKey")))
        if account is None:
            return 30011, "invalid ACCESS_KEY"
        if not _is_same(str(arg.get("passphrase")), account.passphrase):
            return 30012, "invalid ACCESS_PASSPHRASE"
        stamp = str(arg.get("timestamp"))
        if not (stamp.isascii() and stamp.isdigit() and len(stamp) <= 16):
            return 30013, "invalid ACCESS_TIMESTAMP"
        if all(abs(int(stamp) - now_s) * 1000 > WINDOW_MS for now_s in clocks_s):
            return 30014, "Request timestamp expired"
        if not _is_same(str(arg.get("sign")), signature(account.secret, f"{stamp}GET/user/verify")):
            return 30015, "Invalid sign"
        if account.is_unified or not _is_listed(account, remote):
            return 30005, "error"
        return account.key


class RateLimit:
    """Calls per second, caller and endpoint (a sliding second), and per minute and address over all endpoints.

    Args:
        calls_per_minute: of one address; the call after them blocks it.
        block_s: how long.
    """

    def __init__(self, calls_per_minute: int = CALLS_PER_MINUTE_MAX, block_s: float = BLOCK_S) -> None:
        self._calls: dict[tuple[str, str], deque[float]] = {}
        self._calls_per_minute, self._block_s = calls_per_minute, block_s
        self._minutes: dict[str, deque[float]] = {}
        self._blocked_until_s: dict[str, float] = {}

    def admit(self, address: str, now_s: float, scale: float = 1.0) -> None:
        """Count one request of an address, whatever it asks.

        Args:
            scale: how much more (> 1) or less is allowed at the moment.

        Raises:
            Refused: HTTP 429, the address has asked too often, or is still blocked for it.
        """
        blocked_until_s = self._blocked_until_s.get(address)
        if blocked_until_s is not None:
            if now_s < blocked_until_s:
                raise _too_many()
            del self._blocked_until_s[address]
        recent = self._minutes.setdefault(address, deque())
        while recent and now_s - recent[0] >= 60.0:
            recent.popleft()
        if len(recent) >= max(1, int(self._calls_per_minute * scale)):
            self._blocked_until_s[address] = now_s + self._block_s
            recent.clear()
            raise _too_many()
        recent.append(now_s)

    def take(self, caller: str, endpoint: str, per_s: int, now_s: float) -> int:
        """Spend one call and return how many remain in this second.

        Raises:
            Refused: HTTP 429, nothing remains.
        """
        calls = self._calls.setdefault((caller, endpoint), deque())
        while calls and now_s - calls[0] >= 1.0:
            calls.popleft()
        if len(calls) >= per_s:
            raise _too_many()
        calls.append(now_s)
        return per_s - len(calls)


def signature(secret: str, prehash: str) -> str:
    """Return base64(HMAC-SHA256(secret, prehash))."""
    return base64.b64encode(hmac.new(_octets(secret), _octets(prehash), hashlib.sha256).digest()).decode()


def _too_many() -> Refused:
    return Refused("429", "Too Many Requests", 429)


def _network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError:
        return None


def _is_listed(account: Credentials, remote: str) -> bool:
    if not account.addresses:
        return True
    asked = _network(remote)
    return asked is not None and any(
        network is not None and asked.network_address in network for network in map(_network, account.addresses)
    )


def _is_same(given: str, right: str) -> bool:
    return hmac.compare_digest(_octets(given), _octets(right))


def _octets(text: str) -> bytes:
    # Headers arrive with undecodable bytes as surrogates: a wrong signature, not a broken server.
    return text.encode("utf-8", "surrogatepass")
