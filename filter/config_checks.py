"""What is fine in each section of a configuration and cannot be meant together. Pure: values only, no files.

Never raises; every contradiction becomes a `Problem` that names the setting to change.
"""

from collections.abc import Iterator
from itertools import chain
from typing import Final

from .config_held import HoldSettings
from .config_kafka import KafkaSettings, KafkaTls, Sasl
from .config_relay import DivertSettings, HttpSettings, NextHopSettings, SmtpSettings
from .config_values import Endpoint, duration_text, size_text
from .errors import Problem
from .held_content import ReleaseTo
from .tls_policy import TlsPolicy

_EMPTY: Final = '""'


def contradictions(
    *,
    smtp: SmtpSettings,
    next_hop: NextHopSettings,
    divert: DivertSettings,
    http: HttpSettings,
    kafka: KafkaSettings,
    hold: HoldSettings,
    diverts: bool,
) -> list[Problem]:
    """Every contradiction between these tables; `diverts` says whether any part of the policy diverts."""
    return list(
        chain(
            _doors(smtp, next_hop, http, kafka),
            _loops(smtp, next_hop, divert),
            _tls(smtp),
            _limits(smtp, next_hop),
            _login(next_hop),
            _kafka(kafka),
            _release(hold, kafka),
            _diversion(next_hop, divert) if diverts else (),
        )
    )


def _doors(
    smtp: SmtpSettings, next_hop: NextHopSettings, http: HttpSettings, kafka: KafkaSettings
) -> Iterator[Problem]:
    mail = (*smtp.listen, *smtp.tls_listen)
    if kafka.consent_topic and kafka.consent_topic in {kafka.topic, *kafka.outputs}:
        yield Problem("kafka.consent_topic", f'"{kafka.consent_topic}"', "a topic of kafka.topic; consent has its own")
    if not mail and not kafka.serves:
        yield Problem("smtp.listen", "[]", "nothing comes in: no kafka.bootstrap_servers and kafka.topic either")
    if mail and not next_hop.hosts:
        yield Problem("next_hop.hosts", "[]", "mail that comes in by smtp.listen needs a next hop")
    for number, endpoint in enumerate(smtp.tls_listen, 1):
        if endpoint.port and endpoint in smtp.listen:
            yield Problem(f"smtp.tls_listen[{number}]", f'"{endpoint}"', "taken by smtp.listen")
    for name in ("listen", "tls_listen"):
        if http.listen.port and http.listen in getattr(smtp, name):
            yield Problem("http.listen", f'"{http.listen}"', f"taken by smtp.{name}")


def _loops(smtp: SmtpSettings, next_hop: NextHopSettings, divert: DivertSettings) -> Iterator[Problem]:
    for place, hosts in (("next_hop.hosts", next_hop.hosts), ("divert.hosts", divert.hosts)):
        for number, host in enumerate(hosts, 1):
            for name in ("listen", "tls_listen"):
                if any(_reaches(host, listener) for listener in getattr(smtp, name)):
                    yield Problem(f"{place}[{number}]", f'"{host}"', f"a mail loop: this is our own smtp.{name}")


def _reaches(host: Endpoint, listener: Endpoint) -> bool:
    """Whether a connection to `host` certainly ends at `listener`."""
    everywhere = listener.host in {"0.0.0.0", "::"} and host.host in {"127.0.0.1", "::1", "localhost"}  # noqa: S104 - compared
    return host.port == listener.port and (host.host == listener.host or everywhere)


def _tls(smtp: SmtpSettings) -> Iterator[Problem]:
    certificate, key = smtp.tls_cert_file, smtp.tls_key_file
    if certificate and not key:
        yield Problem("smtp.tls_key_file", _EMPTY, "smtp.tls_cert_file needs its key")
    if key and not certificate:
        yield Problem("smtp.tls_cert_file", _EMPTY, "smtp.tls_key_file needs its certificate")
    if certificate or key:
        return
    if smtp.tls_listen:
        yield Problem("smtp.tls_cert_file", _EMPTY, "smtp.tls_listen needs a certificate")
    if smtp.require_tls:
        yield Problem("smtp.tls_cert_file", _EMPTY, "smtp.require_tls needs a certificate, or nobody can send")
    if smtp.users_file:
        yield Problem(
            "smtp.tls_cert_file", _EMPTY, "smtp.users_file needs a certificate: passwords travel inside TLS only"
        )


def _limits(smtp: SmtpSettings, hop: NextHopSettings) -> Iterator[Problem]:
    if smtp.max_message_size > smtp.max_bytes_in_flight:
        yield Problem(
            "smtp.max_bytes_in_flight",
            f'"{size_text(smtp.max_bytes_in_flight)}"',
            f"no message of smtp.max_message_size, {size_text(smtp.max_message_size)}, could ever be taken",
        )
    if hop.connect_timeout + hop.command_timeout >= smtp.transaction_timeout:
        yield Problem(
            "smtp.transaction_timeout",
            f'"{duration_text(smtp.transaction_timeout)}"',
            "must be longer than next_hop.connect_timeout and next_hop.command_timeout together, "
            "or the reply of a slow next hop is never heard",
        )


def _login(hop: NextHopSettings) -> Iterator[Problem]:
    if hop.tls_ca_file and hop.tls is not TlsPolicy.VERIFY:
        yield Problem("next_hop.tls", f'"{hop.tls}"', 'next_hop.tls_ca_file is used with "verify" only')
    if hop.user and not hop.password_file:
        yield Problem("next_hop.password_file", _EMPTY, "next_hop.user needs a password")
    if hop.password_file and not hop.user:
        yield Problem("next_hop.user", _EMPTY, "next_hop.password_file needs a user")
    if hop.user and hop.tls is not TlsPolicy.VERIFY:
        yield Problem("next_hop.tls", f'"{hop.tls}"', 'next_hop.user needs "verify": the password goes to nobody else')


def _kafka(kafka: KafkaSettings) -> Iterator[Problem]:
    files = {name: getattr(kafka, name) for name in ("tls_ca_file", "tls_cert_file", "tls_key_file")}
    for name, path in files.items():
        if path and kafka.tls is KafkaTls.OFF:
            yield Problem("kafka.tls", f'"{kafka.tls}"', f'kafka.{name} is used with "verify" only')
            break
    if kafka.tls_cert_file and not kafka.tls_key_file:
        yield Problem("kafka.tls_key_file", _EMPTY, "kafka.tls_cert_file needs its key")
    if kafka.tls_key_file and not kafka.tls_cert_file:
        yield Problem("kafka.tls_cert_file", _EMPTY, "kafka.tls_key_file needs its certificate")
    if kafka.sasl is Sasl.NONE:
        if kafka.user or kafka.password_file:
            yield Problem("kafka.sasl", _EMPTY, "kafka.user and kafka.password_file need a way to log in")
        return
    if not kafka.user:
        yield Problem("kafka.user", _EMPTY, "kafka.sasl needs a user")
    if not kafka.password_file:
        yield Problem("kafka.password_file", _EMPTY, "kafka.sasl needs a password")
    if kafka.sasl is Sasl.PLAIN and kafka.tls is KafkaTls.OFF:
        yield Problem("kafka.tls", f'"{kafka.tls}"', 'kafka.sasl "PLAIN" needs "verify": it sends the password itself')


def _release(hold: HoldSettings, kafka: KafkaSettings) -> Iterator[Problem]:
    if hold.release_to is ReleaseTo.KAFKA and not kafka.serves:
        yield Problem("hold.release_to", f'"{hold.release_to}"', "needs kafka.bootstrap_servers and kafka.topic")


def _diversion(next_hop: NextHopSettings, divert: DivertSettings) -> Iterator[Problem]:
    elsewhere = divert.hosts and not set(divert.hosts) & set(next_hop.hosts)
    if not divert.address and not elsewhere:
        yield Problem(
            "divert.address",
            _EMPTY,
            "the policy diverts, and diverted copies would go where relayed ones go; set this or divert.hosts",
        )
