"""Trade. One process, one account, every perpetual at once.

    python -m live.run --model coin --seconds 60       a seeded coin on a simulator of its own: always trades
    python -m live.run --model latest                  the newest READY model, until Ctrl-C
    MARKET=bitget python -m live.run --model latest    on paper against Bitget's real feed, without keys

Where ticks come from and where orders go are settings (.env): MARKET and BITGET_VENUE. Real money needs
BITGET_VENUE=live, SANDBOX=false and --arm.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import math
import shlex
import subprocess
import sys
import urllib.request
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from live import registry
from live.plan import Outcome, Plan
from live.session import Session
from live.shadow import ShadowPlan
from shared import entry, log, settings, shadow, simulator_process
from shared import model as models
from shared.bitget.rest import Keys
from shared.errors import CrosscutError, ExchangeError, ModelMismatch, SettingsError
from shared.features.catalog import FEATURES
from shared.features.graph import definition_hash
from shared.journal import ModelNote
from shared.limits import config_of
from shared.settings import ROOT, Settings
from shared.simulator_process import SimulatorProcess

SIMULATOR_KEYS = Keys("simulator", "simulator", "simulator")
"""The default account of `python -m shared.simulator`."""

SIMULATOR_ARGUMENTS = "--symbols 40 --seed 7"

T = TypeVar("T")


class Where(msgspec.Struct, frozen=True, kw_only=True):
    """Which exchange a program talks to."""

    rest_url: str
    market_ws_url: str
    venue_ws_url: str
    source: str
    keys: Keys


def where_of(chosen: Settings, simulator: SimulatorProcess | None) -> Where:
    """Return URLs, source and keys that the settings mean; `simulator` is the child that stands in for missing URLs.

    Raises:
        SettingsError: the combination is not supported, or keys are missing.
        ExchangeError: a simulator's URL was set and nobody answers there.
    """
    keys = Keys(*chosen.keys) if chosen.keys is not None else None
    if chosen.bitget_venue != "simulator":
        urls, market = chosen.venue_urls(), chosen.market_urls()
        assert urls is not None, f"{chosen.bitget_venue} has URLs"
        assert market is not None, f"MARKET={chosen.market} has URLs"
        assert keys is not None, "Settings.check has looked for keys"
        return Where(rest_url=urls[0], market_ws_url=market[1], venue_ws_url=urls[1], source="bitget", keys=keys)
    if simulator is not None:
        rest, ws, source = simulator.rest, simulator.ws, simulator.source
    else:
        urls = chosen.venue_urls()
        assert urls is not None, "without URLs a simulator is started"
        rest, ws = urls
        told = market_at(rest)
        source = told.source
        if (chosen.market == "bitget") != (told.kind == "relayed"):
            raise SettingsError(
                f"the simulator at {rest} (BITGET_REST_URL) must be of MARKET={chosen.market}, found that its market "
                f"is {told.kind}: set MARKET={'bitget' if told.kind == 'relayed' else 'simulator'}, or start "
                f"`python -m shared.simulator{' --market bitget' if chosen.market == 'bitget' else ''}`"
            )
    return Where(rest_url=rest, market_ws_url=ws, venue_ws_url=ws, source=source, keys=keys or SIMULATOR_KEYS)


class MarketTold(msgspec.Struct, frozen=True):
    """What a simulator says of its market."""

    source: str
    kind: str = ""


def market_at(rest_url: str) -> MarketTold:
    """Return whose ticks a running simulator sends."""
    try:
        with urllib.request.urlopen(f"{rest_url}/_control/market", timeout=10) as answer:  # noqa: S310 - loopback, checked
            return msgspec.json.decode(answer.read(), type=MarketTold)
    except (OSError, msgspec.DecodeError) as error:
        raise ExchangeError(
            f"a simulator must answer at {rest_url} (BITGET_REST_URL), found: {error}: "
            "start `python -m shared.simulator --port …`, or unset BITGET_REST_URL and BITGET_WS_URL"
        ) from None


def simulator_arguments(chosen: Settings, given: Sequence[str] | None = None) -> list[str] | None:
    """Return how to start the simulator that the settings need and name no URL of; None: they need none.

    Paper trading on Bitget's real feed is a simulator that relays it.

    Args:
        given: what a person wants of it.
    """
    if chosen.bitget_venue != "simulator" or chosen.venue_urls() is not None:
        return None
    if chosen.market == "simulator":
        return list(given) if given is not None else shlex.split(SIMULATOR_ARGUMENTS)
    urls = chosen.market_urls()
    assert urls is not None, f"MARKET={chosen.market} has URLs"
    return ["--market", "bitget", "--upstream-rest", urls[0], "--upstream-ws", urls[1], *(given or ())]


def run_loop(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine on uvloop where there is one."""
    try:
        import uvloop
    except ImportError:  # Windows
        return asyncio.run(work)
    return uvloop.run(work)


def find_model(chosen: Settings, selector: str, *, trades: bool = True) -> tuple[Path, ModelNote, models.Bundle]:
    """Return folder, note and bundle of the model, fit for the venue.

    Args:
        trades: False: it is scored beside another and sends nothing, so the gate need not have passed it.
    """
    version = registry.resolve(chosen.tracking_uri, selector)
    is_live = trades and chosen.bitget_venue == "live"
    model = models.load(
        version.folder,
        definition_hash=definition_hash(FEATURES),
        feature_names=tuple(FEATURES),
        source="bitget" if is_live else None,
        must_have_passed=is_live,
    )
    if is_live:
        _check_registered(version, model.digest)
    elif trades and model.bundle.gate not in (models.PASSED, models.PASSED_ON_PAPER):
        log.get("live").warning("model.not_passed", model=selector, version=version.version, gate=model.bundle.gate)
    trained_on = model.bundle.lineage.books
    if trained_on not in ("", str(chosen.books)):
        raise ModelMismatch(
            f"model {selector} must see the book channels that it was trained on, found BOOKS={chosen.books} where it "
            f"was {trained_on}: set BOOKS={trained_on}, or record, train and trade on the other"
        )
    note = ModelNote(
        name=version.name,
        version=version.version,
        run_id=version.run_id,
        digest=model.digest,
        folder="bundle" if trades else shadow.FOLDER,
    )
    return version.folder, note, model.bundle


def _check_registered(version: registry.ModelVersion, digest: str) -> None:
    """Refuse a bundle that is not the very one that the gate judged: the file says so, and the registry must, too.

    Raises:
        ModelMismatch: the registry knows of no passed verdict, or of one about another booster.
    """
    found = version.tags.get("validation", models.NOT_JUDGED)
    if found != models.PASSED or version.tags.get("sha256") != digest:
        judged = f"{found!r} about booster {version.tags.get('sha256', 'unknown')[:12]}…"
        raise ModelMismatch(
            f"version {version.version} must have passed the honest-edge gate in the registry with booster "
            f"{digest[:12]}…, found {judged}: judge it (python -m pipelines.gate --model {version.version})"
        )


def find_shadow(chosen: Settings, selector: str) -> ShadowPlan | None:
    """Return whom to score beside; None: nobody."""
    if not selector:
        return None
    if selector in ("rules", "coin"):
        return ShadowPlan(model=selector, bundle_folder=None, bundle_note=None)
    folder, note, _ = find_model(chosen, selector, trades=False)
    return ShadowPlan(model=selector, bundle_folder=folder, bundle_note=note)


def _commit() -> str:
    """Return the checkout's commit, "" where this is none."""
    try:
        found = subprocess.run(
            ["git", "-C", str(ROOT), "rev-parse", "HEAD"], capture_output=True, text=True, timeout=5, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return found.stdout.strip() if found.returncode == 0 else ""


def run(options: argparse.Namespace) -> Outcome:
    """Do what the command line says.

    Raises:
        CrosscutError: nothing was traded, and why.
    """
    chosen = settings.load()
    chosen.check(is_armed=options.arm)
    bundle_folder, note, bundle = None, None, None
    if options.model in ("rules", "coin"):
        if chosen.bitget_venue == "live":
            raise ModelMismatch(
                f"BITGET_VENUE=live needs a model that passed the honest-edge gate, found --model {options.model}, "
                "which never did: trade it on paper (BITGET_VENUE=simulator or demo)"
            )
    else:
        bundle_folder, note, bundle = find_model(chosen, options.model)
    beside = find_shadow(chosen, options.shadow)
    with contextlib.ExitStack() as stack:
        simulator: SimulatorProcess | None = None
        arguments = simulator_arguments(chosen, options.simulator)
        if arguments is not None:
            simulator = stack.enter_context(simulator_process.start(arguments))
        where = where_of(chosen, simulator)
        if bundle is not None and bundle.source != where.source:
            log.get("live").warning("model.source_differs", trained_on=bundle.source, trades_on=where.source)
        plan = Plan(
            model=options.model,
            bundle_folder=bundle_folder,
            bundle_note=note,
            config=msgspec.structs.replace(
                config_of(
                    chosen,
                    symbols=_split(options.symbols),
                    horizon_s=bundle.horizon_s if bundle is not None else None,
                ),
                variants=tuple(options.variants),
            ),
            seed=options.seed,
            seconds=options.seconds,
            source=where.source,
            venue=chosen.bitget_venue,
            rest_url=where.rest_url,
            market_ws_url=where.market_ws_url,
            books=chosen.books,
            venue_ws_url=where.venue_ws_url,
            keys=where.keys,
            lake=chosen.lake,
            folder=options.session_dir,
            is_child_venue=simulator is not None,
            forget_risk=options.forget_risk,
            commit=_commit(),
            shadow=beside,
        )
        child = simulator.process if simulator is not None else None

        async def trade() -> Outcome:
            return await Session(plan, is_venue_alive=lambda: child is None or child.poll() is None).run()

        return run_loop(trade())


def _split(symbols: str) -> tuple[str, ...]:
    return tuple(part.strip().upper() for part in symbols.split(",") if part.strip())


def say(summary: dict[str, Any]) -> str:
    """Return what a person reads at the end of a session."""
    pnl, trades = summary["pnl_usdt"], summary["trades"]
    sent = summary["latency_ms"]["second_closed_to_orders_sent"]
    latency = (
        f"p50 {sent['p50']:.1f} ms, p99 {sent['p99']:.1f} ms over {sent['n']} seconds" if sent else "no order was sent"
    )
    net_bps = f"net {trades['net_bps']:+.2f} bps of what was traded" if trades["net_bps"] is not None else "none closed"
    agreement = {True: "equals the venue's", False: "differs from the venue's", None: "not compared with the venue's"}
    return "\n".join(
        (
            f"session {summary['session']} on {summary['source']} ({summary['market_note']})",
            f"  ended by: {summary['ended_by']}",
            f"  {summary['seconds']} seconds, {summary['decisions']} decisions, {summary['orders']['placed']} orders, "
            f"{summary['fills']} fills, {trades['closed']} round trips ({net_bps})",
            f"  net {pnl['net']:+.4f} USDT = {pnl['realised']:+.4f} realised - {pnl['fees']:.4f} fees "
            f"{pnl['funding']:+.4f} funding; ledger {agreement[pnl['ledger_equals_venue']]}",
            f"  second closed -> orders sent: {latency}",
            f"  bandit: {_say_bandit(summary['bandit'])}",
            f"  flat at the end: {'yes' if summary['flat_at_end'] else 'NO: ' + summary['open_at_end']}",
            f"  replay: python -m live.replay {summary['folder']}",
        )
    )


def _say_bandit(told: dict[str, Any]) -> str:
    """Return what the last trades say, and how little."""
    begins = f"{told['mode']}, {told['spent_bps']:.2f} bps of equity spent on exploring today"
    if not told["records"]:
        return f"{begins}, no trade yet"
    [record] = told["records"]["all"]
    sharpe = (
        f", Sharpe {record['sharpe']:+.2f} ± {record['sharpe_se']:.2f} a trade" if record["sharpe"] is not None else ""
    )
    return (
        f"{begins}; last {record['trades']} trades: {record['mean_bps']:+.1f} bps, won {record['win_rate']:.0%} "
        f"[{record['win_rate_low']:.0%}, {record['win_rate_high']:.0%}]{sharpe}"
    )


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m live.run", description="Trade; see .env.example for settings.")
    parser.add_argument("--model", default="latest", help="latest, a version, an alias, rules or coin (default latest)")
    parser.add_argument(
        "--shadow",
        default="",
        metavar="MODEL",
        help="score this one beside it and write down what it would do, without an order: challenger, a version, rules "
        "(compare them afterwards: python -m pipelines.shadow)",
    )
    parser.add_argument(
        "--variant",
        dest="variants",
        action="append",
        default=[],
        metavar="SCORER",
        help="a further scorer, rules or rules/30s; again for another: the bandit decides, decision by decision, "
        "which of them trades (docs/bandit.md)",
    )
    parser.add_argument("--seconds", type=_positive, help="stop after this long (default: on Ctrl-C)")
    parser.add_argument("--symbols", default="", help="trade only these, comma separated (default: SYMBOLS)")
    parser.add_argument("--seed", type=int, default=7, help="of every random choice (default 7)")
    parser.add_argument("--session-dir", type=Path, help="folder of the session (default: below the lake)")
    parser.add_argument(
        "--simulator",
        type=_words,
        metavar="ARGS",
        help=f"arguments of the simulator that is started where no URL is set (default '{SIMULATOR_ARGUMENTS}'; "
        "MARKET=bitget: one that relays the public feed, in addition to these)",
    )
    parser.add_argument("--forget-risk", action="store_true", help="lift latched limits of earlier sessions")
    parser.add_argument("--arm", action="store_true", help="confirm real money (BITGET_VENUE=live, SANDBOX=false)")
    return parser.parse_args(arguments)


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"must be a number above 0, found {text!r}")
    return value


def _words(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"must be words as in a shell, found {text!r} ({error})") from None


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    log.configure()
    try:
        outcome = run(options)
    except CrosscutError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    print(say(outcome.summary))
    if outcome.error is not None:
        print(outcome.error, file=sys.stderr)
        return outcome.error.exit_code
    return 0


if __name__ == "__main__":
    entry.run(main)
