"""The demo's next hop: a small SMTP server in a thread that takes everything, delivers nothing, and remembers it.

It answers like an MTA behind the relay would; one address is unknown to it. Raises OSError when it cannot listen.
"""

import asyncio
import socket
from dataclasses import dataclass
from email.parser import BytesHeaderParser
from threading import Event, Lock, Thread
from typing import Any, Final, Self

from aiosmtpd.smtp import SMTP, Envelope, Session

HOST: Final = "127.0.0.1"
UNKNOWN: Final = frozenset({"moved.away@home.example"})
NO_MAILBOX: Final = "550 5.1.1 no such mailbox"


@dataclass(frozen=True, slots=True)
class Delivered:
    """One recipient's copy as it arrived; `instead_of` is the original recipient of a diverted one, or empty."""

    message_id: str
    recipient: str
    instead_of: str


class DemoSink:
    """The server, from `start` to `stop`; `delivered` may be read from any thread."""

    def __init__(self, port: int) -> None:
        self._socket = socket.socket()
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._socket.bind((HOST, port))
        except OSError:
            self._socket.close()
            raise
        self.port: int = self._socket.getsockname()[1]
        self._lock = Lock()
        self._delivered: list[Delivered] = []
        self._loop = asyncio.new_event_loop()
        self._serving = Event()
        self._end = asyncio.Event()
        self._thread = Thread(target=self._loop.run_until_complete, args=(self._serve(),), name="demo sink")

    def delivered(self) -> list[Delivered]:
        """Every copy so far."""
        with self._lock:
            return list(self._delivered)

    def __enter__(self) -> Self:
        self._thread.start()
        self._serving.wait()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join()
        self._loop.close()

    async def _serve(self) -> None:
        sessions: list[SMTP] = []

        def session() -> SMTP:
            sessions.append(SMTP(self, hostname="next-hop.example", ident="demo next hop", enable_SMTPUTF8=True))
            return sessions[-1]

        server = await self._loop.create_server(session, sock=self._socket)
        self._serving.set()
        await self._end.wait()
        server.close()
        for one in sessions:
            if one.transport is not None:
                one.transport.close()
        await asyncio.sleep(0)
        await _finish()

    # What aiosmtpd calls

    async def handle_RCPT(  # noqa: N802 -- as aiosmtpd calls it
        self, _server: SMTP, _session: Session, envelope: Envelope, address: str, _options: list[str]
    ) -> str:
        """Take every recipient but the unknown one."""
        if address.lower() in UNKNOWN:
            return NO_MAILBOX
        envelope.rcpt_tos.append(address)
        return "250 2.1.5 Ok"

    async def handle_DATA(self, _server: SMTP, _session: Session, envelope: Envelope) -> str:  # noqa: N802 -- as aiosmtpd calls it
        """Remember who got what."""
        content: Any = envelope.content
        header = BytesHeaderParser().parsebytes(content)
        identity, instead_of = header.get("Message-ID", ""), header.get("X-Consentry-Original-Recipient", "")
        with self._lock:
            self._delivered += [Delivered(identity, one, instead_of.strip("<>")) for one in envelope.rcpt_tos]
        return "250 2.0.0 Ok: delivered"


async def _finish() -> None:
    """Let what is still running in this loop come to its end."""
    rest = asyncio.all_tasks() - {asyncio.current_task()}
    for task in rest:
        task.cancel()
    await asyncio.gather(*rest, return_exceptions=True)
