"""What can go wrong with an import or an export, beside the errors of files."""

from typing import Any

from litestar_app.exceptions import QueueTimeoutError, RejectedError


class ImportRejectedError(RejectedError):
    """A row of a file is rejected, and so the file is."""

    def __init__(self, report: Any) -> None:
        """Take the report, which names the rows."""
        super().__init__(report)
        self.report = report


class ShareInUseError(QueueTimeoutError):
    """A caller has as many exports or imports under way as one may have; the message says how many."""

    summary = ""
