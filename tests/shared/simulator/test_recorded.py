"""Recorded books as a market: mapped, shifted, silent where nothing was received, and never ahead of time."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shared.errors import SettingsError
from shared.simulator.markets.market import NS
from shared.simulator.markets.recorded import RecordedMarket
from shared.simulator.pushes.feed import HISTORY, PublicFeed

pyarrow = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")

BEGIN_S, LENGTH_S = 1_700_000_000, 200
ANCHOR_S = 1_795_330_800


def write(folder: Path, stem: str, recv_ns: np.ndarray, tick: float = 0.01) -> None:
    """Write a book whose best bid is 100 + row number in ticks, and a trade half a second after each row."""
    bid = 100.0 + np.arange(len(recv_ns)) * tick
    columns: dict[str, np.ndarray] = {"recv_ns": recv_ns, "exch_ns": recv_ns}
    for k in range(1, 21):
        columns[f"bid_price_{k}"] = np.round(bid - (k - 1) * tick, 5)
        columns[f"ask_price_{k}"] = np.round(bid + k * tick, 5)
        columns[f"bid_size_{k}"] = np.full(len(recv_ns), 0.5 * k)
        columns[f"ask_size_{k}"] = np.full(len(recv_ns), 0.25 * k)
    parquet.write_table(pyarrow.table(columns), folder / f"{stem}.book.parquet")
    trades = {
        "recv_ns": recv_ns + NS // 2,
        "exch_ns": recv_ns,
        "price": np.round(bid, 5),
        "size": np.full(len(bid), 0.75),
    }
    parquet.write_table(
        pyarrow.table(trades | {"side": np.ones(len(bid), np.int32)}), folder / f"{stem}.trades.parquet"
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return one row a second, 0.2 s after its beginning, with a hole of ten seconds."""
    seconds = np.array([s for s in range(LENGTH_S) if not 50 <= s < 60])
    write(tmp_path, "AAA", (BEGIN_S + seconds) * NS + NS // 5)
    write(tmp_path, "BBB", (BEGIN_S + seconds) * NS + NS // 5, tick=0.00001)
    return tmp_path


def test_symbols_ticks_and_steps_come_from_what_was_seen(folder: Path) -> None:
    """BTC becomes BTCUSDT; tick and size step are the decimals of the recorded prices and sizes."""
    market = RecordedMarket(folder, ANCHOR_S * NS)

    assert market.symbols == ("AAAUSDT", "BBBUSDT")
    assert market.price_places == (2, 5)
    assert [row["sizeMultiplier"] for row in market.contracts()] == ["0.01", "0.01"]
    assert market.source == f"simulator-{folder.name}-{datetime.fromtimestamp(ANCHOR_S, UTC):%Y%m%dT%H%M%SZ}"


def test_history_ends_at_the_anchor_and_live_goes_on(folder: Path) -> None:
    """The second before the anchor and the anchor itself are neighbours in the recording."""
    market = RecordedMarket(folder, ANCHOR_S * NS)
    before, after = market.block(ANCHOR_S - 1), market.block(ANCHOR_S)

    assert market.history_end_ns == ANCHOR_S * NS
    assert after.bid_ticks[0, 0, 0] - before.bid_ticks[-1, 0, 0] == 1
    with pytest.raises(SettingsError, match="begins at second"):
        market.block(market.first_second - 1)


def test_live_part_plays_again_after_each_seam(folder: Path) -> None:
    """The last quarter repeats: prices jump back at a seam, ids and clocks go on."""
    market = RecordedMarket(folder, ANCHOR_S * NS)
    seam = market.seam_after(ANCHOR_S)
    assert seam is not None
    first, second = market.block(ANCHOR_S), market.block(seam)

    assert (first.bid_ticks == second.bid_ticks).all()
    assert second.trades.trade_id[0] > first.trades.trade_id[-1]
    assert market.seam_after(seam) == seam + (seam - ANCHOR_S)
    assert market.seam_after(ANCHOR_S - 10) == seam


def test_nothing_is_shown_before_it_was_received(folder: Path) -> None:
    """The book of a second is the last one received before it began, whatever came within it."""
    market = RecordedMarket(folder, ANCHOR_S * NS)

    for second in range(market.first_second, ANCHOR_S):
        block = market.block(second)
        recorded_s = second - market.first_second + BEGIN_S + 1
        newest = round((block.bid_ticks[second - block.first_second, 0, 0] / 100 - 100.0) / 0.01)
        rows = [s for s in range(LENGTH_S) if not 50 <= s < 60]
        assert BEGIN_S + rows[newest] + 0.2 <= recorded_s


def test_hole_in_the_recording_is_silence(folder: Path) -> None:
    """Where nothing was received nothing is pushed, so that consumers see stale data as stale."""
    market = RecordedMarket(folder, ANCHOR_S * NS)
    frames = PublicFeed(market, HISTORY).frames(market.first_second * NS, ANCHOR_S * NS, {"books15": ["AAAUSDT"]})

    told = {time_ns // NS - market.first_second for time_ns, *_ in frames}

    # Row s is as of the begin of second s + 1, which is grid second s: the hole is one row later than in the file.
    assert told == set(range(ANCHOR_S - market.first_second)) - set(range(50, 60))


def test_unknown_fields_are_empty_and_mark_is_the_mid(folder: Path) -> None:
    """What was not recorded is "", never invented; the mark falls back to the middle of the book."""
    market = RecordedMarket(folder, ANCHOR_S * NS)
    fields = PublicFeed(market).ticker_fields(ANCHOR_S * NS, "BBBUSDT")
    assert fields is not None

    empty = {name for name, value in fields.items() if value == ""}

    assert empty == {
        "open24h", "high24h", "low24h", "change24h", "fundingRate", "nextFundingTime", "indexPrice", "holdingAmount",
        "baseVolume", "quoteVolume", "openUtc",
    }  # fmt: skip
    assert float(fields["bidPr"]) <= float(fields["markPrice"]) <= float(fields["askPr"])


def test_trades_keep_their_time_and_order(folder: Path) -> None:
    """A recorded trade happens at its own offset within its second."""
    market = RecordedMarket(folder, ANCHOR_S * NS)
    frames = list(PublicFeed(market).frames(ANCHOR_S * NS, (ANCHOR_S + 20) * NS, {"trade": ["AAAUSDT"]}))

    assert {time_ns % NS for time_ns, *_ in frames} == {NS // 5 + NS // 2}
    assert len(frames) == 20


def add(folder: Path, name: str, recv_ns: np.ndarray, **columns: np.ndarray) -> None:
    parquet.write_table(pyarrow.table({"recv_ns": recv_ns, "exch_ns": recv_ns} | columns), folder / f"{name}.parquet")


def test_ticker_comes_from_bbo_and_the_venue_matches_on_the_book(folder: Path) -> None:
    """The quotes that are pushed are the bbo's, the depth is the book's; before its first row bbo is unknown."""
    ones = np.ones(BBO_S := 100)
    recv_ns = (BEGIN_S + LENGTH_S - BBO_S + np.arange(BBO_S)) * NS
    quotes = {"bid_price_1": 50.25 * ones, "bid_size_1": 3 * ones, "ask_price_1": 50.5 * ones, "ask_size_1": 4 * ones}
    add(folder, "AAA.bbo", recv_ns, **quotes)
    market = RecordedMarket(folder, ANCHOR_S * NS)

    fields = PublicFeed(market).ticker_fields(ANCHOR_S * NS, "AAAUSDT") or {}
    early = PublicFeed(market).ticker_fields(market.first_second * NS, "AAAUSDT") or {}
    asks, bids = PublicFeed(market).book_rows(ANCHOR_S * NS, "AAAUSDT", 1)

    assert [fields[name] for name in ("bidPr", "bidSz", "askPr", "askSz")] == ["50.25", "3", "50.5", "4"]
    assert float(bids[0][0]) > 100
    assert float(asks[0][0]) > 100
    assert [early[name] for name in ("bidPr", "bidSz", "askPr", "askSz")] == [""] * 4


def test_recorded_mark_is_shown_and_the_mid_before_its_first_row(folder: Path) -> None:
    """Mark, index and funding come from their file from their first receipt on; before, the mark is the mid."""
    recv_ns = (BEGIN_S + np.arange(100, LENGTH_S)) * NS
    ones = np.ones(len(recv_ns))
    add(folder, "AAA.mark", recv_ns, mark_price=77.77 * ones, index_price=77.7 * ones, funding_rate=-1e-4 * ones)
    market = RecordedMarket(folder, ANCHOR_S * NS)

    fields = PublicFeed(market).ticker_fields(ANCHOR_S * NS, "AAAUSDT") or {}
    early = PublicFeed(market).ticker_fields(market.first_second * NS, "AAAUSDT") or {}

    assert [fields[name] for name in ("markPrice", "indexPrice", "fundingRate")] == ["77.77", "77.7", "-0.0001"]
    assert [early[name] for name in ("indexPrice", "fundingRate")] == ["", ""]
    assert float(early["bidPr"]) <= float(early["markPrice"]) <= float(early["askPr"])


def test_one_sided_book_has_no_mark(folder: Path) -> None:
    """Half a price is not the middle of a book."""
    path = folder / "AAA.book.parquet"
    table = parquet.read_table(path)
    for k in range(1, 21):
        column = table.column_names.index(f"bid_size_{k}")
        table = table.set_column(column, f"bid_size_{k}", pyarrow.array(np.zeros(table.num_rows)))
    parquet.write_table(table, path)
    market = RecordedMarket(folder, ANCHOR_S * NS)

    block = market.block(ANCHOR_S)

    assert np.isnan(block.mark[0, 0])
    assert np.isfinite(block.mark[0, 1])
    assert not block.bid_steps[0, 0].any()
    assert block.ask_steps[0, 0].all()


def test_decimals_of_any_level_count(folder: Path) -> None:
    """A finer price in the seventh level is not rounded away."""
    path = folder / "AAA.book.parquet"
    table = parquet.read_table(path)
    column = table.column_names.index("ask_price_7")
    finer = np.asarray(table.column(column)) + 0.001
    parquet.write_table(table.set_column(column, "ask_price_7", pyarrow.array(finer)), path)

    assert RecordedMarket(folder, ANCHOR_S * NS).price_places == (3, 5)


@pytest.mark.parametrize("what", ["empty", "short", "torn"])
def test_what_is_no_recording_is_refused(tmp_path: Path, what: str) -> None:
    """An empty folder, a recording of seconds, and a broken file each end in a sentence."""
    if what == "short":
        write(tmp_path, "AAA", (BEGIN_S + np.arange(20)) * NS)
    if what == "torn":
        (tmp_path / "AAA.book.parquet").write_bytes(b"PAR1 this is not Parquet")

    with pytest.raises(SettingsError, match="a recording must"):
        RecordedMarket(tmp_path, ANCHOR_S * NS)


@pytest.mark.parametrize(
    ("file", "change", "why"),
    [
        (
            "book",
            lambda t: t.drop_columns(["bid_size_3"]),
            r"AAA\.book\.parquet must have .*, found no bid_size_3: add",
        ),
        ("book", lambda t: t.select(["recv_ns"]), "found no bid_price_1, bid_price_2, bid_price_3 and 57 more"),
        ("book", lambda t: t[:0], "must have rows, found none"),
        ("trades", lambda t: t.drop_columns(["side"]), "found no side"),
        ("trades", lambda t: t.set_column(2, "price", t["price"].cast("string")), "numbers in price, found string"),
    ],
)
def test_file_of_another_layout_is_named(folder: Path, file: str, change: Any, why: str) -> None:
    """A missing column, a column of text and a book without rows name the file, what was found and what to do."""
    path = folder / f"AAA.{file}.parquet"
    parquet.write_table(change(parquet.read_table(path)), path)

    with pytest.raises(SettingsError, match=why):
        RecordedMarket(folder, ANCHOR_S * NS)


def test_symbol_that_nobody_traded_is_replayed(folder: Path) -> None:
    """A file of trades without rows is no trades, like no file."""
    path = folder / "AAA.trades.parquet"
    parquet.write_table(parquet.read_table(path)[:0], path)

    market = RecordedMarket(folder, ANCHOR_S * NS)

    assert set(market.block(ANCHOR_S).trades.symbol) == {1}


def test_real_recording_replays_with_its_own_decimals(outside: Path) -> None:
    """The widest public recording: four symbols, WLFI with five decimals, and every frame is valid JSON."""
    market = RecordedMarket(outside / "market/recordings/hyperliquid_20250904", ANCHOR_S * NS)

    assert market.symbols == ("BTCUSDT", "ETHUSDT", "SOLUSDT", "WLFIUSDT")
    assert market.price_places == (0, 1, 2, 5)
    assert [row["pricePlace"] for row in market.contracts()] == ["0", "1", "2", "5"]
    for _, channel, _, text in PublicFeed(market).frames((ANCHOR_S - 20) * NS, (ANCHOR_S + 20) * NS):
        row = json.loads(text)["data"][0]
        assert channel != "books15" or float(row["bids"][0][0]) < float(row["asks"][0][0])


def test_real_recording_with_marks_shows_them(outside: Path) -> None:
    """Of the public recordings one has mark, index and funding: they are what is pushed, and differ from the mid."""
    market = RecordedMarket(outside / "market/recordings/binance_usdm_20230404", ANCHOR_S * NS)
    fields = PublicFeed(market).ticker_fields(ANCHOR_S * NS, "BTCUSDT")
    assert fields is not None

    mid = (float(fields["bidPr"]) + float(fields["askPr"])) / 2

    assert float(fields["indexPrice"]) > 0
    assert fields["fundingRate"] != ""
    assert abs(float(fields["markPrice"]) - mid) < 0.001 * mid
    assert float(fields["markPrice"]) != mid
    assert fields["baseVolume"] == fields["holdingAmount"] == ""
