"""What the fault tests share: totals for the summary, and a look at a database's health."""

from collections import Counter
from collections.abc import Callable

import pytest
from _pytest.terminal import TerminalReporter

from tests.conftest import Rows

pytest.register_assert_rewrite("tests.faults.ledger")  # so that its asserts show their values too


@pytest.fixture
def assert_database_is_sound(database_url: str, query: Callable[..., Rows]) -> Callable[[], None]:
    """Ask the database to check its own file."""

    def check() -> None:
        if database_url.startswith("sqlite"):
            assert query("PRAGMA integrity_check") == [("ok",)]
        else:
            assert query("CHECK TABLE students EXTENDED")[-1][2:] == ("status", "OK")
            assert query("CHECK TABLE idempotency_keys EXTENDED")[-1][2:] == ("status", "OK")

    return check


def pytest_terminal_summary(terminalreporter: TerminalReporter) -> None:
    """Add up what the tests have recorded with `record_property("total: …", {…})`."""
    totals: dict[str, Counter[str]] = {}
    for outcome in ("passed", "failed"):
        for report in terminalreporter.stats.get(outcome, []):
            for name, value in getattr(report, "user_properties", []) if report.when == "call" else []:
                if name.startswith("total: "):
                    totals.setdefault(name.removeprefix("total: "), Counter()).update(value)
    for name, total in sorted(totals.items()):
        terminalreporter.write_line(f"{name}: {', '.join(f'{number} {what}' for what, number in total.items())}")
