"""The files of docs/deploy, as they are but for ports and paths: nginx, systemd, and of the container what it runs."""

import json
import os
import re
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from signal import SIGKILL

import httpx
import psutil
import pytest
from selenium import webdriver

from tests.browser import OWN_HOST, authorize, execute, find, read_errors
from tests.conftest import query_sqlite
from tests.mariadb import find_binary, free_port
from tests.service import ANANYA, API_KEYS, AS_EDITOR, EDITOR_SECRET, Service, connect
from tests.test_cli import HEADER

DEPLOY = Path(__file__).parents[1] / "docs/deploy"
PREFIX = "/students-api"
BEHIND = {"ROOT_PATH": PREFIX, "FORWARDED_ALLOW_IPS": "127.0.0.1", "API_KEYS": API_KEYS}
HEADERS = {"Host": OWN_HOST, **AS_EDITOR}
NGINX = """
{user}
daemon off; pid {directory}/nginx.pid; error_log {directory}/nginx.log warn; worker_processes 1;
events {{}}
http {{
    access_log off;
    client_body_temp_path {directory}/1; proxy_temp_path {directory}/2;
    fastcgi_temp_path {directory}/3; uwsgi_temp_path {directory}/4; scgi_temp_path {directory}/5;
    gzip on; gzip_types application/json text/csv;  # as many a distribution has it
    include {directory}/students.conf;
}}
"""
WIDE = """WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 150000)
INSERT INTO students (name, department, cgpa) SELECT printf('%0100d', i), printf('%0100d', i), 5 FROM n"""


def find_or_skip(name: str, package: str) -> str:
    if (binary := find_binary(name)) is None:
        reason = f"{name} is not installed: it is in Debian's {package}"
        assert "CI" not in os.environ, reason
        pytest.skip(reason)
    return binary


@contextmanager
def run_nginx(directory: Path, port: int) -> Iterator[str]:
    """Run nginx with the file before a service on a port; yield the URL below which it is."""
    binary, openssl = find_or_skip("nginx", "nginx-light"), find_or_skip("openssl", "openssl")
    pem, key, plain, tls = directory / "cert.pem", directory / "key.pem", free_port(), free_port()
    make = ["req", "-x509", "-nodes", "-newkey", "rsa:2048", "-subj", f"/CN={OWN_HOST}", "-addext"]
    names = f"subjectAltName=DNS:{OWN_HOST},IP:127.0.0.1"
    subprocess.run([openssl, *make, names, "-keyout", key, "-out", pem], check=True, capture_output=True)
    text = (DEPLOY / "nginx.conf").read_text()
    for old, new in {
        "server 127.0.0.1:8000;": f"server 127.0.0.1:{port};",
        "listen 80;": f"listen 127.0.0.1:{plain};",
        "listen 443 ": f"listen 127.0.0.1:{tls} ",
        "/etc/ssl/students.example.pem": str(pem),
        "/etc/ssl/private/students.example.key": str(key),
    }.items():
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    (directory / "students.conf").write_text(text)
    user = "user root;" if os.geteuid() == 0 else ""
    (directory / "nginx.conf").write_text(NGINX.format(directory=directory, user=user))
    process = subprocess.Popen([binary, "-p", directory, "-c", directory / "nginx.conf"])
    try:
        while process.poll() is None:
            try:
                location = httpx.get(f"http://127.0.0.1:{plain}/x?y", headers={"Host": OWN_HOST}).headers["Location"]
            except httpx.TransportError:
                time.sleep(0.02)
            else:
                break
        assert location == f"https://{OWN_HOST}/x?y"
        yield f"https://127.0.0.1:{tls}{PREFIX}"
    finally:
        process.terminate()
        process.wait()


@pytest.fixture(scope="module")
def below(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Service, str]]:
    """A service behind nginx, below a prefix, and the URL of that."""
    directory = tmp_path_factory.mktemp("nginx")
    with (
        Service(directory, **BEHIND) as service,
        run_nginx(directory, service.port) as url,
    ):
        yield service, url
    assert "Traceback" not in service.log()


@pytest.fixture
def proxied(below: tuple[Service, str]) -> Iterator[httpx.Client]:
    service, url = below
    trusted = ssl.create_default_context(cafile=str(service.directory / "cert.pem"))
    with connect(url, verify=trusted, headers=HEADERS, timeout=120) as client:
        yield client


def test_addresses_below_the_prefix_are_right(proxied: httpx.Client) -> None:
    created = proxied.post("/student", json=ANANYA)
    assert (created.status_code, created.headers["Location"]) == (201, f"{PREFIX}/student/{created.json()['id']}")
    assert proxied.post("/student", json=ANANYA).status_code == 201
    link = proxied.get("/students?limit=1").headers["Link"]
    (following,) = re.findall(rf'<{PREFIX}(/students\?[^>]*)>; rel="next"', link)
    assert proxied.get(following).json()[0]["id"] == created.json()["id"] + 1
    assert proxied.get("/").headers["Location"] == f"{PREFIX}/docs"
    assert proxied.get("/openapi.json").json()["servers"] == [{"url": PREFIX}]
    assert proxied.get("/health/ready").status_code == 200
    outside = httpx.get(str(proxied.base_url).replace(PREFIX, ""), verify=False, headers=HEADERS)
    assert outside.status_code == 404


def test_etags_stay_strong_behind_the_proxy(proxied: httpx.Client) -> None:
    """Though nginx compresses JSON elsewhere: with a weak one every If-Match would be a 412."""
    created = proxied.post("/student", json={**ANANYA, "name": "x" * 100, "department": "y" * 100})
    read = proxied.get(f"/student/{created.json()['id']}", headers={"Accept-Encoding": "gzip"})
    assert "Content-Encoding" not in read.headers
    assert read.headers["ETag"] == created.headers["ETag"]
    address, tag = f"/student/{created.json()['id']}", read.headers["ETag"]
    assert proxied.get(address, headers={"If-None-Match": tag}).status_code == 304
    assert proxied.put(address, json=ANANYA, headers={"If-Match": tag}).status_code == 200
    assert proxied.put(address, json=ANANYA, headers={"If-Match": tag}).status_code == 412


def test_proxy_takes_what_the_service_takes(proxied: httpx.Client) -> None:
    """A query of nearly 8 KiB, a write of its own origin behind TLS, and an import of 60 MB."""
    assert proxied.get("/students", params={"name": "x" * 8180}).headers["Content-Type"].startswith("application/")
    for origin, status in ((f"https://{OWN_HOST}", 201), (f"http://{OWN_HOST}", 403), ("https://other.example", 403)):
        assert proxied.post("/student", json=ANANYA, headers={"Origin": origin}).status_code == status
    line = f"Ananya,CSE,8.9,{'x' * 985}\n"
    file = f"name,department,cgpa,note\n{line * 60_000}".encode()
    assert len(file) > 60_000_000
    report = proxied.post("/students/import?dry_run=true", content=file, headers={"Content-Type": "text/csv"})
    assert (report.status_code, report.json()["created"]) == (200, 60_000)


def test_connections_to_the_service_are_kept(below: tuple[Service, str]) -> None:
    service, url = below
    for _ in range(10):
        assert httpx.get(f"{url}/student/0", verify=False, headers=HEADERS).status_code == 404
    assert service.process is not None
    connections = psutil.Process(service.process.pid).net_connections("tcp")
    assert len([1 for connection in connections if connection.status == psutil.CONN_ESTABLISHED]) == 1


def test_page_works_in_a_browser_behind_nginx(below: tuple[Service, str], browser: webdriver.Chrome) -> None:
    _, url = below
    browser.get(f"{url.replace('127.0.0.1', OWN_HOST)}/")
    authorize(browser, EDITOR_SECRET)
    post = find(browser, ".opblock-post")
    status, body = execute(post)
    assert (status, '"name": "Ananya"' in body) == ("201", True)
    assert find(post, ".request-url").text.endswith(f"{PREFIX}/student")
    assert execute(find(browser, "#operations-students-list_students"))[0] == "200"
    assert read_errors(browser) == []


def test_broken_export_is_not_taken_for_a_complete_one(tmp_path: Path, sqlite_path: Path, sqlite_url: str) -> None:
    """It flows through the proxy, and where the service is killed it breaks off; then the proxy says so."""
    with (
        Service(tmp_path, DATABASE_URL=sqlite_url, LOG_LEVEL="warning", **BEHIND) as service,
        run_nginx(tmp_path, service.port) as url,
        connect(url, verify=False, headers=HEADERS) as client,
    ):
        query_sqlite(sqlite_path, WIDE)
        with client.stream("GET", "/students/export") as export:
            parts = export.iter_raw()
            assert next(parts).startswith(HEADER.encode())
            time.sleep(1)  # in which a proxy that buffers would have taken the rest
            assert "buffered to a temporary file" not in (tmp_path / "nginx.log").read_text()
            service.stop(SIGKILL)
            with pytest.raises(httpx.RemoteProtocolError):
                list(parts)
        response = client.get("/students")
    assert (response.status_code, response.headers["Content-Type"]) == (502, "application/problem+json")
    assert (response.json()["status"], response.json()["title"]) == (502, "Bad Gateway")


def test_unit_is_valid_and_confined(tmp_path: Path) -> None:
    analyze = find_or_skip("systemd-analyze", "systemd")
    text = (DEPLOY / "student-records.service").read_text()
    unit = tmp_path / "student-records.service"
    unit.write_text(text.replace("/opt/student-records/bin/python", sys.executable))
    verified = subprocess.run([analyze, "verify", unit], capture_output=True, text=True, check=False)
    assert (verified.returncode, [line for line in verified.stderr.splitlines() if unit.name in line]) == (0, [])
    rated = [analyze, "security", "--offline=true", "--threshold=20", str(unit)]
    assert subprocess.run(rated, capture_output=True, check=False).returncode == 0


def test_health_check_of_the_container_follows_port(tmp_path: Path) -> None:
    text = (DEPLOY / "Containerfile").read_text()
    (found,) = re.findall(r"^HEALTHCHECK .*?CMD (\[.*\])$", text, re.MULTILINE)
    _, *arguments = json.loads(found)
    with Service(tmp_path) as service:
        check = [sys.executable, *arguments]
        assert subprocess.run(check, env=service.environment, check=False).returncode == 0
        service.stop()
        ended = subprocess.run(check, env=service.environment, capture_output=True, check=False)
        assert ended.returncode == 1


def test_container_copies_what_there_is() -> None:
    """Each path is one of the repository, and the requirements are those with hashes."""
    text = (DEPLOY / "Containerfile").read_text()
    sources = [name for line in re.findall(r"^COPY (?!--)(.*) \S+$", text, re.MULTILINE) for name in line.split()]
    assert "docs/deploy/requirements.txt" in sources
    assert [name for name in sources if not (DEPLOY.parents[1] / name).exists()] == []
