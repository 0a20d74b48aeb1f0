"""`python -m pipelines.gate`: judge a model, promote it, take it back.

python -m pipelines.gate --model 7                       the table, and exit code 0 or 1
python -m pipelines.gate --model 7 --promote             and make it champion if it passed
python -m pipelines.gate --model 7 --promote --as challenger
python -m pipelines.gate rollback                        the champion before this one, at once
python -m pipelines.gate status                          who is who
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import msgspec

from pipelines.gate import promotion, tables
from pipelines.gate.criteria import Venue, judge
from pipelines.gate.gather import gather
from pipelines.tracking import Tracking
from shared import entry
from shared import settings as settings_module
from shared.errors import CrosscutError, SettingsError

REFUSED_CODE = 1


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(
        prog="python -m pipelines.gate",
        description="Judge a registered model by what it did on seconds it has not seen, after costs, its nulls and "
        "everything that was tried beside it. Says no with the reasons; docs/gate.md explains each.",
        epilog="Exit code 0: passed (rollback: done); 1: did not pass; others as for every command.",
    )
    p.add_argument(
        "command", nargs="?", choices=("judge", "rollback", "status"), default="judge", help="(default: judge)"
    )
    p.add_argument("--model", default="latest", help="latest, a version or an alias (default: latest)")
    p.add_argument(
        "--venue", choices=tuple(promotion.ALIAS_OF), help="what the model would be champion of: bitget (real market) "
        "or simulator (paper); default: bitget for models trained on it, else simulator",
    )  # fmt: skip
    p.add_argument("--promote", action="store_true", help="move the alias if it passed")
    p.add_argument(
        "--as", dest="role", choices=("champion", "challenger"), default="champion",
        help="which alias --promote moves; a challenger trades nothing and needs no verdict (default: champion)",
    )  # fmt: skip
    p.add_argument("--json", action="store_true", help="print the verdict as JSON")
    p.add_argument("--lake", help="the lake's folder (default: LAKE_URI, which is data_lake)")
    return p


def main(arguments: Sequence[str] | None = None) -> int:
    args = parser().parse_args(arguments)
    try:
        settings = settings_module.load(lake_uri=args.lake)
        tracking = Tracking(settings.tracking_uri)
        if args.command == "status":
            print(_status(tracking))
            return 0
        if args.command == "rollback":
            if args.promote:
                raise SettingsError("rollback must stand alone, found --promote beside it: leave one of them out")
            print(promotion.rollback(tracking, args.venue or "bitget").sentence())
            return 0
        evidence, version = gather(tracking, settings.lake, args.model)
        venue: Venue = args.venue or promotion.venue_of(evidence.identity.source)
        verdict = judge(evidence, venue)
        promotion.record(tracking, version, verdict)
        if args.json:
            print(tables.as_json(verdict).decode())
        else:
            print(tables.as_text(verdict, colours=sys.stdout.isatty()))
        if args.promote and args.role == "challenger":
            print(promotion.challenge(tracking, str(version.version)).sentence(), file=sys.stderr)
        elif args.promote and verdict.passed:
            print(promotion.promote(tracking, str(version.version), venue).sentence(), file=sys.stderr)
        elif args.promote:
            print(f"not promoted: {tables.sentence(verdict)}", file=sys.stderr)
    except CrosscutError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0 if verdict.passed else REFUSED_CODE


def _status(tracking: Tracking) -> str:
    rows = [msgspec.structs.asdict(standing) for standing in promotion.standings(tracking)]
    if not rows:
        return "no model is registered: run python -m pipelines.train"
    names = list(rows[0])
    widths = {name: max(len(name), *(len(str(row[name])) for row in rows)) for name in names}
    lines = ["  ".join(name.replace("_", " ").ljust(widths[name]) for name in names).rstrip()]
    lines += ["  ".join(str(row[name]).ljust(widths[name]) for name in names).rstrip() for row in rows]
    return "\n".join(lines)


if __name__ == "__main__":
    entry.run(main)
