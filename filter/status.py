"""What the HTTP door shows of the whole: alive, ready or why not, and the metrics of all workers and the supervisor.

    /livez    200 while the supervisor answers at all
    /readyz   200 when mail may come here, else 503; a JSON document with the reasons
    /metrics  the text format of Prometheus

Files of metrics are read and merged in one thread of their own: a slow disk holds up neither health nor workers.
Errors of the system while reading them become an error answer; nothing else is raised.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from enum import StrEnum
from http import HTTPStatus
from pathlib import Path
from typing import Final

import orjson
from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest

from . import logs, metrics
from .health import Health, NotReady
from .http_in import Answer, Routes

_PROMETHEUS: Final = "text/plain; version=0.0.4; charset=utf-8"


class ReloadOutcome(StrEnum):
    """How a reload ended."""

    DONE = "done"
    REFUSED = "refused"


class Status:
    """Health and metrics; `health` gives the state of now, `directory` is where workers count."""

    def __init__(self, directory: Path, health: Callable[[], Health]) -> None:
        self._directory = directory
        self._health = health
        self._files = ThreadPoolExecutor(1, thread_name_prefix="metrics")
        self._registry = CollectorRegistry()
        self._restarts = Counter(
            "consentry_worker_restarts", "Workers started in place of one that ended", registry=self._registry
        )
        self._reloads = Counter(
            "consentry_reloads", "Requests to reload the configuration", ["outcome"], registry=self._registry
        )
        self._not_ready = Gauge(
            "consentry_not_ready", "1 while mail should go elsewhere, by reason", ["reason"], registry=self._registry
        )
        self._workers = Gauge("consentry_workers_ready", "Workers that serve", registry=self._registry)
        for outcome in ReloadOutcome:
            self._reloads.labels(outcome.value)

    def prepare(self) -> None:
        """Begin to count anew. Raises OSError."""
        metrics.prepare(self._directory)

    def routes(self) -> Routes:
        """For the HTTP server."""
        return {"/livez": self._live, "/readyz": self._ready, "/metrics": self._metrics}

    def restarted(self) -> None:
        """Count a worker that had to be started again."""
        self._restarts.inc()

    def reloaded(self, outcome: ReloadOutcome) -> None:
        """Count a reload."""
        self._reloads.labels(outcome.value).inc()

    def retire(self, pid: int) -> None:
        """Keep what a worker that has ended counted."""
        self._files.submit(self._retire, pid)

    def close(self) -> None:
        """Finish what is under way."""
        self._files.shutdown()

    def _retire(self, pid: int) -> None:
        try:
            metrics.retire(self._directory, pid)
        except Exception as error:  # noqa: BLE001 -- counters of one worker are lost, and that is said
            logs.fault("metrics_not_retired", error, pid=pid)

    @staticmethod
    async def _live() -> Answer:
        return Answer(b'{"live":true}\n')

    async def _ready(self) -> Answer:
        health = self._health()
        body = orjson.dumps(health.document(), option=orjson.OPT_APPEND_NEWLINE)
        return Answer(body, status=HTTPStatus.OK if health.ready else HTTPStatus.SERVICE_UNAVAILABLE)

    async def _metrics(self) -> Answer:
        health = self._health()
        for reason in NotReady:
            self._not_ready.labels(reason.value).set(reason in health.reasons)
        self._workers.set(health.workers_ready)
        workers = await asyncio.get_running_loop().run_in_executor(self._files, metrics.exposition, self._directory)
        return Answer(workers + generate_latest(self._registry), _PROMETHEUS)
