"""ETag, If-None-Match and If-Match."""

import re
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from litestar_app.http.conditions import matches, parse_if_match
from tests.mariadb import MariaDB, open_session
from tests.service import ANANYA, serve_database

BORIS = {"name": "Boris", "department": "Physics", "cgpa": 7}


@pytest.fixture
def tag(client: httpx.Client, ananya: dict[str, Any]) -> str:
    return client.get(f"/student/{ananya['id']}").headers["ETag"]


def test_every_answer_with_a_student_has_its_strong_tag(client: httpx.Client) -> None:
    created = client.post("/student", json=ANANYA)
    tag = created.headers["ETag"]
    assert re.fullmatch(r'"[0-9a-f]+"', tag)
    assert client.get("/student/1").headers["ETag"] == tag
    assert client.head("/student/1").headers["ETag"] == tag
    assert client.put("/student/1", json=ANANYA).headers["ETag"] == tag
    assert client.patch("/student/1", json={}).headers["ETag"] == tag


def test_the_tag_changes_exactly_when_the_student_does(client: httpx.Client, tag: str) -> None:
    seen = {tag}
    for change in ({"name": "Boris"}, {"department": "Law"}, {"cgpa": 7.5}, {"cgpa": 7.500000000000001}):
        changed = client.patch("/student/1", json=change).headers["ETag"]
        assert changed not in seen
        assert client.get("/student/1").headers["ETag"] == changed
        seen.add(changed)
    assert client.put("/student/1", json=ANANYA).headers["ETag"] == tag


def test_students_who_differ_only_by_id_have_different_tags(client: httpx.Client) -> None:
    assert len({client.post("/student", json=ANANYA).headers["ETag"] for _ in range(3)}) == 3


def test_a_tag_outlives_a_restart(client: httpx.Client, tag: str, database_url: str) -> None:
    with serve_database(database_url) as restarted:
        assert restarted.get("/student/1").headers["ETag"] == tag == client.get("/student/1").headers["ETag"]


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_client_that_names_the_version_gets_304(client: httpx.Client, tag: str, method: str) -> None:
    for header in ("{}", "W/{}", '"x", {}', "*", '"x",W/{} ,"y"'):
        response = client.request(method, "/student/1", headers={"If-None-Match": header.format(tag)})
        assert (response.status_code, response.content, response.headers["ETag"]) == (304, b"", tag), header


def test_a_client_that_names_another_version_gets_the_student(client: httpx.Client, tag: str) -> None:
    for header in ('"x"', 'W/"x"', "", "x", '"', '""'):
        response = client.get("/student/1", headers={"If-None-Match": header})
        assert (response.status_code, response.headers["ETag"]) == (200, tag), header


def test_nobody_is_not_found_whatever_version_is_named(client: httpx.Client) -> None:
    assert client.get("/student/1", headers={"If-None-Match": "*"}).status_code == 404
    assert client.put("/student/1", json=BORIS, headers={"If-Match": "*"}).status_code == 404
    assert client.delete("/student/1", headers={"If-Match": '"x"'}).status_code == 404


NO_LISTS = ["w/{}", "W/ {}", "x{}", "{}x", '"a" {}', "* , {}", "{}, *", "'{}'", '"{}', "{},x", "**"]
"""Values that are not a list of entity tags, and so name none."""
WRITES = [("PUT", BORIS), ("PATCH", {"name": "Boris"}), ("DELETE", None)]


@pytest.mark.parametrize(("method", "body"), WRITES)
@pytest.mark.parametrize("header", ["{}", '"x", {}', '{},"y"', "*", ', ,{},, "y,z" ,'])
def test_a_write_for_this_version_is_done(
    client: httpx.Client, tag: str, method: str, body: dict[str, Any] | None, header: str
) -> None:
    response = client.request(method, "/student/1", json=body, headers={"If-Match": header.format(tag)})
    assert response.status_code == 200
    assert client.get("/student/1").headers.get("ETag") != tag


@pytest.mark.parametrize(("method", "body"), WRITES)
def test_a_write_for_another_version_is_rejected(
    client: httpx.Client, tag: str, method: str, body: dict[str, Any] | None
) -> None:
    """A weak tag never matches: it does not promise the same bytes."""
    for header in ('"x"', "W/{}", '"x", "y"', "x", "", *NO_LISTS):
        response = client.request(method, "/student/1", json=body, headers={"If-Match": header.format(tag)})
        assert response.status_code == 412, header
        assert response.headers["Content-Type"] == "application/problem+json"
        assert response.json()["detail"] == "The student has changed since this ETag; fetch it and retry"
    assert client.get("/student/1").headers["ETag"] == tag


def test_of_two_writers_with_one_tag_the_second_is_rejected(client: httpx.Client, tag: str) -> None:
    statuses = [
        client.put("/student/1", json={**BORIS, "name": name}, headers={"If-Match": tag}).status_code
        for name in ("first", "second")
    ]
    assert statuses == [200, 412]
    assert client.get("/student/1").json()["name"] == "first"


@pytest.mark.parametrize(("method", "body"), WRITES)
def test_version_is_checked_under_the_lock(
    mariadb: MariaDB, mysql_url: str, method: str, body: dict[str, Any] | None
) -> None:
    """On MySQL a change that another session has not committed yet is waited for; on SQLite no two are open at once."""
    with serve_database(mysql_url) as client, ThreadPoolExecutor(1) as pool:
        tag = client.post("/student", json=ANANYA).headers["ETag"]
        with open_session(mariadb, mysql_url, "UPDATE students SET name = 'Chen'") as session:
            write = pool.submit(client.request, method, "/student/1", json=body, headers={"If-Match": tag})
            with pytest.raises(TimeoutError):
                write.result(0.3)
            session.commit()
        assert write.result().status_code == 412
        assert client.get("/student/1").json()["name"] == "Chen"


def test_asterisk_may_have_blanks_around_it() -> None:
    assert parse_if_match(" *\t") is None
    assert matches(" *\t", '"x"')


def test_a_change_and_a_change_back_is_the_same_version(client: httpx.Client, tag: str) -> None:
    """The tag is made of what is stored: no column is added to a table of the tutorial."""
    client.put("/student/1", json=BORIS)
    client.put("/student/1", json=ANANYA)
    assert client.put("/student/1", json=BORIS, headers={"If-Match": tag}).status_code == 200


def test_several_lines_of_if_match_are_one_list(client: httpx.Client, tag: str) -> None:
    """As RFC 9110, 5.3 has it; of If-None-Match too."""
    lines = ['"x"', tag, 'W/"y"']
    named = [("If-None-Match", line) for line in lines]
    assert client.get("/student/1", headers=named).status_code == 304
    for order in (lines, lines[::-1]):
        named = [("If-Match", line) for line in order]
        assert client.put("/student/1", json=ANANYA, headers=named).status_code == 200
    named = [("If-Match", '"x"'), ("If-Match", "*")]
    assert client.delete("/student/1", headers=named).status_code == 412


def test_long_if_match_takes_no_time(client: httpx.Client, tag: str) -> None:
    """Neither many tags nor many blanks cost more than their length."""
    for header in ('"",' * 15_000 + tag, "," * 30_000 + tag, '"x",' + " " * 30_000 + tag):
        assert client.put("/student/1", json=ANANYA, headers={"If-Match": header}).status_code == 200
    assert client.delete("/student/1", headers={"If-Match": '"x",' + " " * 30_000 + "x"}).status_code == 412
