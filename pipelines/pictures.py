"""What a person looks at of a training: three pictures, logged with the run.

skill.png          is there a signal, for how long, at which moments, and what do its extremes earn before costs
probabilities.png  do probabilities mean what they say, and when did learning stop
features.png       what the model looks at, and what has moved since it learned
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.findings import Findings
from pipelines.training import Trained

_INK, _GOOD, _BAD, _GREY, _BLUE, _ORANGE = "#1c2733", "#1f7a4d", "#b3362b", "#8a94a0", "#4a6d92", "#c08a2d"
_SHOWN = 20
DRIFT_NOTED, DRIFT_MAX = 0.1, 0.25

_BESIDE = {"ols": "imbalance alone", "ridge": "ridge", "shuffled": "shuffled labels", "shifted": "shifted in time"}


def draw(folder: Path, trained: Trained, found: Findings, *, title: str, cost_bps: float) -> list[Path]:
    """Write the pictures into a folder and return their paths.

    Args:
        cost_bps: of a taker's round trip without the spread, drawn beside what deciles earn.
    """
    folder.mkdir(parents=True, exist_ok=True)
    pictures = [
        (folder / "skill.png", (11.0, 7.6), lambda picture: _skill(picture, trained, found, cost_bps)),
        (folder / "probabilities.png", (11.0, 4.0), lambda picture: _probabilities(picture, trained, found)),
        (folder / "features.png", (11.0, 6.4), lambda picture: _features(picture, trained, found)),
    ]
    for path, size, fill in pictures:
        _save(path, size, title, fill)
    return [path for path, _, _ in pictures]


def _save(path: Path, size: tuple[float, float], title: str, fill: Any) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    picture = Figure(figsize=size, dpi=100, layout="constrained")
    FigureCanvasAgg(picture)
    picture.suptitle(title, fontsize=10, color=_INK)
    fill(picture)
    for axes in picture.axes:
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(colors=_INK, labelsize=8)
        axes.set_title(axes.get_title(loc="left"), loc="left", fontsize=9, color=_INK)
        axes.xaxis.label.set_fontsize(8)
        axes.yaxis.label.set_fontsize(8)
    picture.savefig(path, format="png")


def _skill(picture: Any, trained: Trained, found: Findings, cost_bps: float) -> None:
    (beside, decay), (minutes, deciles) = picture.subplots(2, 2)

    judged = {"model": trained.holdout, **{_BESIDE[k]: v for k, v in trained.beside.items()}}
    names = [name for name, judgement in judged.items() if np.isfinite(judgement.ic.mean)][::-1]
    for at, name in enumerate(names):
        ic = judged[name].ic
        beside.errorbar(
            ic.mean, at, xerr=1.96 * ic.standard_error, fmt="o", capsize=3, color=_INK if name == "model" else _GREY
        )
    beside.set_yticks(range(len(names)), names)
    beside.axvline(0, color=_INK, linewidth=0.6)
    beside.set_title("rank IC on the holdout, 95 %", loc="left")

    horizons = [s for s, ic in found.decay.items() if np.isfinite(ic.mean)]
    means = [found.decay[s].mean for s in horizons]
    errors = [1.96 * found.decay[s].standard_error for s in horizons]
    decay.errorbar(range(len(horizons)), means, yerr=errors, fmt="o-", capsize=3, color=_BLUE)
    decay.set_xticks(range(len(horizons)), [f"{s} s" for s in horizons])
    decay.axhline(0, color=_INK, linewidth=0.6)
    decay.set_title("rank IC by horizon, 95 %", loc="left")

    x = found.minute - found.minute[0] if len(found.minute) else found.minute
    minutes.bar(x, found.ic, color=_GREY, width=0.9)
    known = np.isfinite(found.ic)
    if known.any():
        running = np.nancumsum(found.ic) / np.maximum(np.cumsum(known), 1)
        minutes.plot(x, running, color=_GOOD if running[-1] > 0 else _BAD, linewidth=1.4, label="mean so far")
        minutes.legend(fontsize=8, frameon=False)
    minutes.axhline(0, color=_INK, linewidth=0.6)
    minutes.set_xlabel("minute of the holdout")
    minutes.set_title("rank IC by minute", loc="left")

    tenths = np.array(found.spread.by_decile)
    deciles.bar(range(1, len(tenths) + 1), tenths, color=[_GOOD if v > 0 else _BAD for v in tenths], width=0.7)
    for side in (-cost_bps, cost_bps):
        deciles.axhline(side, color=_ORANGE, linewidth=1.0, linestyle="--")
    deciles.text(0.02, 0.97, f"-- fees and slippage of a round trip, {cost_bps:.0f} bps", color=_ORANGE, fontsize=8,
                 va="top", transform=deciles.transAxes)  # fmt: skip
    deciles.axhline(0, color=_INK, linewidth=0.6)
    deciles.margins(y=0.2)
    deciles.set_xlabel("tenth of the symbols by signal, within each second")
    deciles.set_ylabel("mean gross return, bps")
    deciles.set_title(
        f"top less bottom {found.spread.mean:+.2f} ± {found.spread.standard_error:.2f} bps, before costs", loc="left"
    )


def _probabilities(picture: Any, trained: Trained, found: Findings) -> None:
    curve, learning = picture.subplots(1, 2)
    most = 0.0
    for (name, calibrated), colour in zip(found.curves.items(), (_GOOD, _BAD), strict=False):
        curve.plot(calibrated.probability, calibrated.frequency, "o-", color=colour, markersize=4, label=name)
        most = max(most, *calibrated.probability, *calibrated.frequency)
    if found.curves:
        curve.plot([0, most], [0, most], color=_GREY, linewidth=0.8)
        curve.legend(fontsize=8, frameon=False)
        curve.set_xlabel("probability said, mean of a tenth of the rows")
        curve.set_ylabel("share that came")
        curve.set_title(
            f"calibration on the holdout: error {trained.holdout.calibration_error:.4f} "
            f"(before: {trained.holdout.calibration_error_raw:.4f})",
            loc="left",
        )
    else:
        curve.text(0.5, 0.5, "no probabilities", ha="center", transform=curve.transAxes, color=_GREY)
    rounds = range(1, len(trained.fitted.loss_fit) + 1)
    learning.plot(rounds, trained.fitted.loss_fit, color=_GREY, label="fit")
    learning.plot(rounds, trained.fitted.loss_stop, color=_BLUE, label="stop")
    learning.axvline(trained.rounds, color=_ORANGE, linestyle="--", linewidth=1.0, label=f"kept: {trained.rounds}")
    learning.legend(fontsize=8, frameon=False)
    learning.set_xlabel("rounds")
    learning.set_title(f"learning curve ({trained.objective}, weighted as in the fit)", loc="left")


def _features(picture: Any, trained: Trained, found: Findings) -> None:
    shares, drift = picture.subplots(1, 2)
    names = _most(found.shap)[::-1]
    at = np.arange(len(names))
    shares.barh(at + 0.2, [found.shap[name] for name in names], height=0.4, color=_BLUE, label="SHAP, holdout")
    shares.barh(at - 0.2, [trained.gain[name] for name in names], height=0.4, color=_GREY, label="gain, fit")
    shares.set_yticks(at, names)
    shares.legend(fontsize=8, frameon=False, loc="lower right")
    shares.set_title(f"share of importance [1], first {len(names)} by SHAP", loc="left")
    names = _most(found.drift)[::-1]
    values = [found.drift[name] for name in names]
    edge = 4 * DRIFT_MAX  # beyond it a bar only says: elsewhere
    colours = [_BAD if value > DRIFT_MAX else _ORANGE if value > DRIFT_NOTED else _GREY for value in values]
    drift.barh(range(len(names)), [min(value, edge) for value in values], color=colours)
    for place, value in enumerate(values):
        drift.text(min(value, edge), place, f" {value:.2f}", va="center", fontsize=7, color=_INK)
    drift.set_xlim(0, edge * 1.1)
    drift.set_yticks(range(len(names)), names)
    drift.axvline(DRIFT_MAX, color=_BAD, linestyle="--", linewidth=1.0)
    drift.set_title(f"drift, fit to holdout: PSI; {DRIFT_MAX:g}: another population", loc="left")


def _most(values: Mapping[str, float]) -> list[str]:
    return sorted(values, key=lambda name: -values[name])[:_SHOWN]
