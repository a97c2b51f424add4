"""The supervisor's side of following the consent topic: one process (`consent_node`), if there is a topic.

It lives on over reloads that do not concern it. Raises `WorkerError` when it cannot start.
"""

import secrets
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from .app import Checked
from .control import RUN_VARIABLE, Assignment
from .crew import Crew
from .health import Notice, NotReady
from .worker_process import Patience, WorkerProcess, environment

GRACE: Final = 15.0  # seconds to finish a batch
_SLOT: Final = 0


def command() -> list[str]:
    """What to start: this interpreter with this package, wherever we stand."""
    return [sys.executable, "-P", "-m", f"{__package__}.consent_node"]


class Following:
    """The process, if the configuration names a topic. `file` is that of the configuration."""

    def __init__(
        self,
        file: Path,
        arguments: Sequence[str],
        patience: Patience,
        *,
        on_exit: Callable[[int], None],
        on_restart: Callable[[], None],
    ) -> None:
        self._file, self._arguments, self._patience = file, arguments, patience
        self._on_exit, self._on_restart = on_exit, on_restart
        self._run = secrets.token_hex(8)
        self._crew: Crew | None = None
        self._settings: Any = None
        self._failed = False

    async def follow(self, checked: Checked) -> None:
        """Have a process follow what this configuration says; one that follows something else ends first."""
        wanted = _concerned(checked)
        if wanted == self._settings:
            return
        await self.stop()
        if not checked.config.kafka.follows:
            self._settings, self._failed = wanted, False
            return
        self._crew = Crew(
            1,
            lambda _: self._start(checked),
            patience=self._patience,
            grace=GRACE,
            on_exit=self._on_exit,
            on_restart=self._on_restart,
        )
        try:
            await self._crew.start()
        except BaseException:
            self._crew, self._failed = None, True
            raise
        self._settings, self._failed = wanted, False

    async def stop(self) -> None:
        """End the process, if there is one."""
        crew, self._crew, self._settings = self._crew, None, None
        if crew:
            await crew.drain()

    def kill(self) -> None:
        """End it now."""
        if self._crew:
            self._crew.kill()

    @property
    def reasons(self) -> tuple[NotReady, ...]:
        """Why mail should go elsewhere."""
        return tuple(reason for report in self._reports() if report for reason in report.reasons)

    @property
    def notices(self) -> tuple[Notice, ...]:
        """What somebody should know. Of a process that is not there, or silent, that nothing is read."""
        lost = (Notice.CONSENT_FEED_FAILED,)
        found = [report.notices if report else lost for report in self._reports()]
        return (*(lost if self._failed else ()), *(notice for each in found for notice in each))

    def _reports(self) -> Sequence[Any]:
        return self._crew.reports() if self._crew else ()

    async def _start(self, checked: Checked) -> WorkerProcess:
        extra: Mapping[str, str] = {
            "PROMETHEUS_MULTIPROC_DIR": str(checked.config.store.dir / "metrics"),
            RUN_VARIABLE: self._run,
        }
        assignment = Assignment(str(self._file.absolute()), checked.text, checked.version, _SLOT, 0, ())
        return await WorkerProcess.start(assignment, [], self._arguments, environment(extra))


def _concerned(checked: Checked) -> Any:
    config = checked.config
    return config.kafka, config.consent, config.journal, config.store
