"""Latencies, queues and impact by themselves."""

from __future__ import annotations

import math
import re
from decimal import Decimal as D

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.exact.exchange import Assumptions
from pipelines.exact.impact import Impact, beyond
from pipelines.exact.latency import Constant, Distribution, Draws, Empirical, Latencies, Lognormal, empirical, feed_ns
from pipelines.exact.queues import LogProbability, PowerProbability, QueueModel, RiskAverse
from shared.settings import ROOT
from shared.simulator.venue.orders import FeeTier
from shared.types import NS, Side

MILLIS = st.floats(0.0, 5_000.0)
SIZES = st.floats(0.0, 1_000.0)


@given(st.lists(MILLIS, min_size=2, max_size=200), st.floats(0.0, 1.0))
def test_empirical_table_holds_what_was_measured(samples: list[float], u: float) -> None:
    """Its least and greatest are the sample's, and no quantile leaves them or falls where u rises."""
    table = empirical(np.array(samples))

    values = [table.quantile_ms(at) for at in sorted((0.0, u, 1.0))]
    assert values == sorted(values)
    assert values[0] == pytest.approx(min(samples), abs=1e-6)
    assert values[-1] == pytest.approx(max(samples), abs=1e-6)
    assert table.samples == len(samples)


def test_quantiles_of_many_draws_are_the_tables() -> None:
    """What is drawn from a measured table has its median and its tail."""
    samples = np.random.Generator(np.random.Philox(3)).lognormal(3.0, 0.8, 5_000)
    draws = Draws(Latencies(entry=empirical(samples)), seed=1)

    drawn = np.array([draws.trip(f"order {n}", 0).matched_ns for n in range(4_000)]) / 1e6

    for q in (0.1, 0.5, 0.9, 0.99):
        assert np.quantile(drawn, q) == pytest.approx(np.quantile(samples, q), rel=0.12), q


def test_lognormal_has_its_median_and_its_99th_percentile() -> None:
    """p50 and p99 are the quantiles of these names."""
    made = Lognormal(40, 250)

    assert made.quantile_ms(0.5) == pytest.approx(40)
    assert made.quantile_ms(0.99) == pytest.approx(250)
    assert 0 < made.quantile_ms(0.0) < made.quantile_ms(1.0) <= 60_000


def test_draws_depend_on_seed_name_and_time_alone() -> None:
    """The same request has the same latency in whatever order; another seed, name or time another."""
    latencies = Latencies()
    one, other = Draws(latencies, 7), Draws(latencies, 7)

    first = [one.trip(name, 5) for name in ("a", "b")]
    second = [other.trip(name, 5) for name in ("b", "a")]

    assert first == second[::-1]
    assert len({*first, Draws(latencies, 8).trip("a", 5), one.trip("a", 6)}) == 4


def test_feed_latency_is_drawn_a_row_and_the_same_again() -> None:
    """Sampled feed latencies repeat by seed and symbol, and follow their distribution."""
    for distribution in (Constant(5), Lognormal(20, 90), Empirical((1.0, 2.0, 3.0))):
        made: Distribution = distribution
        drawn = feed_ns(made, 3, "BTCUSDT", 400)
        assert (drawn == feed_ns(made, 3, "BTCUSDT", 400)).all()
        assert np.median(drawn) / 1e6 == pytest.approx(made.quantile_ms(0.5), rel=0.3)


def test_assumptions_survive_json() -> None:
    """What is written as JSON is read as what it was: a run can be repeated from its report."""
    made = Assumptions(
        latencies=Latencies(entry=Empirical((1.0, 2.5)), feed=Constant(3), lost_share=0.01),
        queue=PowerProbability(2.0),
        fee_tiers=(FeeTier(D(0), D("0.0002"), D("0.0006")),),
        volume_before_usdt=D("1e6"),
    )

    assert msgspec.json.decode(msgspec.json.encode(made), type=Assumptions) == made


def test_page_shows_assumptions_that_are_read() -> None:
    """The JSON of docs/backtest.md is what --assumptions takes, and `{}` is the defaults."""
    page = (ROOT / "docs" / "backtest.md").read_text()
    example = re.search(r"```json\n(.*?)```", page, re.DOTALL)
    assert example is not None

    found = msgspec.json.decode(example.group(1), type=Assumptions)

    assert (len(found.fee_tiers), found.queue, found.latencies.lost_share) == (2, PowerProbability(3.0), 0.001)
    assert msgspec.json.decode("{}", type=Assumptions) == Assumptions()


@pytest.mark.parametrize(
    "wrong",
    [
        '{"queue": {"type": "power", "n": 0}}',
        '{"queue": {"type": "pro_rata"}}',
        '{"queue": {"type": "log", "n": 2}}',
        '{"impact_half_life_s": -1}',
        '{"latencies": {"entry": {"type": "lognormal", "p50_ms": 9, "p99_ms": 3}}}',
        '{"latencies": {"entry": {"type": "empirical", "quantiles_ms": [2, 1]}}}',
        '{"latencies": {"lost_share": 2}}',
        '{"latency": {}}',
    ],
)
def test_assumptions_that_mean_nothing_are_refused(wrong: str) -> None:
    """A wrong number or an unknown name is an error, not a default."""
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(wrong, type=Assumptions)


MOVES = st.lists(st.one_of(st.tuples(st.just("trade"), SIZES), st.tuples(st.just("level"), SIZES)), max_size=30)


PROBABLE = st.one_of(st.builds(PowerProbability, st.floats(0.2, 5.0)), st.just(LogProbability()))


@given(SIZES, MOVES, PROBABLE)
def test_queues_only_move_us_forward_and_the_averse_one_is_never_ahead(
    level: float, moves: list[tuple[str, float]], model: QueueModel
) -> None:
    """The size ahead never grows, never exceeds the level, and is nowhere larger with probabilities than without."""
    averse, probable = RiskAverse().join(level), model.join(level)
    for what, size in moves:
        before = averse.ahead, probable.ahead
        for place in (averse, probable):
            if what == "trade":
                place.traded(size)
            else:
                place.changed(level, size)
        if what == "level":
            level = size
            assert averse.ahead <= level
            assert probable.ahead <= level
        assert averse.ahead <= before[0]
        assert probable.ahead <= before[1]
        assert probable.ahead <= averse.ahead + 1e-9


@pytest.mark.parametrize("model", [PowerProbability(3.0), LogProbability()])
def test_probable_queue_counts_no_trade_twice(model: QueueModel) -> None:
    """A level that shrinks by exactly what was traded has moved nobody else."""
    place = model.join(10.0)

    place.traded(4.0)
    place.changed(10.0, 6.0)

    assert place.ahead == 6.0


@given(st.floats(1.0, 1_000.0), st.floats(0.0, 1_000.0), st.floats(0.0, 1.0))
def test_first_power_is_pro_rata(ahead: float, behind: float, share: float) -> None:
    """With n = 1 what leaves a level leaves before and behind us in proportion to what stands there."""
    place = PowerProbability(1.0).join(ahead)
    place.changed(ahead, ahead + behind)

    place.changed(ahead + behind, (ahead + behind) * share)

    assert place.ahead == pytest.approx(ahead * share, abs=1e-9)


@given(st.floats(1.0, 1_000.0), st.floats(1.0, 1_000.0), st.floats(0.0, 1.0))
def test_logarithm_lets_less_leave_where_more_stands_than_pro_rata(ahead: float, behind: float, left: float) -> None:
    """Who has more before him than behind him moves up more slowly than pro rata, and who has less moves up faster."""
    places = [model.join(ahead) for model in (PowerProbability(1.0), LogProbability())]
    leaves = left * min(ahead, behind) / 2  # so that both sides have what either model takes from them
    for place in places:
        place.changed(ahead, ahead + behind)
        place.changed(ahead + behind, ahead + behind - leaves)

    pro_rata, log = (place.ahead for place in places)
    assert log >= pro_rata - 1e-9 if ahead >= behind else log <= pro_rata + 1e-9


def test_logarithm_counts_in_base_coin() -> None:
    """By hand: 8 ahead, 3 behind, 2 leave: ln 4 / (ln 4 + ln 9) of it behind."""
    place = LogProbability().join(8.0)
    place.changed(8.0, 11.0)

    place.changed(11.0, 9.0)

    share = math.log(4) / (math.log(4) + math.log(9))
    assert place.ahead == pytest.approx(8.0 - 2.0 * (1.0 - share))


def test_debt_halves_with_its_half_life() -> None:
    """Exactly half after one half-life, a quarter after two, in whole steps of size, nothing in the end."""
    made = Impact(10.0)
    made.took("AUSDT", Side.BUY, D(8), 0)

    owed = [made.owed("AUSDT", Side.SELL, D("0.1"), s * NS) for s in (0, 5, 10, 20, 30, 40, 1_000)]

    assert owed == [D(8), D(6), D(4), D(2), D(1), D("0.5"), 0]
    assert made.owed("AUSDT", Side.BUY, D("0.1"), 0) == 0


def test_debts_of_one_side_add_up() -> None:
    """What is taken later joins what is left."""
    made = Impact(10.0)
    made.took("AUSDT", Side.SELL, D(8), 0)
    made.took("AUSDT", Side.SELL, D(1), 10 * NS)

    assert made.owed("AUSDT", Side.BUY, D("0.1"), 10 * NS) == D(5)


@given(st.decimals("0", "40", places=1))
def test_what_is_left_beyond_a_debt_is_the_rest_of_the_book(owed: D) -> None:
    """Of 35 visible exactly 35 - owed is left, at the prices behind."""
    levels = np.array([[100.01, 5.0], [100.02, 10.0], [np.nan, 0.0], [100.03, 20.0]])

    left = beyond(levels, owed)

    total = sum((D(str(size)) for price, size in left if price == price), D(0))
    assert total == max(D(35) - owed, 0)
    if owed > 15:
        assert all(price == 100.03 for price, _ in left)
