"""Damaged requests, a few of the many that `python -m tests.fuzz` sends."""

from pathlib import Path

from tests.fuzz import run


def test_damaged_requests_do_no_harm(database_url: str, tmp_path: Path) -> None:
    """No 500, nothing for nobody, and nothing changed by a reader."""
    assert run(database_url, 3000, seed=2, directory=tmp_path) == []
