"""One connection of a scripted SMTP server, served by blocking calls in a thread of its own.

`serve` ends by OverError when the peer or the script ends the session, or by OSError when the connection breaks; both
are part of the game. Anything else is an error of the server.
"""

import base64
import contextlib
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from support.script import Reply, Transaction, reply

SECONDS = 30.0  # no read or write lasts longer
CLOSING_SECONDS = 1.0  # how long to read on after our FIN, so that unread octets do not turn it into RST
CHUNK = 65536


class OverError(Exception):
    """The session has ended, by the peer or by the script."""


class Server(Protocol):
    """What a session needs of its server."""

    keywords: Sequence[str]
    credentials: Mapping[bytes, bytes]
    tls: ssl.SSLContext | None
    implicit_tls: bool
    tls_failures: list[str]
    injected: list[bytes]
    closing: threading.Event

    def choose(self, verb: str, line: bytes, connection: int) -> Reply | None:
        """Note a command and give what the script says to it."""

    def begin(self, transaction: Transaction) -> None:
        """Note a transaction that MAIL began."""

    def end(self, transaction: Transaction, answered: bytes) -> None:
        """Note how its final dot is answered."""


class Session:
    """One connection. `say` and `cut` may be called from any thread, `serve` from one."""

    def __init__(self, server: Server, connection: socket.socket, number: int) -> None:
        self.server, self.socket, self.number = server, connection, number
        self.socket.settimeout(SECONDS)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.secure, self.helo = False, b""
        self.user: bytes | None = None
        self.transaction: Transaction | None = None
        self._buffer = b""
        self._writing = threading.Lock()

    def serve(self) -> None:
        """Greet, and answer command after command until somebody closes."""
        try:
            if self.server.implicit_tls:
                self._handshake()
            self._answer("CONNECT", b"", "220 sink.example ESMTP")
            while True:
                self._serve_line(self._line())
        finally:
            self.socket.close()

    def say(self, what: Reply) -> None:
        """Send a reply, waiting first if it says so; OverError when the server is closed meanwhile."""
        if what.delay and self.server.closing.wait(what.delay):
            raise OverError
        self._send(what)

    def cut(self, *, reset: bool = False) -> None:
        """Close the connection: by FIN at once, or by RST as soon as the thread that reads has woken up."""
        if reset:
            with contextlib.suppress(OSError):
                self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._shut(socket.SHUT_RD if reset else socket.SHUT_WR)

    def abandon(self) -> None:
        """Wake the thread that serves, so that it ends."""
        self._shut(socket.SHUT_RDWR)

    def _serve_line(self, line: bytes) -> None:
        verb = line.split(b" ", 1)[0].split(b":", 1)[0].decode("latin-1").upper()
        handler = HANDLERS.get(verb)
        if handler:
            handler(self, line)
        elif any(keyword.split()[0] == verb for keyword in self.server.keywords):
            self._answer(verb, line, "250 2.0.0 Ok")
        else:
            self._answer(verb, line, "502 5.5.1 Not implemented")

    def _hello(self, line: bytes) -> None:
        verb = line[:4].decode().upper()
        lines = ["sink.example"]
        if verb == "EHLO":
            lines += self.server.keywords
            lines += ["STARTTLS"] if self.server.tls and not self.secure else []
            lines += ["AUTH PLAIN LOGIN"] if self.server.credentials else []
        self.helo, self.transaction = line[5:], None
        self._answer(verb, line, *(f"250-{each}" for each in lines[:-1]), f"250 {lines[-1]}")

    def _mail(self, line: bytes) -> None:
        if self.transaction:
            self._answer("MAIL", line, "503 5.5.1 Nested MAIL")
            return
        transaction = Transaction(self.number, self.helo, self.secure, self.user, line)
        if self._answer("MAIL", line, "250 2.1.0 Ok").good:
            self.transaction = transaction
            self.server.begin(transaction)

    def _rcpt(self, line: bytes) -> None:
        if not self.transaction:
            self._answer("RCPT", line, "503 5.5.1 Need MAIL")
            return
        self.transaction.rcpts.append(line)
        if self._answer("RCPT", line, "250 2.1.5 Ok").good:
            self.transaction.accepted.append(line)

    def _data(self, line: bytes) -> None:
        refusal = self._refusal()
        chosen = self._answer("DATA", line, refusal or "354 Go ahead")
        if chosen.cut_after is not None:
            while len(self._buffer) < chosen.cut_after:
                self._more()
            self._close(reset=chosen.reset)
        if chosen.octets[:1] == b"3":
            self._take(refusal)

    def _refusal(self) -> str:
        if not self.transaction:
            return "503 5.5.1 Need RCPT"
        return "" if self.transaction.accepted else "554 5.5.1 No valid recipients"

    def _take(self, refusal: str) -> None:
        """Read the content and answer its final dot."""
        transaction, self.transaction = self.transaction, None
        content = self._content()
        chosen = self.server.choose(".", b".", self.number) or reply(refusal or "250 2.0.0 Ok: taken")
        if chosen.delay and self.server.closing.wait(chosen.delay):
            raise OverError
        if transaction:  # noted before the peer can know, so that a test that has the reply finds it noted
            transaction.data = content
            self.server.end(transaction, chosen.octets[:1])
        self._send(chosen)
        if chosen.close:
            self._close(reset=chosen.reset)

    def _reset(self, line: bytes) -> None:
        self.transaction = None
        self._answer("RSET", line, "250 2.0.0 Ok")

    def _noop(self, line: bytes) -> None:
        self._answer("NOOP", line, "250 2.0.0 Ok")

    def _quit(self, line: bytes) -> None:
        self._answer("QUIT", line, "221 2.0.0 Bye")
        if isinstance(self.socket, ssl.SSLSocket):
            self.socket.settimeout(CLOSING_SECONDS)
            self.socket = self.socket.unwrap()
        self._close()

    def _starttls(self, line: bytes) -> None:
        possible = self.server.tls and not self.secure
        if possible and self._buffer:
            self.server.injected.append(self._buffer)
        if self._answer("STARTTLS", line, "220 2.0.0 Ready" if possible else "503 5.5.1 Not now").good:
            self._buffer, self.transaction, self.helo, self.user = b"", None, b"", None
            self._handshake()

    def _auth(self, line: bytes) -> None:
        chosen = self.server.choose("AUTH", line, self.number)
        if chosen or not self.server.credentials:
            self._perform(chosen or reply("502 5.5.1 Not implemented"))
            return
        _, mechanism, initial, *_ = [*line.split(b" "), b"", b""]
        user, password = self._credentials(mechanism.upper(), initial)
        good = self.server.credentials.get(user) == password
        self.user = user if good else None
        self._answer("AUTH-END", b"", "235 2.7.0 Welcome" if good else "535 5.7.8 Wrong")

    def _credentials(self, mechanism: bytes, initial: bytes) -> tuple[bytes, bytes]:
        """User and password by RFC 4616 (PLAIN) or by the LOGIN dialogue."""
        if mechanism == b"PLAIN":
            _, user, password, *_ = [*base64.b64decode(initial or self._ask(b"")).split(b"\0"), b"", b""]
            return user, password
        user = base64.b64decode(initial or self._ask(b"Username:"))
        return user, base64.b64decode(self._ask(b"Password:"))

    def _ask(self, what: bytes) -> bytes:
        self._send(reply(b"334 " + base64.b64encode(what)))
        return self._line()

    def _answer(self, verb: str, line: bytes, *usual: str) -> Reply:
        """Do what the script says to a command, or give the usual reply."""
        return self._perform(self.server.choose(verb, line, self.number) or reply(*usual))

    def _perform(self, what: Reply) -> Reply:
        self.say(what)
        if what.close:
            self._close(reset=what.reset)
        return what

    def _send(self, what: Reply) -> None:
        with self._writing:
            if not what.one_by_one:
                self.socket.sendall(what.octets)
                return
            for octet in what.octets:
                self.socket.sendall(bytes([octet]))
                time.sleep(0.001)  # a segment each

    def _close(self, *, reset: bool = False) -> None:
        """End the session from its own thread."""
        self.cut(reset=reset)
        end = time.monotonic() + CLOSING_SECONDS
        self.socket.settimeout(CLOSING_SECONDS)
        while not reset and time.monotonic() < end and self.socket.recv(CHUNK):
            pass
        raise OverError

    def _shut(self, how: int) -> None:
        with contextlib.suppress(OSError):
            socket.socket.shutdown(self.socket, how)  # that of SSLSocket takes TLS away below a reading thread

    def _handshake(self) -> None:
        assert self.server.tls, "a scripted server that speaks TLS needs a context"
        try:
            self.socket = self.server.tls.wrap_socket(self.socket, server_side=True, do_handshake_on_connect=False)
            self.socket.do_handshake()
        except OSError as error:
            self.server.tls_failures.append(str(error))
            raise OverError from None
        self.secure = True

    def _line(self) -> bytes:
        """The next command line, without its CRLF."""
        while b"\n" not in self._buffer:
            self._more()
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line.removesuffix(b"\r")

    def _content(self) -> bytes:
        """Everything up to CRLF.CRLF and nothing else that resembles it, the first of these two CRLF included."""
        content = bytearray(
            b"\r\n" + self._buffer
        )  # the CRLF of DATA ends the line before the first (RFC 5321 4.1.1.4)
        searched = 0
        while (end := content.find(b"\r\n.\r\n", searched)) < 0:
            searched = max(0, len(content) - 4)
            self._buffer = b""
            self._more()
            content += self._buffer
        self._buffer = bytes(content[end + 5 :])
        return bytes(content[2 : end + 2])

    def _more(self) -> None:
        octets = self.socket.recv(CHUNK)
        if not octets:
            raise OverError
        self._buffer += octets


HANDLERS: dict[str, Callable[[Session, bytes], None]] = {
    "EHLO": Session._hello,
    "HELO": Session._hello,
    "MAIL": Session._mail,
    "RCPT": Session._rcpt,
    "DATA": Session._data,
    "RSET": Session._reset,
    "NOOP": Session._noop,
    "QUIT": Session._quit,
    "STARTTLS": Session._starttls,
    "AUTH": Session._auth,
}
