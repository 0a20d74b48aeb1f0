"""Bitget's downloads: parts of a day, spreadsheets, candles, and what is not a future's."""

from __future__ import annotations

import contextlib
import io
import zipfile
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.imports import sheet
from pipelines.imports.__main__ import main
from shared.lake import layout, read
from shared.types import TickEvent
from tests.pipelines.imports import writers

SOURCE = "import-bitget"
HOUR = 494_000
START_S = HOUR * 3600
TRADES = "trade_id,timestamp,price,side,volume(quote),size(base)"


def run(lake: Path, *arguments: object) -> int:
    return main(["bitget", *map(str, arguments), "--lake", str(lake)])


def trades(folder: Path, part: int, ids: range, market: str = "UMCBL", symbol: str = "BTCUSDT") -> Path:
    """Write one part of a day: a trade every half second, with the stamps in whole seconds."""
    name = f"{symbol}_{market}_20260510_{part:03d}"
    rows = [
        f"{1478349886673666000 + k},{(START_S + k // 2) * 1000},78546.{k % 10},{'buy' if k % 3 else 'sell'},7.8546,0.0001"
        for k in ids
    ]
    return writers.zipped(folder / f"20260510_{part:03d}.zip", f"{name}.csv", "\n".join([TRADES, *rows, ""]))


def rows_of(lake: Path, channel: str, hour: int = HOUR) -> pl.DataFrame:
    return read.raw_hour(lake, f"raw/{channel}", SOURCE, hour).frame


def test_parts_of_a_day_are_one_stretch(tmp_path: Path) -> None:
    """Trades of two parts lie in their seconds, in order of their ids, each once, under one link."""
    trades(tmp_path / "in", 1, range(100))
    trades(tmp_path / "in", 2, range(100, 180))

    assert run(tmp_path / "lake", tmp_path / "in") == 0
    assert run(tmp_path / "lake", tmp_path / "in") == 0

    rows = rows_of(tmp_path / "lake", "trade")
    data = rows.filter(pl.col("event") == int(TickEvent.DATA))
    assert data["trade_id"].to_list() == [1478349886673666000 + k for k in range(180)]
    assert (data["recv_ns"] // 10**9).to_list() == [START_S + k // 2 for k in range(180)]
    assert data["recv_ns"].to_list() == data["exch_ns"].to_list()
    assert data["side"].to_list() == [1 if k % 3 else -1 for k in range(180)]
    assert data["size"].unique().to_list() == [0.0001]
    assert rows.height == 182
    contract = read.universe_at(tmp_path / "lake", SOURCE, 2**62).contracts[0]
    assert (contract.symbol, str(contract.tick), str(contract.size_step)) == ("BTCUSDT", "0.1", "0.0001")


def test_depth_is_the_best_level(tmp_path: Path) -> None:
    """A sheet of depth is a book of one level; the symbol stands in the name of the sheet or is said."""
    columns = ["timestamp", "askPrice", "bidPrice", "askVolume", "bidVolume"]
    table: list[list[Any]] = [columns, *([(START_S + 9 * k) * 1000, 100.5 + k, 100.0 + k, 3, 2.5] for k in range(5))]
    told = writers.zipped(tmp_path / "depth/ETHUSDT/2/20260510.zip", "20260510.xlsx", writers.workbook(table))
    mute = writers.zipped(tmp_path / "x.zip", "20260510.xlsx", writers.workbook(table, is_shared=False))

    assert run(tmp_path / "lake", told) == 0
    assert run(tmp_path / "lake", mute, "--symbol", "龙虾USDT") == 0

    for symbol in ("ETHUSDT", "龙虾USDT"):
        rows = rows_of(tmp_path / "lake", "book").filter((pl.col("event") == 0) & (pl.col("symbol") == symbol))
        best = rows.select("ask_price_1", "bid_price_1", "ask_size_1", "bid_size_1").rows()
        assert best == [(100.5 + k, 100.0 + k, 3.0, 2.5) for k in range(5)]
        assert rows["ask_price_2"].is_nan().all()
        assert rows["ask_size_2"].unique().to_list() == [0.0]


def test_kline_becomes_candles(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Candles of a sheet lie in the table of candles; importing them again is nothing, other values are refused."""
    columns = ["timestamp", "Open", "High", "Low", "Close", "baseVolume", "usdtVolume"]
    table: list[list[Any]] = [
        columns,
        *([START_S + 60 * k, 100 + k, 101 + k, 99 + k, 100.5 + k, 7, 700.25] for k in range(70)),
    ]
    path = writers.zipped(tmp_path / "kline/BTCUSDT/UMCBL/20260510.zip", "20260510.xlsx", writers.workbook(table))
    assert run(tmp_path / "lake", path) == 0
    before = stored(tmp_path / "lake")

    assert run(tmp_path / "lake", path) == 0
    table[5][5] = 8
    other = writers.zipped(tmp_path / "BTCUSDT_UMCBL_1min_20260510.zip", "sheet.xlsx", writers.workbook(table))
    assert run(tmp_path / "lake", other) == 2

    assert "found 1 that differ" in capsys.readouterr().err
    assert stored(tmp_path / "lake").equals(before)
    assert before["minute"].to_list() == [HOUR * 60 + k for k in range(70)]
    assert before.row(3) == (HOUR * 60 + 3, "BTCUSDT", 103.0, 104.0, 102.0, 103.5, 7.0, 700.25)


def stored(lake: Path) -> pl.DataFrame:
    hours = read.hours(lake, "candles", SOURCE)
    return pl.concat(read.rows_of(layout.partition_path(lake, "candles", SOURCE, hour)) for hour in hours)


@pytest.mark.parametrize(
    ("member", "content", "said"),
    [
        ("BTCUSDT_SPBL_20260510_001.csv", f"{TRADES}\n1,1778400000000,1,buy,1,1\n", "must be of USDT-M futures"),
        ("20260510_001.csv", f"{TRADES}\n1,1778400000000,1,buy,1,1\n", "must tell its symbol"),
        ("BTCUSDT_1.csv", "id,time,price\n1,2,3\n", "must have the header of a kind that is known"),
        ("BTCUSDT_1.csv", f"{TRADES}\n1,1778400000,1,buy,1,1\n2,17784000,1,buy,1,1\n", "must be sorted"),
        ("BTCUSDT_1.csv", f"{TRADES}\n1,17784,1,buy,1,1\n", "must tell times in s or ms"),
        ("BTCUSDT_1.csv", f"{TRADES}\n1,1778400000000,1,hold,1,1\n", "must name every trade buy or sell"),
        ("BTCUSDT_1.xlsx", "no workbook", "must be whole"),
    ],
)
def test_bad_file_is_named(
    member: str, content: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Spot's files, unknown headers, times and words are refused in one sentence, and nothing is stored."""
    path = writers.zipped(tmp_path / "a.zip", member, content)

    assert run(tmp_path / "lake", path) == 2

    words = capsys.readouterr().err
    assert said in words
    assert member in words
    assert read.sources(tmp_path / "lake") == []


def test_torn_zip_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A zip without its end is refused before anything is read from it."""
    path = trades(tmp_path, 1, range(5000))
    path.write_bytes(path.read_bytes()[:-100])

    assert run(tmp_path / "lake", path) == 2
    assert "must be a whole zip file" in capsys.readouterr().err


# ------------------------------------------------------------------------------------------------------- sheets

cells = st.one_of(st.none(), st.integers(-(10**12), 10**12), st.text("abcé龙 x", min_size=1, max_size=5))


@given(st.lists(st.lists(cells, min_size=1, max_size=8), min_size=1, max_size=6), st.booleans())
def test_any_sheet_reads_as_it_was_written(table: list[list[Any]], is_shared: bool) -> None:
    """Cells that are there, missing, shared or inline come back in their columns."""
    expected = [["" if value is None else str(value) for value in row] for row in table]
    for row in expected:
        while row and row[-1] == "":
            row.pop()  # cells behind the last one are not in the file

    found = list(sheet.rows(io.BytesIO(writers.workbook(table, is_shared=is_shared))))

    assert found == expected


def test_numbers_are_plain() -> None:
    """Numbers as spreadsheets write them, with an exponent or a point and a nought, are those that a table wants."""
    content = writers.workbook([[1.7784e12, 0.5, 1e-05, "1E5"]])

    assert list(sheet.rows(io.BytesIO(content))) == [["1778400000000", "0.5", "0.00001", "1E5"]]


@given(st.binary(max_size=300))
def test_any_bytes_are_a_sheet_or_an_error(content: bytes) -> None:
    """Whatever stands in place of the sheet's XML is read or refused as a bad file."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("xl/worksheets/sheet1.xml", content)
    with contextlib.suppress(zipfile.BadZipFile):
        assert isinstance(list(sheet.rows(buffer)), list)
