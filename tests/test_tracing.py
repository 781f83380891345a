"""Traces: what a collector of the OpenTelemetry protocol gets, and what it does not."""

import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.conftest import query_sqlite
from tests.database import break_writes
from tests.service import ANANYA, Service
from tests.test_logs import CANARY, PARENT_ID, TRACE_ID, find_request, send_canary


@contextmanager
def run_collector() -> Iterator[tuple[str, list[bytes]]]:
    """Run a receiver of OTLP over HTTP; yield its URL, and what it receives."""
    received: list[bytes] = []

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            received.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Collector) as server:
        threading.Thread(target=server.serve_forever).start()
        yield f"http://127.0.0.1:{server.server_port}", received
        server.shutdown()


def read_spans(received: list[bytes]) -> list[dict[str, Any]]:
    spans = []
    for body in received:
        request = ExportTraceServiceRequest()
        request.ParseFromString(body)
        for resource in request.resource_spans:
            assert any(pair.value.string_value == "student-records" for pair in resource.resource.attributes)
            for scope in resource.scope_spans:
                for span in scope.spans:
                    values = {pair.key: pair.value.string_value or pair.value.int_value for pair in span.attributes}
                    ids = {"trace": span.trace_id.hex(), "parent": span.parent_span_id.hex()}
                    spans.append({"name": span.name, **values, **ids})
    return spans


def test_request_is_a_span_of_its_route(tmp_path: Path) -> None:
    """In the trace of its caller; a request without one begins a trace, which the log names too."""
    with run_collector() as (url, received):
        with Service(tmp_path, TRACING="on", OTEL_EXPORTER_OTLP_ENDPOINT=url) as service:
            assert service.client.post("/student", json=ANANYA).status_code == 201
            parent = {"traceparent": f"00-{TRACE_ID}-{PARENT_ID}-01"}
            assert service.client.get("/student/1?x=1", headers=parent).status_code == 400
            request_id = service.client.get("/nothing").headers["X-Request-ID"]
            trace_id = find_request(service, request_id)["trace_id"]
            service.stop()
        spans = [span for span in read_spans(received) if span["name"] != "GET /health/live"]
    assert [span["name"] for span in spans] == ["POST /student", "GET /student/{student_id}", "GET unmatched"]
    assert [span["http.route"] for span in spans] == ["/student", "/student/{student_id}", "unmatched"]
    assert [span["http.status_code"] for span in spans] == [201, 400, 404]
    assert (spans[1]["trace"], spans[1]["parent"]) == (TRACE_ID, PARENT_ID)
    assert spans[2]["trace"] == trace_id


def test_spans_have_nothing_of_a_student(tmp_path: Path, sqlite_path: Path) -> None:
    """Those of OpenTelemetry carry the path, the query and the message of an exception."""
    with run_collector() as (url, received):
        environment = {"DATABASE_URL": f"sqlite:///{sqlite_path}", "OTEL_EXPORTER_OTLP_ENDPOINT": url}
        with Service(tmp_path, TRACING="on", **environment) as service:
            assert service.client.post("/student", json=ANANYA).status_code == 201
            send_canary(service.client)
            break_writes(partial(query_sqlite, sqlite_path), "sqlite:")
            assert 500 in send_canary(service.client)
            service.stop()
    assert len(read_spans(received)) > 100
    assert CANARY.encode() not in b"".join(received)


def test_absent_packages_stop_the_start_with_one_line(tmp_path: Path) -> None:
    code = "import sys; sys.modules['opentelemetry'] = None; from litestar_app.__main__ import serve; serve()"
    environment = Service(tmp_path, TRACING="on").environment
    command = [sys.executable, "-c", code]
    ended = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    says = "student-records: TRACING=on needs packages of the extra otel: uv sync --extra otel\n"
    assert (ended.returncode, ended.stderr) == (1, says)
