"""Behind proxies: whose address and which scheme count, of lists in every form."""

from typing import Any

import pytest

from litestar_app.app import create_app
from litestar_app.http.proxies import TrustedProxies
from litestar_app.settings import Settings
from tests.service import API_KEYS, AS_EDITOR, connect, serve_app

PEER, CLIENT = "10.0.0.5", "203.0.113.9"
TRUSTED = ["10.0.0.0/24", "2001:db8:1::/48", "127.0.0.1"]


def resolve(*fields: tuple[str, str], peer: str | None = PEER) -> tuple[str | None, str]:
    """Return the client and the scheme of a request with these fields."""
    headers = [(name.encode(), value.encode("latin-1")) for name, value in fields]
    scope: Any = {"client": None if peer is None else (peer, 5), "scheme": "http", "headers": headers}
    TrustedProxies(TRUSTED).apply(scope)
    return scope["client"] and scope["client"][0], scope["scheme"]


@pytest.mark.parametrize(
    ("lines", "client"),
    [
        ([CLIENT], CLIENT),
        ([f"{CLIENT}:4711"], CLIENT),
        ([f"198.51.100.1, {CLIENT}"], CLIENT),  # what the client itself has sent
        (["198.51.100.1", CLIENT], CLIENT),
        ([CLIENT, "10.0.0.7"], CLIENT),
        ([f"{CLIENT}, 10.0.0.7:80 ,10.0.0.8"], CLIENT),
        ([f",{CLIENT}, ,10.0.0.7,"], CLIENT),
        ([CLIENT, ""], CLIENT),
        (["2001:db8::7"], "2001:db8::7"),
        (["[2001:db8::7]"], "2001:db8::7"),
        (["[2001:DB8:0::7]:4711, [2001:db8:1::1]:443"], "2001:db8::7"),
        (["fe80::1%eth0"], "fe80::1"),
        ([f"::ffff:{CLIENT}"], CLIENT),
        ([f"{CLIENT}, ::ffff:10.0.0.7"], CLIENT),
        (["10.0.0.9, 10.0.0.7"], "10.0.0.9"),  # all are trusted
        ([""], PEER),
        ([" , ,"], PEER),
        ([], PEER),
        (["unknown"], None),
        (["203.0.113.9, unknown, 10.0.0.7"], None),
        (["_hidden, é"], None),
        (["127.0.0.1.other.example"], None),
        (["[203.0.113.9"], None),
        (["203.0.113.9]:80"], None),
        (["1.2.3.4:5:6"], None),
        (["203.0.113.0/24"], None),
    ],
    ids=str,
)
def test_client_is_the_first_who_is_no_trusted_proxy(lines: list[str], client: str | None) -> None:
    assert resolve(*(("x-forwarded-for", line) for line in lines))[0] == client


@pytest.mark.parametrize(
    ("schemes", "addresses", "scheme"),
    [
        (["https"], [], "https"),
        (["HTTPS"], [CLIENT], "https"),
        (["https,http"], [], "https"),
        (["https, http"], [f"{CLIENT}, 10.0.0.7"], "https"),
        (["https", "http"], [CLIENT, "10.0.0.7"], "https"),
        (["http,https"], [f"{CLIENT}, 10.0.0.7"], "http"),
        (["https,http"], [CLIENT], "http"),  # the first is the client's own word
        (["https,http"], [f"198.51.100.1, {CLIENT}"], "http"),
        (["https,http,http"], [f"198.51.100.1, {CLIENT}, 10.0.0.7"], "http"),
        (["https"], [f"198.51.100.1, {CLIENT}, 10.0.0.7"], "https"),  # a proxy that sets the field, one that leaves it
        ([",https,"], [CLIENT], "https"),
        (["https,http"], ["unknown"], "http"),
        (["wss"], [CLIENT], "https"),
        (["ws"], [CLIENT], "http"),
        ([""], [CLIENT], "http"),
        (["ftp"], [CLIENT], "http"),
        (["https;http"], [CLIENT], "http"),
        (["é"], [CLIENT], "http"),
        ([], [CLIENT], "http"),
    ],
    ids=str,
)
def test_scheme_is_of_the_same_hop(schemes: list[str], addresses: list[str], scheme: str) -> None:
    fields = [*(("x-forwarded-proto", line) for line in schemes), *(("x-forwarded-for", line) for line in addresses)]
    assert resolve(*fields)[1] == scheme


@pytest.mark.parametrize("peer", [CLIENT, "2001:db8::1", "testclient", "", None])
def test_nobody_else_is_believed(peer: str | None) -> None:
    forwarded = ("x-forwarded-for", "198.51.100.1"), ("x-forwarded-proto", "https")
    assert resolve(*forwarded, peer=peer) == (peer, "http")


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"X-Forwarded-Proto": "https,http"}, 415),
        ({"X-Forwarded-Proto": "https,http", "X-Forwarded-For": f"{CLIENT}, 127.0.0.1"}, 415),
        ({"X-Forwarded-Proto": "https,http", "X-Forwarded-For": CLIENT}, 403),
        ({"X-Forwarded-Proto": "http"}, 403),
    ],
    ids=str,
)
def test_own_origin_behind_two_proxies(sqlite_url: str, fields: dict[str, str], status: int) -> None:
    """Origin is compared with the scheme that the browser has used; what is accepted meets the next check."""
    app = create_app(Settings(database_url=sqlite_url, api_keys=API_KEYS, forwarded_allow_ips="127.0.0.1"))
    with serve_app(app, proxy_headers=False) as url, connect(url, headers=AS_EDITOR) as client:
        given = fields | {"Host": "students.example", "Origin": "https://students.example"}
        assert client.post("/student", headers=given, content="{").status_code == status
