"""Cross-site requests: a page of another site must not write through the browser of somebody who may."""

import re

from litestar.exceptions import PermissionDeniedException
from litestar.types import HTTPScope

from litestar_app.http.proxies import SCHEMES
from litestar_app.settings import DEFAULT_PORTS

SAME_SITE = {b"same-origin", b"none"}
"""What Sec-Fetch-Site says of a request of this service's own pages, and of one that no page has made."""
REFERER = re.compile(r"(https?://[^/?#\\@]+)(?:[/?#].*)?", re.IGNORECASE | re.DOTALL)
"""The URL of a page, and its origin. Browsers send no userinfo, behind which another host could hide."""
REASON = "in a browser, only pages of this service may write"


def reject_cross_site(scope: HTTPScope, trusted: frozenset[str] = frozenset()) -> None:
    """Reject a request that a page of another origin has made, unless that is trusted.

    Programs send none of the fields. Every line of one that comes several times must be right.

    Raises:
        PermissionDeniedException: 403. Sec-Fetch-Site decides; where it is absent, as in old browsers and over plain
            HTTP, Origin does, and where that is absent too, Referer.

    """
    sites, origins, referers = [], [], []
    for name, value in scope["headers"]:
        if name == b"sec-fetch-site":
            sites.append(value)
        elif name == b"origin":
            origins.append(value.decode("latin-1"))
        elif name == b"referer":
            referers.append(value.decode("latin-1"))
    if origins and all(normalize(origin) in trusted for origin in origins):
        return
    if sites:
        for site in sites:
            if site not in SAME_SITE:
                given = site.decode("latin-1")
                raise PermissionDeniedException(f"Sec-Fetch-Site: {given}; expected same-origin or none: {REASON}")
        return
    if origins or referers:
        _check_origins(scope, origins, referers, trusted)


def _check_origins(scope: HTTPScope, origins: list[str], referers: list[str], trusted: frozenset[str]) -> None:
    hosts = [value.decode("latin-1") for name, value in scope["headers"] if name == b"host"]
    own = f"{SCHEMES.get(scope['scheme'], scope['scheme'])}://{', '.join(hosts)}"
    allowed = {normalize(own), *trusted} if any(hosts) else trusted
    for origin in origins:
        if normalize(origin) not in allowed:
            raise PermissionDeniedException(f"Origin: {origin}; expected {own}: {REASON}")
    for referer in () if origins else referers:
        page = REFERER.fullmatch(referer)
        if page is None or normalize(page[1]) not in allowed:
            given = page[1] if page else "not the URL of a page"  # without its path, which may name a student
            raise PermissionDeniedException(f"Referer: {given}; expected {own}: {REASON}")


def normalize(origin: str) -> str:
    """Write an origin as browsers do, in lower case and without the default port of its scheme."""
    origin = origin.lower()
    return origin.removesuffix(f":{DEFAULT_PORTS.get(origin.partition('://')[0])}")
