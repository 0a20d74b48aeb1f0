"""Small pictures for Dagster's metadata, as Markdown with the PNG inside."""

from __future__ import annotations

from typing import Any

import polars as pl

from pipelines.report import plot
from shared.lake.layout import HOUR_S, MINUTE_S
from shared.model import CLASSES

_SIZE = (7.0, 2.4)


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
