"""PATCH /student/{id}: a merge patch (RFC 7396)."""

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from tests.conftest import Rows
from tests.service import ANANYA

MERGE_PATCH = {"Content-Type": "application/merge-patch+json"}


@pytest.mark.parametrize("content_type", ["application/merge-patch+json", "application/json"])
@pytest.mark.parametrize(
    "change", [{"name": "Boris"}, {"department": "Law"}, {"cgpa": 7.5}, {"name": "Zoë", "cgpa": 0}, {}], ids=str
)
def test_patch_keeps_omitted_fields(
    client: httpx.Client,
    ananya: dict[str, Any],
    query: Callable[..., Rows],
    change: dict[str, Any],
    content_type: str,
) -> None:
    response = client.patch("/student/1", content=json.dumps(change), headers={"Content-Type": content_type})
    expected = {**ananya, **change}
    assert (response.status_code, response.json()) == (200, expected)
    assert client.get("/student/1").json() == expected
    assert query("SELECT * FROM students") == [tuple(expected.values())]


def test_patch_trims_and_validates_as_every_write_does(client: httpx.Client, ananya: dict[str, Any]) -> None:
    assert client.patch("/student/1", json={"name": "  Boris\t"}).json() == {**ananya, "name": "Boris"}
    response = client.patch("/student/1", json={"name": None, "cgpa": 11, "id": 1, "nmae": "x"})
    assert response.status_code == 422
    assert {error["pointer"] for error in response.json()["errors"]} == {"/name", "/cgpa", "/id", "/nmae"}
    assert client.get("/student/1").json() == {**ananya, "name": "Boris"}


def test_patch_of_nobody_is_not_found(client: httpx.Client) -> None:
    for student_id in ("1", "abc", "9" * 30):
        assert client.patch(f"/student/{student_id}", json={"name": "Boris"}).status_code == 404
    assert client.get("/students").json() == []


def test_patch_takes_no_other_content_type(client: httpx.Client, ananya: dict[str, Any]) -> None:
    response = client.patch("/student/1", content='{"name": "Boris"}', headers={"Content-Type": "text/plain"})
    assert response.status_code == 415
    expected = "Expected a body with Content-Type: application/merge-patch+json or application/json, in UTF-8"
    assert response.json()["detail"] == expected
    assert client.put("/student/1", content=json.dumps(ANANYA), headers=MERGE_PATCH).status_code == 415
    assert client.get("/student/1").json() == ananya


def test_patches_of_different_fields_at_once_lose_nothing(client: httpx.Client, ananya: dict[str, Any]) -> None:
    """A read that is followed by a write holds what it read."""
    with ThreadPoolExecutor(8) as pool:
        changes = [{"name": f"Name {n}"} if n % 2 else {"department": f"Department {n}"} for n in range(40)]
        responses = list(pool.map(lambda change: client.patch("/student/1", json=change), changes))
    assert {response.status_code for response in responses} == {200}
    student = client.get("/student/1").json()
    assert student["name"].startswith("Name ")
    assert student["department"].startswith("Department ")
    assert student["cgpa"] == ananya["cgpa"]
