"""Does a model still see what it was trained on? The population stability index of every feature, hour by hour.

Run it: python -m pipelines.drift [--hour 2026-11-22T08:00 | --session NAME|FOLDER|last] [--model latest]

    PSI = Σ over bins (q − p) ln(q / p),   p: share of the training rows in a bin, q: share of the rows judged

(Siddiqi, "Credit Risk Scorecards", 2006, ch. 8: below 0.1 nothing moved, above 0.25 the model looks at another
population.) Bins are tenths of the training rows; a value that a tenth of them share has a bin of its own, so that a
constant that changes is seen; what is missing (NaN) is one more bin. Edges and shares are written beside the model
when it is trained (`drift.json` in its bundle), so that nothing of the training rows is needed afterwards.

Not every hour can look like a day: funding, volumes of a day and the time of day stand still within it. So training
also measures each stretch of its own rows (an hour, or a sixth of a shorter window) against all of them. The limit of
a feature is 0.25, or twice the largest index that a stretch of the training rows had: what always wanders has to
wander further than it did when the model was made. One feature above its limit turns the check red.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import polars as pl
from numpy.typing import NDArray

from pipelines.journaled import Recomputing
from pipelines.moments import second_of, when
from pipelines.resources import resolve_source
from pipelines.rows import Dataset, positions
from pipelines.tables import table_of
from pipelines.tracking import CHAMPION, PAPER_CHAMPION, Tracking, database_of
from pipelines.validation import Fold
from pipelines.verdicts import Verdict
from shared import entry, journal
from shared import settings as settings_module
from shared.errors import CrosscutError, ModelError, ModelMismatch, ModelMissing, NotEnoughData, TableEmpty
from shared.features.catalog import FEATURES
from shared.features.graph import definition_hash
from shared.lake import find, read
from shared.lake.layout import HOUR_S, hour_name
from shared.types import Floats, Ints

FILE = "drift.json"
FORMAT = 1

LIMIT = 0.25
TIMES_USUAL = 2.0

ROWS_MIN = 1_000
"""Rows below which nothing is judged: with n independent rows the index of nothing is about 10 / n, and neighbouring
seconds are far from independent."""

REFERENCE_ROWS = 50_000
"""Of the training rows: 2,000 and more for each stretch of a day."""

JUDGED_ROWS = 200_000
"""Of an hour: 100 MB of a hundred features."""

_TENTHS = 10
_EMPTY = 1e-4
"""Share of a bin that nothing fell into, for the logarithm."""

_MISSING = 0.01
"""Share of missing values below which none of them count: a recording that begins leaves the first 30 s of its first
hour, a symbol that rests for a minute a sixtieth of its own. From none to 12 % missing is an index of 0.25."""

_STRETCHES_MIN = 6
_COLUMNS_AT_ONCE = 16
_STRIDES_S = (1, 2, 3, 5, 7, 11, 13, 17, 23, 29, 37, 47, 61)  # primes from 7 on: no stride in step with a minute
_WORST = 10

Values = NDArray[np.floating[Any]]


# --------------------------------------------------------------------------------------------------- the index


def edges_of(values: Values) -> Floats:
    """Return the edges of tenths, ascending; bin k holds edges[k − 1] <= x < edges[k].

    A value that a tenth of all share is alone in its bin. Values that are not finite are left out.
    """
    known = np.asarray(values)[np.isfinite(values)]
    if not len(known):
        return np.empty(0)
    # Edges are values that there are: nothing is rounded between two of them, and float32 stays float32.
    places = (np.arange(1, _TENTHS) * len(known) + _TENTHS - 1) // _TENTHS - 1
    edges = np.unique(np.sort(known)[places])
    alone = edges[[(known == edge).mean() >= 1 / _TENTHS for edge in edges]]
    following = np.nextafter(alone, np.asarray(np.inf, alone.dtype))
    return np.unique(np.concatenate([edges, following])).astype(np.float64)


def shares_of(values: Values, edges: Floats) -> Floats:
    """Return the share of values in each bin, and as the last of what is not finite [1]."""
    known = np.asarray(values)[np.isfinite(values)]
    counts = np.bincount(np.searchsorted(edges, known, side="right"), minlength=len(edges) + 1)
    return np.append(counts, len(values) - len(known)) / len(values)


def stability(before: Floats, after: Floats) -> float:
    """Return the population stability index of two lists of shares; symmetric, 0 for equal ones, never negative."""
    return float(_terms(before, after).sum())


def _terms(before: Floats, after: Floats) -> Floats:
    """Return what each bin adds to the index; the last bin is what is missing."""
    least = np.append(np.full(len(before) - 1, _EMPTY), _MISSING)
    p, q = np.maximum(before, least), np.maximum(after, least)
    terms: Floats = (q - p) * np.log(q / p)
    return terms


# ----------------------------------------------------------------------------------------------- the reference


class Bins(msgspec.Struct, frozen=True, kw_only=True):
    """One feature of the training rows."""

    edges: tuple[float, ...]
    shares: tuple[float, ...]  # of the len(edges) + 1 bins, then of what is missing; sum 1
    usual: float  # largest index of a stretch of the training rows against all of them

    @property
    def limit(self) -> float:
        return max(LIMIT, TIMES_USUAL * self.usual)


class Reference(msgspec.Struct, frozen=True, kw_only=True):
    """What a model was trained on, for later hours to be compared with."""

    format_version: int = FORMAT
    source: str
    definition_hash: str
    from_s: int
    to_s: int
    rows: int  # that were looked at
    stretches: int
    features: dict[str, Bins]  # without those that the source never had, or that the fit did not look at


def reference_of(dataset: Dataset, fold: Fold) -> Reference:
    """Return the reference of the seconds that a fold's model was fitted on, of all symbols.

    Those that were held out are among them: a symbol's funding is its own, and seeing it every hour is no news.
    """
    rows = drawn(positions(dataset.of(fold.fit)), REFERENCE_ROWS)
    values, second = np.asarray(dataset.features[rows]), dataset.second[rows]
    n_stretches = max(_STRETCHES_MIN, fold.fit.seconds // HOUR_S)
    stretch = (second - fold.fit.start_s) * n_stretches // max(1, fold.fit.seconds)
    barred = {*dataset.absent, *dataset.unlearnable(fold.fit)}
    features = {}
    for f, name in enumerate(dataset.feature_names):
        if name in barred:
            continue
        edges = edges_of(values[:, f])
        # Rows with something missing teach nothing and are none of the dataset's: how many there were it remembers.
        missing = dataset.missing[f] if dataset.missing else 0.0
        complete = np.append(np.full(len(edges) + 1, 1.0 - missing), 1.0)
        shares = shares_of(values[:, f], edges) * complete
        shares[-1] += missing
        usual = 0.0
        for k in np.unique(stretch):
            own = shares_of(values[stretch == k, f], edges) * complete
            own[-1] += missing
            usual = max(usual, stability(shares, own))
        features[name] = Bins(edges=tuple(edges.tolist()), shares=tuple(shares.tolist()), usual=usual)
    return Reference(
        source=dataset.source,
        definition_hash=dataset.definition_hash,
        from_s=fold.fit.start_s,
        to_s=fold.fit.end_s,
        rows=len(rows),
        stretches=n_stretches,
        features=features,
    )


def drawn(rows: Ints, most: int) -> Ints:
    """Return at most so many of the rows, drawn at random and in order; the same for the same number of rows.

    Evenly spaced ones would meet the same few symbols second after second.
    """
    if len(rows) <= most:
        return rows
    chance = np.random.Generator(np.random.Philox(len(rows)))
    return rows[np.sort(chance.choice(len(rows), most, replace=False))]


def write_reference(folder: Path, reference: Reference) -> None:
    (folder / FILE).write_bytes(msgspec.json.encode(reference))


def read_reference(folder: Path) -> Reference:
    """Read what a model was trained on from its bundle's folder.

    Raises:
        ModelMissing: the model was trained before references were kept.
        ModelMismatch: the file is none.
    """
    path = folder / FILE
    try:
        reference = msgspec.json.decode(path.read_bytes(), type=Reference)
    except FileNotFoundError:
        raise ModelMissing(
            f"{FILE} is needed in {folder}, found none: the model was trained before drift was measured; train again"
        ) from None
    except msgspec.MsgspecError as error:
        raise ModelMismatch(
            f"{path} must be of format {FORMAT}, found: {error}: it was altered or cut; train again"
        ) from None
    if reference.format_version != FORMAT:
        raise ModelMismatch(f"{path} must be of format {FORMAT}, found {reference.format_version}: train again")
    return reference


# ---------------------------------------------------------------------------------------------- the comparison


class Moved(msgspec.Struct, frozen=True, kw_only=True):
    """How far one feature is from what the model was trained on."""

    feature: str
    psi: float
    limit: float
    missing: float  # share of the rows without a value [1]
    missing_was: float
    why: str  # the bin that adds most to the index, in words

    @property
    def is_above(self) -> bool:
        return self.psi > self.limit


def moved(reference: Reference, values: Mapping[str, Values]) -> list[Moved]:
    """Return every feature of the reference, the furthest beyond its limit first.

    Raises:
        NotEnoughData: too few rows to say anything.
    """
    n_rows = len(next(iter(values.values()), ()))
    if n_rows < ROWS_MIN:
        raise NotEnoughData(f"{ROWS_MIN} rows at least are needed to tell drift from chance, found {n_rows}")
    found = []
    for name, bins in reference.features.items():
        before, after = np.asarray(bins.shares), shares_of(values[name], np.asarray(bins.edges))
        found.append(
            Moved(
                feature=name,
                psi=stability(before, after),
                limit=bins.limit,
                missing=float(after[-1]),
                missing_was=float(before[-1]),
                why=_why(bins, before, after),
            )
        )
    return sorted(found, key=lambda one: (-one.psi / one.limit, one.feature))


def _why(bins: Bins, before: Floats, after: Floats) -> str:
    k = int(_terms(before, after).argmax())
    if k == len(before) - 1:
        where = "missing"
    elif not bins.edges:
        where = "known"
    elif k == 0:
        where = f"below {bins.edges[0]:.4g}"
    elif k == len(bins.edges):
        where = f"{bins.edges[-1]:.4g} and above"
    else:
        where = f"{bins.edges[k - 1]:.4g} to {bins.edges[k]:.4g}"
    return f"{after[k]:.1%} {where}, was {before[k]:.1%}"


def of_hour(lake: Path, source: str, hour: int, names: Sequence[str]) -> dict[str, Values]:
    """Return the features that the lake holds of an hour, evenly spaced seconds of it where there are many.

    Raises:
        TableEmpty: there are none.
    """
    most = sum(read.footer(path).rows for path in find.parts(lake, "features", source, hour))
    stride = next((k for k in _STRIDES_S if most <= k * JUDGED_ROWS), _STRIDES_S[-1])
    rows = read.scan(
        lake, "features", source, start_s=hour * HOUR_S, end_s=(hour + 1) * HOUR_S, is_sorted=False
    ).filter(pl.col("second") % stride == 0)
    values: dict[str, Values] = {}
    for k in range(0, len(names), _COLUMNS_AT_ONCE):
        frame = read.collect(rows.select(names[k : k + _COLUMNS_AT_ONCE]))
        values |= {name: frame[name].to_numpy() for name in frame.columns}
    return values


def of_session(folder: Path, start_s: int | None = None, end_s: int | None = None) -> dict[str, Values]:
    """Return the features that a session computed, from its journal, in every seventh second.

    Raises:
        JournalError: it cannot be read.
    """
    names = tuple(FEATURES)
    pieces = [
        block.features[-block.first_second % 7 :: 7].reshape(-1, len(names))
        for block in Recomputing(folder, start_s, end_s, with_scores=False).blocks()
        if block.features is not None
    ]
    rows = np.concatenate(pieces) if pieces else np.empty((0, len(names)), np.float32)
    return {name: rows[:, f] for f, name in enumerate(names)}


# ------------------------------------------------------------------------------------------------ by the hour


def in_use(tracking: Tracking, source: str, wanted: str | None = None) -> tuple[str, Reference]:
    """Return the name and the reference of the model that a source is traded with: its champion, else the newest.

    Args:
        wanted: latest, a version or an alias; None: as said.

    Raises:
        ModelMissing: there is no model, or it has no reference.
        ModelMismatch: the reference cannot be read.
    """
    if (database := database_of(tracking.uri)) is not None and not database.is_file():
        raise ModelMissing(f"a model of {source} is needed, found none in {tracking.uri}: train one")
    with tracking.told():
        version = None if wanted is None else tracking.resolve(wanted)
        for alias in (CHAMPION, PAPER_CHAMPION) if wanted is None else ():
            try:
                found = tracking.resolve(alias)
            except ModelMissing:
                continue
            if found.tags.get("source") == source:
                version = found
                break
        if version is None:
            version = tracking.resolve(tracking.latest_of(source))
        return f"version {version.version}", read_reference(tracking.bundle_folder(version))


def feature_drift(tracking_uri: str, lake: Path, source: str, hour: int) -> Verdict:
    """Every feature is distributed as in the training rows of the model in use: no PSI above its limit."""
    if hour not in read.hours(lake, "features", source):
        raise TableEmpty(
            f"features of {source} are needed for {hour_name(hour)}, found none: materialise features first"
        )
    try:
        model, reference = in_use(Tracking(tracking_uri), source)
    except ModelMissing as nothing:
        return Verdict(True, {"judged": 0, "reason": str(nothing)})
    except ModelError as error:
        return Verdict(False, {"judged": 0, "reason": str(error)})
    known = {read.footer(path).provenance.get("definition_hash") for path in find.parts(lake, "features", source, hour)}
    if known - {reference.definition_hash, None}:
        return Verdict(
            True, {"judged": 0, "model": model, "reason": "the hour's features have other formulas than the model's"}
        )
    try:
        found = moved(reference, of_hour(lake, source, hour, tuple(reference.features)))
    except NotEnoughData as reason:
        return Verdict(True, {"judged": 0, "model": model, "reason": str(reason)})
    return judged(found, model, reference)


def judged(found: list[Moved], model: str, reference: Reference) -> Verdict:
    """Return the verdict: one feature above its limit is enough."""
    above = [one for one in found if one.is_above]
    told: dict[str, Any] = {
        "judged": len(found),
        "above": len(above),
        "psi_median": float(np.median([one.psi for one in found])) if found else 0.0,
        "psi_max": max((one.psi for one in found), default=0.0),
        "model": model,
        "trained_on": f"{when(reference.from_s)} to {when(reference.to_s)}",
        "worst": table_of(rows_of(found[: max(_WORST, len(above))])),
    }
    if not above:
        return Verdict(True, told)
    advice = (
        "look at what moved: a feature that is suddenly missing is a channel or a rule of the exchange; many at once "
        "are another market, and a model of it must be trained on it (learn_daily)"
    )
    return Verdict(False, told | {"features": ", ".join(one.feature for one in above), "what_to_do": advice})


def rows_of(found: Sequence[Moved]) -> list[dict[str, Any]]:
    """Return features for a table."""
    return [
        {
            "feature": one.feature,
            "psi": one.psi,
            "limit": one.limit,
            "missing": one.missing,
            "was": one.missing_was,
            "what_moved_most": one.why,
        }
        for one in found
    ]


# ----------------------------------------------------------------------------------------------------- by hand


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(
        prog="python -m pipelines.drift",
        description="Compare the features of an hour, or of a session, with those that a model was trained on. Ends "
        "with 1 where one is above its limit.",
    )
    what = p.add_mutually_exclusive_group()
    what.add_argument("--hour", help="like 2026-11-22T08:00, UTC (default: the newest that has features)")
    what.add_argument("--session", help="folder, name or last: the features that live computed")
    p.add_argument("--model", help="latest, a version or an alias (default: the source's champion, else its newest)")
    p.add_argument("--lake", help="the lake's folder (default: LAKE_URI, which is data_lake)")
    p.add_argument("--source", help="which source to look at (default: that of MARKET, or the only one there is)")
    return p


def main(arguments: Sequence[str] | None = None) -> int:
    args = parser().parse_args(arguments)
    try:
        settings = settings_module.load(lake_uri=args.lake)
        lake, tracking = settings.lake, Tracking(settings.tracking_uri)
        if args.session:
            folder = journal.find(lake, args.session)
            header: journal.Header = next(iter(journal.JournalReader(folder / journal.FILE_NAME))).value
            model, reference = in_use(tracking, header.source, args.model)
            about, values = f"session {header.session}", of_session(folder)
        else:
            source = resolve_source(lake, args.source, settings)
            model, reference = in_use(tracking, source, args.model)
            hour = _hour(lake, source, args.hour)
            about, values = f"{source} {hour_name(hour)}", of_hour(lake, source, hour, tuple(reference.features))
        if reference.definition_hash != definition_hash(FEATURES):
            raise ModelMismatch(
                f"features of model {model} must be this code's, found {reference.definition_hash[:12]}…: train again"
            )
        found = moved(reference, values)
    except CrosscutError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    passed, told = judged(found, model, reference)
    print(told["worst"].markdown)
    print(
        f"\n{about} against model {model}, trained on {told['trained_on']}: {told['above']} of {told['judged']} "
        f"features above their limit, PSI {told['psi_median']:.3f} in the middle, {told['psi_max']:.3f} at most"
    )
    return 0 if passed else 1


def _hour(lake: Path, source: str, wanted: str | None) -> int:
    at, hours = second_of(wanted), read.hours(lake, "features", source)
    if at is not None and at // HOUR_S in hours:
        return at // HOUR_S
    if at is None and hours:
        return hours[-1]
    known = "none" if wanted is None else f"none at {wanted}"
    raise TableEmpty(
        f"an hour of features of {source} is needed in {lake}, found {known}: materialise features first (make ui)"
    )


if __name__ == "__main__":
    entry.run(main)
