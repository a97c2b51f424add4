"""A next hop in memory: transports without sockets, answers on the loop's next round, time that a test moves.

`MemoryHop.connect` takes the place of `loop.create_connection`. By default every command is answered well. `script`
maps a verb (CONNECT, EHLO, RSET, MAIL, RCPT, DATA, "." for the end of a message, ...) to a function of the line that
gives the octets of the answer, `SILENT`, or `LOST`; or None for the usual answer.
"""

import asyncio
from collections.abc import Callable

SILENT = b"(silent)"
LOST = b"(lost)"

USUAL = {"CONNECT": b"220 hop ESMTP\r\n", "DATA": b"354 go on\r\n", "QUIT": b"221 bye\r\n", ".": b"250 2.0.0 Ok\r\n"}
KEYWORDS = ("PIPELINING", "SIZE 1000000", "8BITMIME", "SMTPUTF8", "DSN")

Answer = Callable[[bytes], bytes | None]


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        """The time, in seconds."""
        return self.now


class MemoryTransport(asyncio.Transport):
    """The client's end of one connection, with the server behind it."""

    def __init__(self, hop: "MemoryHop", protocol: asyncio.Protocol, number: int) -> None:
        super().__init__()
        self.hop, self.protocol, self.number = hop, protocol, number
        self.loop = asyncio.get_running_loop()
        self.open = True
        self.rest = b""
        self.in_data = False
        self.writes: list[bytes] = []

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Nothing is buffered here."""

    def is_closing(self) -> bool:
        """Whether octets are taken no more."""
        return not self.open

    def write(self, data: bytes) -> None:
        """Take octets as the server does."""
        if not self.open:
            return
        self.writes.append(bytes(data))
        self.rest += data
        self.loop.call_soon(self._serve)
        self.hop.on_write(self, data)

    def _serve(self) -> None:
        end = b"\r\n.\r\n"
        while self.open:
            if self.in_data and self.rest.startswith(b".\r\n"):
                line, self.rest, verb, self.in_data = b"", self.rest[3:], ".", False
            elif self.in_data and end in self.rest:
                line, _, self.rest = self.rest.partition(end)
                verb, self.in_data = ".", False
                self.hop.messages.append(line + b"\r\n")
            elif not self.in_data and b"\r\n" in self.rest:
                line, _, self.rest = self.rest.partition(b"\r\n")
                verb = line.split(b" ")[0].decode()
            else:
                return
            self.answer(verb, line)

    def answer(self, verb: str, line: bytes) -> None:
        """What the server does about a command."""
        self.hop.commands.append((self.number, line if verb != "." else b"."))
        answer = self.hop.answer(verb, line)
        if answer == LOST:
            self.lose()
        elif answer != SILENT:
            self.in_data = verb == "DATA" and answer.startswith(b"354")
            self.say(answer)

    def say(self, octets: bytes) -> None:
        """Octets of the server, whether or not somebody asked; cut as `MemoryHop.cut` says."""
        for at in range(0, len(octets), self.hop.cut):
            if self.open:
                self.protocol.data_received(octets[at : at + self.hop.cut])

    def lose(self) -> None:
        """The connection breaks."""
        if self.open:
            self.open = False
            self.loop.call_soon(self.protocol.connection_lost, None)

    def abort(self) -> None:
        """Closed by the client."""
        self.lose()

    def close(self) -> None:
        """Closed by the client."""
        self.lose()


class MemoryHop:
    """A server that any number of connections lead to, whatever the host."""

    def __init__(self, keywords: tuple[str, ...] = KEYWORDS) -> None:
        self.keywords = keywords
        self.script: dict[str, Answer] = {}
        self.down: set[str] = set()  # hosts that refuse connections
        self.hanging: set[str] = set()  # hosts that never answer a connection attempt
        self.attempts: list[str] = []  # hosts that were tried
        self.transports: list[MemoryTransport] = []
        self.commands: list[tuple[int, bytes]] = []  # with the number of the connection
        self.messages: list[bytes] = []  # as sent, dots stuffed
        self.cut = 1 << 20  # octets of an answer that arrive at once
        self.on_write: Callable[[MemoryTransport, bytes], None] = lambda _transport, _data: None

    async def connect(self, protocol: Callable[[], asyncio.Protocol], host: str, port: int) -> None:
        """Stands for `loop.create_connection`."""
        self.attempts.append(host)
        await asyncio.sleep(0)
        if host in self.down:
            raise ConnectionRefusedError
        if host in self.hanging:
            await asyncio.Event().wait()
        made = protocol()
        transport = MemoryTransport(self, made, len(self.transports))
        self.transports.append(transport)
        made.connection_made(transport)
        asyncio.get_running_loop().call_soon(self._greet, transport)

    def _greet(self, transport: MemoryTransport) -> None:
        answer = self.answer("CONNECT", b"")
        if answer == LOST:
            transport.lose()
        elif answer != SILENT:
            transport.say(answer)

    def answer(self, verb: str, line: bytes) -> bytes:
        """What is said to a command."""
        said = self.script[verb](line) if verb in self.script else None
        if said is not None:
            return said
        if verb == "EHLO":
            lines = ["hop", *self.keywords]
            return b"".join(b"250%s%s\r\n" % (b" " if each is lines[-1] else b"-", each.encode()) for each in lines)
        return USUAL.get(verb, b"250 2.1.0 Ok\r\n")

    def lines(self, number: int | None = None) -> list[bytes]:
        """The command lines of one connection, or of all."""
        return [line for connection, line in self.commands if number in (None, connection)]

    @property
    def open(self) -> int:
        """How many connections are open."""
        return sum(transport.open for transport in self.transports)


def once(answer: bytes) -> Answer:
    """This answer the first time, the usual one after it."""
    answers = iter([answer])
    return lambda _: next(answers, None)


async def settle() -> None:
    """Let everything happen that needs no time."""
    for _ in range(50):
        await asyncio.sleep(0)
