"""What can go wrong, as one tree. It imports nothing of this package.

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
├── BackupError                    a copy of the database cannot be made, or not restored
├── RejectedError                  a unit of work declines the request before it has changed a row
│   ├── StudentNotFoundError
│   ├── PreconditionFailedError
│   ├── KeyReusedError
│   ├── KeyInUseError
│   ├── ImportRejectedError        a row of a file is rejected, and so the file is
│   ├── ApiKeyError                there is no such API key, or there is one already
│   ├── ImportNotFoundError
│   └── StudentsChangedError       an import cannot be undone
└── DatabaseError
    ├── DatabaseUnavailableError   locked, full, unreachable, restarting or stopping
    │   ├── QueueTimeoutError      no thread was free in time
    │   │   └── ShareInUseError    one caller has as many exports or imports under way as one may have
    │   └── DatabaseFileError      the SQLite file, or its -wal, is not the one that was opened
    ├── CommitUnknownError         COMMIT has failed in a way that leaves its outcome open
    ├── ConstraintError            a constraint of the database is violated
    ├── UnsupportedValueError      a value does not fit its column
    └── RetryTransactionError      another transaction was faster: run the unit of work again
"""

from typing import Any


class StudentRecordsError(Exception):
    """The root of everything that this service raises on purpose."""


class SettingsError(StudentRecordsError):
    """The service cannot start; the message is one line that names the variable and never holds a password."""


class ResourceError(StudentRecordsError):
    """The system refuses open files, memory, threads or temporary files; the message says which, and what to do."""

    def __init__(self, reason: str, *, is_unchanged: bool = True) -> None:
        """Take the reason, and whether it is certain that nothing was stored, so that a retry does no harm."""
        outcome = "nothing was stored, retry later" if is_unchanged else "check what is stored before you retry"
        super().__init__(f"{reason}; {outcome}")
        self.is_unchanged = is_unchanged


class QuotaExceededError(StudentRecordsError):
    """A caller has made as many requests as the rate limit grants."""

    def __init__(self, fields: dict[str, str]) -> None:
        """Take the header fields that say what is granted and when to retry."""
        super().__init__(fields)
        self.fields = fields


class InvalidQueryError(StudentRecordsError):
    """A query parameter is impossible, or does not go with another one; the message says which and why."""


class UnreadableBodyError(StudentRecordsError):
    """The body is not JSON in UTF-8; the message says why."""


class InvalidBodyError(StudentRecordsError):
    """The body breaks rules of its schema."""

    def __init__(self, errors: list[tuple[str, str]]) -> None:
        """Take every problem of the body, as pairs of a JSON Pointer (RFC 6901) and what is expected there."""
        super().__init__(errors)
        self.errors = errors


class FileError(StudentRecordsError):
    """A file of students cannot be read or written; the message tells whoever made or asked for it what to change."""


class InvalidFileError(FileError):
    """The file is damaged, lacks our columns, or is not in its charset."""


class UnsupportedFileError(FileError):
    """The file has a format that is not read; the message names what to save it as."""


class FileTooLargeError(FileError):
    """The file has, or unpacks to, more than is read, or the students do not fit into a sheet."""


class BackupError(StudentRecordsError):
    """A copy of the database cannot be made, or not restored; the message says which file and why."""


class RejectedError(StudentRecordsError):
    """A unit of work raises it before it has changed a row; the other units of its group are committed."""


class StudentNotFoundError(RejectedError):
    """No student has this id."""


class PreconditionFailedError(RejectedError):
    """If-Match or If-None-Match does not allow the write; the message says why."""


class KeyReusedError(RejectedError):
    """The Idempotency-Key was used with another request."""


class KeyInUseError(RejectedError):
    """The first request with this Idempotency-Key is still running."""


class ImportRejectedError(RejectedError):
    """A row of a file is rejected, and so the file is."""

    def __init__(self, report: Any) -> None:
        """Take the report, which names the rows."""
        super().__init__(report)
        self.report = report


class ApiKeyError(RejectedError):
    """There is no such API key, or there is one already; the message says which."""


class ImportNotFoundError(RejectedError):
    """No import has this id."""


class StudentsChangedError(RejectedError):
    """An import cannot be undone, since some of its students have changed."""

    def __init__(self, students: list[int], total: int) -> None:
        """Take the ids of the first of them, and how many there are."""
        super().__init__(f"{total} of its students changed after this import; nothing was undone")
        self.students = students


class DatabaseError(StudentRecordsError):
    """The database did not do what it was asked for."""


class DatabaseUnavailableError(DatabaseError):
    """The database cannot be used at the moment; nothing was stored, and the request can be retried."""


class QueueTimeoutError(DatabaseUnavailableError):
    """No thread was free in time; the work was not begun."""


class ShareInUseError(QueueTimeoutError):
    """A caller has as many exports or imports under way as one may have; the message says how many."""


class DatabaseFileError(DatabaseUnavailableError):
    """The SQLite file, or its write-ahead log, is not the one that this process opened."""


class CommitUnknownError(DatabaseError):
    """COMMIT has failed without telling its outcome: the change may or may not be stored. Never retried."""


class ConstraintError(DatabaseError):
    """A constraint of the database is violated."""


class UnsupportedValueError(DatabaseError):
    """A value does not fit its column, as in a table that another program created."""


class RetryTransactionError(DatabaseError):
    """Another transaction was faster; run again, the unit of work will see what that one did."""
