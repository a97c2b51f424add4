"""The files that settings name and that hold what nobody else may know: certificate and key, users, passwords.

Each is read when the relay starts and at a reload, and by `consentry config check`. A file with a secret that group or
others may read is refused. Raises ConfigError that names the setting and the file, never what it holds.
"""

import os
import ssl
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from .config_kafka import KafkaSettings, KafkaTls
from .config_relay import NextHopSettings, SmtpSettings, StoreSettings
from .errors import ConfigError, Problem
from .users import Users, load_users

_MAX_PASSWORD: Final = 1024  # octets


def server_context(smtp: SmtpSettings) -> ssl.SSLContext | None:
    """What our side of TLS needs: certificate chain and key, TLS 1.2 at least; None without a certificate."""
    certificate, key = smtp.tls_cert_file, smtp.tls_key_file
    if certificate is None or key is None:
        return None
    _refuse_shared("smtp.tls_key_file", key)
    _refuse_missing("smtp.tls_cert_file", certificate)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION
    with _readable("smtp.tls_cert_file", certificate):
        # A key with a passphrase must not make a service ask on the terminal.
        context.load_cert_chain(certificate, key, password=lambda: b"")
    return context


def users(smtp: SmtpSettings) -> Users | None:
    """Who may log in; None without a users file."""
    if smtp.users_file is None:
        return None
    with _readable("smtp.users_file", smtp.users_file):
        return load_users(smtp.users_file)


def next_hop_password(next_hop: NextHopSettings) -> str:
    """The password for the next hop, without the end of its line; empty without a password file."""
    return _password("next_hop.password_file", next_hop.password_file)


def store_password(store: StoreSettings) -> str:
    """The password for the database of held mail, without the end of its line; empty without a password file."""
    return _password("store.password_file", store.password_file)


def kafka_password(kafka: KafkaSettings) -> str:
    """The password for the Kafka brokers, without the end of its line; empty without a password file."""
    return _password("kafka.password_file", kafka.password_file)


def kafka_context(kafka: KafkaSettings) -> ssl.SSLContext | None:
    """What our side of TLS with the Kafka brokers needs: whom to believe, our own certificate if any; None for off."""
    if kafka.tls is KafkaTls.OFF:
        return None
    with _readable("kafka.tls_ca_file", kafka.tls_ca_file or Path()):
        context = ssl.create_default_context(cafile=kafka.tls_ca_file)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if kafka.tls_cert_file and kafka.tls_key_file:
        _refuse_shared("kafka.tls_key_file", kafka.tls_key_file)
        with _readable("kafka.tls_cert_file", kafka.tls_cert_file):
            context.load_cert_chain(kafka.tls_cert_file, kafka.tls_key_file, password=lambda: b"")
    return context


def check_authorities(next_hop: NextHopSettings) -> None:
    """Whether the certificates that the next hop's is checked against can be used."""
    if next_hop.tls_ca_file is not None:
        with _readable("next_hop.tls_ca_file", next_hop.tls_ca_file):
            ssl.create_default_context(cafile=next_hop.tls_ca_file)


def _password(setting: str, path: Path | None) -> str:
    if path is None:
        return ""
    _refuse_shared(setting, path)
    with _readable(setting, path):
        text = path.read_text("utf-8").rstrip("\r\n")
    if not text or len(text) > _MAX_PASSWORD or not text.isprintable():
        raise _problem(setting, path, f"one line of 1 to {_MAX_PASSWORD} printable characters")
    return text


def _refuse_missing(setting: str, path: Path) -> None:
    with _readable(setting, path), path.open("rb"):
        pass


def _refuse_shared(setting: str, path: Path) -> None:
    """Refuse a secret that others can read."""
    with _readable(setting, path), path.open("rb") as file:
        mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
    if mode & 0o077:
        raise _problem(setting, path, f"mode {mode:04o} lets others read it; run: chmod 600 {path}")


@contextmanager
def _readable(setting: str, path: Path) -> Iterator[None]:
    """Say which setting names a file that cannot be used."""
    try:
        yield
    except ssl.SSLError as error:
        reason = error.reason or "not what OpenSSL can use"
        raise _problem(setting, path, f"certificate and key in PEM that belong together ({reason})") from None
    except OSError as error:
        raise _problem(setting, path, f"cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise _problem(setting, path, "UTF-8 text") from None


def _problem(setting: str, path: Path, allowed: str) -> ConfigError:
    return ConfigError("a file that the configuration names cannot be used:", [Problem(setting, f'"{path}"', allowed)])
