"""Pictures of a report: drawn once with matplotlib, as PNG for Dagster and as SVG for the page.

The SVG takes its colours from the page's style sheet, so that one picture suits light and dark, and its letters are
letters. Every picture has units at its axes; what it means is said beside it, in `pipelines.report`.
"""

from __future__ import annotations

import base64
import io
import math
import re
import textwrap
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from pipelines.capacity import Capacity
from pipelines.moments import when
from pipelines.simulation import Outcome
from pipelines.skill import Skill
from pipelines.trades import MINUTE_S, Slice
from shared.types import Floats

INK, GOOD, BAD, NULL, SECOND, SOFT = "#1c2733", "#1f7a4d", "#b3362b", "#8a94a0", "#b67a1e", "#3f6c9b"
_VARIABLES = {INK: "ink", GOOD: "good", BAD: "bad", NULL: "null", SECOND: "second", SOFT: "soft"}
COLOURS = {"coin": NULL, "shuffled": SECOND}

_PIXELS_PER_INCH = 110
POINTS_MAX = 1200  # of a line: more than a screen has columns
BARS_MAX = 20
LOOKS_MAX = 150  # of exposure; more are means of some in a row, else a picture of a day is a blot

NARROW, WIDE = (5.0, 2.9), (10.4, 4.0)  # inches; 72 of the page's units each

Draw = Callable[..., None]


def plot(draw: Draw, *arguments: Any, size: tuple[float, float] = (9.0, 3.4)) -> str:
    """Return a picture as the data URI of a PNG."""
    buffer = io.BytesIO()
    _figure(draw, arguments, size).savefig(buffer, format="png")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def svg(name: str, draw: Draw, *arguments: Any, size: tuple[float, float] = NARROW) -> str:
    """Return a picture as an SVG element for inside a page; the same input gives the same bytes.

    Args:
        name: of the picture, unique in its page: part of every identifier inside.
    """
    import matplotlib as mpl

    buffer = io.StringIO()
    with warnings.catch_warnings(), mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        # The letters are the page's: a name in Chinese needs no font here.
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        _figure(draw, arguments, size).savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :].strip()
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text, flags=re.DOTALL)
    text = re.sub(r'\sxmlns(:xlink)?="[^"]*"', "", text).replace("xlink:href", "href")  # inside HTML neither is needed
    text = re.sub(r'id="', f'id="{name}-', text)
    text = re.sub(r'(href="#|url\(#)', rf"\g<1>{name}-", text)
    text = re.sub(r"font: [^;\"]*?(\d+(?:\.\d+)?)px [^;\"]*", r"font-size: \1px", text)
    for colour, variable in _VARIABLES.items():
        text = text.replace(colour, f"var(--{variable})")
    text = text.replace("#000000", "var(--ink)")
    # Without a size of its own it takes that of the page: the viewBox keeps its shape.
    head, rest = text.split(">", 1)
    return re.sub(r'\s(?:width|height)="[^"]*pt"', "", head) + ' role="img">' + rest


def _figure(draw: Draw, arguments: Sequence[Any], size: tuple[float, float]) -> Any:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    picture = Figure(figsize=size, dpi=_PIXELS_PER_INCH, layout="constrained")
    FigureCanvasAgg(picture)
    draw(picture, *arguments)
    for axes in picture.axes:
        axes.spines[["top", "right"]].set_visible(False)
        for spine in axes.spines.values():
            spine.set_color(NULL)
        axes.tick_params(colors=INK, labelsize=8.5, color=NULL)
        axes.xaxis.label.set(color=INK, size=8.5)
        axes.yaxis.label.set(color=INK, size=8.5)
    return picture


def nothing(axes: Any, words: str) -> None:
    """Say in an empty picture why it is empty."""
    axes.text(0.5, 0.5, words, ha="center", va="center", transform=axes.transAxes, color=NULL, fontsize=10)
    axes.set_xticks([])
    axes.set_yticks([])


def thinned(values: Floats, most: int = POINTS_MAX) -> tuple[Floats, Floats]:
    """Return (position, value) of at most about `most` points, with the extremes of every stretch and both ends."""
    if len(values) <= most:
        return np.arange(len(values), dtype=np.float64), values
    width = -(-len(values) // (most // 2))
    kept = {0, len(values) - 1}
    for begin in range(0, len(values), width):
        stretch = values[begin : begin + width]
        kept |= {begin + int(stretch.argmin()), begin + int(stretch.argmax())}
    at = np.array(sorted(kept))
    return at.astype(np.float64), values[at]


def _minutes(seconds: int) -> tuple[float, str]:
    """Return how many seconds a unit of the time axis has, and its name."""
    if seconds > 3 * 86_400:
        return 86_400.0, "days"
    return (3600.0, "hours") if seconds > 3 * 3600 else (60.0, "minutes")


# --------------------------------------------------------------------------------------------- what happened


def draw_equity(picture: Any, main: Outcome, nulls: Sequence[Outcome], start_s: int) -> None:
    above, below = picture.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    unit_s, unit = _minutes(len(main.equity_usdt))
    for outcome in (*nulls, main):
        equity = outcome.equity_usdt
        is_main = outcome is main
        at, values = thinned((equity / equity[0] - 1) * 1e4)
        above.plot(
            at / unit_s,
            values,
            label=outcome.name,
            color=INK if is_main else COLOURS.get(outcome.name, NULL),
            linewidth=1.6 if is_main else 1.0,
        )
    above.axhline(0, color=NULL, linewidth=0.6)
    above.set_ylabel("equity, bps of the start")
    if nulls:
        above.legend(fontsize=8, frameon=False, labelcolor=INK)
    equity = main.equity_usdt
    at, fall = thinned((equity / np.maximum.accumulate(equity) - 1) * 1e4)
    below.fill_between(at / unit_s, fall, 0, color=BAD, alpha=0.55, linewidth=0)
    if not fall.any():
        below.set_ylim(-1.0, 0.0)  # else its axis would be of some thousandths about nothing
    below.set_ylabel("drawdown, bps")
    below.set_xlabel(f"{unit} after {when(start_s)}")


def draw_waterfall(picture: Any, steps: Mapping[str, float], last: str) -> None:
    """Draw what adds up to something, step by step, in USDT; at the end their sum.

    Args:
        steps: what a step is called -> what it adds; {}: there is nothing.
        last: what their sum is called.
    """
    axes = picture.subplots()
    if not any(steps.values()):
        nothing(axes, f"no {last}: every part of it is 0" if steps else "no trade")
        return
    level = 0.0
    bars: list[tuple[float, float, str]] = []  # from, to, colour
    for change in steps.values():
        bars.append((level, level + change, GOOD if change >= 0 else BAD))
        level += change
    bars.append((0.0, level, INK))
    most = max(abs(to - begin) for begin, to, _ in bars)
    for at, (begin, to, colour) in enumerate(bars):
        axes.bar(at, to - begin, bottom=begin, color=colour, width=0.62)
        if at + 1 < len(steps):
            axes.plot([at - 0.31, at + 1.31], [to, to], color=NULL, linewidth=0.6)
        falls = to < begin  # a label beyond the end that the bar moves to meets neither its neighbours nor the axis
        axes.annotate(
            _money(to - begin, most), (at, to), ha="center", va="top" if falls else "bottom", fontsize=8, color=INK,
            xytext=(0, -1.5 if falls else 1), textcoords="offset points",
        )  # fmt: skip
    wide = 9 if len(bars) > 7 else 10
    names = ["\n".join(textwrap.wrap(name.replace("gross, mid to mid", "gross"), wide)) for name in (*steps, last)]
    axes.set_xticks(range(len(bars)), [name.replace("spread ", "spread\n") for name in names])
    axes.tick_params(axis="x", length=0)
    axes.axhline(0, color=INK, linewidth=0.6)
    axes.set_ylabel("USDT")
    axes.use_sticky_edges = False
    axes.margins(x=0.02, y=0.1)


def _money(value: float, most: float) -> str:
    """Return USDT with as many digits as the largest bar beside it needs; the sign is a minus, not a hyphen."""
    digits = 0 if most >= 1000 else 2 if most >= 1 else 4
    return f"{value + 0.0:+,.{digits}f}".replace("-", "−")


def draw_slices(picture: Any, slices: Sequence[Slice], unit: str) -> None:
    """Draw net by group with its standard errors; of more than fit, the worst and the best."""
    axes = picture.subplots()
    shown = list(slices)
    if len(shown) > BARS_MAX:
        shown = sorted(shown, key=lambda one: one.net_usdt)
        shown = shown[: BARS_MAX // 2] + shown[-BARS_MAX // 2 :]
    if not shown:
        nothing(axes, "no trade")
        return
    nets = [one.net_usdt for one in shown]
    axes.bar(range(len(shown)), nets, color=[GOOD if net > 0 else BAD for net in nets])
    errors = np.nan_to_num([one.error_usdt for one in shown])
    axes.errorbar(range(len(shown)), nets, yerr=errors, fmt="none", ecolor=NULL, elinewidth=1.2)
    names = [one.name.removesuffix("USDT") if unit == "symbol" else one.name for one in shown]
    is_long = len(shown) > 6
    axes.set_xticks(range(len(shown)), names, rotation=60 if is_long else 0, ha="right" if is_long else "center",
                    rotation_mode="anchor" if is_long else "default")  # fmt: skip
    middle, half = (len(shown) - 1) / 2, max(len(shown), 4) / 2  # one bar alone is no wall
    axes.set_xlim(middle - half, middle + half)
    axes.axhline(0, color=INK, linewidth=0.6)
    axes.set_ylabel("net, USDT")
    axes.set_xlabel(unit)


def draw_nulls(picture: Any, outcomes: Sequence[Outcome]) -> None:
    axes = picture.subplots()
    shown = [outcome for outcome in outcomes if outcome.trades]
    if not shown:
        nothing(axes, "no trade")
        return
    values = [np.array([trade.net_bps for trade in outcome.trades]) for outcome in shown]
    line = {"color": NULL, "linewidth": 0.9}
    axes.boxplot(
        values, orientation="horizontal", showfliers=False, widths=0.5, medianprops={"color": INK}, boxprops=line,
        whiskerprops=line, capprops=line,
    )  # fmt: skip
    for at, value in enumerate(values, start=1):
        mean = float(value.mean())
        error = f" ± {value.std(ddof=1) / math.sqrt(len(value)):.2f}" if len(value) > 1 else ""
        axes.plot(mean, at, "D", color=BAD if mean < 0 else GOOD, markersize=5)
        axes.annotate(
            f"mean {mean:+.2f}{error}".replace("-", "−"), (mean, at + 0.3), fontsize=8, color=INK, ha="center"
        )
    axes.set_yticks(
        range(1, len(shown) + 1),
        [f"{o.name}\n({len(o.trades):,} trade{'' if len(o.trades) == 1 else 's'})" for o in shown],
    )
    axes.margins(x=0.12)
    axes.set_ylim(0.5, len(shown) + 0.75)
    axes.axvline(0, color=INK, linewidth=0.6)
    axes.set_xlabel("net bps a trade, after all costs")


def draw_exposure(picture: Any, main: Outcome, start_s: int) -> None:
    above, below = picture.subplots(2, 1, sharex=True, height_ratios=(2, 1))
    seen = main.exposure
    if not seen.gross_usdt.any():
        nothing(above, "nothing was held" if len(seen.second) else "nobody looked")
        nothing(below, "")
        return
    unit_s, unit = _minutes(len(main.equity_usdt))
    begins = np.arange(0, len(seen.second), -(-len(seen.second) // LOOKS_MAX))
    counts = np.diff(np.append(begins, len(seen.second)))
    at = (seen.second[begins] - start_s) / unit_s
    gross, net, positions = (
        np.add.reduceat(values, begins) / counts for values in (seen.gross_usdt, seen.net_usdt, seen.positions)
    )
    above.fill_between(at, gross, 0, step="post", color=SOFT, alpha=0.35, linewidth=0, label="gross")
    above.step(at, net, where="post", color=INK, linewidth=1.0, label="net (long less short)")
    above.axhline(0, color=NULL, linewidth=0.6)
    above.legend(
        fontsize=8, frameon=False, labelcolor=INK, ncols=2, loc="lower right", bbox_to_anchor=(1.0, 1.0), borderpad=0.0
    )
    above.set_ylabel("held, USDT")
    below.step(at, positions, where="post", color=SOFT, linewidth=1.0)
    below.set_ylim(bottom=0)
    below.set_ylabel("positions")
    below.set_xlabel(f"{unit} after the start")


def draw_capacity(picture: Any, capacity: Capacity) -> None:
    axes = picture.subplots()
    if not capacity.points:
        nothing(axes, "no trade" if not capacity.why else capacity.why)
        return
    sizes = [point.multiple for point in capacity.points]
    axes.plot(sizes, [point.net_usdt for point in capacity.points], "o-", color=INK, linewidth=1.4, markersize=4)
    axes.set_xscale("log")
    axes.set_xticks(sizes, [f"{size:g}×" for size in sizes])
    axes.minorticks_off()
    axes.axhline(0, color=NULL, linewidth=0.6)
    for k, point in enumerate(capacity.points):
        # Beside the line, not on it: on the right of a point from which it falls, else on the left.
        later = capacity.points[min(k + 1, len(sizes) - 1)]
        falls = later.net_usdt < point.net_usdt or (k == len(sizes) - 1 and point.net_usdt > 0)
        axes.annotate(
            f"{point.net_bps:+.1f} bps".replace("-", "−"), (point.multiple, point.net_usdt), fontsize=8, color=INK,
            xytext=(4 if falls else -4, 5), textcoords="offset points", ha="left" if falls else "right",
        )  # fmt: skip
    axes.margins(x=0.16, y=0.15)
    axes.set_ylabel("net, USDT")
    axes.set_xlabel("size of every order, multiple of what was traded")


# ------------------------------------------------------------------------------------------ what scores knew


def draw_ic(picture: Any, skill: Skill) -> None:
    axes = picture.subplots()
    values = skill.ic_by_minute
    if not np.isfinite(values).any():
        nothing(axes, "no labels, or too few symbols")
        return
    width = max(1, -(-len(values) // 120))  # minutes a bar
    padded = np.concatenate([values, np.full(-len(values) % width, np.nan)]).reshape(-1, width)
    known = np.isfinite(padded)
    with np.errstate(invalid="ignore"):
        bars = np.where(known, padded, 0.0).sum(axis=1) / np.where(known.any(axis=1), known.sum(axis=1), np.nan)
    axes.bar(np.arange(len(bars)) * width, bars, color=SOFT, width=0.9 * width, align="edge")
    if math.isfinite(skill.ic.mean):
        axes.axhline(skill.ic.mean, color=GOOD if skill.ic.mean > 0 else BAD, linewidth=1.2)
    axes.axhline(0, color=INK, linewidth=0.6)
    axes.set_xlabel("minutes after the start" + (f", {width} a bar" if width > 1 else ""))
    axes.set_ylabel("rank IC [1]")


def draw_deciles(picture: Any, skill: Skill) -> None:
    axes = picture.subplots()
    came = skill.decile_came_bps
    if not np.isfinite(came).any():
        nothing(axes, "no labels, or too few symbols")
        return
    at = np.arange(1, len(came) + 1)
    error = np.nan_to_num(skill.decile_error_bps)
    colours = [GOOD if value > 0 else BAD for value in np.nan_to_num(came)]
    axes.bar(at, came, color=colours, width=0.7, label="came")
    axes.errorbar(at, came, yerr=error, fmt="none", ecolor=NULL, elinewidth=1.0)
    axes.plot(at, skill.decile_said_bps, "o", color=INK, markersize=4, label="said")
    axes.axhline(0, color=INK, linewidth=0.6)
    axes.set_xticks(at)
    axes.set_xlabel("tenth of the symbols by score, lowest first")
    axes.set_ylabel("move of the mid, bps")
    axes.legend(fontsize=8, frameon=False, labelcolor=INK)


def draw_calibration(picture: Any, skill: Skill) -> None:
    axes = picture.subplots()
    if not len(skill.rows):
        nothing(axes, "no labels, or no probabilities")
        return
    share = skill.rows / skill.rows.sum()
    is_shown = share >= 1e-4
    p, f = skill.probability[is_shown], skill.frequency[is_shown]
    top = max(float(p.max()), float(f.max()), 0.05) * 1.08
    axes.plot([0, top], [0, top], color=NULL, linewidth=0.8, linestyle="--")
    axes.plot(p, f, color=INK, linewidth=1.0)
    axes.scatter(p, f, s=8 + 120 * share[is_shown], color=SOFT, zorder=3)
    axes.set_xlim(0, top)
    axes.set_ylim(0, top)
    axes.set_xlabel("said: probability of long, and of short [1]")
    axes.set_ylabel("came true [1]")


def minutes_of(outcome: Outcome) -> int:
    """Return how many whole minutes an outcome lasted."""
    return (len(outcome.equity_usdt) - 1) // MINUTE_S
