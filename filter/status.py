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
from http import HTTPStatus
from pathlib import Path
from typing import Final

import orjson
from prometheus_client import CollectorRegistry

from . import logs, metrics
from .config import Config
from .health import Health
from .http_in import Answer, Routes
from .metrics_whole import ReloadOutcome, WholeMetrics

_PROMETHEUS: Final = "text/plain; version=0.0.4; charset=utf-8"


class Status:
    """Health and metrics; `health` gives the state of now, `directory` is where workers count."""

    def __init__(self, directory: Path, health: Callable[[], Health]) -> None:
        self._directory = directory
        self._health = health
        self._files = ThreadPoolExecutor(1, thread_name_prefix="metrics")
        self._whole = WholeMetrics(CollectorRegistry())

    def prepare(self) -> None:
        """Begin to count anew. Raises OSError."""
        metrics.prepare(self._directory)

    def routes(self) -> Routes:
        """For the HTTP server."""
        return {"/livez": self._live, "/readyz": self._ready, "/metrics": self._metrics}

    def restarted(self) -> None:
        """Count a worker that had to be started again."""
        self._whole.restarts.inc()

    def reloaded(self, outcome: ReloadOutcome) -> None:
        """Count a reload."""
        self._whole.reloaded(outcome)

    def configured(self, config: Config, ruleset: str) -> None:
        """This configuration, with rules of this version, is at work from now on."""
        self._whole.configured(config, ruleset)

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
        workers = await asyncio.get_running_loop().run_in_executor(self._files, metrics.exposition, self._directory)
        return Answer(workers + self._whole.page(self._health()), _PROMETHEUS)
