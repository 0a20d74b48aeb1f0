"""Requests are signed as Bitget verifies them, and every answer becomes data or the right error."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.bitget import rest
from shared.bitget.rest import Keys, sign
from shared.errors import ExchangeRefused, ExchangeSilent, ProtocolBroken
from tests.shared.bitget.payloads import ERRORS, SIGNATURES, compact, envelope

KEYS = Keys(SIGNATURES["key"], SIGNATURES["secret"], SIGNATURES["passphrase"])


@pytest.mark.parametrize("vector", SIGNATURES["vectors"], ids=lambda vector: vector["path"].rsplit("/", 1)[1])
def test_signature_equals_the_vector(vector: dict[str, str | int]) -> None:
    """Signatures equal those that ccxt computes, with a Chinese symbol signed as UTF-8."""
    fields = {name: vector[name] for name in ("timestamp", "method", "path", "query", "body")}

    assert sign(KEYS.secret, **fields) == vector["sign"]  # type: ignore[arg-type]


def test_signature_equals_the_recorded_vectors(outside: Path) -> None:
    """The vectors beside the checkout, given as prehash, are met as well."""
    payload = json.loads((outside / "bitget/fixtures/test_vectors.json").read_text("utf-8"))

    for vector in payload["vectors"]:
        head, _, rest_of_it = vector["prehash"].partition("GET" if "GET" in vector["prehash"] else "POST")
        method = vector["prehash"][len(head) : len(vector["prehash"]) - len(rest_of_it)]
        target, brace, body = rest_of_it.partition("{")
        path, _, query = target.partition("?")
        assert sign(payload["secret"], int(head), method, path, query, brace + body) == vector["sign"], vector["name"]


@given(st.sampled_from(["GET", "POST"]), st.text(max_size=20), st.text(max_size=20), st.integers(0, 2**41))
def test_signature_is_hmac_of_the_concatenation(method: str, query: str, body: str, at: int) -> None:
    """Against the formula of the documentation, for any text: the question mark only where there is a query."""
    text = f"{at}{method}/path" + ("?" + query if query else "") + body
    expected = base64.b64encode(hmac.digest(b"secret", text.encode(), hashlib.sha256)).decode()

    assert sign("secret", at, method, "/path", query, body) == expected


def test_chinese_symbol_is_encoded_in_the_url_and_signed_raw() -> None:
    """The URL is percent-encoded UTF-8, the signature is over the plain text, and both hold the same query."""
    request = rest.detail("龙虾USDT", "a#1:b+c")

    parts = urlsplit(request.target)

    assert parts.query.isascii()
    assert dict(parse_qsl(parts.query)) == dict(request.query)
    assert request.raw_query == "clientOid=a#1:b+c&productType=USDT-FUTURES&symbol=龙虾USDT"
    headers = request.headers(KEYS, 1700000000000, is_demo=False)
    assert headers["ACCESS-SIGN"] == sign(KEYS.secret, 1700000000000, "GET", parts.path, request.raw_query, "")


def test_public_request_carries_no_key() -> None:
    """A public request shows no key even where there is one."""
    headers = rest.contracts().headers(KEYS, 1, is_demo=True)

    assert not [name for name in headers if name.startswith("ACCESS") or name == "paptrading"]


def test_demo_header_is_sent_only_for_demo() -> None:
    """Bitget's paper trading is chosen by a header, which a live request must not carry."""
    assert rest.positions().headers(KEYS, 1, is_demo=True)["paptrading"] == "1"
    assert "paptrading" not in rest.positions().headers(KEYS, 1, is_demo=False)


def test_only_orders_may_not_be_repeated() -> None:
    """Placing, closing and cancelling are sent once; reads and settings may be sent again."""
    endpoints = [value for value in vars(rest).values() if isinstance(value, rest.Endpoint)]

    assert {endpoint.path for endpoint in endpoints if not endpoint.is_repeatable} == {
        "/api/v2/mix/order/place-order",
        "/api/v2/mix/order/cancel-order",
        "/api/v2/mix/order/close-positions",
    }
    assert len(endpoints) == 22


@pytest.mark.parametrize("data", [None, [], {}, {"a": "1"}, [1]])
def test_success_gives_its_data(data: object) -> None:
    """Code 00000 gives what stands under data, null included."""
    assert rest.read(200, compact(envelope(data)).encode(), "GET /x") == data


def error(name: str) -> tuple[int, bytes]:
    return ERRORS[name]["status"], compact(ERRORS[name]["body"]).encode()


@pytest.mark.parametrize(
    "name", ["unified_account", "no_such_order", "no_such_symbol", "too_small", "too_many", "no_such_url"]
)
def test_refusal_has_code_status_and_where(name: str) -> None:
    """An answer with an error code says which, and which call it answers."""
    with pytest.raises(ExchangeRefused) as caught:
        rest.read(*error(name), "POST /x")

    assert caught.value.code == ERRORS[name]["body"]["code"]
    assert caught.value.status == ERRORS[name]["status"]
    assert ERRORS[name]["body"]["msg"] in str(caught.value)
    assert "POST /x" in str(caught.value)


def test_unified_account_is_explained() -> None:
    """40085 says what was expected, what was found and what to do."""
    with pytest.raises(
        ExchangeRefused, match=r"expected a classic account, found a unified account.*classic sub-account"
    ):
        rest.read(*error("unified_account"), "GET /x")


@pytest.mark.parametrize("code", ["40010", "40015", "40725", "45001"])
def test_exchange_that_does_not_know_is_silent(code: str) -> None:
    """A code by which Bitget says that it does not know what it did is no refusal: the order may be live."""
    raw = compact({"code": code, "msg": "", "requestTime": 1, "data": None}).encode()

    with pytest.raises(ExchangeSilent):
        rest.read(400, raw, "POST /x")


@pytest.mark.parametrize(
    ("status", "raw", "kind"),
    [
        (502, b"<html>bad gateway</html>", ExchangeSilent),
        (504, b"", ExchangeSilent),
        (429, b"error code: 1015", ExchangeRefused),
        (200, b"<html>", ProtocolBroken),
        (200, b"[]", ProtocolBroken),
        (200, b'{"data":1}', ProtocolBroken),
        (200, b"\xff\xfe", ProtocolBroken),
        (302, b"", ProtocolBroken),
        (500, b'{"code":"00000","msg":"success","data":null}', ProtocolBroken),
    ],
)
def test_answer_that_is_no_envelope(status: int, raw: bytes, kind: type[Exception]) -> None:
    """A gateway in trouble is silence, its 429 is a refusal, and anything else is not Bitget."""
    with pytest.raises(kind):
        rest.read(status, raw, "GET /x")


@given(st.integers(200, 599), st.binary(max_size=60))
def test_any_answer_is_data_or_an_exchange_error(status: int, raw: bytes) -> None:
    """Whatever bytes come back, the outcome is one of the three errors or data of a real envelope."""
    try:
        rest.read(status, raw, "GET /x")
    except (ExchangeRefused, ExchangeSilent, ProtocolBroken):
        return
    assert msgspec.json.decode(raw)["code"] == "00000"
