"""Routes that somebody adds: the document describes them, and what goes wrong in them is a problem document."""

import dataclasses
import datetime as dt
import enum
import json
import os
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Generic, Literal, NamedTuple, NotRequired, TypedDict, TypeVar

import httpx
import msgspec
import pytest
from advanced_alchemy.exceptions import (
    DuplicateKeyError,
    ForeignKeyError,
    IntegrityError,
    MultipleResultsFoundError,
    NotFoundError,
    RepositoryError,
)
from advanced_alchemy.extensions.litestar import repository
from litestar import Controller, Request, Router, WebSocket, asgi, delete, get, head, post, put, route, websocket
from litestar.datastructures import Cookie, ResponseHeader, UploadFile
from litestar.di import Provide
from litestar.dto import DataclassDTO
from litestar.enums import RequestEncodingType
from litestar.exceptions import (
    ClientException,
    HTTPException,
    InternalServerException,
    NotFoundException,
    PermissionDeniedException,
    SerializationException,
    ServiceUnavailableException,
)
from litestar.handlers import HTTPRouteHandler
from litestar.openapi import ResponseSpec
from litestar.openapi.spec import Example
from litestar.pagination import OffsetPagination
from litestar.params import Body, CookieParameter, HeaderParameter, PathParameter, QueryParameter
from litestar.response import File, Redirect, Response, ServerSentEvent, Stream
from msgspec import UNSET, Meta, Struct, UnsetType
from openapi_spec_validator import OpenAPIV31SpecValidator
from sqlalchemy import exc
from sqlalchemy.orm import Session

from litestar_app.app import create_app
from litestar_app.database.config import create_alchemy_config
from litestar_app.database.limits import Timeouts
from litestar_app.models import Student
from litestar_app.settings import Settings
from tests.conftest import locked_sqlite
from tests.service import ANANYA, API_KEYS, AS_EDITOR, AS_READER, UNAVAILABLE, connect, serve_app
from tests.test_openapi import run

# others write handlers in older ways as well
pytestmark = pytest.mark.filterwarnings("ignore::litestar.exceptions.base_exceptions.LitestarDeprecationWarning")
T = TypeVar("T")


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


@dataclasses.dataclass
class Room:
    number: int
    floor: str | None = None


@dataclasses.dataclass
class Building:
    main: Room
    rooms: list[Room]
    other: Room | None = None
    by_name: dict[str, Room] = dataclasses.field(default_factory=dict)
    built: dt.datetime | None = None


class Office(TypedDict):
    room: Room
    phone: NotRequired[str]


class Point(NamedTuple):
    x: int
    y: int = 0


class Teacher(Struct):
    """Somebody who teaches."""

    id: int
    name: str | None


class Course(Struct, forbid_unknown_fields=True):
    teacher: Teacher
    code: Annotated[str, Meta(pattern="^[A-Z]{3}[0-9]$", examples=["CSE1"])]
    seats: Annotated[int, Meta(ge=0, le=500)]
    helpers: list[Teacher] = []
    deputy: Teacher | None = None
    room: Room | UnsetType = UNSET
    colour: Colour = Colour.RED
    begins: dt.datetime = dt.datetime(2026, 1, 1)  # noqa: DTZ001  as somebody may write it
    fee: Decimal = Decimal("1.50")
    key: uuid.UUID | None = None
    tags: set[str] = set()
    place: Point = Point(1)
    kind: Literal["a", "b", 1] = "a"
    last: str | None = None


class Cat(Struct, tag="cat"):
    lives: int


class Dog(Struct, tag="dog"):
    tricks: list[str]


class Pets(Struct):
    favourite: Cat | Dog
    others: list[Cat | Dog]


class Node(Struct):
    value: int
    next: "Node | None" = None


class Row(Struct, array_like=True):
    id: int
    name: str = ""


class Page(Struct, Generic[T]):
    items: list[T]


class Unknown:
    """What has no schema."""


class Odd(Struct):
    unknown: Unknown


def make_namesakes() -> tuple[type[Struct], type[Struct]]:
    class Teacher(Struct):
        subject: str

    class StudentRead(Struct):
        grade: int

    return Teacher, StudentRead


OtherTeacher, OtherStudent = make_namesakes()
RESULTS: list[Any] = [
    list[dict], list[dict[str, Any]], dict,  # type: ignore[type-arg]
    dict[str, Any], Any, None, str, bytes, float | None, list[int | str],
    Room, Building, Office, Teacher, Course, list[Course], dict[str, Teacher], Teacher | None, Teacher | Room, Pets,
    Cat | Dog, Node, Row, list[Row], Page[int], Page[Teacher], Odd, Unknown, OtherTeacher, OtherStudent, Colour,
    Literal["a", "b"], Literal[1] | None, dt.datetime, tuple[int, str], tuple[Teacher, ...], set[int], Stream, File,
    ServerSentEvent, Response, Response[bytes], Response[list[Course]], OffsetPagination[Teacher], msgspec.Raw, Path,
    Decimal, uuid.UUID, list[Teacher | None], object, complex,
]  # fmt: skip
BODIES: list[Any] = [
    dict[str, Any], list[Teacher], Course, Pets, Cat | Dog, Building, Office, Any, int, Node, Page[Teacher], Row,
    Teacher | None,
    Annotated[UploadFile, Body(media_type=RequestEncodingType.MULTI_PART)],
    Annotated[list[UploadFile], Body(media_type=RequestEncodingType.MULTI_PART)],
    Annotated[Room, Body(media_type=RequestEncodingType.URL_ENCODED)],
    Annotated[Teacher, Body(media_type=RequestEncodingType.MESSAGEPACK)],
]  # fmt: skip
PARAMETERS: list[Any] = [
    int, int | None, list[int], list[str] | None, dt.datetime, dt.date, dt.timedelta, Colour, Colour | None, bool,
    float, Literal["a", "b"], Literal["a"] | None, uuid.UUID, Decimal, int | str, set[int],
    Annotated[int, QueryParameter(name="other", gt=1, lt=9)],
    Annotated[str, QueryParameter(min_length=1, max_length=3, pattern="^a")],
    Annotated[str, HeaderParameter(name="X-Own")], Annotated[Colour | None, HeaderParameter(name="X-Own")],
    Annotated[str | None, CookieParameter(name="own")],
]  # fmt: skip


def make(decorate: Callable[..., Any], path: str | list[str], annotations: dict[str, Any], **options: Any) -> Any:
    """Make a handler whose parameters have these annotations."""
    namespace: dict[str, Any] = {"__name__": __name__}
    exec(f"async def handle({', '.join(name for name in annotations if name != 'return')}): ...", namespace)
    function = namespace["handle"]
    function.__annotations__ = annotations
    return decorate(path, **options)(function)


def make_handlers() -> Iterator[Any]:
    for number, result in enumerate(RESULTS):
        yield make(get, f"/own/results/{number}", {"return": result})
    for number, body in enumerate(BODIES):
        yield make(post, f"/own/bodies/{number}", {"data": body, "return": None})
    for number, parameter in enumerate(PARAMETERS):
        yield make(get, f"/own/parameters/{number}", {"value": parameter, "return": None})
    for kind in ("int", "str", "uuid", "path", "float", "date", "datetime", "decimal", "time", "timedelta"):
        yield make(get, f"/own/paths/{kind}/{{value:{kind}}}", {"value": Any, "return": None})
    yield make(get, "/own/unused/{a:int}/{b:str}", {"return": None})
    yield make(get, "/own/a b/{value:str}/c", {"value": str, "return": str})
    yield make(put, "/own/dto", {"data": Room, "return": Room}, dto=DataclassDTO[Room])
    yield make(delete, "/own/deleted", {"data": Teacher, "return": None}, status_code=200)
    yield make(head, "/own/head", {"return": None})
    yield make(get, "/own/redirect", {"return": Redirect}, status_code=307)
    yield make(get, "/own/public", {"return": str}, opt={"access": "public"})
    yield make(get, ["/own/several", "/own/several/{value:int}"], {"value": int | None, "return": None})
    yield make(route, "/own/methods", {"return": None}, http_method=["GET", "POST", "HEAD"], status_code=200)
    yield make(get, ["/own/named", "/own/renamed"], {"return": None}, operation_id="list_students")
    yield make(get, "/own/named/again", {"return": None}, operation_id="list_students")
    yield make(
        get, "/own/dependent", {"found": Any, "return": None},
        dependencies={"found": Provide(find, sync_to_thread=False)},
    )  # fmt: skip
    raises = [NotFoundException, PermissionDeniedException, ClientException]
    yield make(get, "/own/raises", {"value": int, "return": None}, raises=raises)
    responses = {
        404: ResponseSpec(Teacher, description="no teacher"),
        418: ResponseSpec(None),
        409: ResponseSpec(dict, examples=[Example("taken", value={"a": 1})]),
        503: ResponseSpec(str, media_type="text/plain"),
    }
    yield make(get, "/own/responses", {"return": None}, responses=responses)
    headers = [ResponseHeader("X-A", documentation_only=True), ResponseHeader("X-B", value="b", description="b")]
    yield make(
        get, "/own/headers", {"return": None}, response_headers=headers, response_cookies=[Cookie("a", value="b")]
    )
    yield Router("/own/router", route_handlers=[make(get, "/", {"return": None})])
    yield OwnController
    yield get_student
    yield no_annotation


def find(limit: int = 1, after: str | None = None) -> int:
    return limit + len(after or "")


class OwnController(Controller):
    """Somebody's own."""

    path = "/own/controller"
    tags = ("own",)

    @get()
    async def list_students(self) -> list[Teacher]:
        """Not the one of this service."""
        return []


@get("/own/student")
async def get_student() -> Teacher:
    return Teacher(1, "Meena")


@get("/own/last/{teacher_id:int}")
async def no_annotation(teacher_id: Annotated[int, PathParameter(ge=5)]) -> Course:
    return Course(Teacher(teacher_id, None), "CSE1", 1)


@contextmanager
def serve_with(url: str, *handlers: Any, timeouts: Timeouts | None = None) -> Iterator[httpx.Client]:
    """Serve with routes that are added."""
    settings = Settings(database_url=url)
    app = create_app(settings, create_alchemy_config(settings, timeouts))
    for handler in handlers:
        app.register(handler)
    with serve_app(app) as address, connect(address) as client:
        yield client


def read_document(client: httpx.Client) -> Any:
    response = client.get("/openapi.json")
    assert response.status_code == 200, response.text
    return response.json()


def test_any_route_is_described(sqlite_url: str) -> None:
    """The document stays valid, and says of the routes of this service what it says without them."""
    with serve_with(sqlite_url) as client:
        plain = read_document(client)
    with serve_with(sqlite_url, *make_handlers()) as client:
        document = read_document(client)
        assert client.get("/docs").status_code == 200
        assert client.get("/own/student").json() == {"id": 1, "name": "Meena"}
    assert list(OpenAPIV31SpecValidator(document).iter_errors()) == []
    assert {path: document["paths"][path] for path in plain["paths"]} == plain["paths"]
    own = {path: item for path, item in document["paths"].items() if path.startswith("/own/")}
    assert len(own) == len(RESULTS) + len(BODIES) + len(PARAMETERS) + 31
    names = [operation["operationId"] for item in document["paths"].values() for operation in item.values()]
    assert len(set(names)) == len(names)
    for path, item in own.items():
        for operation in item.values():
            statuses = {"403", "500", "503"} if path == "/own/public" else {"401", "403", "429", "500", "503"}
            assert statuses <= operation["responses"].keys(), path
            assert ("security" in operation) is (path == "/own/public"), path
    assert "422" in own["/own/bodies/0"]["post"]["responses"]
    wrong = own["/own/raises"]["get"]["responses"]
    for status in ("400", "403", "404"):
        assert list(wrong[status]["content"]) == ["application/problem+json"]


PRINT_DOCUMENT = """
import warnings
from litestar.serialization import encode_json, get_serializer
from tests.test_own_routes import Settings, create_app, make_handlers

warnings.simplefilter("ignore")
app = create_app(Settings(database_url="sqlite:///unused.db"))
for handler in make_handlers():
    if "/own/responses" not in getattr(handler, "paths", ()):  # whose examples Litestar makes at random
        app.register(handler)
print(encode_json(app.openapi_schema.to_schema(), get_serializer(app.type_encoders)).decode())
"""


def test_document_is_the_same_in_every_process() -> None:
    """Python orders the members of a set by a secret of the process."""
    command = [sys.executable, "-c", PRINT_DOCUMENT]
    root = Path(__file__).parents[1]
    first, second = (
        subprocess.run(command, capture_output=True, check=True, cwd=root, env={**os.environ, "PYTHONHASHSEED": seed})
        for seed in "12"
    )
    assert first.stdout == second.stdout
    assert b"/own/unused/" in first.stdout


def test_route_that_is_added_later_is_described() -> None:
    app = create_app(Settings(database_url="sqlite:///unused.db"))
    assert app.openapi_schema is app.openapi_schema
    before = app.openapi_schema.to_schema()
    app.register(get_student)
    assert app.openapi_schema.to_schema()["paths"].keys() - before["paths"].keys() == {"/own/student"}


@post("/own/courses")
async def create_course(data: Course) -> Course:
    return data


@post("/own/pets")
async def create_pets(data: list[Pets]) -> None:
    del data


@post("/own/buildings")
async def create_building(data: Building) -> None:
    del data


COURSE = {"teacher": {"id": 1, "name": None}, "code": "CSE1", "seats": 1}
WRONG_BODIES = [
    ("courses", [], "", "expected an object"),
    ("courses", {}, "/teacher", "missing"),
    ("courses", {**COURSE, "a/b~c": 1}, "/a~1b~0c", "no such field"),
    ("courses", {**COURSE, "teacher": {"id": "x", "name": None}}, "/teacher/id", "expected an integer"),
    ("courses", {**COURSE, "teacher": {"id": 1}}, "/teacher/name", "missing"),
    ("courses", {**COURSE, "seats": -1}, "/seats", "expected an integer of at least 0"),
    ("courses", {**COURSE, "seats": 501}, "/seats", "expected an integer of at most 500"),
    ("courses", {**COURSE, "code": "x"}, "/code", "expected a text that matches ^[A-Z]{3}[0-9]$"),
    ("courses", {**COURSE, "helpers": [{"id": 1, "name": "x"}, 1]}, "/helpers/1", "expected an object"),
    ("courses", {**COURSE, "last": 1}, "/last", "expected a text or null"),
    ("courses", {**COURSE, "colour": "green"}, "/colour", "expected another value than 'green'"),
    ("courses", {**COURSE, "begins": "today"}, "/begins", "expected a date and time (RFC 3339)"),
    ("courses", {**COURSE, "key": "x"}, "/key", "expected a UUID"),
    ("pets", [{"favourite": {"type": "x"}, "others": []}], "/0/favourite/type", "expected another value than 'x'"),
    ("buildings", {"main": {"number": 1}, "rooms": [{"number": "x"}]}, "/rooms/0/number", "expected an integer"),
]  # fmt: skip


def test_wrong_body_is_a_422_in_our_words(sqlite_url: str) -> None:
    with serve_with(sqlite_url, create_course, create_pets, create_building) as client:
        for name, body, pointer, detail in WRONG_BODIES:
            response = client.post(f"/own/{name}", json=body)
            assert (response.status_code, response.headers["Content-Type"]) == (422, "application/problem+json")
            assert response.json()["errors"] == [{"pointer": pointer, "detail": detail}]
        headers = {"Content-Type": "application/json"}
        for content, what in (
            ("[" * 100_000, "The body is nested too deeply"),
            ("", "The body is empty; expected JSON"),
            ("{", "The body cannot be decoded: Input data was truncated"),
        ):
            response = client.post("/own/courses", content=content, headers=headers)
            assert (response.status_code, response.json()["detail"]) == (400, what)
        assert client.post("/own/courses", json=COURSE).status_code == 201


@get("/own/words/{code:int}")
async def use_parameters(  # noqa: PLR0913, PLR0917
    code: Annotated[int, PathParameter(ge=5)],
    count: int,
    colour: Colour = Colour.RED,
    on: dt.date | None = None,
    key: uuid.UUID | None = None,
    some: list[int] | None = None,
    either: int | str = 1,
    flag: bool = False,  # noqa: FBT002  a query parameter
    level: Annotated[int, QueryParameter(name="Level", gt=1, lt=9)] = 5,
    text: Annotated[str, QueryParameter(min_length=2)] = "ab",
    own: Annotated[int, HeaderParameter(name="X-Own", le=3)] = 1,
    crumb: Annotated[int, CookieParameter(name="crumb")] = 1,
) -> list[Any]:
    return [code, count, colour, on, key, some, either, flag, level, text, own, crumb]


WORDS = [
    ("", {}, "query parameter 'count': missing; expected an integer"),
    ("?count=x", {}, "query parameter 'count': expected an integer, got 'x'"),
    ("?count=1&colour=green", {}, "query parameter 'colour': expected red or blue, got 'green'"),
    ("?count=1&on=today", {}, "query parameter 'on': expected a date (YYYY-MM-DD), got 'today'"),
    ("?count=1&key=x", {}, "query parameter 'key': expected a UUID, got 'x'"),
    ("?count=1&Level=9", {}, "query parameter 'Level': expected an integer above 1 and below 9, got 9"),
    ("?count=1&text=a", {}, "query parameter 'text': expected a text of at least 2 characters, got 'a'"),
    ("?count=1&flag=1", {}, "query parameter 'flag': expected true or false, got '1'"),
    ("?count=1", {"X-Own": "4"}, "header X-Own: expected an integer of at most 3, got 4"),
    ("?count=1", {"Cookie": "crumb=x"}, "cookie parameter 'crumb': expected an integer, got 'x'"),
    (
        "?count=1&level=5",
        {},
        "query parameter 'level': not one of this route's (count, colour, on, key, some, either, flag, Level, text)",
    ),
]


def test_parameters_of_any_route_are_known_and_explained(sqlite_url: str) -> None:
    """By the names that requests have for them, also where they are only arguments of the function."""
    with serve_with(sqlite_url, use_parameters) as client:
        for query, headers, detail in WORDS:
            response = client.get(f"/own/words/7{query}", headers=headers)
            assert (response.status_code, response.json()["detail"]) == (400, detail)
        detail = client.get("/own/words/4?count=1").json()["detail"]
        assert detail == "path parameter 'code': expected an integer of at least 5, got 4"
        for number in ("1", "x"):
            assert client.get(f"/own/words/7?count=1&some={number}").status_code == (200 if number == "1" else 400)
        query = "count=1&colour=blue&on=2026-01-01&some=1&some=2&either=x&flag=TRUE&Level=2&text=abc"
        assert client.get(f"/own/words/7?{query}").json() == [
            7, 1, "blue", "2026-01-01", None, [1, 2], "x", True, 2, "abc", 1, 1,
        ]  # fmt: skip


def make_failing(path: str, error: Exception) -> HTTPRouteHandler:
    @get(path)
    async def fail() -> None:
        raise error

    return fail


FAILURES = [
    (NotFoundError(detail="SELECT secret"), 404, "There is no such record"),
    (DuplicateKeyError(detail="secret"), 409, "There is such a record already"),
    (
        ForeignKeyError(detail="secret"),
        409,
        "The record refers to one that does not exist, or another one refers to it",
    ),
    (IntegrityError(detail="secret"), 409, "A constraint of the database is violated"),
    (MultipleResultsFoundError(detail="secret"), 409, "Several records match, and one was expected"),
    (NotFoundException("There is no such teacher"), 404, "There is no such teacher"),
    (NotFoundException(), 404, "There is nothing at {path}; /docs lists what there is"),
    (ServiceUnavailableException("later please", headers={"Retry-After": "7"}), 503, "later please"),
    (HTTPException(status_code=502), 502, "Bad Gateway"),
    (HTTPException("closed", status_code=499), 499, "closed"),
    (HTTPException("odd", status_code=599), 599, "odd"),
    (HTTPException("secret", status_code=600), 500, None),
    (HTTPException("secret", status_code=0), 500, None),
    (InternalServerException("secret"), 500, None),
    (SerializationException("secret"), 500, None),
    (OverflowError("secret"), 500, None),
    (RepositoryError(detail="secret"), 500, None),
    (exc.InvalidRequestError("secret"), 500, None),
]


def test_errors_of_repositories_are_problems(sqlite_url: str) -> None:
    handlers = [make_failing(f"/own/{number}", error) for number, (error, _, _) in enumerate(FAILURES)]
    with serve_with(sqlite_url, *handlers) as client:
        for number, (_, status, detail) in enumerate(FAILURES):
            response = client.get(f"/own/{number}")
            assert (response.status_code, response.headers["Content-Type"]) == (status, "application/problem+json")
            assert detail is None or response.json()["detail"] == detail.format(path=f"/own/{number}")
            assert "secret" not in response.text
            assert response.headers.get("Retry-After") == ("7" if status == 503 else None)
            assert response.json()["title"]


def test_error_of_a_server_on_purpose_is_one_warning(sqlite_url: str, caplog: pytest.LogCaptureFixture) -> None:
    with serve_with(sqlite_url, make_failing("/own/bad", HTTPException("no luck", status_code=502))) as client:
        assert client.get("/own/bad").status_code == 502
    (record,) = (record for record in caplog.records if record.name == "litestar_app" and record.levelname != "INFO")
    assert (record.levelname, record.getMessage()) == ("WARNING", "GET /own/bad: 502: no luck")
    assert record.exc_info is None


@post("/own/reads")
async def read_body(request: Request[Any, Any, Any], db_session: Session) -> str:
    student_id = (await request.json())["id"]
    return StudentRepository(session=db_session).get(student_id).name or ""


@post("/own/reads/form")
async def read_form(request: Request[Any, Any, Any]) -> int:
    return len(await request.form())


@post("/own/reads/msgpack")
async def read_msgpack(request: Request[Any, Any, Any]) -> str:
    return str(await request.msgpack())


def test_handler_that_reads_the_body_itself(sqlite_url: str) -> None:
    with serve_with(sqlite_url, read_body, read_form, read_msgpack, get_by_repository) as client:
        for path, content, what in (
            ("", b"{", "The body cannot be decoded: "),
            ("", b"[" * 100_000, "The body is nested too deeply"),
            ("", b'{"id": "\xff"}', "The body cannot be decoded: "),
            ("/msgpack", b"\xc1", "The body cannot be decoded: "),
        ):
            response = client.post(f"/own/reads{path}", content=content)
            assert (response.status_code, response.json()["detail"][: len(what)]) == (400, what)
        for media_type in ("multipart/form-data", "multipart/form-data; boundary=x", "application/json"):
            response = client.post("/own/reads/form", content=b"{--x", headers={"Content-Type": media_type})
            assert response.status_code < 500, media_type
        for number in (2**63, -(2**63) - 1, 10**400):
            response = client.post("/own/reads", content=b'{"id": %d}' % number)
            assert (response.status_code, response.json()["detail"]) == (422, VALUE), number
        assert client.get(f"/own/repository/{2**63}").status_code == 422
        assert client.post("/own/reads", json={"id": 2**63 - 1}).status_code == 404


VALUE = "A value does not fit its column in the database"


class StudentRepository(repository.SQLAlchemySyncRepository[Student]):
    """One of advanced-alchemy's, as its documentation shows."""

    model_type = Student


@get("/own/repository/{student_id:int}", sync_to_thread=True)
def get_by_repository(student_id: int, db_session: Session) -> str:
    return StudentRepository(session=db_session).get(student_id).name or ""


@post("/own/repository", sync_to_thread=True)
def add_by_repository(db_session: Session) -> str:
    StudentRepository(session=db_session, auto_commit=True).add(Student(name="A", department="B", cgpa=1.0))
    return "added"


def test_repository_that_waits_in_vain_is_a_503(sqlite_url: str, sqlite_path: Path) -> None:
    """Its own exception for that is one of a violated constraint."""
    with serve_with(sqlite_url, get_by_repository, add_by_repository, timeouts=Timeouts(lock=0.2)) as client:
        assert client.post("/student", json=ANANYA).status_code == 201
        assert client.get("/own/repository/1").text == "Ananya"
        assert client.get("/own/repository/2").json()["detail"] == "There is no such record"
        with locked_sqlite(sqlite_path):
            response = client.post("/own/repository")
        assert (response.status_code, response.json()["detail"]) == (503, UNAVAILABLE)
        assert client.post("/own/repository").status_code == 201


@pytest.mark.parametrize("kind", ["openapi", "typescript"])
def test_commands_write_the_document(tmp_path: Path, sqlite_url: str, kind: str) -> None:
    """The same as `/openapi.json` but for the servers, of which only a request tells."""
    written = tmp_path / {"openapi": "openapi.json", "typescript": "api.ts"}[kind]
    litestar = Path(sys.executable).with_name("litestar")
    command: list[str | Path] = [litestar, "--app", "litestar_app.main:app", "schema", kind, "--output", written]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    if kind == "openapi":
        with serve_with(sqlite_url) as client:
            assert {**json.loads(written.read_text()), "servers": []} == {**read_document(client), "servers": []}
    else:
        assert "export namespace create_student {" in written.read_text()
        run("tsc", "--strict", "--noEmit", written)


@asgi("/own/asgi", is_mount=True, copy_scope=True)
async def respond_by_asgi(scope: Any, receive: Any, send: Any) -> None:
    del receive
    if scope["type"] == "websocket":
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.close"})
    else:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"students"})


@asgi("/own/public/asgi", copy_scope=True, opt={"access": "public"})
async def respond_to_anybody(scope: Any, receive: Any, send: Any) -> None:
    await respond_by_asgi.fn(scope, receive, send)


@websocket("/own/websocket")
async def talk(socket: WebSocket[Any, Any, Any]) -> None:
    await socket.accept()
    await socket.close()


@websocket("/own/public/websocket", opt={"access": "public"})
async def talk_to_anybody(socket: WebSocket[Any, Any, Any]) -> None:
    await socket.accept()
    await socket.close()


@get("/own/cached", cache=60)
async def get_cached() -> str:
    return "students"


async def begin(request: Request[Any, Any, Any]) -> None:
    del request


@get("/own/begun", before_request=begin)
async def get_begun() -> str:
    return "students"


GUARDED = [respond_by_asgi, respond_to_anybody, talk, talk_to_anybody, get_cached, get_begun]
HANDSHAKE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
}


@contextmanager
def serve_guarded(url: str, **others: Any) -> Iterator[httpx.Client]:
    """Serve such handlers by uvicorn's own protocols, which take WebSockets."""
    app = create_app(Settings(database_url=url, **others))
    for handler in GUARDED:
        app.register(handler)
    with serve_app(app, http="httptools", ws="wsproto") as address, connect(address) as client:
        yield client


def shake(client: httpx.Client, path: str, **headers: str) -> int:
    """Return the status of the response to the handshake of a WebSocket."""
    with client.stream("GET", path, headers={**HANDSHAKE, **headers}) as response:
        return response.status_code


def test_every_kind_of_handler_needs_a_key(sqlite_url: str) -> None:
    with serve_guarded(sqlite_url, api_keys=API_KEYS, rate_limit="1000/second") as client:
        paths = ("/own/asgi", "/own/asgi/below", "/own/cached", "/own/begun")
        for headers, status in ((AS_READER, 200), ({}, 401), ({"Authorization": "Bearer x"}, 401)):
            for path in paths:
                response = client.get(path, headers=headers)
                assert (path, response.status_code) == (path, status)
                assert status == 200 or response.headers["Content-Type"] == "application/problem+json"
        assert client.options("/own/asgi").status_code == 401
        assert client.post("/own/asgi", headers=AS_READER).status_code == 403
        assert client.post("/own/asgi", headers=AS_EDITOR).status_code == 200
        assert client.post("/own/asgi", headers={**AS_EDITOR, "Origin": "http://evil.example"}).status_code == 403
        assert client.get("/own/public/asgi").status_code == 200
        for path in ("/own/websocket", "/own/asgi"):
            assert shake(client, path) == 403
            assert shake(client, path, **AS_READER) == 403  # it may write
            assert shake(client, path, **AS_EDITOR) == 101
            assert shake(client, path, **AS_EDITOR, Origin="http://evil.example") == 403
            assert shake(client, path, **AS_EDITOR, Origin=str(client.base_url).rstrip("/")) == 101
        assert shake(client, "/own/public/websocket") == 101


def test_every_kind_of_handler_is_for_this_machine_without_keys(sqlite_url: str) -> None:
    with serve_guarded(sqlite_url) as client:
        for path in ("/own/asgi", "/own/public/asgi", "/own/cached", "/own/begun"):
            assert client.get(path).status_code == 200
            for headers in ({"Host": "evil.example"}, {"X-Forwarded-For": "192.0.2.1"}):
                assert client.get(path, headers=headers).status_code == 403
        for path in ("/own/websocket", "/own/public/websocket", "/own/asgi"):
            assert shake(client, path) == 101
            assert shake(client, path, Host="evil.example") == 403
            assert shake(client, path, **{"X-Forwarded-For": "192.0.2.1"}) == 403


def test_websocket_is_no_request(sqlite_url: str) -> None:
    """CORS and the metrics are about requests."""
    options = {"cors_origins": "https://app.example", "forwarded_allow_ips": "127.0.0.1"}
    with serve_guarded(sqlite_url, api_keys=API_KEYS, **options) as client:
        before = client.get("/metrics", headers=AS_EDITOR).text
        assert shake(client, "/own/nothing") == 403
        assert shake(client, "/student", **AS_EDITOR) == 403
        assert shake(client, "/own/websocket", **AS_EDITOR) == 101
        assert shake(client, "/own/websocket", **AS_EDITOR, Origin="https://app.example") == 101
        after = client.get("/metrics", headers=AS_EDITOR).text
        counts = [
            {line for line in text.splitlines() if line.startswith("http_requests_total") and "/metrics" not in line}
            for text in (before, after)
        ]
        assert counts[0] == counts[1]
