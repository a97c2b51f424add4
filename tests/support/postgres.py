"""A PostgreSQL of its own: private data and configuration, on a loopback port, started, killed and stopped by the test.

Its programs are those of this machine or unpacked for the tests (`parts`). The server refuses to run as root: tests of
root start it as a user without rights. Starting raises AssertionError with what the server said when it does not come
up; other waits raise AssertionError too.
"""

import contextlib
import os
import pwd
import secrets
import shutil
import signal
import socket
import tempfile
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, LiteralString, Self

import psycopg
from support import parts
from support.processes import Process, free_port, run, wait_until

USERS = ("postgres", "nobody", "daemon")  # the first of these that there is
ROLE, PASSWORD = "consentry", "swordfish in the sea"
SETTINGS = """\
listen_addresses = '127.0.0.1'
port = {port}
unix_socket_directories = ''
shared_buffers = 32MB
max_connections = 50
max_wal_size = 256MB
log_timezone = 'GMT'
timezone = 'GMT'
dynamic_shared_memory_type = posix
"""
ACCESS = "host all all 127.0.0.1/32 scram-sha-256\n"


class Postgres:
    """One server, running inside `with` or from `start` to `stop`. `database` gives the URL of a new, empty database.

    `settings` are lines of postgresql.conf over those above.
    """

    def __init__(self, *settings: str) -> None:
        self.port = free_port()
        self._settings = settings
        self._process: Process | None = None

    def start(self) -> None:
        """Make the data directory and start the server."""
        part = parts.need("postgresql")
        self.home = Path(tempfile.mkdtemp(prefix="postgres-"))
        try:
            self._user = _user()
            self._environment = part.environment
            self._programs = self._reachable(Path(part.program("postgres")).resolve().parent, part.root)
            self._make()
            self.run()
        except BaseException:
            self.stop()
            raise

    def run(self) -> None:
        """Start the server on what data there is, as after `kill`, and wait until it answers."""
        command = [self._programs / "postgres", "-D", self.home / "data"]
        self._process = Process(self._as_user(command), self._environment, self.home / "output")
        wait_until(self._up, f"PostgreSQL on port {self.port}", seconds=30)

    def stop(self) -> None:
        """End the server at once and remove its files; an end in order would bring all of them to the disk first."""
        self.kill()
        shutil.rmtree(self.home, ignore_errors=True)

    def kill(self) -> None:
        """End every process of the server at once by SIGKILL, as a loss of power to it would."""
        if not self._process:
            return
        children = _children(self._process.pid)
        for pid in (self._process.pid, *children):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._process.stop()
        self._process = None
        wait_until(lambda: not any(map(_alive, children)), "the end of every server process")

    def freeze(self, *, frozen: bool = True) -> None:
        """Have every process of the server stand still, and go on: it answers nobody, and connections stay open."""
        assert self._process
        number = signal.SIGSTOP if frozen else signal.SIGCONT
        for pid in (self._process.pid, *_children(self._process.pid)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def database(self) -> str:
        """A new database of the role, which may do nothing outside of it; gives its URL, without the password."""
        name = f"test_{secrets.token_hex(6)}"
        self.execute(f'CREATE DATABASE "{name}" OWNER {ROLE}')
        return self.url(name)

    def url(self, database: str = "postgres", role: str = ROLE) -> str:
        """The URL of a database, without a password."""
        return f"postgresql://{role}@127.0.0.1:{self.port}/{database}"

    @property
    def password_file(self) -> Path:
        """A file with the password of the role, which nobody else may read."""
        file = self.home / "password"
        if not file.exists():
            file.touch(0o600)
            file.write_text(PASSWORD + "\n")
        return file

    def execute(self, statement: LiteralString, url: str = "") -> Sequence[tuple[Any, ...]]:
        """Do something as the server's superuser (or, with a URL, as the role) and give the rows, if there are any."""
        user = {} if url else {"user": "admin"}
        with psycopg.connect(url or self.url(), password=PASSWORD, autocommit=True, **user) as connection:
            done = connection.execute(statement)
            return done.fetchall() if done.description else []

    def _up(self) -> bool:
        assert self._process
        assert not self._process.ended, f"PostgreSQL has ended: {self.log()}"
        try:
            self.execute("SELECT 1")
        except psycopg.OperationalError:
            return False
        return True

    def log(self) -> str:
        """What the server said since it was last started."""
        return (self.home / "output").read_text(errors="replace")

    def _make(self) -> None:
        self.home.chmod(0o755)
        for name in ("data", "admin"):
            path = self.home / name
            if name == "data":
                path.mkdir(mode=0o700)
            else:
                path.touch(0o600)
                path.write_text(PASSWORD)
            if self._user:
                shutil.chown(path, self._user)
        files = ["-D", self.home / "data", f"--pwfile={self.home / 'admin'}"]
        options = ["--username=admin", "--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", "--no-sync"]
        done = run(self._as_user([self._programs / "initdb", *files, *options]), self._environment, seconds=60)
        assert done.code == 0, done.output
        with (self.home / "data/postgresql.conf").open("a") as file:
            file.write("\n".join([SETTINGS.format(port=self.port), *self._settings, ""]))
        (self.home / "data/pg_hba.conf").write_text(ACCESS)

    def _as_user(self, command: Sequence[str | Path]) -> list[str | Path]:
        if not self._user:
            return [*command]
        ids = pwd.getpwnam(self._user)
        rights = (f"--reuid={ids.pw_uid}", f"--regid={ids.pw_gid}", "--clear-groups")
        return ["setpriv", *rights, *command]

    def _reachable(self, programs: Path, root: Path | None) -> Path:
        """Where that user can run them: a checkout below a private home directory is closed to others."""
        if not self._user or root is None or run(self._as_user(["test", "-x", programs]), self._environment).code == 0:
            return programs
        own = self.home / "root"
        shutil.copytree(root, own, symlinks=True)
        self._environment = {key: value.replace(str(root), str(own)) for key, value in self._environment.items()}
        return own / programs.relative_to(root)

    def __enter__(self) -> Self:
        self.start()
        with contextlib.ExitStack() as stack:
            stack.callback(self.stop)
            self.execute(f"CREATE ROLE {ROLE} LOGIN PASSWORD '{PASSWORD}'")
            stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self.stop()


class Cutting:
    """A way to a server that is cut once, when `cut`: after a commit, before its answer comes through. The server does
    not notice: its end stays open until the end of `with`.
    """

    def __init__(self, to_port: int) -> None:
        self.cut, self._to_port = False, to_port
        self._over = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def url(self, url: str) -> str:
        """The URL of the server, by this way."""
        return url.replace(f":{self._to_port}/", f":{self.port}/")

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                self._threads.append(threading.Thread(target=self._both, args=(near,)))
                self._threads[-1].start()

    def _both(self, near: socket.socket) -> None:
        with near, socket.create_connection(("127.0.0.1", self._to_port), timeout=60) as far:
            there = threading.Thread(target=self._pass_on, args=(near, far))
            there.start()
            if self._pass_on(far, near, b"COMMIT\0"):
                _end(near)
                there.join()
                self._over.wait()
            _end(near)
            _end(far)
            there.join()

    def _pass_on(self, one: socket.socket, other: socket.socket, end: bytes = b"") -> bool:
        """Pass on what comes until nothing comes any more; whether it ended because it was to be cut."""
        with contextlib.suppress(OSError):
            while octets := one.recv(65536):
                if self.cut and end and end in octets:
                    self.cut = False
                    return True
                other.sendall(octets)
        return False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        _end(self._listener)
        self._listener.close()
        for thread in self._threads:
            thread.join()


def _end(side: socket.socket) -> None:
    with contextlib.suppress(OSError):
        side.shutdown(socket.SHUT_RDWR)


def running() -> Iterator[Postgres]:
    """A server for a fixture of pytest to yield."""
    with Postgres() as server:
        yield server


def _user() -> str:
    """Whom to run as, or "" for whoever runs the tests."""
    if not parts.is_root():
        return ""
    known = {entry.pw_name for entry in pwd.getpwall()}
    return next(name for name in USERS if name in known)


def _children(pid: int) -> list[int]:
    """Processes that this one started and that have not ended."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = entry.read_text().rpartition(")")[2].split()
            if int(fields[1]) == pid:
                found.append(int(entry.parent.name))
    return found


def _alive(pid: int) -> bool:
    """Whether it still runs; one that has ended and that nobody has asked about does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
