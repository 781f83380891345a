"""PATCH /student/{id}: a merge patch (RFC 7396)."""

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from tests.conftest import Rows

MERGE_PATCH = {"Content-Type": "application/merge-patch+json"}


@pytest.mark.parametrize("change", [{"name": "Boris"}, {"department": "Law"}, {"cgpa": 7.5}, {}], ids=str)
def test_patch_keeps_omitted_fields(
    client: httpx.Client, ananya: dict[str, Any], query: Callable[..., Rows], change: dict[str, Any]
) -> None:
    response = client.patch("/student/1", content=json.dumps(change), headers=MERGE_PATCH)
    expected = {**ananya, **change}
    assert (response.status_code, response.json()) == (200, expected)
    assert client.get("/student/1").json() == expected
    assert query("SELECT * FROM students") == [tuple(expected.values())]


def test_patch_trims_and_validates(client: httpx.Client, ananya: dict[str, Any]) -> None:
    trimmed = {**ananya, "name": "Boris", "department": "Law"}
    assert client.patch("/student/1", json={"name": "  Boris\t", "department": " Law"}).json() == trimmed
    response = client.patch("/student/1", json={"name": None, "cgpa": 11, "id": 1})
    assert response.status_code == 422
    assert [error["pointer"] for error in response.json()["errors"]] == ["/name", "/cgpa", "/id"]
    assert client.get("/student/1").json() == trimmed


def test_concurrent_patches_of_different_fields(client: httpx.Client, ananya: dict[str, Any]) -> None:
    """None is lost: a read that is followed by a write holds what it read."""
    with ThreadPoolExecutor(8) as pool:
        changes = [{"name": f"Name {n}"} if n % 2 else {"department": f"Department {n}"} for n in range(40)]
        responses = list(pool.map(lambda change: client.patch("/student/1", json=change), changes))
    assert {response.status_code for response in responses} == {200}
    student = client.get("/student/1").json()
    assert student["name"].startswith("Name ")
    assert student["department"].startswith("Department ")
    assert student["cgpa"] == ananya["cgpa"]
