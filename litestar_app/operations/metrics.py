"""The route of the metrics."""

from litestar import Controller, Response, route
from litestar.openapi import ResponseSpec
from litestar.openapi.spec import Example

from litestar_app.http.parameters import METRICS, READ
from litestar_app.http.problems import problem_responses
from litestar_app.metrics import CONTENT_TYPE, render

EXAMPLE = """# HELP http_requests_total Requests, by the template of their route.
# TYPE http_requests_total counter
http_requests_total{method="GET",route="/student/{student_id}",status="200"} 1729.0
"""


class MetricsController(Controller):
    """What the service counts."""

    path = "/metrics"
    tags = ("health",)
    opt = METRICS

    @route(
        "/",
        http_method=READ,
        status_code=200,
        summary="Metrics for Prometheus",
        sync_to_thread=True,  # it reads the files of every worker
        responses={
            200: ResponseSpec(
                str,
                description="Counters, gauges and histograms, of all workers",
                media_type=CONTENT_TYPE,
                examples=[Example(value=EXAMPLE)],
                generate_examples=False,
            ),
            **problem_responses(400),
        },
    )
    def get_metrics(self) -> Response[bytes]:
        """Return the metrics in the text format of Prometheus, version 0.0.4."""
        return Response(render(), media_type=CONTENT_TYPE)
