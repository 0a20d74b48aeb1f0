"""Record a market through misbehaviour and judge every row and minute: `python -m benchmarks.sweep [--frames 1e8]`.

Runs of `tests.pipelines.faulted`, without sockets, seed after seed and kind after kind (clean, drop, duplicate,
reorder, tear, freeze, disconnect, rotate, mixed), until so many frames have been received. One line a run on stderr;
the last line on stdout is a JSON summary: frames, losses, what was marked, and what no client can see, as a rate.
Exits with 1 where a row was invented, a push that came is not stored, or a loss that a client could have seen is not
marked; where more than 0.1 % of clean minutes are marked, all runs together.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from itertools import count

from tests.pipelines.faulted import KINDS, Case, run

CHANNELS = ("books5", "books", "books15")


def main() -> int:
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--frames", type=float, default=1e8)
    p.add_argument("--seed", type=int, default=1, help="of the first round")
    p.add_argument("--symbols", type=int, default=100)
    p.add_argument("--seconds", type=int, default=1200, help="of the market, a run")
    p.add_argument("--minutes", type=float, default=float("inf"), help="begin no run after so long")
    p.add_argument("--kinds", default=",".join(KINDS))
    p.add_argument("--channels", default=",".join(CHANNELS), help="of books; seeds take them in turn")
    args = p.parse_args()
    total: Counter[str] = Counter()
    lost: Counter[str] = Counter()
    failures: list[str] = []
    began_s, cpu_s = time.monotonic(), time.process_time()
    kinds = [kind for kind in KINDS if kind in args.kinds.split(",")]
    channels = args.channels.split(",")
    for seed, kind in ((seed, kind) for seed in count(args.seed) for kind in kinds):
        if total["frames"] >= args.frames or time.monotonic() - began_s > args.minutes * 60:
            break
        case = Case(
            seed=seed, kind=kind, symbols=args.symbols, seconds=args.seconds, channel=channels[seed % len(channels)]
        )
        found = run(case)
        for name in (
            "frames", "pushed", "rows", "invented", "missing", "unmarked", "violations", "clean_minutes", "clean_marked"
        ):  # fmt: skip
            total[name] += getattr(found, name)
        lost.update(found.lost)
        words = found.failures()
        failures += [f"seed {seed}, {kind}, {case.channel}: {word}" for word in words]
        told = "; ".join([*words, *found.examples]) or "as it should be"
        print(
            f"{total['frames'] / 1e6:8.1f} M  seed {seed} {kind:10} {found.frames:,} frames, lost "
            f"{sum(found.lost.values()):,}, unmarked {found.unmarked:,}: {told}",
            file=sys.stderr,
            flush=True,
        )
    n_lost = sum(lost.values())
    summary = dict(total) | {
        "lost": dict(lost),
        "lost_share": n_lost / max(1, total["pushed"]),
        "unmarked_share_of_lost": total["unmarked"] / max(1, n_lost),
        "unmarked_share_of_pushed": total["unmarked"] / max(1, total["pushed"]),
        "clean_marked_share": total["clean_marked"] / max(1, total["clean_minutes"]),
        "failures": failures,
        "wall_s": round(time.monotonic() - began_s),
        "cpu_us_a_frame": round((time.process_time() - cpu_s) / max(1, total["frames"]) * 1e6, 1),
    }
    print(json.dumps(summary))
    is_right = not (total["invented"] or total["missing"] or total["violations"])
    return 0 if is_right and total["clean_marked"] <= 0.001 * total["clean_minutes"] else 1


if __name__ == "__main__":
    sys.exit(main())
