"""Settings: where ticks come from and where orders go are two things, and real money needs three."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest

from shared.errors import SettingsError
from shared.settings import Settings, load

KEYS = {"bitget_api_key": "k", "bitget_api_secret": "s3cr3t", "bitget_passphrase": "p"}


@pytest.fixture(autouse=True)
def _empty_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Start every test without the machine's own settings."""
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("market", "venue", "sandbox", "has_keys", "is_armed"),
    list(
        itertools.product(
            ("simulator", "bitget"), ("simulator", "demo", "live"), (True, False), (True, False), (True, False)
        )
    ),
)
def test_real_money_needs_every_switch(market: str, venue: str, sandbox: bool, has_keys: bool, is_armed: bool) -> None:
    """Of all combinations, orders reach the live venue in exactly one: all switches thrown by hand."""
    settings = load(market=market, bitget_venue=venue, sandbox=sandbox, **(KEYS if has_keys else {}))
    is_allowed = {
        "simulator": sandbox,
        "demo": sandbox and has_keys and market == "bitget",
        "live": not sandbox and has_keys and market == "bitget" and is_armed,
    }[venue]

    if is_allowed:
        settings.check(is_armed=is_armed)
    else:
        with pytest.raises(SettingsError):
            settings.check(is_armed=is_armed)


def test_defaults_are_paper_on_the_simulator() -> None:
    """Without any setting nothing leaves this machine."""
    settings = load()

    settings.check()

    assert (settings.market, settings.bitget_venue, settings.sandbox) == ("simulator", "simulator", True)
    assert settings.venue_urls() is None
    assert settings.market_urls() is None


@pytest.mark.parametrize(
    ("rest", "ws", "venue"),
    [
        ("http://127.0.0.1:1", None, "simulator"),
        (None, "ws://127.0.0.1:1/v2/ws", "simulator"),
        ("http://10.0.0.7:80", "ws://10.0.0.7:80/v2/ws", "simulator"),
        ("https://api.bitget.com.evil.example", "wss://ws.bitget.com/v2/ws", "live"),
        ("https://evilbitget.com", "wss://ws.bitget.com/v2/ws", "live"),
        ("http://api.bitget.com", "wss://ws.bitget.com/v2/ws", "live"),
        ("https://api.bitget.com", "ws://ws.bitget.com/v2/ws", "live"),
        ("https://api.bitget.com", "wss://ws.bitget.com/v2/ws", "simulator"),
        ("http://127.0.0.1:1", "ws://127.0.0.1:1/v2/ws", "live"),
        ("ftp://127.0.0.1:1", "ws://127.0.0.1:1/v2/ws", "simulator"),
        ("http://127.0.0.1:many", "ws://127.0.0.1:1/v2/ws", "simulator"),
        ("http://[::1", "ws://127.0.0.1:1/v2/ws", "simulator"),
        ("http://127.0.0.1:1@evil.example", "ws://127.0.0.1:1/v2/ws", "simulator"),
    ],
)
def test_url_override_never_sends_keys_elsewhere(rest: str | None, ws: str | None, venue: str) -> None:
    """An override is loopback for the simulator or TLS on Bitget's own domain for Bitget, nothing else."""
    settings = load(bitget_rest_url=rest, bitget_ws_url=ws, bitget_venue=venue, market="bitget", **KEYS)

    with pytest.raises(SettingsError):
        settings.venue_urls()


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"market_rest_url": "http://127.0.0.1:1"}, "MARKET_REST_URL and MARKET_WS_URL are set together"),
        ({"market_rest_url": "http://127.0.0.1:1", "market_ws_url": "ws://evil.example"}, "MARKET_WS_URL must be on"),
        (
            {"market_rest_url": "http://127.0.0.1:1", "market_ws_url": "wss://ws.bitget.com/v2/ws"},
            "found one on this machine and one at Bitget",
        ),
        (
            {
                "market_rest_url": "http://127.0.0.1:1", "market_ws_url": "ws://127.0.0.1:1/v2/ws",
                "bitget_venue": "demo", **KEYS,
            },
            "orders at Bitget must not follow another market",
        ),
    ],
)  # fmt: skip
def test_feed_of_another_market_is_never_taken_for_bitgets(changes: dict[str, str], why: str) -> None:
    """Another address of the feed is one exchange, on this machine or at Bitget, and no orders at Bitget follow it."""
    with pytest.raises(SettingsError, match=why):
        load(**({"market": "bitget"} | changes)).check()


def test_feed_is_bitgets_own_unless_it_is_said_where_else() -> None:
    """MARKET=bitget reads the public feed; with the two settings it reads what stands in for it, on paper."""
    there = {"market_rest_url": "http://127.0.0.1:1/", "market_ws_url": "ws://127.0.0.1:1/v2/ws"}
    own, other = load(market="bitget"), load(market="bitget", **there)

    other.check()

    assert own.market_urls() == ("https://api.bitget.com", "wss://ws.bitget.com/v2/ws")
    assert other.market_urls() == ("http://127.0.0.1:1", "ws://127.0.0.1:1/v2/ws")
    assert other.venue_urls() is None
    assert load(market="simulator", **there).market_urls() is None


@pytest.mark.parametrize("missing", sorted(KEYS))
def test_half_set_keys_are_refused_by_name(missing: str) -> None:
    """The message names what is missing and shows no value."""
    settings = load(**{k: v for k, v in KEYS.items() if k != missing})

    with pytest.raises(SettingsError) as caught:
        settings.check()

    assert f"without {missing.upper()}" in str(caught.value)
    assert "s3cr3t" not in str(caught.value)


def test_secrets_do_not_show_in_text() -> None:
    """Printing or logging the settings shows no key."""
    assert "s3cr3t" not in repr(load(**KEYS)) + str(load(**KEYS).model_dump())


@pytest.mark.parametrize(
    ("name", "value"), [("LEVERAGE", "200"), ("DAILY_LOSS_LIMIT", "0"), ("TOP_K", "many"), ("MARKET", "binance")]
)
def test_value_out_of_bounds_is_one_sentence(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    """A wrong value is named with what was found."""
    monkeypatch.setenv(name, value)

    with pytest.raises(SettingsError, match=name) as caught:
        load()

    assert value in str(caught.value)
    assert "\n" not in str(caught.value)


def test_environment_wins_over_dotenv(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """`.env` is read from the working directory; the environment overrides it; an empty value means unset."""
    (tmp_path / ".env").write_text("TOP_K=7\nLEVERAGE=9\nSYMBOLS=btcusdt, ethusdt\nBITGET_API_KEY=\n")
    monkeypatch.setenv("LEVERAGE", "3")

    settings = load()

    assert (settings.top_k, settings.leverage, settings.symbols) == (7, 3, ("BTCUSDT", "ETHUSDT"))
    assert settings.keys is None


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"\xff\xfe\x00", "readable text"),
        (b"TOP_K=7\nSANDBOX true\n", "line 2"),
        (b"TOP_K=7\n\n# s\nSANDBOX\n", "line 4"),
        (None, "readable text"),
    ],
    ids=["no text", "no equals sign", "no value", "a folder"],
)
def test_dotenv_that_would_be_skipped_in_part_is_refused(content: bytes | None, why: str, tmp_path: Path) -> None:
    """A `.env` that is no text, or has a line that is no setting, is one sentence: the line may be the one that counts."""
    path = tmp_path / ".env"
    path.mkdir() if content is None else path.write_bytes(content)

    with pytest.raises(SettingsError, match=why) as caught:
        load()

    assert "SANDBOX" not in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("below", ["", "lake", "a/b"])
def test_lake_that_is_a_file_is_refused(below: str, tmp_path: Path) -> None:
    """LAKE_URI that is a file, or lies below one, is refused before anything is done."""
    (tmp_path / "file").write_text("")

    with pytest.raises(SettingsError, match=r"LAKE_URI must be a folder, found the file .*/file: choose another"):
        load(lake_uri=str(tmp_path / "file" / below)).check()


def test_example_file_names_every_setting() -> None:
    """A person finds every setting in `.env.example`, with its default."""
    example = (Path(__file__).resolve().parents[2] / ".env.example").read_text()
    given: dict[str, Any] = dict(
        line.split("=", 1) for line in example.splitlines() if line and not line.startswith("#")
    )

    from_example = Settings(_env_file=None, **{k.lower(): v for k, v in given.items() if v})

    assert set(given) == {name.upper() for name in Settings.model_fields} - {"MLFLOW_TRACKING_URI"}
    assert from_example == Settings(_env_file=None)
