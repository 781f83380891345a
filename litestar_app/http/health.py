"""Health, as a supervisor or a load balancer asks for it."""

from litestar import Controller, HttpMethod, route
from litestar.di import NamedDependency
from msgspec import Struct

from litestar_app.database import Database
from litestar_app.http.problems import problem_responses

READ = [HttpMethod.GET, HttpMethod.HEAD]


class Health(Struct):
    """The state of the service."""

    message: str


class HealthController(Controller):
    """Whether the process and its database respond."""

    path = "/health"
    tags = ("health",)

    @route("/live", http_method=READ, status_code=200, summary="Is the process up?", responses=problem_responses(400))
    async def get_liveness(self) -> Health:
        """Respond as long as the process does."""
        return Health("live")

    @route(
        "/ready",
        http_method=READ,
        status_code=200,
        summary="Does the database respond?",
        responses=problem_responses(400),
    )
    async def get_readiness(self, database: NamedDependency[Database]) -> Health:
        """Respond 200 while the database does, and 503 while it does not."""
        await database.ping()
        return Health("ready")
