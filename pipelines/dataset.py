"""Features and labels of a window -> the rows that a model learns from, and a manifest that pins them.

Only rows that live could have scored take part: a row where a feature is missing gets no score there, so it teaches
nothing here. Nor does one that saw, or whose outcome lies in, a minute that coverage calls a gap: a book that stood
still looks like any other. A feature that the source never has (a recording without funding) is named `absent` and not
required.
"""

from __future__ import annotations

import math
from pathlib import Path

import msgspec
import numpy as np
import polars as pl
from numpy.typing import NDArray

from pipelines.features import RULE
from pipelines.leaks import check_features
from pipelines.moments import when
from pipelines.room import room
from pipelines.rows import PIECE_ROWS, Dataset
from pipelines.validation import walk_forward
from shared.errors import SchemaMismatch, TableCorrupt, TableEmpty
from shared.features.catalog import FEATURES
from shared.features.graph import definition_hash, lookback_of
from shared.labels import HORIZONS_S, Rule
from shared.lake import coverage, find, layout, read
from shared.lake.layout import HOUR_S
from shared.model import CLASSES
from shared.replaced import replace_file
from shared.types import NS

MEMORY_BYTES = 4 * 1024**3
"""Features up to this size stay in memory; LightGBM's binned copy is a quarter of it."""

_MOVES = [f"mid_bps_{horizon_s}s" for horizon_s in HORIZONS_S]


def build_dataset(
    lake: Path,
    source: str,
    *,
    start_s: int | None = None,
    end_s: int | None = None,
    rule: Rule = RULE,
    memory_bytes: int = MEMORY_BYTES,
) -> Dataset:
    """Return the labelled, complete rows of [start_s, end_s); None: from the first or to the last hour stored.

    Hours are read one after the other. Where their features would fill more than `memory_bytes`, they go into a file
    without a name beside the lake, mapped into memory, gone with the process.

    Raises:
        TableEmpty: no hour of the window has features and labels.
        SchemaMismatch: stored features are not those of this code's catalog, or labels were made by another rule.
        LeakyFeatures: stored features are not what the past of their second gives.
    """
    stored = sorted(set(read.hours(lake, "features", source)) & set(read.hours(lake, "labels", source)))
    hours = [
        hour
        for hour in stored
        if (start_s is None or (hour + 1) * HOUR_S > start_s) and (end_s is None or hour * HOUR_S < end_s)
    ]
    if not hours:
        if stored:
            raise TableEmpty(
                f"an hour with features and labels of {source} is needed in the window, found those from "
                f"{when(stored[0] * HOUR_S)} to {when((stored[-1] + 1) * HOUR_S)} in {lake}: choose --from and --to "
                "in between, or record that window"
            )
        raise TableEmpty(
            f"an hour with features and labels of {source} is needed in {lake}, found none: "
            "materialise seconds, features and labels first (make ui), after python -m pipelines.generate"
        )
    first_s = max(hours[0] * HOUR_S, start_s or 0)
    last_s = min((hours[-1] + 1) * HOUR_S, end_s) if end_s is not None else (hours[-1] + 1) * HOUR_S
    names, lookback_s = tuple(FEATURES), lookback_of(FEATURES)
    _check_stored(lake, source, hours, rule)
    check_features(lake, source, hours)
    gaps = _gaps(lake, source, first_s - lookback_s, last_s + rule.reach_s)
    most = sum(read.footer(path).rows for hour in hours for path in find.parts(lake, "labels", source, hour))
    features = room(lake, (most, len(names)), memory_bytes)
    pieces: list[pl.DataFrame] = []
    n_rows = 0
    for hour in hours:
        rows = _hour(lake, source, max(first_s, hour * HOUR_S), min(last_s, (hour + 1) * HOUR_S), names)
        rows = _without_gaps(rows, gaps, lookback_s, rule.reach_s)
        features[n_rows : n_rows + len(rows)] = rows.select(names).to_numpy()
        n_rows += len(rows)
        pieces.append(rows.drop(names))
    about = pl.concat(pieces)
    if about.is_empty():
        raise TableEmpty(
            f"labelled rows of {source} are needed, found none from {when(first_s)} to {when(last_s)} outside the gaps "
            "of coverage: was the hour after it materialised? Labels look ahead into it"
        )
    first_s, last_s = int(about["second"][0]), int(about["second"][-1]) + 1
    # Of the gaps those that matter: a window asked for by its first and last row is the same dataset.
    touched = pl.col("minute").is_between((first_s - lookback_s) // 60, (last_s - 1 + rule.reach_s) // 60)
    gaps = gaps.filter(touched)
    second = about["second"].to_numpy()
    holdout = walk_forward(np.unique(second), reach_s=rule.reach_s, lookback_s=lookback_s)[-1].test
    before = int(np.searchsorted(second, holdout.start_s)) or n_rows
    known = np.zeros(len(names), np.int64)
    for start in range(0, before, PIECE_ROWS):
        known += np.isfinite(features[start : min(before, start + PIECE_ROWS)]).sum(axis=0)
    is_known = known > 0
    is_complete = _keep_complete(features[:n_rows], is_known)
    about = about.filter(pl.Series(is_complete))
    symbols = tuple(about["symbol"].unique().sort())
    position = {symbol: n for n, symbol in enumerate(symbols)}
    return Dataset(
        source=source,
        symbols=symbols,
        feature_names=names,
        absent=tuple(name for name, known in zip(names, is_known, strict=True) if not known),
        definition_hash=definition_hash(FEATURES),
        rule=rule,
        lookback_s=lookback_s,
        second=about["second"].to_numpy(),
        symbol=about["symbol"].replace_strict(position, return_dtype=pl.Int32).to_numpy(),
        features=features[: len(about)],
        label=about["label"].to_numpy(),
        mid_bps=about["mid_bps"].to_numpy(),
        moves_bps=about.select(pl.col(_MOVES).cast(pl.Float32).fill_null(math.nan)).to_numpy(),
        start_s=first_s,
        end_s=last_s,
        content_hash=layout.combine(
            [
                *(read.content_hash(lake, table, source, hours) for table in ("features", "labels")),
                *([layout.digest(gaps)] if gaps.height else []),
            ]
        ),
        missing=tuple((1.0 - known / before).tolist()),
    )


def _check_stored(lake: Path, source: str, hours: list[int], rule: Rule) -> None:
    names = tuple(FEATURES)
    features = read.scan(lake, "features", source, start_s=hours[0] * HOUR_S, end_s=(hours[-1] + 1) * HOUR_S)
    stored = [name for name in features.collect_schema().names() if name not in ("second", "symbol")]
    if sorted(stored) != sorted(names):
        differing = sorted(set(stored) ^ set(names))
        raise SchemaMismatch(
            f"features stored for {source} must be the catalog's {len(names)}, found a difference in "
            f"{', '.join(differing[:5])}: materialise features of the window again"
        )
    wanted = msgspec.to_builtins(rule)
    for hour in hours:
        for path in find.parts(lake, "labels", source, hour):
            made_by = read.footer(path).provenance.get("rule", wanted)
            if made_by != wanted:
                raise SchemaMismatch(
                    f"labels of {layout.hour_name(hour)} must be made by {wanted}, found {made_by}: "
                    "materialise labels of the window again"
                )


def _hour(lake: Path, source: str, start_s: int, end_s: int, names: tuple[str, ...]) -> pl.DataFrame:
    """Return the labelled rows of a window with their features, sorted by (second, symbol)."""
    features = read.scan(lake, "features", source, start_s=start_s, end_s=end_s, is_sorted=False)
    labels = read.scan(lake, "labels", source, start_s=start_s, end_s=end_s, is_sorted=False)
    return read.collect(
        features.select("second", "symbol", *names)
        .join(
            labels.select("second", "symbol", "label", "mid_bps", *_MOVES).filter(pl.col("label").is_not_null()),
            on=["second", "symbol"],
            how="inner",
        )
        .sort("second", "symbol")
    )


def _keep_complete(features: NDArray[np.float32], is_known: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Move the rows in which no known feature is missing to the front, in place; return which they were."""
    is_complete = np.empty(len(features), np.bool_)
    end = 0
    for start in range(0, len(features), PIECE_ROWS):
        piece = features[start : start + PIECE_ROWS]
        chosen = np.isfinite(piece[:, is_known]).all(axis=1)
        is_complete[start : start + len(piece)] = chosen
        kept = piece[chosen]
        features[end : end + len(kept)] = kept
        end += len(kept)
    return is_complete


def _gaps(lake: Path, source: str, start_s: int, end_s: int) -> pl.DataFrame:
    """Return the (symbol, minute)s in which some channel has a gap, sorted; hours without coverage are not judged."""
    hours = layout.hours_between(start_s, end_s, NS)
    if not set(hours) & set(read.hours(lake, "coverage", source)):
        return pl.DataFrame(schema={"symbol": pl.String, "minute": pl.Int64})
    found = read.scan(lake, "coverage", source, start_s=start_s // 60 * 60, end_s=end_s, is_sorted=False)
    gaps = found.filter(pl.col("state") == coverage.GAP).select("symbol", "minute").unique()
    return read.collect(gaps).sort("symbol", "minute")


def _without_gaps(rows: pl.DataFrame, gaps: pl.DataFrame, lookback_s: int, reach_s: int) -> pl.DataFrame:
    """Return the rows that neither saw a gap nor have their outcome in one."""
    for offset_s in sorted({*range(-lookback_s, reach_s, layout.MINUTE_S), 0, reach_s}):
        rows = (
            rows.with_columns(minute=(pl.col("second") + offset_s) // layout.MINUTE_S)
            .join(gaps, on=["symbol", "minute"], how="anti", maintain_order="left")
            .drop("minute")
        )
    return rows


class Manifest(msgspec.Struct, frozen=True):
    """What a dataset is, without its rows: enough to build the same one, or to notice that the lake has changed."""

    source: str
    start_s: int
    end_s: int
    rows: int
    symbols: int
    labels: dict[str, int]
    horizon_s: int
    lookback_s: int
    definition_hash: str
    absent: tuple[str, ...]
    content_hash: str


def manifest_of(dataset: Dataset) -> Manifest:
    counts = np.bincount(dataset.label, minlength=len(CLASSES)).tolist()
    return Manifest(
        source=dataset.source,
        start_s=dataset.start_s,
        end_s=dataset.end_s,
        rows=dataset.rows,
        symbols=len(dataset.symbols),
        labels=dict(zip(CLASSES, counts, strict=True)),
        horizon_s=dataset.horizon_s,
        lookback_s=dataset.lookback_s,
        definition_hash=dataset.definition_hash,
        absent=dataset.absent,
        content_hash=dataset.content_hash,
    )


def manifest_path(lake: Path, source: str) -> Path:
    return lake / "dataset" / f"source={layout.check_name(source, 'source')}" / "manifest.json"


def write_manifest(lake: Path, manifest: Manifest) -> Path:
    """Replace the source's manifest, whole or not at all."""
    path = manifest_path(lake, manifest.source)
    replace_file(path, msgspec.json.format(msgspec.json.encode(manifest), indent=2), is_durable=False)
    return path


def read_manifest(lake: Path, source: str) -> Manifest:
    """Return the source's manifest.

    Raises:
        TableEmpty: there is none yet.
        TableCorrupt: it is not one.
    """
    path = manifest_path(lake, source)
    try:
        return msgspec.json.decode(path.read_bytes(), type=Manifest)
    except FileNotFoundError:
        raise TableEmpty(f"a dataset of {source} is needed, found none in {path.parent}: materialise dataset") from None
    except msgspec.MsgspecError as error:
        raise TableCorrupt(f"{path} must be a dataset's manifest, found: {error}: materialise dataset again") from None
