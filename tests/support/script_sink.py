"""A scripted SMTP server: records what arrives octet by octet, and answers as badly as a test wants.

Plain sockets and threads, nothing of the project and no library, so that it shares no mistake with what it tests. By
default it takes everything. A script says what else happens, by command:

    ScriptSink({"RCPT": [None, reply("550 5.1.1 No such user")], ".": drop()})

accepts the first recipient, refuses the second, accepts the rest, and closes after every final dot without an answer.
The commands are CONNECT (the greeting), the verbs as sent in upper case, "." (a message has ended) and AUTH-END (the
last reply of an AUTH dialogue). A script's value is one reply for every occurrence; a list, one for each occurrence
over the life of the server, in which None is the default; or a function of the `Command` that gives a reply or None.

`close` ends every thread and socket, and raises the first error of the server itself. A wait without success raises
AssertionError.
"""

import contextlib
import socket
import ssl
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Self

from support.script import Command, Reply, Script, Transaction, drop, reply, scripted
from support.script_session import SECONDS, OverError, Session

__all__ = ["Command", "Reply", "ScriptSink", "Transaction", "drop", "reply"]

KEYWORDS = ("PIPELINING", "SIZE 52428800", "8BITMIME", "SMTPUTF8", "ENHANCEDSTATUSCODES", "DSN")
BACKLOG = 100


class ScriptSink:
    """The server, on a port of 127.0.0.1 of its own, listening from construction until `close` or the end of `with`.

    `script` and `keywords` (of EHLO) may be changed while it runs. STARTTLS and AUTH are offered with `tls` and
    `credentials` (user: password); `implicit_tls` shakes hands before the greeting. With `refusing` it starts without
    listening: connections are refused until `accept`. `injected` holds octets that came behind STARTTLS before the
    handshake and were thrown away; `sessions` counts connections.
    """

    def __init__(
        self,
        script: Script | None = None,
        *,
        keywords: Sequence[str] = KEYWORDS,
        tls: ssl.SSLContext | None = None,
        implicit_tls: bool = False,
        credentials: Mapping[bytes, bytes] | None = None,
        refusing: bool = False,
    ) -> None:
        self.script: Script = script or {}
        self.keywords, self.credentials = keywords, credentials or {}
        self.tls, self.implicit_tls = tls, implicit_tls
        self.tls_failures: list[str] = []
        self.injected: list[bytes] = []
        self.sessions = 0
        self.closing = threading.Event()
        self._changed = threading.Condition()
        self._commands: list[Command] = []
        self._transactions: list[Transaction] = []
        self._seen: Counter[str] = Counter()
        self._open: dict[int, Session] = {}
        self._threads: list[threading.Thread] = []
        self._errors: list[BaseException] = []
        self._acceptor: threading.Thread | None = None
        self._listener = _bound(0)
        self.port = int(self._listener.getsockname()[1])
        if not refusing:
            self.accept()

    def accept(self) -> None:
        """Take connections, at first or again."""
        assert not self._acceptor, "it listens already"
        self._listener.listen(BACKLOG)
        self._acceptor = threading.Thread(target=self._accept, args=(self._listener,), name=f"sink {self.port}")
        self._acceptor.start()

    def refuse(self) -> None:
        """Refuse new connections from now on, on a port that stays ours; those that are open go on."""
        self._stop_listening()
        self._listener.close()
        self._listener = _bound(self.port)

    def interrupt(self, last: Reply) -> None:
        """Say something on every open connection that nobody asked for, such as 421, and close it if `last` says so."""
        for session in self._sessions():
            with contextlib.suppress(OSError, OverError):  # one that ends by itself meanwhile
                session.say(last)
            if last.close:
                session.cut(reset=last.reset)

    @property
    def delivered(self) -> list[Transaction]:
        """The transactions whose final dot was answered by 2yz, in the order of MAIL."""
        return [each for each in self.transactions if each.answered == b"2"]

    @property
    def transactions(self) -> list[Transaction]:
        """Every transaction that MAIL began, whatever became of it."""
        with self._changed:
            return list(self._transactions)

    @property
    def commands(self) -> list[Command]:
        """Every command so far, of all connections in the order of arrival."""
        with self._changed:
            return list(self._commands)

    @property
    def open(self) -> int:
        """How many connections are open now."""
        return len(self._sessions())

    def lines(self, verb: str | None = None) -> list[bytes]:
        """The command lines so far, or those of one verb."""
        return [each.line for each in self.commands if verb in (None, each.verb)]

    def wait(self, messages: int = 1, *, seconds: float = 15) -> list[Transaction]:
        """Return what was delivered as soon as it is so many."""
        self.wait_until(lambda: len(self.delivered) >= messages, f"{messages} messages", seconds=seconds)
        return self.delivered

    def wait_until(self, condition: Callable[[], bool], what: str, *, seconds: float = 15) -> None:
        """Return as soon as `condition` is true of what is recorded; `what` names it in the error."""
        with self._changed:
            came = self._changed.wait_for(condition, seconds)
        assert came, f"waited {seconds} s in vain at the scripted server: {what}; it has seen {self.lines()}"

    def close(self) -> None:
        """End every session and wait for its thread. May be repeated."""
        self.closing.set()
        self._stop_listening()
        self._listener.close()
        for session in self._sessions():
            session.abandon()
        for thread in self._threads:
            thread.join(SECONDS)
            assert not thread.is_alive(), thread
        if self._errors:
            raise self._errors[0]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self.close()

    def choose(self, verb: str, line: bytes, connection: int) -> Reply | None:
        """Note a command and give what the script says to it (for sessions)."""
        with self._changed:
            command = Command(verb, line, connection, self._seen[verb])
            self._seen[verb] += 1
            self._commands.append(command)
            self._changed.notify_all()
        return scripted(self.script, command)

    def begin(self, transaction: Transaction) -> None:
        """Note a transaction (for sessions)."""
        with self._changed:
            self._transactions.append(transaction)

    def end(self, transaction: Transaction, answered: bytes) -> None:
        """Note how its final dot is answered (for sessions)."""
        with self._changed:
            transaction.answered = answered
            self._changed.notify_all()

    def _sessions(self) -> list[Session]:
        with self._changed:
            return list(self._open.values())

    def _stop_listening(self) -> None:
        if self._acceptor:
            self._listener.shutdown(socket.SHUT_RDWR)
            self._acceptor.join()
            self._acceptor = None

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:  # shut down by _stop_listening
                return
            with self._changed:
                session = self._open[self.sessions] = Session(self, connection, self.sessions)
                self.sessions += 1
            thread = threading.Thread(target=self._serve, args=(session,), name=f"sink {self.port} session")
            self._threads.append(thread)
            thread.start()

    def _serve(self, session: Session) -> None:
        try:
            session.serve()
        except (OSError, OverError):
            pass  # the connection is over, by the peer or by the script
        except BaseException as error:  # noqa: BLE001 -- raised again by close(), in the thread of the test
            self._errors.append(error)
        finally:
            with self._changed:
                del self._open[session.number]
                self._changed.notify_all()


def _bound(port: int) -> socket.socket:
    """A socket that has a port but does not listen: connections are refused."""
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    # Inherited by connections. Left alone, the kernel may take 32 MiB that the script has not read yet.
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 256 << 10)
    listener.bind(("127.0.0.1", port))
    return listener
