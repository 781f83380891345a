"""What can go wrong, as one tree. It imports nothing of this package; a capability adds its own errors to it.

StudentRecordsError
├── SettingsError                  the service cannot start with these settings or on this database
├── ResourceError                  the system refuses open files, memory, threads or temporary files
├── QuotaExceededError             a caller has made as many requests as the rate limit grants
├── InvalidQueryError              a query parameter is impossible, or does not go with another one
├── UnreadableBodyError            the body is not JSON in UTF-8
├── InvalidBodyError               the body is JSON, but not what its schema asks for
├── FileError                      a file of students cannot be read, or not written
│   ├── InvalidFileError           damaged, without our columns, or not in its charset
│   ├── UnsupportedFileError       a format that has to be saved as another
│   └── FileTooLargeError          more than is unpacked, or than fits into a sheet
├── RejectedError                  a unit of work declines the request before it has changed a row
│   └── PreconditionFailedError    If-Match or If-None-Match does not allow the write
└── DatabaseError
    ├── DatabaseUnavailableError   locked, full, unreachable, restarting or stopping
    │   ├── QueueTimeoutError      no thread was free in time
    │   └── DatabaseFileError      the SQLite file, or its -wal, is not the one that was opened
    ├── CommitUnknownError         COMMIT has failed in a way that leaves its outcome open
    ├── ConstraintError            a constraint of the database is violated
    ├── UnsupportedValueError      a value does not fit its column
    ├── RepositoryError            what a repository of advanced-alchemy has not found, or has found too often
    └── RetryTransactionError      another transaction was faster: run the unit of work again
"""

from typing import Any, ClassVar

RETRY_AFTER = 1
"""Seconds after which a client may retry while the database is unavailable."""
MAX_ERRORS = 100
"""Problems of a body that a response lists."""
QUOTA_EXCEEDED = "https://iana.org/assignments/http-problem-types#quota-exceeded"
"""The type of draft-ietf-httpapi-ratelimit-headers, which gives it a title and a member."""


class StudentRecordsError(Exception):
    """The root of everything that this service raises on purpose, and of what a response says of it."""

    status: int | None = None
    """The status of the response. None is for what reaches no client: there, it is a defect."""
    summary: ClassVar[str] = ""
    """What a client is told; if empty, the message itself."""

    @property
    def detail(self) -> str:
        """What a client is told."""
        return self.summary or str(self)

    @property
    def headers(self) -> dict[str, str] | None:
        """Header fields of the response."""
        return None

    @property
    def members(self) -> dict[str, Any]:
        """Members of the problem document beside `status` and `detail`."""
        return {}


class SettingsError(StudentRecordsError):
    """The service cannot start; the message is one line that names the variable and never holds a password."""


class ResourceError(StudentRecordsError):
    """The system refuses open files, memory, threads or temporary files; the message says which, and what to do."""

    status = 503

    def __init__(self, reason: str, *, is_unchanged: bool = True) -> None:
        """Take the reason, and whether it is certain that nothing was stored, so that a retry does no harm."""
        outcome = "nothing was stored, retry later" if is_unchanged else "check what is stored before you retry"
        super().__init__(f"{reason}; {outcome}")
        self.is_unchanged = is_unchanged

    @property
    def headers(self) -> dict[str, str] | None:
        """Invite a retry that does no harm."""
        return {"Retry-After": str(RETRY_AFTER)} if self.is_unchanged else None


class QuotaExceededError(StudentRecordsError):
    """A caller has made as many requests as the rate limit grants."""

    status = 429
    summary = "More requests than the rate limit grants; retry after as many seconds as Retry-After says"

    def __init__(self, fields: dict[str, str] | None = None) -> None:
        """Take the header fields that say what is granted and when to retry."""
        super().__init__(fields)
        self._fields = fields

    @property
    def headers(self) -> dict[str, str] | None:
        """Say what is granted."""
        return self._fields

    @property
    def members(self) -> dict[str, Any]:
        """Name the type of problem that has been registered for this."""
        title = "Request cannot be satisfied as assigned quota has been exceeded"
        return {"type": QUOTA_EXCEEDED, "title": title, "violated-policies": ["default"]}


class InvalidQueryError(StudentRecordsError):
    """A query parameter is impossible, or does not go with another one; the message says which and why."""

    status = 400


class UnreadableBodyError(StudentRecordsError):
    """The body is not JSON in UTF-8; the message says why."""

    status = 400


class InvalidBodyError(StudentRecordsError):
    """The body breaks rules of its schema."""

    status = 422
    summary = "The body is not valid; errors lists every problem"

    def __init__(self, errors: list[tuple[str, str]]) -> None:
        """Take every problem of the body, as pairs of a JSON Pointer (RFC 6901) and what is expected there."""
        super().__init__(errors)
        self.errors = errors

    @property
    def members(self) -> dict[str, Any]:
        """List the first problems, and say how many there are if those are not all."""
        errors = [{"pointer": pointer, "detail": detail} for pointer, detail in self.errors[:MAX_ERRORS]]
        total = len(self.errors)
        return {"errors": errors, "total_errors": total} if total > MAX_ERRORS else {"errors": errors}


class FileError(StudentRecordsError):
    """A file of students cannot be read or written; the message tells whoever made or asked for it what to change."""


class InvalidFileError(FileError):
    """The file is damaged, lacks our columns, or is not in its charset."""

    status = 422


class UnsupportedFileError(FileError):
    """The file has a format that is not read; the message names what to save it as."""

    status = 415


class FileTooLargeError(FileError):
    """The file has, or unpacks to, more than is read, or the students do not fit into a sheet."""

    status = 413


class RejectedError(StudentRecordsError):
    """A unit of work raises it before it has changed a row; the other units of its group are committed."""


class PreconditionFailedError(RejectedError):
    """If-Match or If-None-Match does not allow the write; the message says why."""

    status = 412


class DatabaseError(StudentRecordsError):
    """The database did not do what it was asked for."""


class DatabaseUnavailableError(DatabaseError):
    """The database cannot be used at the moment; nothing was stored, and the request can be retried."""

    status = 503
    summary = "The database is locked, full or unreachable; nothing was stored, retry later"

    @property
    def headers(self) -> dict[str, str] | None:
        """Invite a retry."""
        return {"Retry-After": str(RETRY_AFTER)}


class QueueTimeoutError(DatabaseUnavailableError):
    """No thread was free in time; the work was not begun."""

    summary = "Too much is under way at once; nothing was stored, retry later"


class DatabaseFileError(DatabaseUnavailableError):
    """The SQLite file, or its write-ahead log, is not the one that this process opened."""


class CommitUnknownError(DatabaseError):
    """COMMIT has failed without telling its outcome: the change may or may not be stored. Never retried.

    The response has no Retry-After, which would invite a second change.
    """

    status = 503
    summary = (
        "COMMIT failed without telling its outcome: the change may or may not be stored; check before you repeat it"
    )


class ConstraintError(DatabaseError):
    """A constraint of the database is violated."""

    status = 409
    summary = "A constraint of the database is violated"


class UnsupportedValueError(DatabaseError):
    """A value does not fit its column, as in a table that another program created."""

    status = 422
    summary = "A value does not fit its column in the database"


class RepositoryError(DatabaseError):
    """A repository of advanced-alchemy has rejected a request, in words of ours: its own may have data in them."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status = status


class RetryTransactionError(DatabaseError):
    """Another transaction was faster; run again, the unit of work will see what that one did."""
