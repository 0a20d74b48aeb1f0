"""Off-policy estimates: by hand, against a world whose truth is known, and from the journal of an engine that explored."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from scipy import stats

from pipelines import bandit
from pipelines.logged import read_log
from pipelines.offpolicy import Chosen, Decided, checks_of, compare, student_quantile
from shared import journal
from shared.errors import NotEnoughData, SettingsError
from shared.permits import load_permit, permit_path
from shared.strategy.bandit.choice import lottery
from shared.strategy.bandit.learner import policy_digest
from shared.strategy.bandit.state import Mode
from shared.strategy.config import EngineConfig
from shared.strategy.engine import Memory
from shared.types import SCHEMA_VERSION, Floats, Note
from tests.shared.strategy.made import START_S, Script, notes, places, scores, universe

# ------------------------------------------------------------------------------------------------- by hand


def test_the_estimates_are_those_on_paper() -> None:
    """Three decisions, five entries, calculated with a pencil: w = 0.5, 2, 1, 1, 4."""
    decided = [
        Decided(
            second=0,
            chosen=(Chosen("A", 0.8, 0.4, 1.0, 6.0), Chosen("B", 0.2, 0.4, 2.0, -4.0)),
            direct_q_bps=1.5,
            unsupported=0.1,
        ),
        Decided(second=60, chosen=(Chosen("A", 1.0, 1.0, 1.0, 3.0),), direct_q_bps=1.0),
        Decided(
            second=120,
            chosen=(Chosen("C", 0.5, 0.5, 0.0, -1.0), Chosen("D", 0.25, 1.0, 3.0, 5.0)),
            direct_q_bps=2.5,
        ),
    ]

    found = compare(decided)

    # Σ r = 9, Σ w r = 3 − 8 + 3 − 1 + 20 = 17, Σ w = 8.5, Σ w² = 0.25 + 4 + 1 + 1 + 16 = 22.25.
    assert found.logged.value == pytest.approx(9 / 5, abs=1e-9)
    assert found.ips.value == pytest.approx(17 / 5, abs=1e-9)
    assert found.snips.value == pytest.approx(17 / 8.5, abs=1e-9)
    assert found.effective == pytest.approx(8.5**2 / 22.25, abs=1e-9)
    # DR: 5.0 + 0.5·5 + 2·(−6) + 1·2 + 1·(−1) + 4·2 = 5 + 2.5 − 12 + 2 − 1 + 8 = 4.5.
    assert found.dr.value == pytest.approx(4.5 / 5, abs=1e-9)
    assert found.ips_gain.value == pytest.approx(8 / 5, abs=1e-9)
    assert found.dr_gain.value == pytest.approx(-4.5 / 5, abs=1e-9)
    assert found.snips_gain.value == pytest.approx(2.0 - 1.8, abs=1e-9)
    assert found.unsupported == pytest.approx(0.1 / 5, abs=1e-9)
    assert found.explored == 4
    # IPS per block −5, 3, 19 over 2, 1, 2 entries, mean 3.4: apart −11.8, −0.4, 12.2, their squares 288.24.
    half = stats.t.ppf(0.975, 2) * math.sqrt(3 / 2 * 288.24) / 5
    assert found.ips.high - found.ips.value == pytest.approx(half, rel=0.02)  # two degrees: the expansion's worst


@pytest.mark.parametrize("dof", [5, 29, 200])
def test_students_quantile_is_scipys(dof: int) -> None:
    """The expansion is right to a tenth of a percent where it is used."""
    assert student_quantile(0.975, dof) == pytest.approx(stats.t.ppf(0.975, dof), rel=1e-3)


def test_the_same_plan_gains_nothing_and_knows_it() -> None:
    """Where both plans have the same probabilities, every gain is exactly 0, whatever was earned."""
    rng = np.random.default_rng(1)
    decided = [
        Decided(second=60 * t, chosen=(Chosen("A", 0.5, 0.5, 1.0, float(rng.normal(0, 15))),), direct_q_bps=1.0)
        for t in range(40)
    ]

    found = compare(decided)

    assert (found.ips_gain.value, found.ips_gain.low, found.ips_gain.high) == (0.0, 0.0, 0.0)
    assert found.snips_gain.value == pytest.approx(0.0, abs=1e-12)


# ------------------------------------------------------------------------------------- a world whose truth is known


def logged_world(
    rng: np.random.Generator, means: Floats, believed: Floats, decisions: int
) -> tuple[list[Decided], Floats]:
    """Return decisions of an exploring net-edge plan among 8 candidates for 2 slots, and (Σ p μ, Σ q μ, entries)."""
    decided, truth = [], np.zeros(3)
    for t in range(decisions):
        edge = rng.uniform(0, 4, 8)
        ties = rng.random(8)
        shadow = lottery(edge[None], edge, ties, 2, epsilon=0.3, share_max=0.1, left_bps=100.0)
        dreams = edge + believed + rng.normal(0, 2, (16, 8))
        act = lottery(dreams, edge + believed, ties, 2, epsilon=0.05, share_max=0.1, left_bps=100.0)
        chosen, _ = shadow.draw(rng.random(), rng.random(), rng.random(8))
        p, q = shadow.probability, act.probability
        expected = means + 0.5 * edge  # the true mean reward of each candidate
        reward = rng.normal(expected, 15.0)
        truth += np.array([float(p @ expected), float(q @ expected), 2.0])
        decided.append(
            Decided(
                second=t * 10,
                chosen=tuple(
                    Chosen(str(n), float(p[n]), float(q[n]), float(believed[n]), float(reward[n]))
                    for n in np.flatnonzero(chosen)
                ),
                direct_q_bps=float(q @ believed),
                unsupported=float(q[p == 0].sum()),
            )
        )
    return decided, truth


@pytest.mark.parametrize(("worlds", "decisions"), [(40, 100), pytest.param(200, 250, marks=pytest.mark.nightly)])
def test_estimates_are_unbiased_and_their_intervals_cover(worlds: int, decisions: int) -> None:
    """Over many worlds: mean error within four of its standard errors, and 95 % intervals that cover the truth about
    95 times in 100, for values and for gains."""
    rng = np.random.default_rng(2)
    means, believed = rng.normal(0, 2, 8), rng.normal(0, 1, 8)
    errors: dict[str, list[float]] = {}
    covers: dict[str, list[bool]] = {}
    for _ in range(worlds):
        decided, (by_p, by_q, entries) = logged_world(rng, means, believed, decisions)
        found = compare(decided)
        truths = {"logged": by_p, "ips": by_q, "dr": by_q, "snips": by_q}
        truths |= {f"{name}_gain": by_q - by_p for name in ("ips", "dr", "snips")}
        for name, truth in truths.items():
            estimate = getattr(found, name)
            errors.setdefault(name, []).append(estimate.value - truth / entries)
            covers.setdefault(name, []).append(estimate.low <= truth / entries <= estimate.high)

    for name, found_errors in errors.items():
        error = np.std(found_errors) / len(found_errors) ** 0.5
        bias_max = 4 * error + (30.0 / decisions if "snips" in name else 0.0)  # SNIPS is biased by O(1/K)
        assert abs(np.mean(found_errors)) < bias_max, name
        chance = 3.5 * (0.05 * 0.95 / worlds) ** 0.5
        assert abs(np.mean(covers[name]) - 0.945) < chance + 0.01, (name, np.mean(covers[name]))
    assert np.std(errors["dr_gain"]) < np.std(errors["ips_gain"]) * 1.05


def test_a_wrong_belief_does_not_bias_the_doubly_robust_estimate() -> None:
    """With r̂ off by 20 bps for everybody, DR is still right, only noisier."""
    rng = np.random.default_rng(3)
    means = rng.normal(0, 2, 8)
    errors = []
    for _ in range(25):
        decided, (_, by_q, entries) = logged_world(rng, means, np.full(8, 20.0), 80)
        errors.append(compare(decided).dr.value - by_q / entries)

    assert abs(np.mean(errors)) < 4 * np.std(errors) / 25**0.5


def test_checks_name_what_is_missing() -> None:
    """A log without exploration fails for that reason, however good its figures look."""
    decided = [
        Decided(second=60 * t, chosen=(Chosen("A", 1.0, 1.0, 1.0, 5.0),), direct_q_bps=1.0, unsupported=0.5)
        for t in range(400)
    ]

    failed = {check.name for check in checks_of(compare(decided)) if not check.holds}

    assert {"entries left to chance", "what was never tried", "gain, doubly robust, lower bound"} <= failed


# ------------------------------------------------------------------------------------------ from an engine's journal


def explored(seconds: int) -> Script:
    """Return an engine that ran in shadow, exploring, over symbols of which some never fill."""
    rng = np.random.default_rng(4)
    config = EngineConfig(
        top_k=2, cooldown_s=0, bandit_epsilon=0.3, explore_bps_per_day=80.0, horizon_s=2, side_band=1.0, beta_band=1.0
    )
    script = Script(10, config)
    for _ in range(seconds):
        said = scores(rng.choice([-1, 1], 10), edge_bps=30.0)
        said.edge_bps[:] = said.direction * rng.uniform(20, 40, 10).round(2)
        for order in places(script.close_second(said)):
            script.complete(order)
    for _ in range(4):
        for order in places(script.close_second()):
            script.complete(order)
    return script


def test_an_engines_notes_tell_every_decision_and_its_outcome() -> None:
    """What is read back from the actions alone: each entry once, with its probability, its trade's own net bps."""
    script = explored(60)
    [log] = read_log(script.log)

    chose, closed = notes(script.log, "bandit.chose"), notes(script.log, "trade.closed")
    assert (log.mode, log.policy, log.unknown) == (Mode.SHADOW, policy_digest(script.engine.config), 0)
    assert len(log.decided) + log.sure == len(chose)
    assert len(log.decided) > 10
    by_chance = {d.second for d in log.decided}
    outcomes = sorted(c.net_bps for d in log.decided for c in d.chosen if c.net_bps != 0.0)
    expected = [note.fields for note in closed if note.fields["decision"] in by_chance]
    assert outcomes == sorted(float(str(fields["net_bps"])) for fields in expected)
    assert len(outcomes) > 20
    assert compare(log.decided).explored > 5
    assert any(str(note.fields["explored"]) for note in chose)


def test_what_was_refused_or_never_filled_earned_nothing_and_the_unknown_is_left_out() -> None:
    """The four ends of an entry: closed, not sent, ended empty, and not known."""

    def chose(second: int, *symbols: str) -> Note:
        half = " ".join(["0.5"] * len(symbols))
        fields: dict[str, Any] = {
            "second": second, "mode": "shadow", "policy": "x", "variant": "", "variant_p": 1.0, "variant_q": 1.0,
            "symbols": " ".join(symbols), "p": half, "q": half, "believed_bps": half, "is_chance": True,
            "direct_q_bps": 0.0, "unsupported": 0.0, "explored": "",
        }  # fmt: skip
        return Note(event="bandit.chose", fields=fields)

    def done(symbol: str, filled: str) -> Note:
        return Note(event="order.done", fields={"cause": "entry", "symbol": symbol, "filled": filled})

    script = Script(2)
    [first, second] = places(script.close_second(scores([1, 1])))
    [a, b] = [first.symbol, second.symbol]
    closed = Note(event="trade.closed", fields={"decision": 1, "symbol": a, "net_bps": -3.5})

    actions = [
        chose(1, a, b), first, done(a, "1"), closed,  # a closed, b never sent
        chose(2, b), second, done(b, "0"),  # sent, ended empty
        chose(3, a, b), first, done(a, "1"),  # a filled, and nobody knows what became of it
        chose(4, b), second,  # still working when the journal ends
    ]  # fmt: skip
    [log] = read_log(actions)

    assert [[c.net_bps for c in d.chosen] for d in log.decided] == [[-3.5, 0.0], [0.0]]
    assert log.unknown == 2


# ------------------------------------------------------------------------------------------------- the command


def write_journal(
    folder: Path, gain_bps: float, *, decisions: int = 500, source: str = "simulator-made"
) -> EngineConfig:
    """Write a session's journal in which what the bandit would choose earns `gain_bps` more."""
    config, rng, listed = EngineConfig(), np.random.default_rng(5), universe(2)
    header = journal.Header(
        schema_version=SCHEMA_VERSION,
        session=folder.name.removeprefix("session="),
        source=source,
        started_ns=0,
        model="rules",
        bundle=None,
        seed=1,
        config=config,
        memory=Memory(),
        universe=listed,
        columns=(),
        definition_hash="",
        commit="",
        numpy="",
    )
    writer = journal.JournalWriter(folder, header)
    for t in range(decisions):
        n = int(rng.integers(2))  # a coin between the two: p = 1/2; the bandit would take the second nine times in ten
        fields: dict[str, Any] = {
            "second": START_S + 10 * t, "mode": "shadow", "policy": policy_digest(config), "variant": "rules/10s",
            "variant_p": 1.0, "variant_q": 1.0, "symbols": listed.symbols[n], "p": "0.5", "q": ("0.1", "0.9")[n],
            "believed_bps": "0.0", "is_chance": True, "direct_q_bps": 0.0, "unsupported": 0.0, "explored": "",
        }  # fmt: skip
        closed: dict[str, Any] = {
            "decision": START_S + 10 * t,
            "symbol": listed.symbols[n],
            "net_bps": float(rng.normal(gain_bps * n, 5)),
        }
        writer.add_decision([Note(event="bandit.chose", fields=fields), Note(event="trade.closed", fields=closed)], {})
    writer.close()
    return config


def test_the_command_says_yes_and_grants_what_live_then_finds(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A gain that is beyond doubt: exit code 0, the table, and a permit for exactly this policy."""
    folder = tmp_path / "journal" / "source=simulator-made" / "session=made"
    config = write_journal(folder, 4.0)

    code = bandit.main(["--lake", str(tmp_path), "--grant"])

    said = capsys.readouterr().out
    assert code == 0, said
    assert "DR, doubly robust" in said
    assert "\nyes" in said
    permit = load_permit(permit_path(tmp_path, "simulator-made", "rules"), config)
    assert 0 < permit.gain_low_bps < permit.gain_bps < 4
    assert permit.sessions == ("made",)
    with pytest.raises(SettingsError, match="found one for"):
        load_permit(
            permit_path(tmp_path, "simulator-made", "rules"), msgspec.structs.replace(config, bandit_weight=0.5)
        )


def test_the_command_says_no_with_reasons_and_grants_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where the bandit would choose what earns less: exit code 1, the failed checks by name, no file."""
    write_journal(tmp_path / "journal" / "source=simulator-made" / "session=made", -1.0)

    code = bandit.main(["--lake", str(tmp_path), "--grant"])

    said = capsys.readouterr().out
    assert code == 1
    assert "no: gain, doubly robust, lower bound" in said
    with pytest.raises(SettingsError, match="found no permit"):
        load_permit(permit_path(tmp_path, "simulator-made", "rules"), EngineConfig())


def test_the_command_says_what_is_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without a session, or with one that chose nothing, it says what to do; a damaged permit is refused."""
    assert bandit.main(["--lake", str(tmp_path)]) == NotEnoughData.exit_code
    assert "python -m live.run" in capsys.readouterr().err

    write_journal(tmp_path / "journal" / "source=simulator-made" / "session=empty", 0.0, decisions=0)
    assert bandit.main(["--lake", str(tmp_path)]) == NotEnoughData.exit_code
    assert "EXPLORE_BPS_PER_DAY" in capsys.readouterr().err

    path = permit_path(tmp_path, "simulator-made", "rules")
    path.write_text('{"policy": 3}')
    with pytest.raises(SettingsError, match="must be readable"):
        load_permit(path, EngineConfig())


def test_sessions_that_cannot_be_read_are_left_out_and_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One damaged journal, and one that ended before its header, do not hide what the others say."""
    root = tmp_path / "journal" / "source=simulator-made"
    write_journal(root / "session=good", 4.0)
    for name, content in (("bad", b"no journal"), ("short", journal.MAGIC)):
        (root / f"session={name}").mkdir()
        (root / f"session={name}" / journal.FILE_NAME).write_bytes(content)

    assert bandit.main(["--lake", str(tmp_path)]) == 0
    said = capsys.readouterr()
    assert said.err.count("left out: ") == 2
    assert "1 sessions, 500 decisions" in said.out
