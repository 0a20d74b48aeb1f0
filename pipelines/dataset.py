"""Features and labels of a window -> the rows that a model learns from, and a manifest that pins them.

Only rows that live could have scored take part: a row where a feature is missing gets no score there, so it teaches
nothing here. Nor does one that saw, or whose outcome lies in, a minute that coverage calls a gap: a book that stood
still looks like any other. A feature that the source never has (a recording without funding) is named `absent` and not
required.
"""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import numpy as np
import polars as pl
from numpy.typing import NDArray

from pipelines.training import Dataset
from pipelines.validation import walk_forward
from shared.errors import SchemaMismatch, TableCorrupt, TableEmpty
from shared.features.catalog import FEATURES
from shared.features.graph import definition_hash, lookback_of
from shared.lake import coverage, layout, read
from shared.lake.layout import HOUR_S
from shared.limits import HORIZON_S
from shared.model import CLASSES
from shared.types import NS


def build_dataset(
    lake: Path, source: str, *, start_s: int | None = None, end_s: int | None = None, horizon_s: int = HORIZON_S
) -> Dataset:
    """Return the labelled, complete rows of [start_s, end_s); None: from the first or to the last hour stored.

    Raises:
        TableEmpty: no hour of the window has features and labels.
        SchemaMismatch: stored features are not those of this code's catalog.
    """
    hours = [
        hour
        for hour in sorted(set(read.hours(lake, "features", source)) & set(read.hours(lake, "labels", source)))
        if (start_s is None or (hour + 1) * HOUR_S > start_s) and (end_s is None or hour * HOUR_S < end_s)
    ]
    if not hours:
        raise TableEmpty(
            f"an hour with features and labels of {source} is needed in {lake}, found none in the window: "
            "materialise seconds, features and labels first (make ui), after python -m pipelines.generate"
        )
    first_s = max(hours[0] * HOUR_S, start_s or 0)
    last_s = min((hours[-1] + 1) * HOUR_S, end_s) if end_s is not None else (hours[-1] + 1) * HOUR_S
    names, lookback_s = tuple(FEATURES), lookback_of(FEATURES)
    features = read.scan(lake, "features", source, start_s=first_s, end_s=last_s, is_sorted=False)
    stored = [name for name in features.collect_schema().names() if name not in ("second", "symbol")]
    if sorted(stored) != sorted(names):
        differing = sorted(set(stored) ^ set(names))
        raise SchemaMismatch(
            f"features stored for {source} must be the catalog's {len(names)}, found a difference in "
            f"{', '.join(differing[:5])}: materialise features of the window again"
        )
    labels = read.scan(lake, "labels", source, start_s=first_s, end_s=last_s, is_sorted=False)
    rows = read.collect(
        features.select("second", "symbol", *names)
        .join(
            labels.select("second", "symbol", "label", "mid_bps").filter(pl.col("label").is_not_null()),
            on=["second", "symbol"],
            how="inner",
        )
        .sort("second", "symbol")
    )
    gaps = _gaps(lake, source, first_s - lookback_s, last_s + horizon_s)
    rows = _without_gaps(rows, gaps, lookback_s, horizon_s)
    if rows.is_empty():
        raise TableEmpty(
            f"labelled rows of {source} are needed, found none in [{first_s}, {last_s}) outside the gaps of coverage: "
            "was the hour after it materialised? Labels look ahead into it"
        )
    first_s, last_s = int(rows["second"][0]), int(rows["second"][-1]) + 1
    values = rows.select(names).to_numpy().astype(np.float32, copy=False)
    known = rows["second"].unique().sort().to_numpy()
    holdout = walk_forward(known, horizon_s=horizon_s, lookback_s=lookback_s)[-1].test
    seen = rows["second"].to_numpy() < holdout.start_s
    before = values[seen if seen.any() else slice(None)]
    is_known: NDArray[np.bool_] = np.any(np.isfinite(before), axis=0)
    is_complete = np.isfinite(values[:, is_known]).all(axis=1)
    rows, values = rows.filter(pl.Series(is_complete)), np.ascontiguousarray(values[is_complete])
    symbols = tuple(rows["symbol"].unique().sort())
    position = {symbol: n for n, symbol in enumerate(symbols)}
    return Dataset(
        source=source,
        symbols=symbols,
        feature_names=names,
        absent=tuple(name for name, known in zip(names, is_known, strict=True) if not known),
        definition_hash=definition_hash(FEATURES),
        horizon_s=horizon_s,
        lookback_s=lookback_s,
        second=rows["second"].to_numpy(),
        symbol=rows["symbol"].replace_strict(position, return_dtype=pl.Int32).to_numpy(),
        features=values,
        label=rows["label"].to_numpy(),
        mid_bps=rows["mid_bps"].to_numpy(),
        start_s=first_s,
        end_s=last_s,
        content_hash=layout.combine(
            [
                *(read.content_hash(lake, table, source, hours) for table in ("features", "labels")),
                *([layout.digest(gaps)] if gaps.height else []),
            ]
        ),
    )


def _gaps(lake: Path, source: str, start_s: int, end_s: int) -> pl.DataFrame:
    """Return the (symbol, minute)s in which some channel has a gap, sorted; hours without coverage are not judged."""
    hours = layout.hours_between(start_s, end_s, NS)
    if not set(hours) & set(read.hours(lake, "coverage", source)):
        return pl.DataFrame(schema={"symbol": pl.String, "minute": pl.Int64})
    found = read.scan(lake, "coverage", source, start_s=start_s // 60 * 60, end_s=end_s, is_sorted=False)
    gaps = found.filter(pl.col("state") == coverage.GAP).select("symbol", "minute").unique()
    return read.collect(gaps).sort("symbol", "minute")


def _without_gaps(rows: pl.DataFrame, gaps: pl.DataFrame, lookback_s: int, horizon_s: int) -> pl.DataFrame:
    """Return the rows that neither saw a gap nor have their outcome in one."""
    for offset_s in sorted({*range(-lookback_s, horizon_s, layout.MINUTE_S), 0, horizon_s}):
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
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    temporary.write_bytes(msgspec.json.format(msgspec.json.encode(manifest), indent=2))
    temporary.replace(path)
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
