"""A small HTTP server for health and metrics: GET and HEAD of fixed paths, one request a connection, all bounded.

Headers are read to their end and ignored, Host among them: the answers are the same for everybody and hold no mail.
A request that is too long, too slow or none gets an error answer or a closed connection; when there are too many
connections the oldest has to go, so that slow ones keep nobody out. Raises `OSError` when the
address cannot be bound; afterwards nothing.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final, Self

from . import logs

MAX_REQUEST: Final = 8192  # octets of request line and headers
MAX_CONNECTIONS: Final = 32
TIME_LIMIT: Final = 5.0  # seconds from connect to the end of the request, and as much again for the answer
_METHODS: Final = (b"GET", b"HEAD")
_END: Final = b"\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Answer:
    """What a path answers."""

    body: bytes
    content_type: str = "application/json"
    status: HTTPStatus = HTTPStatus.OK


Routes = Mapping[str, Callable[[], Awaitable[Answer]]]


class HttpServer:
    """The server; `routes` maps each path to what answers it."""

    def __init__(self, routes: Routes, *, time_limit: float = TIME_LIMIT) -> None:
        self._routes = {path.encode("ascii"): answer for path, answer in routes.items()}
        self._time_limit = time_limit
        self._sessions: dict[asyncio.Task[None], None] = {}  # in the order in which they came
        self._server: asyncio.Server | None = None

    async def start(self, host: str, port: int) -> Self:
        """Listen. Raises OSError."""
        self._server = await asyncio.start_server(self._accept, host, port, limit=MAX_REQUEST)
        return self

    @property
    def address(self) -> tuple[str, int]:
        """Host and port it listens on; ("", 0) when it does not."""
        for listening in self._server.sockets if self._server else ():
            host, port = listening.getsockname()[:2]
            return host, port
        return "", 0

    async def stop(self) -> None:
        """Stop listening and end every session."""
        if self._server:
            self._server.close()
        for session in self._sessions:
            session.cancel()
        if self._sessions:
            await asyncio.wait(self._sessions)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._sessions) >= MAX_CONNECTIONS:
            oldest = next(iter(self._sessions))
            del self._sessions[oldest]
            oldest.cancel()
        session = asyncio.create_task(self._serve(reader, writer))
        self._sessions[session] = None
        session.add_done_callback(lambda ended: self._sessions.pop(ended, None))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with suppress(TimeoutError, ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
                async with asyncio.timeout(self._time_limit):
                    head_only, answer = await self._answer(reader)
                async with asyncio.timeout(self._time_limit):
                    writer.write(_encode(answer, head_only=head_only))
                    await writer.drain()
                    writer.write_eof()
                    await reader.read(1)  # the client closes first; what it still sends does not matter
        finally:
            writer.transport.abort() if writer.transport.get_write_buffer_size() else writer.close()

    async def _answer(self, reader: asyncio.StreamReader) -> tuple[bool, Answer]:
        """Read one request and answer it."""
        try:
            request = await reader.readuntil(_END)
        except asyncio.LimitOverrunError:
            return False, _error(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
        parts = request.partition(b"\r\n")[0].split(b" ")
        if len(parts) != len(("method", "target", "version")) or parts[2] not in (b"HTTP/1.1", b"HTTP/1.0"):
            return False, _error(HTTPStatus.BAD_REQUEST)
        method, target, _ = parts
        if method not in _METHODS:
            return False, _error(HTTPStatus.METHOD_NOT_ALLOWED)
        route = self._routes.get(target.partition(b"?")[0])
        if route is None:
            return method == b"HEAD", _error(HTTPStatus.NOT_FOUND)
        try:
            return method == b"HEAD", await route()
        except Exception as error:  # noqa: BLE001 -- a fault in an answer must not end the supervisor
            logs.fault("http_answer_failed", error)
            return method == b"HEAD", _error(HTTPStatus.INTERNAL_SERVER_ERROR)


def _error(status: HTTPStatus) -> Answer:
    return Answer(f"{status.phrase}\n".encode(), "text/plain; charset=utf-8", status)


def _encode(answer: Answer, *, head_only: bool) -> bytes:
    """The answer on the wire; nothing may keep, guess or frame it."""
    lines = [
        f"HTTP/1.1 {answer.status.value} {answer.status.phrase}",
        f"Content-Type: {answer.content_type}",
        f"Content-Length: {len(answer.body)}",
        "Cache-Control: no-store",
        "X-Content-Type-Options: nosniff",
        "Connection: close",
    ]
    if answer.status is HTTPStatus.METHOD_NOT_ALLOWED:
        lines.append("Allow: GET, HEAD")
    return "\r\n".join([*lines, "", ""]).encode("ascii") + (b"" if head_only else answer.body)
