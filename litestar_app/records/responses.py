"""Responses with records: their entity tags, and the links between the pages of a listing."""

from typing import Any, NamedTuple, TypeVar
from urllib.parse import urlencode

import msgspec
from litestar import Response
from litestar.datastructures import ResponseHeader
from msgspec import Struct

from litestar_app.exceptions import InvalidQueryError, RejectedError
from litestar_app.http.parameters import MAX_QUERY, format_links, is_plain_integer
from litestar_app.records.fields import MAX_ID
from litestar_app.records.listing import BY_ID, Listing
from litestar_app.records.record import etag
from litestar_app.records.service import Page

R = TypeVar("R", bound=Struct)

MAX_LINK = MAX_QUERY - 1500
"""Bytes of the query of a link, but for the record at a boundary: a text of 100 characters may have 400."""


class Headers(NamedTuple):
    """Header fields as the document shows them; the value of one that is only documented says of what type it is."""

    etag: ResponseHeader
    location: ResponseHeader
    link: ResponseHeader
    total: ResponseHeader


def document_headers(one: str, many: str) -> Headers:
    """Document the header fields of responses with records, by their nouns."""

    def document(name: str, description: str, example: Any) -> ResponseHeader:
        value: Any = type(example)()
        return ResponseHeader(name, documentation_only=True, value=value, description=description, example=example)

    return Headers(
        document("ETag", f"the version of the {one}", '"33c00e7dc6ec343591bbd6e5"'),
        document("Location", f"the path of the new {one}", f"/{one}/1"),
        document(
            "Link",
            "the pages first, prev and next, where there are such (RFC 8288)",
            f'</{many}?limit=100>; rel="first"',
        ),
        document("X-Total-Count", f"how many {many} match, if count is true", 250),
    )


def parse_id(given: str, not_found: type[RejectedError]) -> int:
    """Read the id of a path; raise `not_found` for what no database could hold."""
    if not is_plain_integer(given) or abs(int(given)) > MAX_ID:
        raise not_found
    return int(given)


def respond(record: R, **headers: str) -> Response[R]:
    """Respond with a record and its entity tag."""
    return Response(record, headers={"ETag": etag(record), **headers})


def check_links(listing: Listing) -> None:
    """Reject filters of which a page could have a link that is too long for this service itself."""
    if listing.filters is listing.rules.nothing:
        return
    cursor = listing.make_cursor(None, is_backward=True)
    if max(len(_write_first(listing)), len(cursor.encode())) > MAX_LINK:
        raise InvalidQueryError(f"The filters are too long: the links to other pages have {MAX_LINK} bytes for them")


def respond_with_page(path: str, listing: Listing, page: Page[R]) -> Response[list[R]]:
    """Respond with a page and its header Link: to the first page and to those beside this one."""
    common = f"limit={listing.limit}{'&count=true' if listing.count else ''}"
    first = _write_first(listing)
    queries = {"first": f"{common}&{first}" if first else common}
    if page.previous:
        queries["prev"] = f"{common}&cursor={page.previous.encode()}"
    if page.next:
        queries["next"] = f"{common}&cursor={page.next.encode()}"
    headers = {"Link": format_links(path, queries)}
    if page.total is not None:
        headers["X-Total-Count"] = str(page.total)
    return Response(page.records, headers=headers)


def _write_first(listing: Listing) -> str:
    """Write the filters and the sort for a query."""
    filters = msgspec.to_builtins(listing.filters)
    if listing.sort != BY_ID:
        filters["sort"] = ",".join(map(str, listing.sort))
    return urlencode(filters, doseq=True)
