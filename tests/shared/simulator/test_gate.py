"""Signatures, logins and rate limits: who gets in, and with which code one stays out."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import quote

import msgspec
import pytest

from shared.errors import SettingsError
from shared.simulator.gate import Credentials, Gate, RateLimit, Refused, parse_account, signature

SIGNATURES = json.loads((Path(__file__).parents[2] / "golden" / "bitget_signatures.json").read_text())
NOW_MS = 1_795_330_800_000
ACCOUNT = Credentials("key", "secret", "pass", Decimal(1000))
PATH = "/api/v2/mix/position/single-position"
QUERY = "symbol=龙虾USDT&productType=USDT-FUTURES"


def headers(text: str, **changed: str | None) -> dict[str, str]:
    fields: dict[str, str | None] = {
        "ACCESS-KEY": "key", "ACCESS-SIGN": signature("secret", f"{NOW_MS}{text}"),
        "ACCESS-TIMESTAMP": str(NOW_MS), "ACCESS-PASSPHRASE": "pass",
    }  # fmt: skip
    fields |= {f"ACCESS-{name.upper()}": value for name, value in changed.items()}
    return {name: value for name, value in fields.items() if value is not None}


def test_signature_is_hmac_sha256_in_base64() -> None:
    """RFC 4231, test case 2: an outside vector for the primitive."""
    expected = "W9zBRr9gdU5qBCQmCJV1x1oAPwidJzmDnexYuWTsOEM="

    assert signature("Jefe", "what do ya want for nothing?") == expected


def test_signatures_equal_those_of_production_clients(outside: Path) -> None:
    """Vectors that an independent client (ccxt) computes identically."""
    vectors = json.loads((outside / "bitget/fixtures/test_vectors.json").read_text())

    for vector in vectors["vectors"]:
        assert signature(vectors["secret"], vector["prehash"]) == vector["sign"]


@pytest.mark.parametrize("vector", SIGNATURES["vectors"], ids=lambda vector: f"{vector['method']} {vector['path']}")
def test_signatures_equal_the_documented_ones(vector: dict[str, Any]) -> None:
    """The same vectors, written down here: REST in milliseconds, the login in seconds."""
    query = f"?{vector['query']}" if vector["query"] else ""
    prehash = f"{vector['timestamp']}{vector['method']}{vector['path']}{query}{vector['body']}"

    assert signature(SIGNATURES["secret"], prehash) == vector["sign"]


@pytest.mark.parametrize("signed", [QUERY, quote(QUERY, safe="=&-")], ids=["raw", "percent-encoded"])
def test_query_may_be_signed_raw_or_encoded_in_the_order_sent(signed: str) -> None:
    """The URL is percent-encoded on the wire; the signature covers it encoded or not, never re-sorted."""
    target = f"{PATH}?{quote(QUERY, safe='=&-')}"

    key = Gate([ACCOUNT]).check("GET", target, headers(f"GET{PATH}?{signed}"), "", NOW_MS)

    assert key == "key"


def test_sorted_query_does_not_pass_for_an_unsorted_one() -> None:
    """A server that re-sorts would accept what Bitget refuses."""
    with pytest.raises(Refused, match="40009"):
        Gate([ACCOUNT]).check("GET", f"{PATH}?b=1&a=2", headers(f"GET{PATH}?a=2&b=1"), "", NOW_MS)


def test_body_is_signed_byte_for_byte() -> None:
    """A space more in the body is another body."""
    gate, body = Gate([ACCOUNT]), '{"size":"1"}'

    assert gate.check("POST", PATH, headers(f"POST{PATH}{body}"), body, NOW_MS) == "key"
    with pytest.raises(Refused, match="40009"):
        gate.check("POST", PATH, headers(f"POST{PATH}{body}"), '{"size": "1"}', NOW_MS)


@pytest.mark.parametrize(
    ("changed", "code"),
    [
        ({"key": None}, "40006"), ({"key": "other"}, "40037"), ({"passphrase": None}, "40011"),
        ({"passphrase": "wrong"}, "40012"), ({"sign": None}, "40002"), ({"sign": "wrong"}, "40009"),
        ({"timestamp": None}, "40005"), ({"timestamp": "soon"}, "40005"), ({"timestamp": str(NOW_MS - 30_001)}, "40008"),
        ({"timestamp": str(NOW_MS + 30_001)}, "40008"), ({"key": "other", "sign": "wrong"}, "40037"),
    ],
)  # fmt: skip
def test_each_fault_has_its_code(changed: dict[str, str | None], code: str) -> None:
    """An unknown key is said before the signature is looked at (probed in September 2026)."""
    with pytest.raises(Refused, match=code):
        Gate([ACCOUNT]).check("GET", PATH, headers(f"GET{PATH}", **changed), "", NOW_MS)


def login(**changed: str) -> dict[str, str]:
    stamp = changed.get("timestamp", str(NOW_MS // 1000))
    fields = {"apiKey": "key", "passphrase": "pass", "timestamp": stamp}
    return fields | {"sign": signature("secret", f"{stamp}GET/user/verify")} | changed


@pytest.mark.parametrize(
    ("changed", "code"),
    [
        ({"apiKey": "other"}, 30011), ({"passphrase": "wrong"}, 30012), ({"timestamp": "x"}, 30013),
        ({"timestamp": str(NOW_MS)}, 30014), ({"sign": "wrong"}, 30015),
    ],
)  # fmt: skip
def test_login_is_in_seconds_and_its_errors_are_integers(changed: dict[str, str], code: int) -> None:
    """Milliseconds, as the documents' prose has it, are out of the window."""
    answer = Gate([ACCOUNT]).check_login(login(**changed), NOW_MS // 1000)

    assert isinstance(answer, tuple)
    assert answer[0] == code


def test_login_in_seconds_succeeds() -> None:
    """What every production client sends gets in."""
    assert Gate([ACCOUNT]).check_login(login(), NOW_MS // 1000) == "key"


def test_rate_limit_counts_down_and_recovers() -> None:
    """The header's count falls to 0, the next call is a 429, and a second later there is room again."""
    limit = RateLimit()

    assert [limit.take("me", "place", 3, 0.1 * k) for k in range(3)] == [2, 1, 0]
    with pytest.raises(Refused) as refused:
        limit.take("me", "place", 3, 0.5)
    assert (refused.value.code, refused.value.status) == ("429", 429)
    assert limit.take("you", "place", 3, 0.5) == 2
    assert limit.take("me", "cancel", 3, 0.5) == 2
    assert limit.take("me", "place", 3, 1.05) == 0


def test_an_address_is_blocked_for_five_minutes_after_its_calls_of_a_minute() -> None:
    """The call too many begins the block, calls during it do not prolong it, other addresses are free."""
    limit = RateLimit(calls_per_minute=3, block_s=300.0)
    for k in range(3):
        limit.admit("here", 10.0 * k)

    for now_s in (30.0, 31.0, 329.9):
        with pytest.raises(Refused) as refused:
            limit.admit("here", now_s)
        assert refused.value.status == 429
    limit.admit("there", 31.0)
    limit.admit("here", 330.0)


def test_scaled_limit_of_a_minute() -> None:
    """Conditions may tighten or widen what an address is allowed."""
    limit = RateLimit(calls_per_minute=10)
    for _ in range(20):
        limit.admit("wide", 0.0, 2.0)
    limit.admit("tight", 0.0, 0.01)

    for address, scale in (("wide", 2.0), ("tight", 0.01)):
        with pytest.raises(Refused, match="429"):
            limit.admit(address, 0.0, scale)


def test_calls_of_a_minute_ago_no_longer_count() -> None:
    """A client that keeps to the pace is never blocked."""
    limit = RateLimit(calls_per_minute=3)

    for k in range(20):
        limit.admit("here", 20.0 * k)


def test_environment_and_header_must_agree() -> None:
    """A demo key without the header and a live key with it are refused (40099) before the signature is looked at."""
    demo = msgspec.structs.replace(ACCOUNT, is_demo=True)
    signed = headers(f"GET{PATH}")

    assert Gate([demo]).check("GET", PATH, signed | {"paptrading": "1"}, "", NOW_MS) == "key"
    for account, extra in ((demo, {}), (demo, {"paptrading": "0"}), (ACCOUNT, {"paptrading": "1"})):
        with pytest.raises(Refused, match="40099 exchange environment is incorrect"):
            Gate([account]).check("GET", PATH, signed | {"ACCESS-SIGN": "wrong"} | extra, "", NOW_MS)


@pytest.mark.parametrize(
    ("addresses", "remote", "is_in"),
    [
        ((), "10.0.0.9", True), (("10.0.0.9",), "10.0.0.9", True), (("10.0.0.8",), "10.0.0.9", False),
        (("10.0.0.8", "10.0.0.0/28"), "10.0.0.9", True), (("::1",), "::1", True), (("::1",), "127.0.0.1", False),
        (("10.0.0.9",), "", False),
    ],
)  # fmt: skip
def test_key_works_from_its_addresses_only(addresses: tuple[str, ...], remote: str, is_in: bool) -> None:
    """A right signature from another address is 40038 on REST and 30005 on the socket."""
    gate = Gate([msgspec.structs.replace(ACCOUNT, addresses=addresses)])

    if is_in:
        assert gate.check("GET", PATH, headers(f"GET{PATH}"), "", NOW_MS, remote=remote) == "key"
        assert gate.check_login(login(), NOW_MS // 1000, remote=remote) == "key"
    else:
        with pytest.raises(Refused, match="40038"):
            gate.check("GET", PATH, headers(f"GET{PATH}"), "", NOW_MS, remote=remote)
        assert gate.check_login(login(), NOW_MS // 1000, remote=remote) == (30005, "error")


@pytest.mark.parametrize(
    ("permissions", "asked", "message"),
    [
        ({"read"}, "read", None), ({"trade"}, "read", None), ({"trade"}, "trade", None),
        ({"read", "transfer"}, "trade", "need future order write permissions"),
        ({"transfer"}, "read", "need future order read or future order write permissions"),
    ],
)  # fmt: skip
def test_permissions_of_a_key(permissions: set[str], asked: str, message: str | None) -> None:
    """Who may trade may read; what is missing is named as Bitget names it."""
    gate = Gate([msgspec.structs.replace(ACCOUNT, permissions=frozenset(permissions))])

    if message is None:
        gate.permit("key", asked)
    else:
        with pytest.raises(Refused, match=f"40014 Incorrect permissions, {message}$"):
            gate.permit("key", asked)


def test_each_generation_of_accounts_has_its_api() -> None:
    """Unified accounts get 40085 from v2 and do not log in to its socket, classic ones get 40084 from v3."""
    classic, gate = Gate([ACCOUNT]), Gate([msgspec.structs.replace(ACCOUNT, is_unified=True)])

    gate.permit("key", "read", is_classic=False)
    with pytest.raises(Refused, match="40085 You are in Unified Account mode"):
        gate.permit("key", "read")
    with pytest.raises(Refused, match="40084 You are in Classic Account mode"):
        classic.permit("key", "read", is_classic=False)
    assert gate.check_login(login(), NOW_MS // 1000) == (30005, "error")


def test_undecodable_header_is_a_wrong_signature() -> None:
    """Bytes that are no text reach the gate as surrogates and must not break it."""
    for name in ("sign", "passphrase"):
        with pytest.raises(Refused, match=r"400(09|12)"):
            Gate([ACCOUNT]).check("GET", PATH, headers(f"GET{PATH}", **{name: "\udcff"}), "", NOW_MS)


# What is wrong with a request, in the order in which it is said: the last fault is the only one left.
FAULTS = ("key", "environment", "passphrase", "time", "signature", "address", "permission", "generation")
CODES = ("40037", "40099", "40012", "40008", "40009", "40038", "40014", "40085")


@pytest.mark.parametrize("first", range(len(FAULTS)))
def test_the_first_of_several_faults_is_told(first: int) -> None:
    """Whatever else is wrong after it: key, environment, passphrase, time, signature, address, permission, account."""
    wrong = set(FAULTS[first:])
    account = msgspec.structs.replace(
        ACCOUNT,
        addresses=("10.0.0.1",) if "address" in wrong else (),
        permissions=frozenset({"read"}) if "permission" in wrong else ACCOUNT.permissions,
        is_unified="generation" in wrong,
    )
    stamp = str(NOW_MS - 60_000 if "time" in wrong else NOW_MS)
    given = {
        "ACCESS-KEY": "other" if "key" in wrong else "key", "ACCESS-TIMESTAMP": stamp,
        "ACCESS-PASSPHRASE": "wrong" if "passphrase" in wrong else "pass",
        "ACCESS-SIGN": "wrong" if "signature" in wrong else signature("secret", f"{stamp}POST{PATH}"),
        "paptrading": "1" if "environment" in wrong else "",
    }  # fmt: skip
    gate = Gate([account])

    with pytest.raises(Refused) as refused:
        gate.permit(gate.check("POST", PATH, given, "", NOW_MS, remote="127.0.0.1"), "trade")
    assert refused.value.code == CODES[first]


def test_account_options_are_read() -> None:
    """Permissions, addresses, environment and generation ride behind the money."""
    plain, full = parse_account("k:s:p:12.5"), parse_account("k:s:p:5:read,ip=::1,ip=10.0.0.0/8,demo,unified")

    assert plain == Credentials("k", "s", "p", Decimal("12.5"))
    assert full == Credentials(
        "k", "s", "p", Decimal(5), frozenset({"read"}), ("::1", "10.0.0.0/8"), is_demo=True, is_unified=True
    )


@pytest.mark.parametrize("option", ["", "admin", "ip=here", "ip=", "read,", "demo=1"])
def test_unknown_account_option_is_refused_without_its_secret(option: str) -> None:
    """A typing error in an option never opens a wider door than meant."""
    with pytest.raises(SettingsError, match="an option of --account must be one of") as refused:
        parse_account(f"key:hidden:pass:5:{option}")

    assert "hidden" not in str(refused.value)


@pytest.mark.parametrize("text", ["a:b:c", "a:b:c:d:e", "a:b:c:money", "a:b:c:-5", "a::c:5", "a:b:c:NaN", "a:b:c:1e13"])
def test_bad_account_is_refused_without_its_secret(text: str) -> None:
    """An account that cannot be read is a sentence, and the sentence repeats none of it."""
    with pytest.raises(SettingsError, match="KEY:SECRET:PASSPHRASE:USDT") as refused:
        parse_account(text)

    assert text not in str(refused.value)


def test_credentials_print_no_secret() -> None:
    """A stray log line of an account shows its key at most."""
    assert "secret" not in repr(ACCOUNT) + str(ACCOUNT)
