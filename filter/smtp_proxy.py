"""The header a balancer sends before anything else: the PROXY protocol, versions 1 and 2.

<https://www.haproxy.org/download/2.9/doc/proxy-protocol.txt>. The header is collected here within bounds and read by
aiosmtpd. Raises `ProxyError` for whatever is no complete, valid header of TCP or of nothing known; then the connection
must be closed, as nobody can say whose it is.
"""

from collections.abc import Coroutine
from typing import Any, Final

from aiosmtpd.proxy_protocol import AF, PROTO, V2_CMD, V2_SIGNATURE, ProxyData, get_proxy

MAX_V1: Final = 107  # octets with CRLF
MAX_V2: Final = 16 + 1024  # octets; addresses take 36, the rest are notes for us to skip
_V1: Final = b"PROXY "
_V2_FIXED: Final = 16


class ProxyError(Exception):
    """Not a PROXY header, or one that cannot be used."""


class _Octets:
    """The complete header for a reader that would otherwise wait for a socket."""

    def __init__(self, octets: bytes) -> None:
        self._octets = octets

    async def read(self, n: int = -1) -> bytes:
        size = len(self._octets) if n < 0 else n
        taken, self._octets = self._octets[:size], self._octets[size:]
        return taken

    async def readexactly(self, n: int) -> bytes:
        return await self.read(n)

    async def readuntil(self, separator: bytes = b"\n") -> bytes:
        return await self.read(self._octets.index(separator) + len(separator))


def header_size(octets: bytes) -> int | None:
    """How many octets the header at the beginning takes; None for more input wanted. Raises ProxyError."""
    if octets.startswith(V2_SIGNATURE):
        if len(octets) < _V2_FIXED:
            return None
        size = _V2_FIXED + int.from_bytes(octets[14:16], "big")
        if size > MAX_V2:
            raise ProxyError("version 2 header too long")
        return size if len(octets) >= size else None
    if octets.startswith(_V1):
        end = octets.find(b"\r\n", 0, MAX_V1)
        if end < 0 and len(octets) >= MAX_V1:
            raise ProxyError("version 1 header too long")
        return end + 2 if end >= 0 else None
    if V2_SIGNATURE.startswith(octets) or _V1.startswith(octets):
        return None
    raise ProxyError("no PROXY header")


def parse(header: bytes) -> ProxyData:
    """The header, complete and alone. Raises ProxyError."""
    data = _run(get_proxy(_Octets(header)))
    if not data.valid:
        raise ProxyError("bad PROXY header")
    if data.protocol not in {PROTO.STREAM, PROTO.UNSPEC}:
        raise ProxyError("PROXY header of no TCP connection")
    return data


def client_address(data: ProxyData) -> str:
    """The client's address and nothing else; empty where the balancer speaks for itself or knows none."""
    if data.command == V2_CMD.LOCAL or data.family not in {AF.INET, AF.INET6} or data.src_addr is None:
        return ""
    return str(data.src_addr)


def _run(work: Coroutine[Any, Any, ProxyData]) -> ProxyData:
    """The result of a coroutine that never waits."""
    try:
        work.send(None)
    except StopIteration as result:
        data: ProxyData = result.value
        return data
    work.close()
    raise ProxyError("incomplete PROXY header")
