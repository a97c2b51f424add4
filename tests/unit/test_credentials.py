"""Files with secrets: taken when they are ours alone and whole, else refused by the setting that names them."""

import ssl
from collections.abc import Callable
from pathlib import Path

import pytest
import trustme

from filter import app, credentials
from filter.config import Config, load_config
from filter.errors import ConfigError
from filter.users import hash_password

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write a file with this mode."""

    def write(name: str, content: str | bytes, mode: int = 0o600) -> Path:
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        path.chmod(mode)
        return path

    return write


@pytest.fixture
def certificate(write: Write) -> trustme.LeafCert:
    """cert.pem and key.pem for a host."""
    issued = trustme.CA().issue_cert("relay.example")
    write("cert.pem", issued.cert_chain_pems[0].bytes(), 0o644)
    write("key.pem", issued.private_key_pem.bytes())
    return issued


TLS = '[smtp]\ntls_cert_file = "cert.pem"\ntls_key_file = "key.pem"\nusers_file = "users"\n'
LOGIN = '[next_hop]\ntls = "verify"\nuser = "consentry"\npassword_file = "password"\ntls_ca_file = "cert.pem"\n'


def load(write: Write, text: str) -> Config:
    """The configuration with this text, beside the other files."""
    return load_config(write("filter.toml", text))


def test_without_settings_nothing_is_read() -> None:
    """By default there is no TLS, nobody logs in, and no password."""
    config = Config.default()
    assert credentials.server_context(config.smtp) is None
    assert credentials.users(config.smtp) is None
    assert credentials.next_hop_password(config.next_hop) == ""
    assert credentials.store_password(config.store) == ""
    credentials.check_authorities(config.next_hop)


@pytest.mark.usefixtures("certificate")
def test_good_files_are_taken(write: Write) -> None:
    """Certificate and key make a context for TLS 1.2 and later; users and password are read."""
    write("users", f"ann:{hash_password('secret')}\n")
    write("password", "correct horse\n")
    config = load(write, TLS + LOGIN)
    context = credentials.server_context(config.smtp)
    assert context is not None
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2
    users = credentials.users(config.smtp)
    assert users is not None
    assert users.verify(b"ann", b"secret")
    assert credentials.next_hop_password(config.next_hop) == "correct horse"
    credentials.check_authorities(config.next_hop)


def test_the_password_of_the_store(write: Write) -> None:
    """It is read from its file, anew each time, and refused by its own setting."""
    file = write("password", "correct horse\n")
    store = load(write, '[store]\npassword_file = "password"\n').store
    assert credentials.store_password(store) == "correct horse"
    file.write_text("battery staple")
    assert credentials.store_password(store) == "battery staple"
    file.chmod(0o604)
    with pytest.raises(ConfigError, match=r"store.password_file.*mode 0604"):
        credentials.store_password(store)


@pytest.mark.usefixtures("certificate")
@pytest.mark.parametrize("name", ["key.pem", "users", "password"])
def test_what_others_can_read_is_refused(write: Write, tmp_path: Path, name: str) -> None:
    """A secret with an open mode is refused, with the command that helps."""
    write("users", f"ann:{hash_password('secret')}\n")
    write("password", "correct horse")
    config = load(write, TLS + LOGIN)
    (tmp_path / name).chmod(0o640)
    with pytest.raises(ConfigError, match=rf"{name}.*mode 0640.*chmod 600"):
        _read_all(config)


@pytest.mark.usefixtures("certificate")
@pytest.mark.parametrize(
    ("name", "content", "setting", "words"),
    [
        ("cert.pem", "no certificate", "smtp.tls_cert_file", "PEM"),
        ("key.pem", "no key", "smtp.tls_cert_file", "PEM"),
        ("password", "", "next_hop.password_file", "one line of 1 to 1024"),
        ("password", "two\nlines", "next_hop.password_file", "one line"),
        ("password", b"\xff", "next_hop.password_file", "UTF-8"),
        ("users", "correct horse", "users:1", "not shown"),
    ],
)
def test_what_cannot_be_used(write: Write, name: str, content: str | bytes, setting: str, words: str) -> None:
    """A file that is not what it should be is refused by its setting, and what it holds is not shown."""
    write("users", f"ann:{hash_password('secret')}\n")
    write("password", "x")
    write(name, content)
    with pytest.raises(ConfigError) as caught:
        _read_all(load(write, TLS + LOGIN))
    assert setting in str(caught.value)
    assert words in str(caught.value)
    assert "horse" not in str(caught.value)


@pytest.mark.usefixtures("certificate")
@pytest.mark.parametrize("name", ["cert.pem", "key.pem", "users", "password"])
def test_what_is_missing(write: Write, tmp_path: Path, name: str) -> None:
    """A file that is not there is refused by name."""
    write("users", f"ann:{hash_password('secret')}\n")
    write("password", "x")
    (tmp_path / name).unlink()
    with pytest.raises(ConfigError, match=rf"{name}.*cannot be read: No such file"):
        _read_all(load(write, TLS + LOGIN))


def test_a_key_with_a_passphrase_asks_nobody(write: Write, certificate: trustme.LeafCert) -> None:
    """A service has no terminal: an encrypted key is refused."""
    from cryptography.hazmat.primitives import serialization  # noqa: PLC0415 -- comes with trustme

    key = serialization.load_pem_private_key(certificate.private_key_pem.bytes(), None)
    locked = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.TraditionalOpenSSL,
        serialization.BestAvailableEncryption(b"open sesame"),
    )
    write("key.pem", locked)
    write("users", "")
    with pytest.raises(ConfigError, match=r"smtp\.tls_cert_file"):
        credentials.server_context(load(write, TLS).smtp)


def test_checking_a_configuration_reads_every_file(write: Write, tmp_path: Path, rules_cache: Path) -> None:
    """`config check` and the start look at the files too, not only at the settings (I3)."""
    (tmp_path / "var").mkdir()
    (tmp_path / "var" / "cache").symlink_to(rules_cache)
    checked = app.check(write("filter.toml", "workers = 3"))
    assert (checked.config.workers, checked.text) == (3, "workers = 3")
    with pytest.raises(ConfigError, match=r"key\.pem"):
        app.check(write("filter.toml", TLS))


def _read_all(config: Config) -> None:
    credentials.server_context(config.smtp)
    credentials.users(config.smtp)
    credentials.next_hop_password(config.next_hop)
    credentials.check_authorities(config.next_hop)
