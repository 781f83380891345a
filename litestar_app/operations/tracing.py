"""Traces, by OpenTelemetry: a span for each request, with the route and not the path, and without the query."""

import os
import threading
from typing import Any

from litestar.plugins.opentelemetry import OpenTelemetryConfig
from litestar.plugins.opentelemetry.middleware import OpenTelemetryInstrumentationMiddleware
from litestar.types import ASGIApp, Message, Receive, Scope, Send
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.metrics import NoOpMeterProvider
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

from litestar_app.http.access_log import name_method, name_route

FLUSH_TIMEOUT = 5.0
"""Seconds for the last spans at the end of the service."""
CONTEXT_FIELDS = {b"traceparent", b"tracestate"}


class Tracing:
    """Makes the spans and sends them; the variables OTEL_… of the standard say where, how many and under which name."""

    def __init__(self) -> None:
        os.environ.setdefault("OTEL_SERVICE_NAME", "student-records")
        self._provider = TracerProvider(shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        # not by the plugin, which Litestar makes of this, and which by itself takes no class of ours
        self.middleware = OpenTelemetryConfig(
            middleware_class=TracingMiddleware,
            scope_span_details_extractor=lambda scope: (name_method(scope), {}),
            tracer_provider=self._provider,
            meter_provider=NoOpMeterProvider(),
            exclude_spans=["receive", "send"],
        ).middleware

    def close(self) -> None:
        """Send what is left, unless that takes too long."""
        closing = threading.Thread(target=self._provider.shutdown, name="tracing", daemon=True)
        closing.start()
        closing.join(FLUSH_TIMEOUT)


class TracingMiddleware(OpenTelemetryInstrumentationMiddleware):
    """Shows OpenTelemetry no more of a request than may leave the service: its own spans carry the URL."""

    def __init__(self, app: ASGIApp, config: OpenTelemetryConfig) -> None:
        """Take the application."""

        async def respond(shown: Any, receive: Receive, send: Send) -> None:
            scope, span = shown["scope"], trace.get_current_span()
            scope["state"]["trace_id"] = trace.format_trace_id(span.get_span_context().trace_id)

            async def name_and_send(message: Message) -> None:
                if message["type"] == "http.response.start":
                    route = name_route(scope)
                    span.update_name(f"{name_method(scope)} {route}")
                    span.set_attribute("http.route", route)
                await send(message)

            try:
                await app(scope, receive, name_and_send)
            except Exception as error:  # noqa: BLE001  raised again where no span records its message
                shown["error"] = error

        super().__init__(respond, config)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Respond, in a span."""
        shown: Any = {
            "type": scope["type"],
            "http_version": scope.get("http_version"),
            "method": name_method(scope),
            "scheme": scope["scheme"],
            "headers": [pair for pair in scope["headers"] if pair[0] in CONTEXT_FIELDS],
            "scope": scope,
            "error": None,
        }
        await super().__call__(shown, receive, send)
        if shown["error"] is not None:
            raise shown["error"]
