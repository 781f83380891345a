"""ETag, If-None-Match and If-Match."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from litestar_app.http.conditions import matches, parse_condition
from tests.mariadb import MariaDB, open_session
from tests.service import ANANYA, serve_database

BORIS = {"name": "Boris", "department": "Physics", "cgpa": 7}
WRITES = [("PUT", BORIS), ("PATCH", {"name": "Boris"}), ("DELETE", None)]


@pytest.fixture
def tag(client: httpx.Client, ananya: dict[str, Any]) -> str:
    return client.get(f"/student/{ananya['id']}").headers["ETag"]


def test_every_response_with_a_student_has_its_etag(client: httpx.Client) -> None:
    """The same for ever, so that what clients keep survives a restart."""
    responses = [
        client.post("/student", json=ANANYA), client.get("/student/1"), client.head("/student/1"),
        client.put("/student/1", json=ANANYA), client.patch("/student/1", json={}),
    ]  # fmt: skip
    assert [response.headers["ETag"] for response in responses] == ['"33c00e7dc6ec343591bbd6e5"'] * 5


def test_etag_changes_exactly_when_the_student_does(client: httpx.Client, tag: str) -> None:
    seen = {tag, client.post("/student", json=ANANYA).headers["ETag"]}
    for change in ({"name": "Boris"}, {"department": "Law"}, {"cgpa": 7.5}, {"cgpa": 7.500000000000001}):
        changed = client.patch("/student/1", json=change).headers["ETag"]
        assert client.get("/student/1").headers["ETag"] == changed
        seen.add(changed)
    assert len(seen) == 6
    assert client.put("/student/1", json=ANANYA).headers["ETag"] == tag


def test_if_none_match_is_a_304_or_the_student(client: httpx.Client, ananya: dict[str, Any], tag: str) -> None:
    for header in ("{}", "W/{}", "*", '"x",W/{} ,"y"'):
        for method in ("GET", "HEAD"):
            response = client.request(method, "/student/1", headers={"If-None-Match": header.format(tag)})
            assert (response.status_code, response.content, response.headers["ETag"]) == (304, b"", tag), header
    for header in ('"x"', 'W/"x"', "w/{}", "", "x", '"', '""'):
        response = client.get("/student/1", headers={"If-None-Match": header.format(tag)})
        assert (response.status_code, response.json()) == (200, ananya), header


@pytest.mark.parametrize(("method", "body"), WRITES)
@pytest.mark.parametrize("header", ["{}", '"x", {}', "*", ', ,{},, "y,z" ,'])
def test_write_with_a_matching_if_match_is_done(
    client: httpx.Client, tag: str, method: str, body: dict[str, Any] | None, header: str
) -> None:
    response = client.request(method, "/student/1", json=body, headers={"If-Match": header.format(tag)})
    assert response.status_code == 200
    assert client.get("/student/1").headers.get("ETag") != tag


CHANGED = "The student has changed since this ETag; fetch it and retry"
WEAK = "header If-Match: weak ETags (W/…) never match; send the ETag as the service gave it"
OTHERS = {'"x"': CHANGED, '"x", "y"': CHANGED, 'W/{}, "y"': CHANGED, "W/{}": WEAK, 'W/{}, W/"y"': WEAK}
"""Lists of entity tags that do not name the current version. A weak one does not promise the same bytes."""
MALFORMED = [
    "x", "", ",", "{bare}", "w/{}", '"a b", {}', "W/ {}", "x{}", "{}x", '"a" {}', "* , {}", "{}, *", "'{}'", '"{}',
    "{},x", "**",
]  # fmt: skip
"""Values that are not a list of entity tags, and so name none."""


def explain(field: str, value: str) -> str:
    return f'header {field}: malformed; expected * or ETags in double quotes, such as "33c00e7d", got {value!r}'


@pytest.mark.parametrize(("method", "body"), WRITES)
def test_write_with_another_if_match_is_a_412(
    client: httpx.Client, tag: str, method: str, body: dict[str, Any] | None
) -> None:
    """Of a malformed value, the response says so, and what is right."""
    cases = {header.format(tag): detail for header, detail in OTHERS.items()}
    for header in (header.format(tag, bare=tag.strip('"')) for header in MALFORMED):
        cases[header] = explain("If-Match", header)
    for header, detail in cases.items():
        response = client.request(method, "/student/1", json=body, headers={"If-Match": header})
        assert (response.status_code, response.json()["detail"]) == (412, detail), header
        assert response.headers["Content-Type"] == "application/problem+json"
        assert client.request(method, "/student/2", json=body, headers={"If-Match": header}).status_code == 404
    assert client.get("/student/1").headers["ETag"] == tag


@pytest.mark.parametrize(("method", "body"), WRITES)
def test_if_none_match_of_a_write_is_obeyed(
    client: httpx.Client, tag: str, method: str, body: dict[str, Any] | None
) -> None:
    """RFC 9110, 13.1.2: the write is not done if the field names the version that is stored; * stands for any."""
    same = "The student has the ETag that If-None-Match excludes"
    cases = {
        "*": "The student exists; If-None-Match: * allows a write only if there is none",
        **dict.fromkeys([tag, f"W/{tag}", f'"x", {tag}'], same),
        **{header: explain("If-None-Match", header) for header in ("x", "", f"{tag}x", tag.strip('"'))},
    }
    for header, detail in cases.items():
        response = client.request(method, "/student/1", json=body, headers={"If-None-Match": header})
        assert (response.status_code, response.json()["detail"]) == (412, detail), header
        assert client.request(method, "/student/2", json=body, headers={"If-None-Match": header}).status_code == 404
    both = {"If-Match": tag, "If-None-Match": "*"}
    assert client.request(method, "/student/1", json=body, headers=both).status_code == 412
    assert client.get("/student/1").headers["ETag"] == tag
    others = {"If-Match": tag, "If-None-Match": '"x", W/"y"'}
    assert client.request(method, "/student/1", json=body, headers=others).status_code == 200


def test_long_malformed_value_is_not_repeated_as_a_whole(client: httpx.Client, tag: str) -> None:
    assert tag
    response = client.delete("/student/1", headers={"If-Match": "x" * 60_000})
    assert (response.status_code, response.json()["detail"]) == (412, explain("If-Match", f"{'x' * 100}…"))


@pytest.mark.parametrize(("method", "body"), WRITES)
def test_etag_is_checked_under_the_lock(
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
    assert matches(" *\t", '"x"')
    check = parse_condition(" *\t", None)
    assert check is not None
    check('"x"')


def test_several_lines_of_a_list_are_one_list(client: httpx.Client, tag: str) -> None:
    """As RFC 9110, 5.3 has it."""
    lines = ['"x"', tag, 'W/"y"']
    assert client.get("/student/1", headers=[("If-None-Match", line) for line in lines]).status_code == 304
    assert client.put("/student/1", json=ANANYA, headers=[("If-Match", line) for line in lines]).status_code == 200
    assert client.delete("/student/1", headers=[("If-Match", '"x"'), ("If-Match", "*")]).status_code == 412


def test_long_if_match_takes_no_time(client: httpx.Client, tag: str) -> None:
    """Neither many tags nor many blanks cost more than their length."""
    for header in ('"",' * 15_000 + tag, "," * 30_000 + tag, '"x",' + " " * 30_000 + tag):
        assert client.put("/student/1", json=ANANYA, headers={"If-Match": header}).status_code == 200
    assert client.delete("/student/1", headers={"If-Match": '"x",' + " " * 30_000 + "x"}).status_code == 412
