"""Whatever is sent: no server error, no undocumented response, and what is stored is what was acknowledged."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.service import ANANYA, serve_database

EXAMPLES = 30


@pytest.fixture(scope="module", params=["sqlite", "mysql"])
def client(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A service with one student on each kind of database; the examples of this module share it."""
    if request.param == "sqlite":
        database_url = f"sqlite:///{tmp_path_factory.mktemp('contract')}/students.db"
    else:
        database_url = request.getfixturevalue("mariadb").create_database("contract")
    with serve_database(database_url) as client:
        client.post("/student", json=ANANYA)
        yield client
    if request.param == "mysql":
        request.getfixturevalue("mariadb").execute("DROP DATABASE contract")


def test_every_response_is_documented(client: httpx.Client, tmp_path: Path) -> None:
    """All of schemathesis's checks: statuses, content types, bodies, headers, methods, data rejected and accepted."""
    document = client.get("/openapi.json").json()
    post = document["paths"]["/student"]["post"]
    # made up, it is sent again with another body, which is rightly rejected; test_idempotency.py has its tests
    post["parameters"] = [p for p in post["parameters"] if p["name"] != "Idempotency-Key"]
    (tmp_path / "openapi.json").write_text(json.dumps(document))
    schemathesis = Path(sys.executable).with_name("schemathesis")
    command: list[str | Path] = [
        schemathesis, "--config-file", Path(__file__).with_name("schemathesis.toml"), "run", tmp_path / "openapi.json",
        "--url", str(client.base_url), "--checks", "all", "--max-examples", str(EXAMPLES), "--no-color",
    ]  # fmt: skip
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "8 selected / 8 total" in ended.stdout


examples = settings(
    max_examples=3 * EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
names = st.text(min_size=1, max_size=100)


@given(name=names, department=names, cgpa=st.floats(0, 10) | st.integers(0, 10))
@examples
def test_student_is_stored_trimmed_or_rejected(client: httpx.Client, name: str, department: str, cgpa: float) -> None:
    response = client.post("/student", json={"name": name, "department": department, "cgpa": cgpa})
    expected = {"name": name.strip(), "department": department.strip(), "cgpa": float(cgpa)}
    if all(text and not re.search(r"[\x00-\x1f\x7f-\x9f]", text) for text in (name.strip(), department.strip())):
        assert response.status_code == 201
        stored = client.get(response.headers["Location"]).json()
        assert stored == response.json() == {"id": stored["id"], **expected}
        assert client.delete(response.headers["Location"]).status_code == 200
    else:
        assert response.status_code == 422


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
students = st.fixed_dictionaries({}, optional=dict.fromkeys(("name", "department", "cgpa", "id", "x"), json_values))


@given(body=st.binary(max_size=200) | (json_values | students).map(lambda value: json.dumps(value).encode()))
@examples
def test_no_body_makes_a_server_error(client: httpx.Client, body: bytes) -> None:
    response = client.put("/student/1", content=body, headers={"Content-Type": "application/json"})
    assert response.status_code in {200, 400, 422}


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)


@given(path=texts, query=texts, method=st.sampled_from(["GET", "HEAD", "OPTIONS", "DELETE", "PATCH"]))
@examples
def test_no_url_makes_a_server_error(client: httpx.Client, path: str, query: str, method: str) -> None:
    response = client.request(method, f"/student/{quote(path)}?{quote(query)}")
    assert response.status_code < 500
