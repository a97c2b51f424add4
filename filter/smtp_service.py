"""The SMTP side of a worker: sockets in, sessions made with their settings, and the drain.

Raises what the event loop raises for sockets that cannot be used.
"""

import asyncio
import logging
import socket
import ssl
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from .ports import Report
from .smtp_auth import PasswordChecker
from .smtp_in import Server
from .smtp_limits import Limits
from .smtp_session import Networks
from .smtp_sessions import Sessions
from .users import Users

_BACKLOG: Final = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSettings:
    """What [smtp] says about sessions. `tls_context` None offers no TLS, `users` None no AUTH."""

    hostname: str
    limits: Limits = field(default_factory=Limits)
    tls_context: ssl.SSLContext | None = None
    require_tls: bool = False
    users: Users | None = None
    proxy_networks: Networks = ()
    xforward_networks: Networks = ()
    reject_bare_line_ends: bool = False
    reject_long_lines: bool = False


class SmtpService:
    """All SMTP listeners and sessions of a worker. To be made and used within its event loop."""

    def __init__(self, handler: object, settings: ServerSettings, report: Report) -> None:
        """`handler` has aiosmtpd's hooks: the door. `report` is told of faults, as "smtp"."""
        # aiosmtpd logs command lines, and addresses with them.
        for name in ("mail.log", "mail.debug"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
        self.sessions = Sessions(settings.limits, report)
        self._handler = handler
        self._settings = settings
        self._passwords = PasswordChecker(settings.users) if settings.users is not None else None
        self._servers: list[asyncio.Server] = []

    async def listen(self, sockets: Sequence[socket.socket], *, implicit_tls: bool = False) -> None:
        """Accept connections on bound sockets; with `implicit_tls` TLS comes before the greeting."""
        loop = asyncio.get_running_loop()
        pattern = self._session(loop, implicit_tls=implicit_tls)
        for bound in sockets:
            if bound.family in {socket.AF_INET, socket.AF_INET6}:
                # Accepted sockets inherit it; a reply in two parts must not wait for the client's delayed ACK.
                bound.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            server = await loop.create_server(pattern.another, sock=bound, backlog=_BACKLOG)
            self._servers.append(server)

    async def drain(self, seconds: float) -> bool:
        """Accept no more, end idle sessions, wait for messages under way; False if some still were after `seconds`."""
        for server in self._servers:
            server.close()
        try:
            async with asyncio.timeout(seconds):
                await self.sessions.drain()
        except TimeoutError:
            return False
        finally:
            if self._passwords is not None:
                self._passwords.close()
        return True

    def _session(self, loop: asyncio.AbstractEventLoop, *, implicit_tls: bool) -> Server:
        settings = self._settings
        return Server(
            self._handler,
            sessions=self.sessions,
            passwords=self._passwords,
            proxy_networks=settings.proxy_networks,
            xforward_networks=settings.xforward_networks,
            implicit_tls=implicit_tls,
            reject_bare_line_ends=settings.reject_bare_line_ends,
            reject_long_lines=settings.reject_long_lines,
            data_size_limit=settings.limits.message_size,
            enable_SMTPUTF8=True,
            hostname=settings.hostname,
            tls_context=settings.tls_context,
            require_starttls=settings.require_tls,
            loop=loop,
        )
