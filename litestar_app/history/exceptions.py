"""What can go wrong with the undo of an import."""

from typing import Any

from litestar_app.exceptions import RejectedError


class ImportNotFoundError(RejectedError):
    """No import has this id."""

    status = 404
    summary = "Import not found"


class StudentsChangedError(RejectedError):
    """An import cannot be undone, since some of its students have changed."""

    status = 409

    def __init__(self, students: list[int], total: int) -> None:
        """Take the ids of the first of them, and how many there are."""
        super().__init__(f"{total} of its students changed after this import; nothing was undone")
        self._students = students

    @property
    def members(self) -> dict[str, Any]:
        """Name them."""
        return {"students": self._students}
