"""What an hour lacks, for a person: exact breaks of links, marks by the minute, together what broke together."""

from __future__ import annotations

import base64
import re
from pathlib import Path

import polars as pl
import pytest

from pipelines.gaps import by_minute, gaps, largest
from pipelines.plots import SYMBOLS_SHOWN, coverage_map
from shared.lake import wal, write
from shared.types import NS, TickEvent
from tests.pipelines.test_verdicts import covered
from tests.shared.lake import receipts as r

START_NS = r.HOUR * r.HOUR_NS


def linked(lake: Path, *breaks: tuple[float, float, TickEvent]) -> None:
    """Record links from second 90 to the end of the hour, with breaks (from, to, event) in all of them."""
    write.write_universe(lake, r.universe())
    log = wal.WriteAheadLog(lake, r.SOURCE, "a", r.universe())
    parts = [r.links(TickEvent.SUBSCRIBED, START_NS + 90 * NS)]
    for down_s, up_s, event in breaks:
        parts += [r.links(event, START_NS + int(down_s * NS)), r.links(TickEvent.SUBSCRIBED, START_NS + int(up_s * NS))]
    log.append(r.concat(parts))
    log.close(START_NS + r.HOUR_NS)
    write.seal(lake, r.SOURCE, r.HOUR)


def test_breaks_are_exact_and_told_together(tmp_path: Path) -> None:
    """Twelve links of one connection are one row; the last nanosecond of the hour is no gap."""
    linked(tmp_path, (600.25, 603.5, TickEvent.DISCONNECTED), (1200.0, 1201.0, TickEvent.GAP))
    covered(tmp_path, {})

    found = gaps(tmp_path, r.SOURCE, r.HOUR)
    told = largest(found)

    assert found.height == 3 * 3 * len(r.SYMBOLS)
    assert told.select("longest, s", "cause", "symbols", "channels").rows() == [
        (90.0, "not linked yet", 4, "book, ticker, trade"),
        (3.2, "link down", 4, "book, ticker, trade"),
        (1.0, "lost in the chain", 4, "book, ticker, trade"),
    ]
    assert told["from"][1].endswith(":10:00")


def test_second_connection_leaves_no_gap(tmp_path: Path) -> None:
    """While another one carries the channel, nothing is lost when one drops."""
    write.write_universe(tmp_path, r.universe())
    log = wal.WriteAheadLog(tmp_path, r.SOURCE, "a", r.universe())
    links = [
        r.links(TickEvent.SUBSCRIBED, START_NS),
        r.links(TickEvent.SUBSCRIBED, START_NS + NS, conns=(1,)),
        r.links(TickEvent.DISCONNECTED, START_NS + 5 * NS),
    ]
    log.append(r.concat(links))
    log.close(START_NS + r.HOUR_NS)
    write.seal(tmp_path, r.SOURCE, r.HOUR)
    covered(tmp_path, {})

    assert gaps(tmp_path, r.SOURCE, r.HOUR).is_empty()
    assert largest(gaps(tmp_path, r.SOURCE, r.HOUR)).is_empty()


def test_marks_of_coverage_are_runs_of_minutes(tmp_path: Path) -> None:
    """Silence and the like are known by the minute: minutes that follow one another are one gap."""
    linked(tmp_path)
    marked = {"ETHUSDT": dict.fromkeys((7, 8, 9, 30), "silence")}
    covered(tmp_path, marked, reasons={"silence": "silence"})

    found = gaps(tmp_path, r.SOURCE, r.HOUR).filter(pl.col("cause") == "silence")

    lengths = sorted((from_ns - START_NS) // NS * 1000 + round(s) for from_ns, s, *_ in found.iter_rows())
    assert lengths == [7 * 60_000 + 180] * 3 + [30 * 60_000 + 60] * 3


@pytest.mark.parametrize("n_symbols", [0, 1, 800])
def test_picture_of_an_hour_shows_the_worst(n_symbols: int) -> None:
    """A PNG of bounded size, for no symbol, one, or all that Bitget lists."""
    minute = pl.DataFrame({"minute": [r.HOUR * 60 + m for m in range(60)]}, schema={"minute": pl.Int64})
    symbols = pl.DataFrame({"symbol": [f"龙{n}USDT" for n in range(n_symbols)]}, schema={"symbol": pl.String})
    state = pl.when(pl.col("minute") % 60 == 7).then(pl.lit("gap")).otherwise(pl.lit("complete"))
    coverage = symbols.join(minute, how="cross").with_columns(channel=pl.lit("book"), state=state)

    picture = coverage_map(coverage, r.HOUR)

    png = base64.b64decode(re.fullmatch(r"!\[coverage\]\(data:image/png;base64,([^)]+)\)", picture)[1])  # type: ignore[index]
    assert png.startswith(b"\x89PNG")
    height = int.from_bytes(png[20:24], "big")
    assert 100 < height < 40 * SYMBOLS_SHOWN
    assert by_minute(coverage, r.HOUR).height == 60 * n_symbols
