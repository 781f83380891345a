"""What pytest has to know before it imports the fault tests."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.register_assert_rewrite("tests.faults.ledger")  # so that its asserts show their values too


@pytest.fixture
def small_disk(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """A disk of one megabyte, or as a parameter says; its tests are skipped where it cannot be had, but not in CI."""
    place = tmp_path / "small"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={getattr(request, 'param', '1m')}", "tmpfs", str(place)]
    mounted = subprocess.run(mount, capture_output=True, text=True, check=False)
    if mounted.returncode:
        reason = f"a small disk needs the right to mount: {mounted.stderr.strip()}"
        assert "CI" not in os.environ, reason
        pytest.skip(reason)
    yield place
    subprocess.run(["umount", str(place)], check=True)
