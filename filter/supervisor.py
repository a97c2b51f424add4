"""`consentry run`: checks the configuration, owns store directory and sockets, keeps workers, answers for the whole.

    start     check everything, own the store directory, bind, start the workers; if one cannot start, nobody runs
    SIGHUP    the same check; a new generation on the same sockets; once it is ready the old one drains.
              Whatever goes wrong is logged, and the old one stays.
    SIGTERM   (or SIGINT) accept nothing more, finish what is under way, exit 0; a second one hurries

It opens neither consent index nor held mail and moves no message: nothing that mail can do reaches it. Raises
ConsentryError for whatever keeps a start from succeeding.
"""

import asyncio
import signal
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from . import app, consent_crew, logs
from .app import Checked
from .config import Config
from .config_values import Endpoint
from .consent_crew import Following
from .control import Assignment, Do
from .crew import Crew
from .errors import ConsentryError
from .health import Health, NotReady, health
from .http_in import HttpServer
from .listeners import ListenError, Listeners, Wanted
from .metrics_whole import ReloadOutcome
from .status import Status
from .store_directory import concerns, own
from .worker_process import Patience, WorkerProcess, command, environment

_MARGIN: Final = 5.0  # seconds beyond what a worker allows itself for its drain
_HURRY: Final = 2.0  # seconds from the second signal to the end


@dataclass(frozen=True, slots=True)
class Generation:
    """A configuration at work."""

    checked: Checked
    listeners: Listeners
    crew: Crew


class Supervisor:
    """One run. `check` reads and checks a configuration file, `announce` prints a line for whoever started us."""

    def __init__(
        self,
        file: Path,
        *,
        announce: Callable[[str], None],
        check: Callable[[Path], Checked] = app.check,
        arguments: Sequence[str] = (),
        follower: Sequence[str] = (),
        patience: Patience | None = None,
    ) -> None:
        self._file = file
        self._announce = announce
        self._check = check
        self._arguments = list(arguments) or command()
        self._patience = patience or Patience()
        self._stop = asyncio.Event()
        self._reload = asyncio.Event()
        self._draining: set[asyncio.Task[None]] = set()
        self._crews: list[Crew] = []  # everybody who is there
        self._number = 0
        self._follower = list(follower) or consent_crew.command()
        self._current: Generation
        self._following: Following
        self._status: Status
        self._http: HttpServer

    async def run(self) -> None:
        """Serve until told to stop. Raises ConsentryError if the start fails."""
        self._handle_signals()
        checked = await asyncio.to_thread(self._check, self._file)
        directory = checked.config.store.dir
        with own(directory):
            for concern in concerns(directory):
                logs.event(logs.WARNING, "store_directory_unfit", concern=concern)
            for concern in checked.config.concerns():
                logs.event(logs.WARNING, "configuration_doubtful", concern=concern)
            app.keyer(checked.config, create=True)  # once, before several workers need it
            self._status = Status(directory / "metrics", self._health)
            self._status.prepare()
            self._following = Following(
                self._file,
                self._follower,
                self._patience,
                on_exit=self._status.retire,
                on_restart=self._status.restarted,
            )
            try:
                await self._serve(checked)
            finally:
                self._status.close()

    async def _serve(self, checked: Checked) -> None:
        listeners = Listeners.bind(_wanted(checked.config), checked.config.workers)
        self._current = self._generation(checked, listeners)
        self._status.configured(checked.config, checked.version)
        self._http = await self._start_http(checked)
        try:
            if await self._unless_stopped(self._start_all(checked)):
                self._say_ready()
                await self._until_stopped()
        finally:
            await self._end()

    async def _start_all(self, checked: Checked) -> None:
        """Workers take mail only once the consent index counts as incomplete until its topic was read."""
        await self._following.follow(checked)
        await self._current.crew.start()

    async def _until_stopped(self) -> None:
        """Reload as often as wanted."""
        while await self._unless_stopped(self._reload.wait()):
            self._reload.clear()
            await self._unless_stopped(self._replace())

    async def _unless_stopped(self, work: Coroutine[Any, Any, object]) -> bool:
        """Do this, or give it up when told to stop; whether it was done. Lets its errors pass."""
        task, stop = asyncio.create_task(work), asyncio.create_task(self._stop.wait())
        await asyncio.wait((task, stop), return_when=asyncio.FIRST_COMPLETED)
        stop.cancel()
        if task.done():
            task.result()
            return True
        task.cancel()
        with suppress(asyncio.CancelledError, ConsentryError):
            await task
        return False

    async def _replace(self) -> None:
        """Put a new generation in place of the current one, or leave everything as it is."""
        try:
            new, http = await self._prepared()
        except (ConsentryError, OSError) as error:
            logs.event(logs.ERROR, "reload_refused", reason=error)
            self._status.reloaded(ReloadOutcome.REFUSED)
            return
        except Exception as error:  # noqa: BLE001 -- a fault of ours while reloading must not end what works
            logs.fault("reload_refused", error)
            self._status.reloaded(ReloadOutcome.REFUSED)
            return
        old, self._current = self._current, new
        self._status.configured(new.checked.config, new.checked.version)
        previous, self._http = self._http, http
        old.listeners.close(but=new.listeners)
        self._let_go(old)
        logs.event(logs.INFO, "reloaded", generation=self._number)
        self._status.reloaded(ReloadOutcome.DONE)
        if previous is not http:
            await previous.stop()

    async def _prepared(self) -> tuple[Generation, HttpServer]:
        """The next generation, ready; on any error nothing is left of it."""
        old = self._current
        checked = await asyncio.to_thread(self._check, self._file)
        if checked.config.store.dir != old.checked.config.store.dir:
            raise ListenError("store.dir: cannot change while running; restart for that")
        listeners = Listeners.bind(_wanted(checked.config), checked.config.workers, old.listeners)
        http = self._http
        try:
            if checked.config.http.listen != old.checked.config.http.listen:
                http = await self._start_http(checked)
            generation = self._generation(checked, listeners)
            await self._following.follow(checked)
            await generation.crew.start()
        except BaseException:
            with suppress(ConsentryError):  # which its health tells
                await self._following.follow(old.checked)
            self._crews = [crew for crew in self._crews if not crew.gone]
            listeners.close(but=old.listeners)
            if http is not self._http:
                await http.stop()
            raise
        return generation, http

    def _generation(self, checked: Checked, listeners: Listeners) -> Generation:
        self._number += 1
        number, count = self._number, checked.config.workers

        async def start(slot: int) -> WorkerProcess:
            share = listeners.share(slot, count)
            sockets = tuple((one.fileno(), tls) for one, tls in share)
            assignment = Assignment(str(self._file.absolute()), checked.text, checked.version, slot, number, sockets)
            environ = environment({"PROMETHEUS_MULTIPROC_DIR": str(checked.config.store.dir / "metrics")})
            return await WorkerProcess.start(assignment, [one for one, _ in share], self._arguments, environ)

        crew = Crew(
            count,
            start,
            patience=self._patience,
            grace=max(checked.config.smtp.drain_time, checked.config.kafka.drain_time) + _MARGIN,
            on_exit=self._status.retire,
            on_restart=self._status.restarted,
        )
        self._crews.append(crew)
        return Generation(checked, listeners, crew)

    async def _start_http(self, checked: Checked) -> HttpServer:
        endpoint = checked.config.http.listen
        try:
            return await HttpServer(self._status.routes()).start(*endpoint)
        except OSError as error:
            reason = error.strerror or str(error)
            raise ListenError(f'http.listen: "{endpoint}": cannot listen there: {reason}') from error

    def _say_ready(self) -> None:
        for listener in self._current.listeners.listeners:
            kind = "smtps" if listener.wanted.implicit_tls else "smtp"
            self._announce(f"listening {kind} {listener.endpoint}")
        kafka = self._current.checked.config.kafka
        if kafka.serves:
            self._announce(f"consuming kafka {kafka.topic} as {kafka.group}")
        self._announce(f"listening http {Endpoint(*self._http.address)}")
        self._announce("ready")
        logs.event(logs.INFO, "ready", workers=self._current.checked.config.workers)

    def _let_go(self, old: Generation) -> None:
        """Drain a generation in the background."""
        task = asyncio.create_task(old.crew.drain())
        self._draining.add(task)

        def gone(task: asyncio.Task[None]) -> None:
            self._draining.discard(task)
            self._crews.remove(old.crew)

        task.add_done_callback(gone)

    async def _end(self) -> None:
        """Drain everybody and stop."""
        logs.event(logs.INFO, "draining")
        self._stop.set()
        self._current.listeners.close()
        self._let_go(self._current)
        while self._draining:
            await asyncio.wait(self._draining)
        await self._following.stop()
        await self._http.stop()
        logs.event(logs.INFO, "stopped")

    def _health(self) -> Health:
        also = [NotReady.DRAINING] if self._stop.is_set() else []
        following = self._following
        return health(self._current.crew.reports(), also=[*also, *following.reasons], notices=following.notices)

    def _handle_signals(self) -> None:
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGHUP, self._reload.set)
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_stop)

    def _on_stop(self) -> None:
        if not self._stop.is_set():
            self._stop.set()
            return
        logs.event(logs.WARNING, "hurrying")
        asyncio.get_running_loop().call_later(_HURRY, self._following.kill)
        for crew in self._crews:
            crew.tell(Do.HURRY)
            asyncio.get_running_loop().call_later(_HURRY, crew.kill)


def _wanted(config: Config) -> list[Wanted]:
    """The addresses that workers serve."""
    smtp = config.smtp
    plain = [Wanted("smtp.listen", endpoint) for endpoint in smtp.listen]
    return [*plain, *(Wanted("smtp.tls_listen", endpoint, implicit_tls=True) for endpoint in smtp.tls_listen)]


def run(file: Path, announce: Callable[[str], None]) -> None:
    """Serve until told to stop. Raises ConsentryError."""
    asyncio.run(Supervisor(file, announce=announce).run())
