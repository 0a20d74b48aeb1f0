"""Small pictures for Dagster's metadata, as Markdown with the PNG inside."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

from pipelines.charts import plot
from pipelines.gaps import by_minute
from shared.lake.layout import HOUR_S, MINUTE_S
from shared.model import CLASSES

_SIZE = (7.0, 2.4)

SYMBOLS_SHOWN = 30
"""Rows of the heat map: the symbols that lack most. Eight hundred rows would be grey."""

_STATES = ("not listed", "complete", "silent", "gap")
_COLOURS = ("#ffffff", "#dbe7f0", "#f0c662", "#b23a2e")  # told apart without red and green, too


_MINUTES = HOUR_S // MINUTE_S


def books_by_minute(seconds: pl.DataFrame, hour: int) -> str:
    """Show for each minute the mean number of symbols with a book."""
    counted = (
        seconds.lazy()
        .filter(pl.col("bid_price_1").is_not_nan() & pl.col("ask_price_1").is_not_nan())
        .group_by(minute=(pl.col("second") - hour * HOUR_S) // MINUTE_S)
        .agg(books=pl.len() / MINUTE_S)
        .sort("minute")
        .collect()
    )

    def draw(picture: Any) -> None:
        axes = picture.subplots()
        axes.bar(counted["minute"].to_list(), counted["books"].to_list(), width=0.9, color="#4a6d92")
        axes.set_xlim(-0.5, 59.5)
        axes.set_xlabel("minute of the hour", fontsize=8)
        axes.set_ylabel("symbols with a book", fontsize=8)

    return f"![books]({plot(draw, size=_SIZE)})"


def missing_by_feature(features: pl.DataFrame) -> str:
    """Show for each feature the share of rows without a value."""
    shares = features.select(pl.all().is_nan().mean()).row(0, named=True)

    def draw(picture: Any) -> None:
        axes = picture.subplots()
        axes.bar(range(len(shares)), list(shares.values()), color="#c08a2d")
        axes.set_xticks(range(len(shares)), list(shares), rotation=90, fontsize=6)
        axes.set_ylabel("missing [1]", fontsize=8)

    return f"![missing]({plot(draw, size=(7.0, 3.2))})"


def label_shares(labels: pl.DataFrame) -> str:
    """Show how many rows each class has, incomplete ones included."""
    counts = dict(labels["label"].value_counts().iter_rows())
    names = [*CLASSES, "incomplete"]
    values = [counts.get(k, 0) for k in (0, 1, 2, None)]

    def draw(picture: Any) -> None:
        axes = picture.subplots()
        axes.barh(names[::-1], values[::-1], color="#4a6d92")
        axes.set_xlabel("rows", fontsize=8)

    return f"![labels]({plot(draw, size=_SIZE)})"


def gain_by_feature(gain: dict[str, float], most: int = 15) -> str:
    """Show which features the model splits on, by share of the total gain."""
    shown = sorted(gain.items(), key=lambda item: -item[1])[:most][::-1]

    def draw(picture: Any) -> None:
        axes = picture.subplots()
        axes.barh([name for name, _ in shown], [share for _, share in shown], color="#4a6d92")
        axes.set_xlabel("share of the gain [1]", fontsize=8)

    return f"![gain]({plot(draw, size=(7.0, 3.2))})"


def coverage_map(coverage: pl.DataFrame, hour: int) -> str:
    """Show the share of channels that each minute lacks, and the minutes of the symbols that lack most."""
    cells = by_minute(coverage, hour)
    listed = cells.filter(pl.col("rank") > 0)
    share = np.full(_MINUTES, np.nan)
    for minute, covered in listed.group_by("minute").agg(pl.col("covered").mean()).iter_rows():
        share[minute] = covered
    worst = (
        listed.group_by("symbol")
        .agg(lacks=1 - pl.col("covered").mean(), silent=(pl.col("rank") == 2).mean())
        .filter((pl.col("lacks") > 0) | (pl.col("silent") > 0))
        .sort("lacks", "silent", "symbol", descending=[True, True, False])
    )
    shown = worst.head(SYMBOLS_SHOWN)["symbol"].to_list()
    states = np.zeros((len(shown), _MINUTES), np.int8)
    position = {symbol: n for n, symbol in enumerate(shown)}
    for symbol, minute, rank, _ in cells.filter(pl.col("symbol").is_in(shown)).iter_rows():
        states[position[symbol], minute] = rank

    def draw(picture: Any) -> None:
        from matplotlib.colors import ListedColormap
        from matplotlib.patches import Patch

        ratios = (1.0, 0.16 * max(1, len(shown)))
        above, *rest = np.atleast_1d(picture.subplots(2 if shown else 1, 1, height_ratios=ratios if shown else None))
        lacks = 100 * (1 - np.nan_to_num(share, nan=1.0))  # where nothing was listed nothing is lacking
        above.bar(range(_MINUTES), lacks, width=1.0, color=_COLOURS[3])
        above.set_facecolor(_COLOURS[1])
        above.set_xlim(-0.5, _MINUTES - 0.5)
        above.set_ylim(0, min(100.0, max(1.0, 1.1 * float(lacks.max()))))  # 1 %: a clean hour is to look clean
        above.set_ylabel("not covered, %", fontsize=8)
        symbols, total = listed["symbol"].n_unique(), float(listed.select(pl.col("covered").mean()).item() or 0.0)
        above.set_title(
            f"{symbols:,} symbols, {100 * total:.2f} % of their minutes covered" if symbols else "nothing was listed",
            fontsize=9,
            loc="left",
        )
        if not rest:
            above.set_xlabel("minute of the hour; no symbol lacks a minute", fontsize=8)
            return
        below = rest[0]
        below.pcolormesh(
            np.arange(_MINUTES + 1) - 0.5,
            np.arange(len(shown) + 1) - 0.5,
            states,
            cmap=ListedColormap(list(_COLOURS)),
            vmin=-0.5,
            vmax=3.5,
            edgecolors="#ffffff",
            linewidth=0.4,
        )
        # The fonts of a server know no Chinese; a box for each letter keeps such names apart from the others.
        names = ["".join(letter if letter.isascii() else "□" for letter in symbol) for symbol in shown]
        below.set_yticks(range(len(shown)), names, fontsize=6)
        below.invert_yaxis()
        others = f", {worst.height - len(shown):,} more lack something" if worst.height > len(shown) else ""
        below.set_xlabel(f"minute of the hour; the {len(shown)} symbols that lack most{others}", fontsize=8)
        below.legend(
            handles=[
                Patch(facecolor=colour, edgecolor="#999999", linewidth=0.4, label=name)
                for name, colour in zip(_STATES, _COLOURS, strict=True)
            ],
            loc="lower right",
            bbox_to_anchor=(1.0, 1.0),
            ncols=4,
            fontsize=7,
            frameon=False,
            handlelength=1.0,
        )

    height = 1.5 + (0.7 + 0.16 * len(shown) if shown else 0.4)
    return f"![coverage]({plot(draw, size=(7.0, height))})"
