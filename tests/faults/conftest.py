"""What pytest has to know before it imports the fault tests."""

import pytest

pytest.register_assert_rewrite("tests.faults.ledger")  # so that its asserts show their values too
