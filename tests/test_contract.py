"""Whatever is sent: no server error, no undocumented response, and what is stored is what was acknowledged."""

import json
import re
import subprocess
import sys
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.service import ANANYA, API_KEYS, AS_EDITOR, EDITOR_SECRET, serve_database


@pytest.fixture
def keyed_database(database_url: str) -> Iterator[httpx.Client]:
    with serve_database(database_url, headers=AS_EDITOR, api_keys=API_KEYS) as client:
        yield client


def test_every_response_is_documented(keyed_database: httpx.Client, tmp_path: Path) -> None:
    """All of schemathesis's checks: statuses, content types, bodies, headers, methods, data rejected and accepted.

    Among them that nobody is served without a key, or with one that is made up.
    """
    client = keyed_database
    assert client.post("/student", json=ANANYA).status_code == 201
    document = client.get("/openapi.json").json()
    del document["paths"]["/metrics"]  # which a program of this machine may read without a key
    for path in ("/student", "/students/import"):
        post = document["paths"][path]["post"]
        # made up, it is sent again with another body, which is rightly rejected; test_idempotency.py has its tests
        post["parameters"] = [p for p in post["parameters"] if p["name"] != "Idempotency-Key"]
    (tmp_path / "openapi.json").write_text(json.dumps(document))
    command: list[str | Path] = [
        Path(sys.executable).with_name("schemathesis"),
        "--config-file", Path(__file__).with_name("schemathesis.toml"), "run", tmp_path / "openapi.json",
        "--url", str(client.base_url), "--header", f"Authorization: Bearer {EDITOR_SECRET}",
        "--exclude-checks", "use_after_free",  # a deleted student has a history, on purpose
        "--checks", "all", "--max-examples", "30", "--seed", "1", "--no-color",
    ]  # fmt: skip
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "15 selected / 15 total" in ended.stdout


examples = settings(max_examples=90, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
# of what is forbidden or invisible only control characters and blanks: test_bodies.py has the others
characters = st.characters(
    exclude_categories=["Cs", "Cf", "Cn", "Mn", "Zl", "Zp"], exclude_characters="\u115f\u1160\u2800\u3164\uffa0"
)
names = st.text(characters, min_size=1, max_size=100)


@given(name=names, department=names, cgpa=st.floats(0, 10) | st.integers(0, 10))
@examples
def test_student_is_stored_normalised_or_rejected(
    client: httpx.Client, name: str, department: str, cgpa: float
) -> None:
    response = client.post("/student", json={"name": name, "department": department, "cgpa": cgpa})
    spaces = r"[ \u00a0\u1680\u2000-\u200a\u202f\u205f\u3000]+"
    texts = [re.sub(spaces, " ", unicodedata.normalize("NFC", text).strip()) for text in (name, department)]
    expected = {"name": texts[0], "department": texts[1], "cgpa": float(cgpa)}
    if all(0 < len(text) <= 100 and not re.search(r"[\x00-\x1f\x7f-\x9f\ufffd]", text) for text in texts):
        assert response.status_code == 201
        stored = client.get(response.headers["Location"]).json()
        assert stored == response.json() == {"id": stored["id"], **expected}
        assert client.delete(response.headers["Location"]).status_code == 200
    else:
        assert response.status_code == 422


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)


@given(path=texts, query=texts, method=st.sampled_from(["GET", "HEAD", "OPTIONS", "DELETE", "PATCH"]))
@examples
def test_no_url_makes_a_server_error(client: httpx.Client, path: str, query: str, method: str) -> None:
    response = client.request(method, f"/student/{quote(path)}?{quote(query)}")
    assert response.status_code < 500
