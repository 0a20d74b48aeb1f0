"""What a report was computed from and what came out, so that `pipelines.verify` can compute it again.

It lies in the page itself (an element that no browser shows) and beside it as `report.json`. Inputs are named by hashes
of their contents; results by hashes and by every metric, so that a difference has a name.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Sequence
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any, Literal

import msgspec

from pipelines.exact.exchange import Assumptions
from pipelines.simulation import Backtest, Outcome
from pipelines.told import Told
from shared import journal
from shared.errors import CrosscutError, SettingsError
from shared.features.catalog import FEATURES
from shared.features.graph import lookback_of
from shared.lake import read
from shared.lake.layout import HOUR_S, hour_name
from shared.strategy.config import EngineConfig
from shared.strategy.portfolio import Trade
from shared.types import NS

FORMAT = 3
WINDOW_S_MAX = 10 * 366 * 86_400  # whoever alters a window makes nobody count for years
RAW_READ = ("raw/book", "raw/trade", "raw/ticker")
FILE_NAME = "report.json"
ELEMENT = "crosscut-provenance"


class ReportUnreadable(CrosscutError):
    """A file is no report of this program, or of another version of it."""


class ReportMissing(ReportUnreadable):
    """There is no such file: a mistake in what was typed. (1 says that a report is not what it was.)"""

    exit_code = 2


class ResultDigest(msgspec.Struct, frozen=True, kw_only=True):
    """What one engine's outcome was."""

    name: str
    trades: str  # SHA-256 of all of them
    equity: str
    metrics: dict[str, float | None]  # None: not defined


class Provenance(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that a result is a function of, and the result."""

    format: int = FORMAT
    kind: Literal["backtest", "session"]
    source: str
    start_s: int
    end_s: int
    seed: int
    model: str  # version, rules or coin
    model_digest: str | None  # SHA-256 of the booster's text; None: nothing was learnt
    config: EngineConfig
    equity_usdt: str
    holdout_from_s: int | None
    commit: str
    packages: str  # SHA-256 of the lock
    seconds: dict[str, str] = {}  # hour -> content hash in the lake
    labels: dict[str, str] = {}
    universe: str = ""  # SHA-256 of the contracts
    tier: Literal["screen", "exact"] = "screen"
    assumptions: Assumptions | None = None  # of the exact tier; None: the screen tier needs none
    ticks: dict[str, str] = {}  # of the exact tier: raw table and hour -> content hash
    session: str = ""  # of a session: its name
    journal: str = ""  # SHA-256 of a session's journal, of a backtest's that was compared with live; "": there is none
    compared_s: int = 0  # of a backtest: seconds that it holds
    told: Told
    results: tuple[ResultDigest, ...]
    rank_ic: float | None

    def __post_init__(self) -> None:
        try:
            equity = Decimal(self.equity_usdt)
        except InvalidOperation:
            equity = Decimal("NaN")
        for is_so, what, found in (
            (0 <= self.start_s < self.end_s <= self.start_s + WINDOW_S_MAX, "window", (self.start_s, self.end_s)),
            (0 <= self.compared_s <= self.end_s - self.start_s, "compared_s", self.compared_s),
            (self.seed >= 0, "seed", self.seed),
            (equity.is_finite(), "equity_usdt", self.equity_usdt),
            ((self.tier == "exact") == (self.assumptions is not None), "tier and its assumptions", self.tier),
        ):
            if not is_so:
                raise ValueError(f"{what} cannot be {found}")


def defined(value: float) -> float | None:
    """Return a figure as JSON has it: what is not defined is null."""
    return value if math.isfinite(value) else None


def trades_digest(trades: Sequence[Trade]) -> str:
    """Return the SHA-256 of trades, every digit of every figure."""
    return hashlib.sha256(msgspec.json.encode(list(trades))).hexdigest()


def result_of(outcome: Outcome) -> ResultDigest:
    return ResultDigest(
        name=outcome.name,
        trades=trades_digest(outcome.trades),
        equity=hashlib.sha256(outcome.equity_usdt.astype("<f8").tobytes()).hexdigest(),
        metrics={name: defined(value) for name, value in (outcome.metrics | {"net_bps": outcome.net_bps}).items()},
    )


def journal_digest(folder: Path) -> str:
    """Return the SHA-256 of the journal in a folder."""
    with (folder / journal.FILE_NAME).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hashes_of(lake: Path, table: str, source: str, start_s: int, end_s: int) -> dict[str, str]:
    """Return hour -> content hash of what a table holds of a window."""
    hours = [h for h in read.hours(lake, table, source) if start_s // HOUR_S <= h <= (end_s - 1) // HOUR_S]
    return {hour_name(hour): read.content_hash(lake, table, source, [hour]) for hour in hours}


def ticks_of(lake: Path, source: str, start_s: int, end_s: int) -> dict[str, str]:
    """Return raw table and hour -> content hash of what the exact tier reads of a window."""
    found: dict[str, str] = {}
    for table in RAW_READ:
        hashes = hashes_of(lake, table, source, start_s, end_s)
        found |= {f"{table} {hour}": content for hour, content in hashes.items()}
    return found


def universe_digest(lake: Path, source: str, start_s: int, end_s: int) -> str:
    """Return the SHA-256 of the contracts that a window begins with."""
    universe = read.universe_between(lake, source, start_s * NS, end_s * NS, rules="first")
    return hashlib.sha256(msgspec.json.encode(universe.contracts)).hexdigest()


def of_backtest(
    lake: Path, backtest: Backtest, config: EngineConfig, *, model: str, model_digest: str | None, commit: str,
    packages: str, told: Told, noted: str = "", compared_s: int = 0, assumptions: Assumptions | None = None,
) -> Provenance:  # fmt: skip
    """Return what a backtest was computed from.

    Args:
        noted: SHA-256 of the journal of what its engine was told at first; "": there is none.
        compared_s: seconds that it holds.
        assumptions: of the exact tier; None: it was the screen tier.
    """
    window = backtest.source, backtest.start_s, backtest.end_s
    return Provenance(
        kind="backtest",
        source=backtest.source,
        start_s=backtest.start_s,
        end_s=backtest.end_s,
        seed=backtest.seed,
        model=model,
        model_digest=model_digest,
        config=config,
        equity_usdt=str(backtest.main.start_usdt),
        holdout_from_s=backtest.holdout_from_s,
        commit=commit,
        packages=packages,
        seconds=hashes_of(lake, "seconds", backtest.source, backtest.start_s - lookback_of(FEATURES), backtest.end_s),
        labels=hashes_of(lake, "labels", *window),
        universe=universe_digest(lake, *window),
        tier="screen" if assumptions is None else "exact",
        assumptions=assumptions,
        ticks={} if assumptions is None else ticks_of(lake, *window),
        journal=noted,
        compared_s=compared_s,
        told=told,
        results=tuple(result_of(outcome) for outcome in (backtest.main, *backtest.nulls)),
        rank_ic=defined(backtest.ic.mean),
    )


def encoded(provenance: Provenance) -> str:
    """Return it as JSON that may stand inside of a page."""
    return msgspec.json.encode(provenance).decode().replace("</", "<\\/")


def write_beside(folder: Path, provenance: Provenance) -> None:
    (folder / FILE_NAME).write_text(
        json.dumps(msgspec.to_builtins(provenance), indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
    )


def read_report(path: Path) -> Provenance:
    """Return what is inside of a report: a page, the file beside it, or the folder of both.

    Raises:
        ReportMissing: there is no such file.
        ReportUnreadable: it is none.
    """
    found = path
    if path.is_dir():
        found = next((path / name for name in ("report.html", FILE_NAME) if (path / name).is_file()), path)
    try:
        text = found.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = (error.strerror or str(error)).lower() if isinstance(error, OSError) else "no text"
        raise ReportMissing(
            f"a report must be a page, its {FILE_NAME} or their folder, found {path} ({why}): give another path"
        ) from None
    if found.suffix != ".json":
        element = re.search(rf'<script type="application/json" id="{ELEMENT}">(.*?)</script>', text, re.DOTALL)
        if element is None:
            raise ReportUnreadable(
                f"{found} must hold what it was computed from, found no element {ELEMENT}: it is no report, or an "
                "older one; make it again with python -m pipelines.backtest"
            )
        text = element.group(1).replace("<\\/", "</")
    try:
        told: Any = msgspec.json.decode(text)
        if (version := told.get("format") if isinstance(told, dict) else None) != FORMAT:
            raise ReportUnreadable(
                f"{found} must be of format {FORMAT}, found {version}: check out the commit that wrote it"
            )
        return msgspec.json.decode(text, type=Provenance)
    except (msgspec.MsgspecError, SettingsError) as error:  # no JSON of ours, or a value that none can have
        raise ReportUnreadable(
            f"{found} must hold what it was computed from, found: {error}: it was altered or cut; restore it"
        ) from None
