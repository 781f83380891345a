"""What a client does in an ordinary day, to be run on databases of other kinds and settings."""

import httpx

from tests.service import ANANYA

CSV = {"Content-Type": "text/csv"}
MERGE_PATCH = {"Content-Type": "application/merge-patch+json"}
PAGES = [
    "/students", "/students?limit=1", "/students?sort=-name&limit=1", "/students?department=CSE&sort=name&limit=1",
    "/students?department=CSE&department=ECE", "/students?name=%C3%84n&count=true", "/students?cgpa_min=1&cgpa_max=9.5",
    "/students?sort=department,-cgpa&limit=1", "/departments", "/departments.svg", "/imports", "/health/ready",
    "/student/1/history", "/student/1/history?limit=1", "/students/export?format=ndjson", "/students/export?format=csv",
    "/students/export?format=xlsx&sort=name", "/students/export?format=csv&department=CSE",
]  # fmt: skip


def do(client: httpx.Client, method: str, path: str, expected: int, **options: object) -> httpx.Response:
    """Send a request, and see what status it has."""
    response = client.request(method, path, **options)  # type: ignore[arg-type]
    assert response.status_code == expected, (method, path, response.status_code, response.text)
    return response


def run_flows(client: httpx.Client) -> None:
    """Create, read, list, change, delete, export, import in every way, and undo."""
    keyed = {"Idempotency-Key": "one"}
    created = do(client, "POST", "/student", 201, json=ANANYA, headers=keyed)
    assert do(client, "POST", "/student", 201, json=ANANYA, headers=keyed).json() == created.json()
    first = created.json()["id"]
    second = do(client, "POST", "/student", 201, json={"name": "Änne 😀", "department": "ECE", "cgpa": 7.5}).json()[
        "id"
    ]
    etag = do(client, "GET", f"/student/{first}", 200).headers["ETag"]
    do(client, "PUT", f"/student/{first}", 200, json={**ANANYA, "cgpa": 9}, headers={"If-Match": etag})
    do(client, "PUT", f"/student/{first}", 412, json=ANANYA, headers={"If-Match": etag})
    do(client, "PATCH", f"/student/{second}", 200, content='{"cgpa": 8}', headers=MERGE_PATCH)
    for page in PAGES:
        response = do(client, "GET", page.replace("/student/1/", f"/student/{first}/"), 200)
        if following := response.links.get("next"):
            do(client, "GET", following["url"], 200)
    students = client.get("/students").json()

    rows = f"id,name,department,cgpa\n{first},Ananya,CSE,10\n,New,CSE,5\n,New two,CSE,6\n".encode()
    do(client, "POST", "/students/import?dry_run=true", 200, content=rows, headers=CSV)
    assert client.get("/students").json() == students
    report = do(client, "POST", "/students/import", 200, content=rows, headers=CSV | {"Idempotency-Key": "two"}).json()
    assert (report["created"], report["updated"]) == (2, 1)
    do(client, "POST", "/students/import", 422, content=b"id,name,department,cgpa\n999999,A,B,1\n", headers=CSV)
    do(client, "POST", "/students/import?match=none", 200, content=rows, headers=CSV)
    named = "name,department,cgpa\nNew two,CSE,1\nÄnne 😀,ECE,2\nNobody yet,ECE,3\n".encode()
    do(client, "POST", "/students/import?match=name,department&mode=valid", 200, content=named, headers=CSV)
    exported = do(client, "GET", "/students/export?format=csv", 200).content
    changed = exported.replace(b",7.5", b",7.25")
    do(client, "POST", "/students/import", 200, content=changed, headers=CSV)
    for entry in do(client, "GET", "/imports", 200).json():
        do(client, "POST", f"/imports/{entry['id']}/undo", 200)
    do(client, "DELETE", f"/student/{second}", 200)
    do(client, "DELETE", f"/student/{second}", 404)
    left = [student for student in students if student["id"] != second]
    assert client.get("/students").json() == left
