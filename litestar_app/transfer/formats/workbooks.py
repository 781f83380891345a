"""Workbooks: the first visible sheet with our header as a table, read while it is unpacked."""

from collections.abc import Iterator
from typing import Any, BinaryIO

from litestar_app.exceptions import InvalidFileError
from litestar_app.students.record import STUDENT
from litestar_app.transfer.formats.archives import Archive
from litestar_app.transfer.formats.cells import format_number
from litestar_app.transfer.formats.numbers import OTHERWISE, Formatted
from litestar_app.transfer.formats.sheets import Sheet, SheetRow, Workbook
from litestar_app.transfer.formats.tables import (
    HEADER_ROWS,
    MAX_COLUMNS,
    REQUIRED,
    SHOWN,
    NoValue,
    Row,
    Table,
    is_header,
)


class WorkbookTable(Table):
    """A sheet of a workbook."""

    kind = "xlsx"

    def __init__(self, file: BinaryIO) -> None:
        """Read what the cells refer to, and find the sheet and its header.

        Raises:
            FileTooLargeError: it unpacks to too much.
            UnsupportedFileError: it is encrypted, or another kind of file.
            InvalidFileError: it is damaged, or there is no header.

        """
        super().__init__(file)
        self._workbook = Workbook(Archive(file))
        self._blank_above = 0
        self._rows: Iterator[SheetRow] | None = None
        """What is left of the sheet below its header, until it has been read once."""
        self._part = ""
        self._find_header()
        self._texts = {self.columns[name] for name in STUDENT.texts if name in self.columns}

    def _find_header(self) -> None:
        first: SheetRow | None = None
        for sheet in self._workbook.sheets:
            if not sheet.is_visible:
                continue
            filled = 0
            rows = self._workbook.read_rows(sheet.part)
            for row, cells in rows:
                if _is_blank(cells):
                    continue
                if filled == HEADER_ROWS:
                    break
                first = first or (row, cells)
                if is_header(map(str, cells.values())):
                    self._part, self._rows = sheet.part, rows
                    self.above_header, self._blank_above = filled, row - 1 - filled
                    self._take_header(row, cells)
                    self.ignored_sheets = self._find_other_sheets()
                    return
                filled += 1
        if not any(sheet.is_visible for sheet in self._workbook.sheets):
            raise InvalidFileError("The workbook has no visible sheet")
        if first is None:
            raise InvalidFileError(f"The first sheet is empty; expected a header with {', '.join(REQUIRED)}")
        self._take_header(*first)  # which says what it lacks

    def _take_header(self, row: int, cells: dict[int, Any]) -> None:
        self._header_row = self.row = row
        self._set_header([str(cells.get(column, "")) for column in range(max(cells) + 1)])

    def _find_other_sheets(self) -> list[str]:
        others = [sheet for sheet in self._workbook.sheets if sheet.part != self._part]
        return [sheet.name[:SHOWN] for sheet in others if self._has_rows(sheet)][:MAX_COLUMNS]

    def _has_rows(self, sheet: Sheet) -> bool:
        try:
            return any(not _is_blank(cells) for _, cells in self._workbook.read_rows(sheet.part, ahead=0))
        except InvalidFileError:
            return True  # it is not read, and what is wrong with it does no harm

    def _read(self) -> Iterator[Row]:
        rows, self._rows = self._rows, None
        if rows is None:
            self._workbook.begin()
            rows = (numbered for numbered in self._workbook.read_rows(self._part) if numbered[0] > self._header_row)
        self.row = last = self._header_row
        self.blank = self._blank_above
        width = self.width
        for row, values in rows:
            self.blank += row - last - 1
            self.row = last = row
            if _is_blank(values):
                self.blank += 1
                continue
            cells: list[Any] = [""] * width
            for column, value in values.items():
                if value.__class__ is Formatted:
                    value = self._read_formatted(column, value)  # noqa: PLW2901
                if column < width:
                    cells[column] = value
                else:
                    cells.append(value)
            if self._unnamed:
                self._name_filled(cells)
            yield row, cells

    def _read_formatted(self, column: int, number: Formatted) -> Any:
        """Return a number, but in a column of texts what stands for it: the sheet shows another text."""
        if column in self._texts:
            return NoValue(number.shown, OTHERWISE.format(format_number(float(number))))
        return float(number)

    def show(self, cell: object) -> str:
        """Return the cell about as the sheet shows it."""
        return cell if isinstance(cell, str) else format_number(cell)


def _is_blank(cells: dict[int, Any]) -> bool:
    for cell in cells.values():  # noqa: SIM110  all() costs three times as much
        if cell.__class__ is not str or not cell.isspace():
            return False
    return True
