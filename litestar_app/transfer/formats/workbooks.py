"""Workbooks: the first sheet of an xlsx, once it is known to unpack to something small."""

from collections import defaultdict
from collections.abc import Iterator
from typing import Any, BinaryIO

from litestar_app.exceptions import InvalidFileError
from litestar_app.transfer.formats.archives import DAMAGED, check_archive
from litestar_app.transfer.formats.cells import format_number
from litestar_app.transfer.formats.tables import Row, Table


class NoValue:
    """A cell with an error such as #N/A, or with a formula that was never calculated."""

    def __str__(self) -> str:
        return "#N/A"


class WorkbookTable(Table):
    """The first visible sheet of a workbook."""

    kind = "xlsx"

    def __init__(self, file: BinaryIO) -> None:
        """Unpack the sheet and find its header.

        Raises:
            FileTooLargeError: it unpacks to too much.
            UnsupportedFileError: it is encrypted, or a workbook of another kind.
            InvalidFileError: it is damaged, or there is no header.

        """
        super().__init__(file)
        without_value = check_archive(file)
        index, self._sheet = _load_sheet(file)
        self._without_value: dict[int, list[int]] = defaultdict(list)
        if index < len(without_value):
            first = (self._sheet.start or (0, 0))[1]
            for row, column in without_value[index]:
                self._without_value[row + 1].append(column - first)
        for row, cells in enumerate(self._sheet.iter_rows(), 1):
            if any(cell != "" for cell in cells):
                self._header_row = self.row = row
                self._set_header([str(cell) for cell in cells])
                return
        raise InvalidFileError("The first sheet is empty; expected a header with name, department, cgpa")

    def _read(self) -> Iterator[Row]:
        self.blank = self._header_row - 1
        for row, cells in enumerate(self._sheet.iter_rows(), 1):
            if row > self._header_row:
                self.row = row
                for position in self._without_value.get(row, ()):
                    if 0 <= position < len(cells):
                        cells[position] = NoValue()
                if any(cell != "" and not (isinstance(cell, str) and cell.isspace()) for cell in cells):
                    yield row, cells
                else:
                    self.blank += 1

    def show(self, cell: object) -> str:
        """Return the cell about as the sheet shows it."""
        return cell if isinstance(cell, str) else format_number(cell)


def _load_sheet(file: BinaryIO) -> tuple[int, Any]:
    from python_calamine import (  # noqa: PLC0415  imported when the first workbook is read, not at every start
        CalamineWorkbook,
        SheetTypeEnum,
        SheetVisibleEnum,
    )

    file.seek(0)
    try:
        with CalamineWorkbook.from_filelike(file) as workbook:
            for index, sheet in enumerate(workbook.sheets_metadata):
                if sheet.typ is SheetTypeEnum.WorkSheet and sheet.visible is SheetVisibleEnum.Visible:
                    return index, workbook.get_sheet_by_index(index)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # noqa: BLE001  a panic of Rust is no Exception
        raise InvalidFileError(f"{DAMAGED} ({error!s:.100})") from None
    raise InvalidFileError("The workbook has no visible sheet")
