"""A running relay and a collector: spans of mail arrive by OTLP, and mail goes on when nobody takes them."""

import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from support.processes import free_port, wait_until
from support.running import OURS, Running
from support.script_sink import ScriptSink

pytestmark = pytest.mark.integration

SERVICE = (
    b"From: Bank <service@bank.example>\r\nTo: You <a@home.example>\r\nSubject: Your new card\r\n"
    b"Message-ID: <1@bank.example>\r\n\r\nYour new debit card was posted today.\r\n"
)


class Collector:
    """Takes what exporters send."""

    def __init__(self) -> None:
        self.taken: list[bytes] = []
        taken = self.taken

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                taken.append(self.rfile.read(int(self.headers["Content-Length"])))
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def names(self) -> list[str]:
        """The names of all spans, sorted."""
        requests = [ExportTraceServiceRequest.FromString(body) for body in self.taken]
        resources = [resource for request in requests for resource in request.resource_spans]
        return sorted(span.name for one in resources for scope in one.scope_spans for span in scope.spans)


@pytest.fixture
def collector() -> Iterator[Collector]:
    """A collector that listens."""
    collector = Collector()
    yield collector
    collector.server.shutdown()
    collector.server.server_close()


def traced(directory: Path, sink: int, cache: Path, endpoint: str) -> Running:
    """A relay that sends its spans to this collector."""
    directory.mkdir()
    variables = {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint}
    settings = {"smtp": OURS, "rest": "[tracing]\nenabled = true"}
    return Running(directory, sink, cache=cache, workers=1, variables=variables, **settings)


def test_spans_arrive_and_are_not_waited_for(tmp_path: Path, rules_cache: Path, collector: Collector) -> None:
    """What was sent arrives at the collector at the latest with the drain, without addresses; with a collector that is
    away mail goes on and the relay ends as told.
    """
    there = f"http://127.0.0.1:{collector.server.server_port}"
    away = f"http://127.0.0.1:{free_port()}"
    with (
        ScriptSink() as sink,
        traced(tmp_path / "one", sink.port, rules_cache, there) as one,
        traced(tmp_path / "two", sink.port, rules_cache, away) as two,
    ):
        for relay in (one, two):
            assert relay.wait_ready().send(SERVICE, ["a@home.example"])[0] == 250
        for relay in (one, two):
            assert relay.process.stop(seconds=60) == 0, relay.printed
        assert len(sink.delivered) == 2
    wait_until(lambda: bool(collector.taken), "spans")
    assert collector.names == ["complete", "judge", "message", "next_hop"]
    assert not re.search(rb"home\.example|bank\.example|debit", b"".join(collector.taken))
