"""Proxies: what shows that a request came through one, and what a trusted one says about its client."""

import ipaddress
import re
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import TypeAlias

from litestar.enums import ScopeType
from litestar.middleware import ASGIMiddleware
from litestar.types import ASGIApp, HTTPScope, Receive, Scope, Send, WebSocketScope

Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address

WORDS = frozenset({
    "accel", "addr", "address", "authenticated", "cert", "devtunnels", "envoy", "forward", "gateway", "haproxy", "host",
    "https", "imforwards", "ip", "ips", "ipv4", "ipv6", "istio", "kong", "l5d", "nginx", "orig", "original",
    "principal", "proto", "real", "remote", "rewrite", "scheme", "squid", "ssl", "surrogate", "tls", "traefik",
    "tunnel", "varnish", "via", "webauth",
})  # fmt: skip
"""Words in the names of fields by which a proxy tells of itself, of its client or of the first request."""
PARTS = re.compile("forwarded|proxy|(client|real|remote|user)ip")
"""The same inside a word, as in X-Azure-ClientIP."""
SERVICES = frozenset({
    "akamai", "ali", "amzn", "appengine", "arr", "authentik", "azure", "cdn", "cf", "cloud", "cloudflare", "cloudfront",
    "consumer", "eagleeye", "fastly", "fd", "fly", "goog", "heroku", "iinfo", "incap", "localtunnel", "netlify", "nf",
    "ngrok", "pomerium", "railway", "render", "rndr", "sucuri", "tailscale", "teleport", "vercel", "zrok",
})  # fmt: skip
"""First words, perhaps behind X-, of the fields of services that forward requests."""
PREFIXES = ("early-data", "x-auth-request", "x-queue-start", "x-request-start")
SEPARATOR = re.compile("[^a-z0-9]+")
MAX_NAME = 64
"""Characters of a name that are looked at, and kept."""

SCHEMES = {"http": "http", "https": "https", "ws": "http", "wss": "https"}
"""The schemes of X-Forwarded-Proto; some proxies name an Upgrade by that of a WebSocket."""
ADDRESS = re.compile(r"\[([^\]]*)\](?::[0-9]*)?|([^:]*):[0-9]*|(.*)")
"""An element of X-Forwarded-For, perhaps with a port: an IPv6 address in brackets, an IPv4 address, or either alone."""


@lru_cache(1024)
def shows_proxy(name: bytes) -> bool:
    """Tell whether a field of this name, of which MAX_NAME characters are enough, is one that proxies add.

    `_` counts as `-`: many frameworks take one for the other.
    """
    text = SEPARATOR.sub("-", name.decode("latin-1").lower()).strip("-")
    if text == "host" or text.startswith("sec-"):  # browsers alone add Sec-…
        return False
    return (
        not WORDS.isdisjoint(text.split("-"))
        or PARTS.search(text) is not None
        or text.removeprefix("x-").partition("-")[0] in SERVICES
        or text.startswith(PREFIXES)
    )


class TrustedProxies(ASGIMiddleware):
    """The proxies whose X-Forwarded-For and X-Forwarded-Proto count.

    Each proxy appends the address that it was asked from, and perhaps the scheme. So the lists are read from their end,
    as far as a trusted proxy has written them: the first address that is no trusted proxy's is the client.
    """

    scopes = (ScopeType.HTTP, ScopeType.WEBSOCKET)

    def __init__(self, networks: Iterable[str]) -> None:
        """Take addresses and networks."""
        self._networks = [ipaddress.ip_network(network) for network in networks]
        self._trusts = lru_cache(1024)(self._is_trusted)

    async def handle(self, scope: Scope, receive: Receive, send: Send, next_app: ASGIApp) -> None:
        """Set the client and the scheme, then respond."""
        self.apply(scope)
        await next_app(scope, receive, send)

    def apply(self, scope: HTTPScope | WebSocketScope) -> None:
        """Set the client and the scheme of a request that a trusted proxy has forwarded.

        A client without an address is nobody, and a scheme that is none changes nothing.
        """
        client = scope["client"]
        if client is None or not self._trusts(_parse_address(client[0])):
            return
        addresses = list(_read_list(scope, b"x-forwarded-for"))
        schemes = list(_read_list(scope, b"x-forwarded-proto"))
        hops = max(len(addresses), len(schemes))  # all are trusted, or nobody says who was asked by whom
        for hop, text in enumerate(reversed(addresses), 1):
            address = _parse_address(text)
            scope["client"] = (str(address), 0) if address else None
            if not self._trusts(address):
                hops = hop
                break
        if schemes:  # a proxy that sets the field instead of appending leaves fewer of them than hops
            scheme = schemes[-min(hops, len(schemes))].lower()
            scope["scheme"] = SCHEMES.get(scheme, scope["scheme"])

    def _is_trusted(self, address: Address | None) -> bool:
        return address is not None and any(address in network for network in self._networks)


def _read_list(scope: HTTPScope | WebSocketScope, field: bytes) -> Iterator[str]:
    """Yield the elements of a field, of all its lines; empty ones do not count (RFC 9110, 5.6.1)."""
    for name, value in scope["headers"]:
        if name == field:
            yield from filter(None, (element.strip() for element in value.decode("latin-1").split(",")))


def _parse_address(text: str) -> Address | None:
    """Return an address without its port and its zone, or None."""
    match = ADDRESS.fullmatch(text)
    if match is None:
        return None
    try:
        address = ipaddress.ip_address(match[match.lastindex or 0])
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv4Address):
        return address
    return address.ipv4_mapped or ipaddress.IPv6Address(int(address))
