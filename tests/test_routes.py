"""What every route has in common: 404, 405, HEAD, redirects, health."""

import httpx
import pytest

from tests.mariadb import MariaDB
from tests.service import serve_database

READ_PATHS = ["/students", "/student/1", "/health/live", "/health/ready", "/docs", "/openapi.json", "/"]


@pytest.mark.parametrize(
    "path",
    [
        "/nothing", "/student/1/2", "/docs/nothing", "/docs/assets/x", "/docs/assets/a%00b", "/docs/assets/..%2f",
        "/%00", "/health", f"/docs/assets/{'a' * 300}",
    ],
)  # fmt: skip
def test_an_unknown_path_is_a_problem_document(idle_client: httpx.Client, path: str) -> None:
    response = idle_client.get(path)
    assert response.status_code == 404
    assert response.headers["Content-Type"] == "application/problem+json"
    assert response.json()["detail"].endswith("; /docs lists what there is")


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("DELETE", "/students", {"GET", "HEAD", "OPTIONS"}),
        ("POST", "/students", {"GET", "HEAD", "OPTIONS"}),
        ("GET", "/student", {"POST", "OPTIONS"}),
        ("POST", "/student/1", {"GET", "HEAD", "PUT", "PATCH", "DELETE", "OPTIONS"}),
        ("TRACE", "/student/1", {"GET", "HEAD", "PUT", "PATCH", "DELETE", "OPTIONS"}),
        ("POST", "/health/live", {"GET", "HEAD", "OPTIONS"}),
    ],
)
def test_a_wrong_method_gets_the_right_ones(
    idle_client: httpx.Client, method: str, path: str, allowed: set[str]
) -> None:
    response = idle_client.request(method, path)
    assert response.status_code == 405
    assert set(response.headers["Allow"].split(", ")) == allowed
    assert response.headers["Content-Type"] == "application/problem+json"
    assert response.json()["title"] == "Method Not Allowed"


@pytest.mark.parametrize(("path", "status"), [("/students/", 200), ("/docs/", 200), ("//", 307)])
def test_a_slash_too_many_makes_no_difference(idle_client: httpx.Client, path: str, status: int) -> None:
    assert idle_client.get(path).status_code == status


@pytest.mark.parametrize("host", ["x:99999", "x:abc", "a b", "[::1", "é"])
def test_an_odd_host_is_no_server_error(idle_client: httpx.Client, host: str) -> None:
    response = idle_client.get("/nothing", headers={b"Host": host.encode()})
    assert response.status_code in {400, 404}
    assert response.headers["Content-Type"] == "application/problem+json"


def test_options_names_every_method(idle_client: httpx.Client) -> None:
    response = idle_client.options("/student/1")
    assert (response.status_code, response.headers["Allow"]) == (204, "DELETE, GET, HEAD, OPTIONS, PATCH, PUT")


@pytest.mark.parametrize("path", READ_PATHS)
def test_head_answers_wherever_get_does(idle_client: httpx.Client, path: str) -> None:
    get, head = idle_client.get(path), idle_client.head(path)
    assert head.status_code == get.status_code
    assert head.content == b""
    assert head.headers["Content-Length"] == get.headers["Content-Length"]
    assert head.headers["Content-Type"] == get.headers["Content-Type"]


def test_the_root_leads_to_the_documentation(idle_client: httpx.Client) -> None:
    response = idle_client.get("/")
    assert (response.status_code, response.headers["Location"]) == (307, "/docs")


def test_a_healthy_service_is_live_and_ready(client: httpx.Client) -> None:
    assert client.get("/health/live").status_code == 200
    assert client.get("/health/ready").status_code == 200


def test_a_service_without_its_database_is_live_but_not_ready(mariadb: MariaDB, mysql_url: str) -> None:
    """And it is ready again, by itself, when the database is back."""
    with serve_database(mysql_url) as client:
        mariadb.stop()
        try:
            response = client.get("/health/ready")
            assert response.status_code == 503
            assert response.headers["Retry-After"] == "1"
            assert response.headers["Content-Type"] == "application/problem+json"
            assert client.get("/health/live").status_code == 200
        finally:
            mariadb.start()
        assert client.get("/health/ready").status_code == 200


def test_parameters_that_a_route_does_not_have_are_rejected(idle_client: httpx.Client) -> None:
    response = idle_client.get("/health/live?verbose=1")
    assert response.status_code == 400
    assert response.json()["detail"] == "query parameter 'verbose': not one of this route's (none)"
