"""TLS for a connection that is up already: after STARTTLS, after a PROXY header, or before the greeting.

`secure` raises OSError (ssl.SSLError, a lost connection and the time limit are ones); then the connection is closed.
"""

import asyncio
import ssl
from collections.abc import Callable
from typing import cast


def version(transport: asyncio.BaseTransport) -> str:
    """The version of TLS that is in force, such as "TLSv1.3"; empty for none."""
    secured = transport.get_extra_info("ssl_object")
    return (secured.version() or "") if secured is not None else ""


async def secure(
    transport: asyncio.Transport,
    protocol: asyncio.Protocol,
    context: ssl.SSLContext,
    *,
    seconds: float,
    early: Callable[[], bytes],
) -> asyncio.Transport:
    """The transport that `protocol` must use from now on, after a handshake of at most so many seconds.

    `early` gives what `protocol` got until the handshake took over reading: the beginning of the handshake. `protocol`
    may get its first secured octets before this returns.
    """
    loop = asyncio.get_running_loop()
    handshake = loop.create_task(
        loop.start_tls(transport, protocol, context, server_side=True, ssl_handshake_timeout=seconds)
    )
    # Callbacks run in the order in which they were scheduled, and nothing is read between those of one turn.
    await asyncio.sleep(0)  # the protocol of TLS is in place, and its beginning scheduled
    octets = early()
    await asyncio.sleep(0)  # it has begun
    if octets and not handshake.done():
        _feed(transport, octets)
    return cast("asyncio.Transport", await handshake)


def _feed(transport: asyncio.Transport, octets: bytes) -> None:
    """Give the protocol of TLS what came before it, in the way a transport does."""
    protocol = cast("asyncio.BufferedProtocol", transport.get_protocol())
    while octets:
        buffer = memoryview(protocol.get_buffer(len(octets))).cast("B")
        size = min(len(buffer), len(octets))
        buffer[:size] = octets[:size]
        protocol.buffer_updated(size)
        octets = octets[size:]
