"""What a worker loads."""

from litestar import Litestar

from litestar_app.access.rate_limit import SharedTable
from litestar_app.memory import SharedMemory
from litestar_app.metrics import METERS


def load_app(counts: SharedMemory | None, table: SharedTable | None) -> Litestar:
    """Load the application of a worker, which counts in memory that all of them share."""
    SharedTable.inherited = table
    if counts is not None:
        METERS.share(counts)
    from litestar_app.main import app  # noqa: PLC0415  it is made when it is imported

    return app
