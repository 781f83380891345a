"""Workbooks: the first visible sheet of an xlsx as a table, read while it is unpacked."""

from collections.abc import Iterator
from typing import BinaryIO

from litestar_app.exceptions import InvalidFileError
from litestar_app.transfer.formats.archives import Archive
from litestar_app.transfer.formats.cells import format_number
from litestar_app.transfer.formats.sheets import Workbook
from litestar_app.transfer.formats.tables import Row, Table


class WorkbookTable(Table):
    """The first visible sheet of a workbook."""

    kind = "xlsx"

    def __init__(self, file: BinaryIO) -> None:
        """Read what the cells refer to, and the header.

        Raises:
            FileTooLargeError: it unpacks to too much.
            UnsupportedFileError: it is encrypted, or a workbook of another kind.
            InvalidFileError: it is damaged, or there is no header.

        """
        super().__init__(file)
        self._workbook = Workbook(Archive(file))
        for row, cells in self._workbook.read_rows():
            self._header_row = self.row = row
            self._set_header([str(cells.get(column, "")) for column in range(max(cells) + 1)])
            return
        raise InvalidFileError("The first sheet is empty; expected a header with name, department, cgpa")

    def _read(self) -> Iterator[Row]:
        width, last = self.width, 0
        for row, values in self._workbook.read_rows():
            if row > self._header_row:
                self.blank += row - last - 1
                self.row = row
                cells = [""] * width
                for column, value in values.items():
                    if column < width:
                        cells[column] = value
                    else:
                        cells.append(value)
                if any(cell != "" and not (isinstance(cell, str) and cell.isspace()) for cell in cells):
                    if self._unnamed:
                        self._name_filled(cells)
                    yield row, cells
                else:
                    self.blank += 1
            else:
                self.blank = row - 1
            last = row

    def show(self, cell: object) -> str:
        """Return the cell about as the sheet shows it."""
        return cell if isinstance(cell, str) else format_number(cell)
