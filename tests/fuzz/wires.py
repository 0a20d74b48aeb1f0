"""Sessions over wires that fail, with configurations at random: what happens in them is drawn from one seed.

The world, its crashes and the judge of every placement are those of `tests.simulation`; here the configuration is drawn
as well, and the end is asked about: whatever happened, a session that is told to stop on good wires leaves nothing
behind, and every session of it happens again from its events alone.
"""

from __future__ import annotations

import msgspec

from shared.strategy.config import EngineConfig
from shared.strategy.engine import Engine, Memory
from shared.strategy.truth import FILLS_BEFORE_ADOPTION_NS
from shared.types import NS, Action, Adopted, ClockRead, Event, LinkChanged, PlaceOrder
from tests.fuzz.draws import Dice, config_of, dice_of, one_of
from tests.simulation.test_limits import LISTED, SYMBOLS, WIRES, JudgedEngine, JudgedWorld
from tests.simulation.world import US, Faults, _filled, _Opinions


class Heard(msgspec.Struct):
    """One session's events and what came of each."""

    memory: Memory
    name: str
    events: list[Event]
    answers: list[list[Action]]


class WiredWorld(JudgedWorld):
    """A judged world that keeps what its engines heard."""

    def __init__(self, seed: int, config: EngineConfig) -> None:
        self.sessions: list[Heard] = []
        super().__init__(seed, config)

    def _truth(self) -> Adopted:
        """Return the account as live reads it at its start: with the fills of the last minute."""
        since_ns = self.now_ns - FILLS_BEFORE_ADOPTION_NS
        fills = tuple(_filled(f, self.now_ns, client_oid="") for f in self.venue.fills(US) if f.time_ns >= since_ns)
        return msgspec.structs.replace(super()._truth(), fills=fills)

    def tell(self, event: Event) -> None:
        if not self.is_dead and isinstance(self.engine, JudgedEngine):
            engine = self.engine
            if not self.sessions or self.sessions[-1].name != engine.session:
                self.sessions.append(Heard(engine.memory, engine.session, [], []))
            n_before = len(self.actions)
            heard = self.sessions[-1]
            heard.events.append(event)
            super().tell(event)
            heard.answers.append(self.actions[n_before:])
            return
        super().tell(event)


def wired(seed: int) -> WiredWorld:
    """Live through a seed's world to its end, and ask what must hold there."""
    dice = dice_of(seed, 1)
    config = config_of(dice, LISTED)
    if config.decision_seconds > 7:
        config = msgspec.structs.replace(config, decision_seconds=7)
    world = WiredWorld(seed, config)
    world.faults = one_of(dice, *WIRES)
    for _ in range(int(dice.integers(10, 30))):
        _happen(dice, world)
    finish(world)
    return world


def _happen(dice: Dice, world: JudgedWorld) -> None:
    """Let one thing happen, and some seconds pass."""
    match int(dice.integers(12)):
        case 0:
            world.moves[one_of(dice, *SYMBOLS)] *= 1 + float(dice.uniform(-0.3, 0.4))
        case 1:
            share = float(dice.uniform(-0.04, 0.04))
            world.moves = {symbol: move * (1 + share) for symbol, move in world.moves.items()}
        case 2:
            setattr(world, one_of(dice, "wide", "thin", "silent"), {s for s in SYMBOLS if dice.random() < 0.3})
        case 3:
            world.faults = one_of(dice, *WIRES)
        case 4:
            world.bias = int(one_of(dice, -1, 0, 1))
        case 5 | 6:
            recover(world)
        case 7:
            link = one_of(dice, "public", "private")
            world.tell(LinkChanged(recv_ns=world.now_ns, link=link, is_up=False))
        case 8:
            offset_ms = int(one_of(dice, 0, 0, 2000, -2000, 2001, -2500))
            world.tell(ClockRead(recv_ns=world.now_ns, offset_ns=offset_ms * 1_000_000))
        case 9:
            world.lag_ns = int(one_of(dice, 0, 0, 4, 6)) * NS
        case 10:
            world.crash(int(one_of(dice, 0, 1, 40, 50_000)))
        case _:
            pass
    for _ in range(int(dice.integers(1, 7))):
        world.close_second()


def recover(world: JudgedWorld) -> None:
    world.wide, world.thin, world.silent, world.lag_ns = set(), set(), set(), 0
    world.tell(ClockRead(recv_ns=world.now_ns, offset_ns=0))
    for link in ("public", "private"):
        world.tell(LinkChanged(recv_ns=world.now_ns, link=link, is_up=True))


def finish(world: WiredWorld) -> None:
    """Stop on good wires, and claim that nothing is left: at the venue, in the books, in doubt."""
    world.faults = Faults()
    recover(world)
    for _ in range(31 if len(world.sessions) > 1 else 0):
        world.close_second()  # what the dead had sent may still arrive for so long
    world.stop(patience_s=200)
    where = f"{world.engine.truth.doubts} {[(o.symbol, str(o.state)) for o in world.engine.orders.working]}"
    assert world.engine.is_flat_and_quiet, f"not quiet: {where}, {list(world.engine.portfolio.holdings)}"
    assert not world.venue.positions(US), "a position is left"
    assert not world.venue.pending(US), "an order is left"
    assert world.engine.portfolio.equity_usdt == world.venue.equity(US)
    adopted = world.sessions[-1].events[0]
    assert isinstance(adopted, Adopted)
    # What an adopted position was worth is not known to the last digit: nobody tells the mark that it was valued at.
    if not adopted.positions:
        assert world.engine.portfolio.adjustments_usdt == 0, f"adjusted by {world.engine.portfolio.adjustments_usdt}"
    sent = [action.client_oid for action in world.actions if isinstance(action, PlaceOrder)]
    assert len(sent) == len(set(sent)), "sent twice"
    assert all(filled <= world.placed[oid].size for oid, filled in world.filled.items()), "filled beyond its size"


def happens_again(world: WiredWorld) -> int:
    """Claim that every session does the same to the same events; return how many there were."""
    for heard in world.sessions:
        memory = msgspec.msgpack.decode(msgspec.msgpack.encode(heard.memory), type=Memory)
        engine = Engine(world.engine.config, LISTED, _Opinions(), session=heard.name, seed=7, memory=memory)
        for k, (event, answers) in enumerate(zip(heard.events, heard.answers, strict=True)):
            found = engine.on_event(event)
            assert found == answers, f"{heard.name}, event {k}, {type(event).__name__}: {found} was {answers}"
    return len(world.sessions)
