"""Rows of an .xlsx file as text, a piece at a time: a zip of XML, of which the first sheet's cells are read.

Bitget packs some of its history so. A library for spreadsheets would load a day of it as objects; what is needed of
the format (ECMA-376, SpreadsheetML) is this page: cells of `sheet1.xml` by their column letters, whose text stands in
the cell, inline, or in the table of shared strings.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from decimal import Decimal, InvalidOperation
from typing import IO
from xml.etree import ElementTree

_NS = "{http://schemas.openxmlformats.org/spreadsheetml/2006/main}"
SHARED_MAX = 1_000_000
"""Shared strings: a header and the words of a column; a file with more is not one of these."""


def rows(file: IO[bytes]) -> Iterator[list[str]]:
    """Yield the rows of the first sheet; a cell that is not there is "".

    Raises:
        zipfile.BadZipFile: it is no workbook, or not a whole one.
    """
    try:
        with zipfile.ZipFile(file) as book:
            names = set(book.namelist())
            shared = list(_shared(book)) if "xl/sharedStrings.xml" in names else []
            first = min((name for name in names if name.startswith("xl/worksheets/sheet")), default=None)
            if first is None:
                raise zipfile.BadZipFile("a workbook without a sheet")
            with book.open(first) as part:
                yield from _cells(part, shared)
    except (ElementTree.ParseError, IndexError, ValueError) as error:
        raise zipfile.BadZipFile(f"a sheet that cannot be read: {error}") from None


def texts(file: IO[bytes], size: int) -> Iterator[bytes]:
    """Yield the rows as pieces of CSV of about `size` bytes, each below the header."""
    found = rows(file)
    head = ",".join(cell.strip() for cell in next(found, [])) + "\n"
    lines: list[str] = []
    length = 0
    for row in found:
        if not any(row):
            continue
        lines.append(",".join(row))
        length += len(lines[-1])
        if length >= size:
            yield (head + "\n".join(lines) + "\n").encode()
            lines, length = [], 0
    if lines:
        yield (head + "\n".join(lines) + "\n").encode()


def _shared(book: zipfile.ZipFile) -> Iterator[str]:
    with book.open("xl/sharedStrings.xml") as part:
        for n, (_, element) in enumerate(ElementTree.iterparse(part)):  # noqa: S314 - as below
            if element.tag == f"{_NS}si":
                yield "".join(text.text or "" for text in element.iter(f"{_NS}t"))
                element.clear()
            if n > 10 * SHARED_MAX:
                raise zipfile.BadZipFile("more shared strings than a table of numbers has")


def _cells(part: IO[bytes], shared: list[str]) -> Iterator[list[str]]:
    root = None
    # expat, which reads it, refuses entities that grow (2.4.1 and later); external ones it does not load.
    for event, element in ElementTree.iterparse(part, events=("start", "end")):  # noqa: S314
        if root is None:
            root = element
        if event == "start" or element.tag != f"{_NS}row":
            continue
        cells: list[str] = []
        for cell in element.iter(f"{_NS}c"):
            at = _column(cell.get("r", "")) if cell.get("r") else len(cells)
            cells += [""] * (at - len(cells))
            cells.append(_text(cell, shared))
        yield cells
        element.clear()
        root.clear()  # what was read hangs below it, too


def _text(cell: ElementTree.Element, shared: list[str]) -> str:
    if cell.get("t") == "inlineStr":
        return "".join(text.text or "" for text in cell.iter(f"{_NS}t"))
    value = cell.find(f"{_NS}v")
    text = "" if value is None else value.text or ""
    if cell.get("t") == "s":
        return shared[int(text)]
    return _plain(text) if cell.get("t", "n") == "n" else text


def _plain(number: str) -> str:
    """Return a number without exponent, and a whole one without a point: doubles may be written 1.7784E12."""
    if not ("E" in number or "e" in number or number.endswith(".0")):
        return number
    try:
        value = Decimal(number)
    except InvalidOperation:
        raise ValueError(f"a number {number!r}") from None
    if not value.is_finite() or abs(value.adjusted()) > 30:
        raise ValueError(f"a number {number!r}")
    return f"{value.to_integral_value() if value == value.to_integral_value() else value:f}"


def _column(reference: str) -> int:
    """Return the number of the column that a reference like AB12 names, from 0."""
    number = 0
    for letter in reference:
        if not letter.isalpha():
            break
        number = number * 26 + ord(letter.upper()) - ord("A") + 1
    if not 1 <= number <= 16_384:
        raise ValueError(f"a cell named {reference}")
    return number - 1
