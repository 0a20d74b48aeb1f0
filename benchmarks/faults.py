"""What misbehaviour costs a push that it does not mean: `python -m benchmarks.faults`.

The last step of a push, from the queue of a connection into its transport (which takes everything and sends nothing),
in bunches as a pass of the pump makes them. Compared within one run, best of several, CPU time:

    bare       no line on the way
    polite     a line, and nothing asked for: what every connection of a server has
    watched    a rule that means other pushes: every frame is read for its channel and symbol
    lossy      a rule that loses one push in ten

"""

from __future__ import annotations

import argparse
import time
from typing import Any, cast

from shared.simulator.faults.conditions import Change, PushFault
from shared.simulator.faults.faults import Faults
from shared.simulator.markets.market import NS, GeneratedMarket
from shared.simulator.pushes.feed import PublicFeed
from shared.simulator.pushes.frames import text_frame
from shared.simulator.pushes.sockets import Socket

SOCKETS = 48
BUNCH = 40
REPEATS = 7


class Sink:
    """A transport that takes everything at once."""

    def is_closing(self) -> bool:
        return False

    def get_write_buffer_size(self) -> int:
        return 0

    def write(self, data: bytes) -> None:
        pass


def frames() -> list[bytes]:
    """Return pushes of the generated market."""
    market = GeneratedMarket(7, 10)
    start_ns = 1_795_330_800 * NS
    wanted = {channel: set(market.symbols) for channel in ("ticker", "books15", "trade")}
    texts = [text for _, _, _, text in PublicFeed(market).frames(start_ns, start_ns + 10 * NS, wanted)]
    return [text_frame(text) for text in texts]


def seconds_of(sockets: list[Socket], bunches: list[list[bytes]]) -> float:
    """Return the CPU time that pushing every bunch to every socket takes."""
    began_s = time.process_time()
    for bunch in bunches:
        for socket in sockets:
            queue = socket.queue
            for frame in bunch:
                queue(frame)
            socket.flush()
    return time.process_time() - began_s


def sockets_of(rules: list[PushFault] | None) -> list[Socket]:
    """Return connections with lines; None: without."""
    faults = Faults(7)
    faults.change(Change(pushes=rules or []))
    return [
        Socket(
            n, cast(Any, Sink()), is_private=False, now_s=0.0, real_ns=time.monotonic_ns,
            line=None if rules is None else faults.line("public"),
        )
        for n in range(SOCKETS)
    ]  # fmt: skip


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    whole = frames()
    bunches = [whole[at : at + BUNCH] for at in range(0, len(whole), BUNCH)]
    modes = {
        "bare": sockets_of(None),
        "polite": sockets_of([]),
        "watched": sockets_of([PushFault(what="lose", symbol="NOSUCHUSDT")]),
        "lossy": sockets_of([PushFault(what="lose", p=0.1)]),
    }
    best = dict.fromkeys(modes, float("inf"))
    for _ in range(REPEATS):
        for name, sockets in modes.items():
            best[name] = min(best[name], seconds_of(sockets, bunches))
    n = len(whole) * SOCKETS
    for name, seconds in best.items():
        ratio = seconds / best["bare"]
        print(f"{name:<9} {n / seconds:>12,.0f} pushes/s of CPU time, {1e6 * seconds / n:6.2f} us each, x {ratio:.2f}")


if __name__ == "__main__":
    main()
