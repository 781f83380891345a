"""Health, as a supervisor or a load balancer asks for it."""

from typing import Annotated

from litestar import Controller, route
from litestar.di import NamedDependency
from litestar.openapi import ResponseSpec
from litestar.openapi.spec import Example
from msgspec import Meta, Struct

from litestar_app.database import Database
from litestar_app.http.parameters import PUBLIC, READ
from litestar_app.http.problems import problem_responses


class Health(Struct):
    """The state of the service."""

    message: Annotated[str, Meta(description="live or ready", examples=["live", "ready"])]


READY = ResponseSpec(
    Health,
    description="The database responds",
    examples=[Example(value=Health("ready"))],
    generate_examples=False,
)


class HealthController(Controller):
    """Whether the process and its database respond."""

    path = "/health"
    tags = ("health",)
    opt = PUBLIC

    @route(
        "/live",
        http_method=READ,
        status_code=200,
        summary="Is the process up?",
        response_description="The process is up",
        responses=problem_responses(400, is_public=True),
    )
    async def get_liveness(self) -> Health:
        """Respond as long as the process does."""
        return Health("live")

    @route(
        "/ready",
        http_method=READ,
        status_code=200,
        summary="Does the database respond?",
        responses={200: READY, **problem_responses(400, is_public=True)},
    )
    async def get_readiness(self, database: NamedDependency[Database]) -> Health:
        """Respond 200 while the database does, and 503 while it does not."""
        await database.ping()
        return Health("ready")
