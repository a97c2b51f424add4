"""The HTTP door: what it answers, and that nothing it is sent can keep or break it."""

import asyncio
from collections.abc import Awaitable, Callable
from http import HTTPStatus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from filter.http_in import MAX_CONNECTIONS, MAX_REQUEST, Answer, HttpServer

Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[bytes]]


async def _good() -> Answer:
    return Answer(b'{"good":true}\n')


async def _faulty() -> Answer:
    raise RuntimeError("secret detail")


async def _away() -> Answer:
    return Answer(b"away\n", "text/plain", HTTPStatus.SERVICE_UNAVAILABLE)


ROUTES = {"/good": _good, "/faulty": _faulty, "/away": _away}


def talk(session: Talk, *, time_limit: float = 5.0) -> bytes:
    """Start a server, hold one conversation with it, stop it."""

    async def run() -> bytes:
        server = await HttpServer(ROUTES, time_limit=time_limit).start("127.0.0.1", 0)
        try:
            reader, writer = await asyncio.open_connection(*server.address)
            try:
                return await asyncio.wait_for(session(reader, writer), 10)
            finally:
                writer.close()
        finally:
            await server.stop()

    return asyncio.run(run())


def ask(request: bytes) -> bytes:
    """What one request is answered with."""

    async def session(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
        writer.write(request)
        return await reader.read()

    return talk(session)


def test_a_path_is_answered() -> None:
    """A known path gets its answer, with headers that keep it from being stored or guessed at."""
    head, _, body = ask(b"GET /good HTTP/1.1\r\nHost: anything\r\n\r\n").partition(b"\r\n\r\n")
    assert head.splitlines() == [
        b"HTTP/1.1 200 OK",
        b"Content-Type: application/json",
        b"Content-Length: 14",
        b"Cache-Control: no-store",
        b"X-Content-Type-Options: nosniff",
        b"Connection: close",
    ]
    assert body == b'{"good":true}\n'


def test_head_has_no_body() -> None:
    """HEAD is answered as GET is, without the body."""
    answer = ask(b"HEAD /good HTTP/1.0\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert answer.endswith(b"\r\n\r\n")


def test_a_query_changes_nothing() -> None:
    """What stands behind a question mark is ignored, and so are host and body."""
    request = b"GET /good?x=/away HTTP/1.1\r\nHost: [\r\nContent-Length: 5\r\n\r\nhello"
    assert ask(request).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize(
    ("request_line", "status"),
    [
        (b"GET /away HTTP/1.1", 503),
        (b"GET / HTTP/1.1", 404),
        (b"GET /good/ HTTP/1.1", 404),
        (b"GET //good HTTP/1.1", 404),
        (b"GET http://h/good HTTP/1.1", 404),
        (b"POST /good HTTP/1.1", 405),
        (b"get /good HTTP/1.1", 405),
        (b"GET /good", 400),
        (b"GET /good HTTP/2.0", 400),
        (b"GET  /good HTTP/1.1", 400),
        (b"EHLO client.example", 400),
        (b"", 400),
        (b"\xff\x00", 400),
    ],
)
def test_requests(request_line: bytes, status: int) -> None:
    """Only GET and HEAD of known paths succeed."""
    assert ask(request_line + b"\r\n\r\n").startswith(b"HTTP/1.1 %d " % status)


def test_a_fault_tells_nothing() -> None:
    """An exception in an answer is a plain 500, and the server goes on."""
    answer = ask(b"GET /faulty HTTP/1.1\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 500 ")
    assert b"secret" not in answer


def test_a_request_has_an_end() -> None:
    """Headers beyond the limit are an error, however much follows."""
    assert ask(b"GET /good HTTP/1.1\r\nX: " + b"a" * MAX_REQUEST + b"\r\n\r\n").startswith(b"HTTP/1.1 431 ")


def test_a_slow_client_is_left() -> None:
    """A request that does not end in time is given up without an answer."""

    async def session(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
        writer.write(b"GET /good HTTP/1.1\r\n")
        return await reader.read()

    assert talk(session, time_limit=0.05) == b""


def test_a_client_that_leaves_breaks_nothing() -> None:
    """A connection closed in the middle of a request is forgotten."""

    async def session(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
        writer.write(b"GET /good")
        writer.write_eof()
        return await reader.read()

    assert talk(session) == b""


def test_slow_clients_keep_nobody_out() -> None:
    """Beyond the limit the connection that is there for longest is closed, and the next one is served at once."""

    async def run() -> tuple[bytes, list[bytes]]:
        server = await HttpServer(ROUTES, time_limit=60).start("127.0.0.1", 0)
        slow = [await asyncio.open_connection(*server.address) for _ in range(MAX_CONNECTIONS)]
        try:
            for _, writer in slow:
                writer.write(b"GET /good")
                await writer.drain()
            reader, writer = await asyncio.open_connection(*server.address)
            writer.write(b"GET /good HTTP/1.1\r\n\r\n")
            answer = await asyncio.wait_for(reader.read(), 10)
            writer.close()
            first = await asyncio.wait_for(slow[0][0].read(), 10)
            for _, other in slow[1:]:
                other.write(b" HTTP/1.1\r\n\r\n")
            others = [await asyncio.wait_for(other.read(), 10) for other, _ in slow[1:]]
        finally:
            for _, other in slow:
                other.close()
            await server.stop()
        assert first == b""
        return answer, others

    answer, others = asyncio.run(run())
    assert all(each.startswith(b"HTTP/1.1 200 ") for each in [answer, *others])


@given(st.binary(max_size=300))
def test_anything_else_is_refused(octets: bytes) -> None:
    """Whatever octets come, the answer is an error or nothing."""
    request = octets.replace(b"\r\n\r\n", b"") + b"\r\n\r\n"
    assert ask(request)[:12] not in {b"HTTP/1.1 200", b"HTTP/1.1 500"}
