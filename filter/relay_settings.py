"""The configuration as each part of the relay takes it: plain values, seconds and octets. Reads the files it names.

Raises ConfigError (see `credentials`).
"""

import socket
from datetime import timedelta
from typing import Final

from . import credentials
from .config import Config
from .config_relay import BareLineEndings, LongLines
from .config_values import Endpoint, domain
from .next_hop_setup import NextHopOptions
from .pipeline import PipelineSettings
from .smtp_limits import Limits
from .smtp_service import ServerSettings

_NAMELESS: Final = "localhost"


def hostname(config: Config) -> str:
    """Our name: as set, or that of the machine if it is a domain."""
    if config.smtp.hostname:
        return config.smtp.hostname
    try:
        return domain(socket.gethostname())
    except ValueError:
        return _NAMELESS


def limits(config: Config) -> Limits:
    """What clients may take."""
    smtp = config.smtp
    return Limits(
        message_size=smtp.max_message_size,
        recipients=smtp.max_recipients,
        connections=smtp.max_connections,
        connections_per_client=smtp.max_connections_per_client,
        errors=smtp.max_errors,
        idle_commands=smtp.max_idle_commands,
        auth_failures=smtp.max_auth_failures,
        bytes_in_flight=smtp.max_bytes_in_flight,
        command_timeout=_seconds(smtp.command_timeout),
        data_timeout=_seconds(smtp.data_timeout),
        data_rate=smtp.min_data_rate,
        tls_timeout=_seconds(smtp.tls_timeout),
        session=_seconds(smtp.max_session),
    )


def server(config: Config) -> ServerSettings:
    """Sessions of the SMTP server."""
    smtp = config.smtp
    return ServerSettings(
        hostname=hostname(config),
        limits=limits(config),
        tls_context=credentials.server_context(smtp),
        require_tls=smtp.require_tls,
        users=credentials.users(smtp),
        proxy_networks=smtp.proxy_networks,
        xforward_networks=smtp.xforward_networks,
        reject_bare_line_ends=smtp.bare_line_endings is BareLineEndings.REJECT,
        reject_long_lines=smtp.long_lines is LongLines.REJECT,
    )


def pipeline(config: Config) -> PipelineSettings:
    """The way of a message."""
    return PipelineSettings(
        hostname=hostname(config),
        max_hops=config.smtp.max_hops,
        transaction_timeout=_seconds(config.smtp.transaction_timeout),
    )


def next_hop(config: Config, hosts: tuple[Endpoint, ...]) -> NextHopOptions:
    """The way to these hosts; divert hosts are reached as the next hop is."""
    settings = config.next_hop
    return NextHopOptions(
        hosts=tuple((host.host, host.port) for host in hosts),
        hostname=hostname(config),
        tls=settings.tls,
        tls_ca_file=settings.tls_ca_file,
        user=settings.user,
        password=credentials.next_hop_password(settings),
        max_connections=settings.max_connections,
        idle_timeout=_seconds(settings.idle_timeout),
        max_age=_seconds(settings.max_age),
        connect_timeout=_seconds(settings.connect_timeout),
        command_timeout=_seconds(settings.command_timeout),
        final_timeout=_seconds(config.smtp.transaction_timeout),
        breaker_failures=settings.breaker_failures,
        breaker_pause=_seconds(settings.breaker_pause),
        xforward=settings.xforward,
    )


def milliseconds(duration: timedelta) -> int:
    """A duration as those take it who reckon with times of messages."""
    return duration // timedelta(milliseconds=1)


def _seconds(duration: timedelta) -> float:
    return duration.total_seconds()
