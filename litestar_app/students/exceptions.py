"""What can go wrong with a student, beside the errors of every record."""

from litestar_app.exceptions import RejectedError


class StudentNotFoundError(RejectedError):
    """No student has this id."""

    status = 404
    summary = "Student not found"
