"""Outgoing frames of one connection: polite lines change nothing, rude ones change what they say and nothing else."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.exceptions import ProtocolError
from websockets.frames import Frame, Opcode
from websockets.streams import StreamReader

from shared.simulator.clock import MS
from shared.simulator.faults.conditions import Change, Constant, Disconnect, PushFault, Slow, decode_script
from shared.simulator.faults.faults import Faults
from shared.simulator.faults.lines import GOING_AWAY, HELD_BYTES_MAX, REORDER_NS_MAX, STRANGER, Line, label, split
from shared.simulator.markets.market import GeneratedMarket
from shared.simulator.pushes.feed import PublicFeed
from shared.simulator.pushes.frames import payload, text_frame
from shared.types import NS

START_NS = 1_795_330_795 * NS
MARKET = GeneratedMarket(7, 4)
ORDERS = (
    '{"action":"snapshot","arg":{"instType":"USDT-FUTURES","channel":"orders","instId":"default"},'
    '"data":[{"instId":"ETHUSDT","orderId":"1","size":"0.5"}],"ts":1}'
)
ACCOUNT = (
    '{"action":"snapshot","arg":{"instType":"USDT-FUTURES","channel":"account","coin":"default"},'
    '"data":[{"marginCoin":"USDT","equity":"1.5"}],"ts":1}'
)
ACK = '{"event":"subscribe","arg":{"instType":"USDT-FUTURES","channel":"books","instId":"BTCUSDT"}}'


def pushes(*channels: str, seconds: int = 3) -> list[str]:
    """Return real pushes of the generated market, in order."""
    feed = PublicFeed(MARKET)
    wanted = {channel: set(MARKET.symbols) for channel in channels}
    return [text for _, _, _, text in feed.frames(START_NS, START_NS + seconds * NS, wanted)]


def numbered(n: int, channel: str = "trade", symbol: str = "BTCUSDT") -> list[bytes]:
    arg = f'{{"instType":"USDT-FUTURES","channel":"{channel}","instId":"{symbol}"}}'
    return [text_frame(f'{{"action":"update","arg":{arg},"data":[{{"tradeId":"{i}"}}],"ts":{i}}}') for i in range(n)]


def rude(*rules: PushFault, seed: int = 7, stream: str = "public", **changes: Any) -> tuple[Line, Faults]:
    faults = Faults(seed)
    faults.change(Change(pushes=list(rules), **changes))
    return faults.line(stream), faults


def drained(line: Line, frames: Sequence[bytes], step_ns: int = MS) -> list[bytes]:
    """Return everything that a line ever sends of these frames, which come a step apart."""
    out: list[bytes] = []
    for k, frame in enumerate(frames):
        out += line.carry([frame], k * step_ns)
    end_ns = len(frames) * step_ns
    while line.is_on and (line._queue or line._behind) and not line.ending:
        end_ns += 100 * MS
        out += line.carry([], end_ns)
    return out


def parsed(data: bytes) -> list[Frame]:
    """Read frames with a WebSocket implementation that is not ours (RFC 6455)."""
    reader = StreamReader()
    reader.feed_data(data)
    reader.feed_eof()
    frames: list[Frame] = []
    while reader.buffer:
        parsing = Frame.parse(reader.read_exact, mask=False)
        try:
            next(parsing)
        except StopIteration as done:
            frames.append(done.value)
    return frames


# ---------------------------------------------------------------------------------------------------- politeness


@given(st.lists(st.text(max_size=300), max_size=12), st.data())
def test_joined_frames_are_found_again(texts: list[str], data: st.DataObject) -> None:
    """However frames are joined, each is met by itself: lengths of 7, 16 and 64 bits are read."""
    frames = [text_frame(text * data.draw(st.sampled_from([1, 1, 7, 300]))) for text in texts]

    assert list(split(b"".join(frames))) == frames


def test_frames_of_every_length_are_split() -> None:
    """At 125, 126, 65535 and 65536 bytes the header changes its form."""
    frames = [text_frame("x" * n) for n in (0, 1, 125, 126, 65_535, 65_536, 200_000)]

    assert list(split(b"".join(frames))) == frames


def test_nothing_is_lost_while_the_rules_are_for_others() -> None:
    """A line that is on for another channel, symbol, stream or count carries everything, unchanged and in order."""
    texts = pushes("ticker", "books15", "trade", "books")
    everything = [text_frame(text) for text in [*texts, "pong", ACK]]
    line, faults = rude(
        PushFault(what="lose", channel="candle1m"),
        PushFault(what="lose", symbol="NOSUCHUSDT"),
        PushFault(what="lose", stream="private"),
        PushFault(what="duplicate", count=0),
        PushFault(what="tear", p=0.0),
        PushFault(what="lose", channel="login"),
    )
    assert line.is_on

    assert line.carry([b"".join(everything)], 0) == everything
    assert not faults.struck


def test_line_is_off_when_nothing_is_wanted_of_it() -> None:
    """Being on costs time: a line without rules, frames and triggers is off, and comes on and goes off with them."""
    line, faults = rude()
    states = [line.is_on]
    for stream in ("private", "public"):
        late = msgspec.convert({"what": "late", "delay": {"kind": "constant", "ms": 50}, "stream": stream}, PushFault)
        faults.change(Change(pushes=[late]))
        states.append(line.is_on)
    assert line.carry(numbered(1), 0) == []
    faults.change(Change(pushes=[]))
    states.append(line.is_on)  # a frame waits
    assert line.carry([], 60 * MS) == numbered(1)
    states.append(line.is_on)

    assert states == [False, False, True, True, False]


@pytest.mark.parametrize("channel", ["ticker", "books", "books1", "books15", "trade"])
def test_public_pushes_are_known_by_their_text(channel: str) -> None:
    """Channel and symbol of every real push are read from it: the server's fast path carries no labels."""
    feed = PublicFeed(MARKET)
    frames = list(feed.frames(START_NS, START_NS + 2 * NS, {channel: set(MARKET.symbols)}))
    assert frames
    assert all(label(text_frame(text)) == (channel, symbol) for _, channel, symbol, text in frames)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (ORDERS, ("orders", "ETHUSDT")),
        (
            ORDERS.replace('"data":[{"instId":"ETHUSDT","orderId":"1","size":"0.5"}]', '"data":[]'),
            ("orders", "default"),
        ),
        (ACCOUNT, ("account", "default")),
        (ACK, ("ack", "")),
        (ACK.replace("subscribe", "unsubscribe"), ("ack", "")),
        ("pong", ("pong", "")),
        ('{"event":"login","code":0}', ("login", "")),
        ('{"event":"error","code":30001,"msg":"m"}', ("error", "")),
        ("", ("", "")),
        ('{"action":1}', ("", "")),
    ],
)
def test_other_frames_are_known_by_their_text(text: str, found: tuple[str, str]) -> None:
    """A private push belongs to the symbol of its first row; what is no push has a name of its own."""
    assert label(text_frame(text)) == found


# ------------------------------------------------------------------------------------------------------- strikes


@given(st.integers(0, 2**32), st.lists(st.integers(1, 5), min_size=1, max_size=30))
def test_same_seed_same_line(seed: int, bunches: list[int]) -> None:
    """Two lines of one seed and name do the same to the same frames, however these are joined."""
    rules = (
        PushFault(what="lose", p=0.2),
        PushFault(what="duplicate", p=0.2),
        PushFault(what="reorder", p=0.2),
        PushFault(what="tear", p=0.2),
        PushFault(what="blank_field", p=0.2),
    )
    frames = numbered(sum(bunches))
    one, _ = rude(*rules, seed=seed)
    two, _ = rude(*rules, seed=seed)
    sent_one, sent_two, at = [], [], 0
    for k, n in enumerate(bunches):
        sent_one += one.carry(frames[at : at + n], k)
        sent_two += two.carry([b"".join(frames[at : at + n])], k)
        at += n

    assert sent_one == sent_two


def test_connections_have_their_own_luck() -> None:
    """The second connection of a stream loses other pushes than the first."""
    faults = Faults(7)
    faults.change(Change(pushes=[PushFault(what="lose", p=0.5)]))
    one, two = faults.line("public"), faults.line("public")

    assert one.carry(numbered(100), 0) != two.carry(numbered(100), 0)


@pytest.mark.parametrize("p", [0.02, 0.5])
def test_pushes_are_lost_as_often_as_asked(p: float) -> None:
    """Of n pushes np are lost, within five standard errors; what remains is in order and whole."""
    n, (line, faults) = 4000, rude(PushFault(what="lose", p=p))
    frames = numbered(n)

    out = line.carry(frames, 0)

    assert abs(n - len(out) - n * p) <= 5 * math.sqrt(n * p * (1 - p))
    assert faults.struck == {"lose trade": n - len(out)}
    places = {frame: k for k, frame in enumerate(frames)}
    assert [places[frame] for frame in out] == sorted(places[frame] for frame in out)


def test_half_frozen_feed_loses_one_symbol() -> None:
    """All pushes of one symbol are lost, on every channel, and none of another."""
    line, _ = rude(PushFault(what="lose", symbol="BTCUSDT"))
    texts = pushes("ticker", "trade")

    out = [payload(frame) for frame in line.carry([text_frame(text) for text in texts], 0)]

    assert out == [text for text in texts if '"instId":"BTCUSDT"' not in text]
    assert 0 < len(out) < len(texts)


@pytest.mark.parametrize("name", ["ack", "pong", "login", "error"])
def test_answers_are_lost_by_name_only(name: str) -> None:
    """A rule for every channel meets no answers; one for an answer meets nothing else."""
    answers = [ACK, "pong", '{"event":"login","code":0}', '{"event":"error","code":1,"msg":""}']
    frames = [text_frame(text) for text in answers]
    everything, _ = rude(PushFault(what="lose"))
    one, _ = rude(PushFault(what="lose", channel=name))

    assert everything.carry(frames, 0) == frames
    assert [label(frame)[0] for frame in one.carry([*frames, *numbered(1)], 0)] == [
        other for other in ("ack", "pong", "login", "error", "trade") if other != name
    ]


def test_duplicates_are_equal_and_adjacent() -> None:
    """Each push comes twice, the same bytes."""
    line, _ = rude(PushFault(what="duplicate"))
    frames = numbered(10)

    assert line.carry(frames, 0) == [frame for frame in frames for _ in range(2)]


@given(st.integers(0, 2**32), st.integers(1, 20), st.floats(0.05, 1.0))
def test_reordering_is_a_permutation_within_the_window(seed: int, window: int, p: float) -> None:
    """Nothing is lost or doubled; a struck push is overtaken by up to `window` later ones, and sent within a second."""
    line, _ = rude(PushFault(what="reorder", window=window, p=p), seed=seed)
    frames = numbered(60)

    out = line.carry(frames, 0)
    out += line.carry([], REORDER_NS_MAX)

    assert Counter(out) == Counter(frames)
    assert not line._behind


def test_reordering_changes_the_order() -> None:
    """Some pushes really are overtaken, none by more than the window."""
    line, faults = rude(PushFault(what="reorder", window=3, p=0.2))
    frames = numbered(500)

    out = line.carry(frames, 0)

    struck = faults.struck["reorder trade"]
    places = {frame: k for k, frame in enumerate(out)}
    moves = [places[frame] - k for k, frame in enumerate(frames) if frame in places]
    assert sum(move > 0 for move in moves) > 0.5 * struck
    assert max(moves) <= 3 + struck  # others that wait may be released in front of it


def test_delay_keeps_the_order_and_late_is_overtaken() -> None:
    """A delayed push holds up all that follows, a late one only itself."""
    first, second = numbered(2)
    delayed, _ = rude(PushFault(what="delay", delay=Constant(ms=100.0), count=1))
    late, _ = rude(PushFault(what="late", delay=Constant(ms=100.0), count=1))

    assert delayed.carry([first, second], 0) == []
    assert delayed.carry([], 99 * MS) == []
    assert delayed.carry([], 100 * MS) == [first, second]
    assert late.carry([first, second], 0) == [second]
    assert late.carry([], 100 * MS) == [first]


def chain_breaks(texts: Sequence[str]) -> int:
    """Count pushes of `books` whose pseq is not the seq of the one before, per symbol."""
    last: dict[str, int] = {}
    breaks = 0
    for text in texts:
        push = json.loads(text)
        symbol, row = push["arg"]["instId"], push["data"][0]
        breaks += symbol in last and row["pseq"] not in (0, last[symbol])
        last[symbol] = row["seq"]
    return breaks


@pytest.mark.parametrize("what", ["gap", "lose"])
def test_sequence_gap_breaks_the_chain(what: Any) -> None:
    """Whoever follows seq and pseq sees it: a lost update, and one whose predecessor never was."""
    texts = pushes("books", seconds=20)
    assert chain_breaks(texts) == 0
    line, faults = rude(PushFault(what=what, channel="books", p=0.3))

    out = [payload(frame) for frame in line.carry([text_frame(text) for text in texts], 0)]

    assert faults.struck[f"{what} books"] > 5
    assert chain_breaks(out) > 0
    if what == "gap":
        symbols = [json.loads(text)["arg"]["instId"] for text in texts]
        firsts = {symbols.index(symbol) for symbol in symbols}
        changed = {k for k, (before, after) in enumerate(zip(texts, out, strict=True)) if before != after}
        assert len(changed) == faults.struck["gap books"]
        assert chain_breaks(out) == len(changed - firsts)  # nobody misses what came before the first


def test_gap_needs_a_chain() -> None:
    """A push without pseq cannot have a gap, and is not counted as if it had."""
    line, faults = rude(PushFault(what="gap"))
    frames = numbered(3)

    assert line.carry(frames, 0) == frames
    assert not faults.struck


@pytest.mark.parametrize("what", ["tear", "not_json", "not_utf8", "binary", "oversize"])
def test_spoilt_frames_are_still_websocket_frames(what: Any) -> None:
    """Another implementation reads the frame; what is spoilt is its text."""
    line, _ = rude(PushFault(what=what, size_bytes=100_000))
    good = numbered(1)[0]

    (bad,) = line.carry([good], 0)

    (frame,) = parsed(bad)
    assert frame.opcode is (Opcode.BINARY if what == "binary" else Opcode.TEXT)
    if what == "oversize":
        assert len(frame.data) == 100_000
        assert json.loads(bytes(frame.data)) == json.loads(payload(good))
    elif what == "binary":
        assert bytes(frame.data).decode() == payload(good)
    elif what == "not_utf8":
        with pytest.raises(UnicodeDecodeError):
            bytes(frame.data).decode()
    else:
        with pytest.raises(json.JSONDecodeError):
            json.loads(bytes(frame.data))


@given(st.integers(0, 2**32))
def test_torn_json_is_never_json(seed: int) -> None:
    """Wherever it is cut, it cannot be read, and what is left is its beginning."""
    line, _ = rude(PushFault(what="tear"), seed=seed)

    (bad,) = line.carry([text_frame(ORDERS)], 0)

    assert ORDERS.startswith(payload(bad))
    assert payload(bad) != ORDERS
    with pytest.raises(json.JSONDecodeError):
        json.loads(payload(bad))


def test_cut_frame_ends_the_connection() -> None:
    """Half of a frame leaves, then nothing: the connection ends in the midst of it."""
    line, _ = rude(PushFault(what="cut", count=1))
    first, second = numbered(2)

    out = line.carry([first, second], 0)

    assert out == [first[: len(first) // 2]]
    assert line.ending == "drop"
    assert line.carry([second], 1) == []
    with pytest.raises((EOFError, ProtocolError)):
        parsed(out[0])


@pytest.mark.parametrize(
    ("what", "where"),
    [
        ("wrong_symbol", STRANGER),
        ("unknown_channel", "books50"),
        ("unknown_field", "newField"),
        ("blank_field", '":""'),
    ],
)
def test_strange_pushes_are_valid_json(what: Any, where: str) -> None:
    """What is strange about them is only what they say."""
    line, _ = rude(PushFault(what=what))
    (text,) = pushes("ticker", seconds=1)[:1]

    (bad,) = line.carry([text_frame(text)], 0)

    assert where in payload(bad)
    assert where not in text
    assert json.loads(payload(bad)).keys() == json.loads(text).keys()


def test_error_comes_out_of_nowhere() -> None:
    """An error frame of any code stands before a push, and the push is whole."""
    line, _ = rude(PushFault(what="error", code=30007, msg='say "no"', count=1))
    frames = numbered(2)

    out = line.carry(frames, 0)

    assert json.loads(payload(out[0])) == {"event": "error", "code": 30007, "msg": 'say "no"'}
    assert out[1:] == frames


def test_rules_meet_in_their_order() -> None:
    """What is blanked and then torn is torn; what is lost meets no further rule."""
    line, faults = rude(PushFault(what="lose", count=1), PushFault(what="binary"), PushFault(what="tear"))

    out = line.carry(numbered(2), 0)

    assert len(out) == 1
    assert faults.struck == {"lose trade": 1, "binary trade": 1}  # there is no text left to tear


# --------------------------------------------------------------------------------------------- bandwidth and endings


@given(st.integers(100, 100_000), st.integers(1, 50))
def test_slow_line_keeps_its_bandwidth(bytes_per_s: int, n: int) -> None:
    """Within any time t no more than rate x t and one frame pass; all of it in order, in the end."""
    line, _ = rude(slow=[Slow(bytes_per_s=bytes_per_s)])
    frames = numbered(n)
    assert line.is_on

    out = line.carry(frames, 0)
    now_ns = 0
    while len(out) < n:
        now_ns += NS // 4
        out += line.carry([], now_ns)
        assert sum(map(len, out)) <= bytes_per_s * now_ns / NS + 2 * len(frames[-1])

    assert out == frames
    assert now_ns / NS >= sum(map(len, frames[:-1])) / bytes_per_s - 0.25


def test_line_that_falls_too_far_behind_ends() -> None:
    """What waits is bounded: a line that is asked to hold more ends its connection."""
    line, _ = rude(PushFault(what="oversize", size_bytes=32 * 2**20), slow=[Slow(bytes_per_s=1)])

    for _ in range(1 + HELD_BYTES_MAX // (32 * 2**20) + 1):
        assert not line.ending
        line.carry(numbered(1), 0)

    assert line.ending == "abort"


@pytest.mark.parametrize(("how", "ending"), [("abort", "abort"), ("close", "drop")])
def test_connections_end_after_random_times(how: Any, ending: str) -> None:
    """Lifetimes are exponential with the mean that was asked for, within five standard errors."""
    faults = Faults(7)
    faults.change(Change(disconnects=[Disconnect(every_s=10.0, how=how, stream="private")]))
    n, total_s = 400, 0.0
    for _ in range(n):
        line = faults.line("private")
        out, now_ns = line.carry([], 0), 0
        while not line.ending:
            now_ns += NS // 20
            out += line.carry([], now_ns)
        total_s += now_ns / NS
        assert line.ending == ending
        assert out == ([GOING_AWAY] if how == "close" else [])

    assert abs(total_s / n - 10.0) < 5 * 10.0 / math.sqrt(n) + 0.05
    assert not faults.line("public").is_on
    assert faults.struck == {f"disconnect private {how}": n}


def test_goodbye_is_a_close_frame() -> None:
    """Another implementation reads it as 1001, going away."""
    (frame,) = parsed(GOING_AWAY)

    assert frame.opcode is Opcode.CLOSE
    assert int.from_bytes(frame.data, "big") == 1001


def test_pushes_trigger_steps() -> None:
    """A script that waits for the third fill sees it, on a line that is on for nothing else."""
    faults = Faults()
    line = faults.line("private")
    document = '{"steps": [{"after": {"event": "push", "name": "fill", "n": 3}, "change": {"is_private_mute": true}}]}'
    faults.begin(decode_script(document.encode()), 0)
    assert line.is_on

    states = []
    for _ in range(3):
        line.carry([text_frame(ACCOUNT), *numbered(1, "fill", "default")], 0)
        states.append(faults.conditions.is_private_mute)

    assert states == [False, False, True]
    assert not line.is_on
