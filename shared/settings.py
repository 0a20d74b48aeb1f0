"""Where we run: environment variables and `.env`. Read by entry points only, passed down as values.

`MARKET` says where ticks come from, `BITGET_VENUE` where orders go; they are two settings, never one. Real money
needs two switches: `BITGET_VENUE=live` *and* `SANDBOX=false`, and `live.run` asks for `--arm` on top. The truth
table is in the README and in `Settings.check`.
"""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from dotenv import dotenv_values
from dotenv.parser import parse_stream
from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from shared.errors import SettingsError
from shared.types import BOOK_CHANNELS, BOOKS5, BookChannels

ROOT = Path(__file__).resolve().parent.parent

_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_BITGET_DOMAIN = "bitget.com"
_DEFAULT_URLS = {  # venue -> (REST, WebSocket); PROTOCOL: Bitget v2, Quick Start -> Domain
    "live": ("https://api.bitget.com", "wss://ws.bitget.com/v2/ws"),
    "demo": ("https://api.bitget.com", "wss://wspap.bitget.com/v2/ws"),
}


class Settings(BaseSettings):
    """Every setting, its default and its bound; the environment wins over `.env`."""

    model_config = SettingsConfigDict(env_file=".env", extra="ignore", frozen=True, env_ignore_empty=True)

    market: Literal["simulator", "bitget"] = "simulator"
    bitget_venue: Literal["simulator", "demo", "live"] = "simulator"
    bitget_rest_url: str | None = None  # None: the venue's own, or a simulator that we start
    bitget_ws_url: str | None = None  # without /public or /private
    market_rest_url: str | None = None  # of MARKET=bitget alone: where the public feed is; None: at Bitget
    market_ws_url: str | None = None  # without /public
    bitget_api_key: SecretStr | None = None
    bitget_api_secret: SecretStr | None = None
    bitget_passphrase: SecretStr | None = None
    symbols: Annotated[tuple[str, ...], NoDecode] = ()  # () = every listed one
    symbol: str | None = None  # None: use `symbols`
    books: Annotated[BookChannels, NoDecode] = BOOKS5  # or books5,BTCUSDT=books,ETHUSDT=books15
    leverage: int = Field(5, ge=1, le=150)
    sandbox: bool = True
    daily_loss_limit: float = Field(0.10, gt=0, le=1)  # [1] of the day's first equity
    max_drawdown_pct: float = Field(0.15, gt=0, le=1)  # [1] of peak equity (a fraction, as in the original)
    top_k: int = Field(10, ge=1, le=100)
    decision_seconds: int = Field(1, ge=1, le=60)
    confidence_min: float = Field(0.60, ge=0, le=1)
    confidence_margin_min: float = Field(0.10, ge=0, le=1)
    kill_spread_bps_max: float = Field(20.0, gt=0)
    kill_depth_usdt_min: float = Field(5000.0, ge=0)
    slippage_bps: float = Field(2.0, ge=0)
    bandit_mode: Literal["shadow", "act"] = "shadow"  # act needs a permit: python -m pipelines.bandit --grant
    explore_bps_per_day: float = Field(0.0, ge=0, le=100)  # of equity, what exploration may cost in expectation
    num_threads: int = Field(4, ge=1)  # training only; capped at the cores
    lake_uri: str = "data_lake"  # a folder, or s3://bucket/prefix
    lake_cache: str = "data_lake/.s3"  # below it: local copies, logs and journals of lakes in object stores
    retention: str = ""  # raw=30d,seconds=18mo,…: see pipelines.retention; "": the lake keeps everything
    mlflow_tracking_uri: str | None = None  # None: the database under mlruns/

    @field_validator("symbols", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(part.strip().upper() for part in value.split(",") if part.strip())
        return value

    @field_validator("books", mode="before")
    @classmethod
    def _book_channels(cls, value: object) -> object:
        return parse_books(value) if isinstance(value, str) else value

    @property
    def wanted_symbols(self) -> tuple[str, ...]:
        """Return the symbols to trade, () for all."""
        return (self.symbol.upper(),) if self.symbol else self.symbols

    @property
    def lake(self) -> Path:
        """Return the lake's folder; of one in an object store the local folder that stands for it (shared.lake.remote).

        Raises:
            SettingsError: it is neither a folder nor s3://bucket/prefix, or a file is in the way.
        """
        path = ROOT / self.lake_uri  # an absolute one stays what it is
        if "://" in self.lake_uri:
            scheme, _, place = self.lake_uri.partition("://")
            if scheme != "s3" or not place.strip("/") or ".." in place.split("/"):
                raise SettingsError(
                    f"LAKE_URI must be a folder or s3://bucket/prefix, found {self.lake_uri!r}: correct it"
                )
            path = ROOT / self.lake_cache / place.strip("/")
        for folder in (path, *path.parents):
            if folder.exists() and not folder.is_dir():
                raise SettingsError(f"LAKE_URI must be a folder, found the file {folder}: choose another place")
        if "://" in self.lake_uri:
            _mark(path / ".remote", f"s3://{place.strip('/')}")
        return path

    @property
    def tracking_uri(self) -> str:
        return self.mlflow_tracking_uri or f"sqlite:///{ROOT / 'mlruns' / 'mlflow.db'}"

    @property
    def keys(self) -> tuple[str, str, str] | None:
        """Return (key, secret, passphrase), or None where none of the three is set."""
        parts = (self.bitget_api_key, self.bitget_api_secret, self.bitget_passphrase)
        if all(part is None for part in parts):
            return None
        names = ("BITGET_API_KEY", "BITGET_API_SECRET", "BITGET_PASSPHRASE")
        missing = [name for name, part in zip(names, parts, strict=True) if part is None]
        if missing:
            raise SettingsError(
                f"API keys are three settings or none, found {', '.join(n for n in names if n not in missing)} "
                f"without {', '.join(missing)}: set what is missing or unset all three"
            )
        key, secret, passphrase = (part.get_secret_value() for part in parts if part is not None)
        return key, secret, passphrase

    def market_urls(self) -> tuple[str, str] | None:
        """Return (REST, WebSocket base) of the tick source; None means: start a simulator."""
        feed = _pair("MARKET_REST_URL", self.market_rest_url, "MARKET_WS_URL", self.market_ws_url)
        if self.market == "bitget":
            return feed or _DEFAULT_URLS["live"]
        return self._override()

    def venue_urls(self) -> tuple[str, str] | None:
        """Return (REST, WebSocket base) of where orders go; None means: start a simulator."""
        return self._override() or _DEFAULT_URLS.get(self.bitget_venue)

    def _override(self) -> tuple[str, str] | None:
        urls = _pair("BITGET_REST_URL", self.bitget_rest_url, "BITGET_WS_URL", self.bitget_ws_url)
        for name, url in zip(("BITGET_REST_URL", "BITGET_WS_URL"), urls or (), strict=False):
            if is_loopback(url) and self.bitget_venue != "simulator":
                raise SettingsError(
                    f"{name} points to this machine while BITGET_VENUE={self.bitget_venue}: "
                    "unset it, or set BITGET_VENUE=simulator"
                )
            if not is_loopback(url) and self.bitget_venue == "simulator":
                raise SettingsError(
                    f"{name} points to Bitget while BITGET_VENUE=simulator: set BITGET_VENUE=demo or live, or unset it"
                )
        return urls

    def check(self, *, is_armed: bool = False) -> None:
        """Refuse contradictory or dangerous settings before anything connects.

        Raises:
            SettingsError: the person who set them can correct it; the message says how.
        """
        # Each raises on its own contradictions.
        _, feed, _, _ = self.venue_urls(), self.market_urls(), self.lake, self.keys
        if self.bitget_venue == "simulator":
            if not self.sandbox:
                raise SettingsError(
                    "SANDBOX=false needs BITGET_VENUE=live, found simulator (real money is never implied): "
                    "set SANDBOX=true to trade on paper"
                )
            return
        if self.keys is None:
            raise SettingsError(
                f"BITGET_VENUE={self.bitget_venue} needs BITGET_API_KEY, BITGET_API_SECRET and "
                "BITGET_PASSPHRASE, found none: put them into .env"
            )
        if self.market != "bitget":
            raise SettingsError(
                f"BITGET_VENUE={self.bitget_venue} needs MARKET=bitget, found {self.market} "
                "(orders at Bitget must not follow another market): set MARKET=bitget"
            )
        if feed is not None and is_loopback(feed[0]):
            raise SettingsError(
                f"MARKET_REST_URL points to this machine while BITGET_VENUE={self.bitget_venue} "
                "(orders at Bitget must not follow another market): unset it and MARKET_WS_URL"
            )
        if self.bitget_venue == "demo":
            if not self.sandbox:
                raise SettingsError(
                    "SANDBOX=false needs BITGET_VENUE=live, found demo: set SANDBOX=true to trade on paper"
                )
            return
        if self.sandbox:
            raise SettingsError(
                "BITGET_VENUE=live needs SANDBOX=false, found true (real money needs both switches): "
                "set BITGET_VENUE=simulator or demo to trade on paper"
            )
        if not is_armed:
            raise SettingsError(
                "BITGET_VENUE=live with SANDBOX=false trades real money and needs --arm, which is missing: "
                "add it if you mean it, or set SANDBOX=true and BITGET_VENUE=simulator"
            )


def parse_books(text: str) -> BookChannels:
    """Return the book channels that a person wrote: one for all symbols, and SYMBOL=channel for others.

    Raises:
        SettingsError: a channel is none of Bitget's, or something is said twice.
    """
    default: str | None = None
    others: dict[str, str] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        symbol, equals, channel = (word.strip() for word in part.rpartition("="))
        if channel not in BOOK_CHANNELS or (equals and not symbol):
            raise SettingsError(
                f"BOOKS must be one of {', '.join(BOOK_CHANNELS)}, and SYMBOL=channel for others (as in "
                f"books5,BTCUSDT=books), found {part!r}: correct it"
            )
        if symbol.upper() in others or (not symbol and default is not None):
            raise SettingsError(
                f"BOOKS must name {symbol.upper() or 'the channel of all others'} once, found it again in {part!r}: "
                "remove one of the two"
            )
        if symbol:
            others[symbol.upper()] = channel
        else:
            default = channel
    return BookChannels(default or BOOKS5.default, others)


def check_books(books: BookChannels, listed: Sequence[str], source: str) -> None:
    """Refuse book channels of symbols that are not listed.

    Raises:
        SettingsError: the message names them.
    """
    missing = sorted(set(books.others) - set(listed))
    if missing:
        raise SettingsError(
            f"every symbol of BOOKS must be listed at {source}, found {', '.join(missing[:5])} that is not: correct it "
            f"({len(listed)} are listed: {', '.join(listed[:3])} …)"
        )


def is_loopback(url: str) -> bool:
    """Tell whether a URL that `check_url` has passed leads to this machine."""
    return urlsplit(url).hostname in _LOOPBACK


def check_url(name: str, url: str, scheme: str) -> str:
    """Return a URL without a trailing slash; it leads to this machine, or encrypted to Bitget.

    Args:
        name: of the setting or argument, for the message.
        scheme: "http" or "ws".

    Raises:
        SettingsError: it leads elsewhere, or is none.
    """
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
        _ = parts.port
    except ValueError as error:
        raise SettingsError(f"{name} must be {scheme}://host:port…, found {url!r} ({error}): correct it") from None
    if host in _LOOPBACK:
        if parts.scheme not in (scheme, scheme + "s"):
            raise SettingsError(f"{name} must be {scheme}://… or {scheme}s://…, found {url!r}: correct it")
    elif parts.scheme != scheme + "s" or not (host == _BITGET_DOMAIN or host.endswith("." + _BITGET_DOMAIN)):
        raise SettingsError(
            f"{name} must be on this machine or {scheme}s:// on {_BITGET_DOMAIN}, found {url!r}: correct or unset it"
        )
    return url.rstrip("/")


def _pair(rest_name: str, rest: str | None, ws_name: str, ws: str | None) -> tuple[str, str] | None:
    if rest is None and ws is None:
        return None
    if rest is None or ws is None:
        raise SettingsError(
            f"{rest_name} and {ws_name} are set together or not at all, found one of them: set the other one or "
            "unset both"
        )
    urls = check_url(rest_name, rest, "http"), check_url(ws_name, ws, "ws")
    if is_loopback(urls[0]) != is_loopback(urls[1]):
        raise SettingsError(
            f"{rest_name} and {ws_name} lead to one exchange, found one on this machine and one at Bitget: correct one"
        )
    return urls


def load(**overrides: object) -> Settings:
    """Read environment and `.env`; arguments given on a command line win.

    Raises:
        SettingsError: `.env` cannot be read, or a value is out of bounds or not of its type.
    """
    _check_file(Path(".env"))
    _export_aws(Path(".env"))
    try:
        return Settings(**{k: v for k, v in overrides.items() if v is not None})  # type: ignore[arg-type]
    except ValidationError as error:
        first = error.errors()[0]
        name = "_".join(str(part) for part in first["loc"]).upper()
        raise SettingsError(
            f"{name}: {first['msg']}, found {first.get('input')!r}: correct .env or the environment"
        ) from None


def _export_aws(path: Path) -> None:
    """Put the AWS_ lines of `.env` into the environment, where clients of object stores look for them; it wins."""
    for name, value in dotenv_values(path).items():
        if name.startswith("AWS_") and value:
            os.environ.setdefault(name, value)


def _mark(path: Path, uri: str) -> None:
    """Write which store a lake's local folder stands for; done already, nothing happens."""
    try:
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            unfinished = path.with_name(f"{path.name}.{os.getpid()}")
            unfinished.write_text(uri)
            unfinished.rename(path)
    except OSError as error:
        raise SettingsError(
            f"LAKE_CACHE must be a folder that can be written, found {path.parent}: {error.strerror}: choose another"
        ) from None


def _check_file(path: Path) -> None:
    """Refuse a `.env` of which a line would be skipped: it may be the one that says SANDBOX."""
    if not path.exists():
        return
    try:
        lines = list(parse_stream(io.StringIO(path.read_text(encoding="utf-8"))))
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(
            f"{path.absolute()} must be a readable text file, found: {error}: correct or remove it"
        ) from None
    for line in lines:
        if line.error or (line.key is not None and line.value is None):
            # Never its text: it may hold a secret.
            raise SettingsError(
                f"{path.absolute()} must have NAME=value in every line, found something else in line "
                f"{line.original.line}: correct it"
            )
