"""Cross-site requests: a page of another site must not write through the browser of somebody who may."""

from litestar.exceptions import PermissionDeniedException
from litestar.types import HTTPScope

SAME_SITE = {b"same-origin", b"none"}
"""What Sec-Fetch-Site says of a request of this service's own pages, and of one that no page has made."""
DEFAULT_PORTS = {"http": ":80", "https": ":443"}
REASON = "in a browser, only pages of this service may write"


def reject_cross_site(scope: HTTPScope, trusted: frozenset[str] = frozenset()) -> None:
    """Reject a request that a page of another origin has made, unless that is trusted.

    Neither field comes from a program.

    Raises:
        PermissionDeniedException: 403. Sec-Fetch-Site decides; where it is absent, as in old browsers and over plain
            HTTP, Origin does.

    """
    fields = dict(scope["headers"])
    if trusted and fields.get(b"origin", b"").decode("latin-1").lower() in trusted:
        return
    site = fields.get(b"sec-fetch-site")
    if site is not None:
        if site not in SAME_SITE:
            given = site.decode("latin-1")
            raise PermissionDeniedException(f"Sec-Fetch-Site: {given}; expected same-origin or none: {REASON}")
    elif (field := fields.get(b"origin")) is not None:
        origin = field.decode("latin-1")
        own = f"{scope['scheme']}://{fields.get(b'host', b'').decode('latin-1')}"
        if _normalize(origin) != _normalize(own):
            raise PermissionDeniedException(f"Origin: {origin}; expected {own}: {REASON}")


def _normalize(origin: str) -> str:
    """Write an origin as browsers do, in lower case and without the default port of its scheme."""
    origin = origin.lower()
    return origin.removesuffix(DEFAULT_PORTS.get(origin.partition("://")[0], ""))
