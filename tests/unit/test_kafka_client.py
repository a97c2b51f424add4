"""What aiokafka is told: every setting reaches it, and none of its defaults that lose data is left alone."""

import ssl
from datetime import timedelta
from pathlib import Path

import pytest
import trustme

from filter import kafka_client
from filter.config import Config, parse_config
from filter.config_kafka import KafkaSettings
from filter.errors import ConfigError

SERVERS = 'bootstrap_servers = ["one.example:9092", "[::1]:9093"]\n'


def kafka(text: str, directory: Path) -> KafkaSettings:
    """[kafka] with these lines."""
    return parse_config(f"[kafka]\n{SERVERS}{text}".encode(), directory / "filter.toml").kafka


def test_connections_without_protection(tmp_path: Path) -> None:
    """By default neither TLS nor a login."""
    options = kafka_client.connection(kafka("", tmp_path))
    assert options["bootstrap_servers"] == ["one.example:9092", "[::1]:9093"]
    assert (options["security_protocol"], options["ssl_context"]) == ("PLAINTEXT", None)
    assert "sasl_mechanism" not in options


@pytest.mark.parametrize(
    ("sasl", "tls", "protocol"),
    [
        ("", "verify", "SSL"),
        ("PLAIN", "verify", "SASL_SSL"),
        ("SCRAM-SHA-512", "verify", "SASL_SSL"),
        ("SCRAM-SHA-256", "off", "SASL_PLAINTEXT"),
    ],
)
def test_tls_and_login(tmp_path: Path, sasl: str, tls: str, protocol: str) -> None:
    """Certificates are checked with the name; the password comes from its file."""
    password = tmp_path / "password"
    password.touch(mode=0o600)
    password.write_text("correct horse\n")
    text = f'tls = "{tls}"\nsasl = "{sasl}"\n' + ('user = "gate"\npassword_file = "password"\n' if sasl else "")
    options = kafka_client.connection(kafka(text, tmp_path))
    assert options["security_protocol"] == protocol
    if tls == "verify":
        context = options["ssl_context"]
        assert context.check_hostname
        assert context.verify_mode is ssl.CERT_REQUIRED
        assert context.minimum_version is ssl.TLSVersion.TLSv1_2
    if sasl:
        login = [options[f"sasl_{name}"] for name in ("mechanism", "plain_username", "plain_password")]
        assert login == [sasl, "gate", "correct horse"]


def test_a_certificate_of_our_own(tmp_path: Path) -> None:
    """Brokers that ask for a certificate get ours, and are believed if our authorities signed theirs."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    ours = authority.issue_cert("gate.example")
    ours.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    key = tmp_path / "key.pem"
    key.touch(mode=0o600)
    ours.private_key_pem.write_to_path(key)
    text = 'tls = "verify"\ntls_ca_file = "ca.pem"\ntls_cert_file = "cert.pem"\ntls_key_file = "key.pem"\n'
    context = kafka_client.connection(kafka(text, tmp_path))["ssl_context"]
    assert len(context.get_ca_certs()) == 1
    key.chmod(0o644)
    with pytest.raises(ConfigError, match=r"kafka\.tls_key_file"):
        kafka_client.connection(kafka(text, tmp_path))


def test_authorities_that_cannot_be_read(tmp_path: Path) -> None:
    """The error names the setting."""
    with pytest.raises(ConfigError, match=r"kafka\.tls_ca_file"):
        kafka_client.connection(kafka('tls = "verify"\ntls_ca_file = "missing.pem"\n', tmp_path))


def test_nothing_is_committed_skipped_or_decoded_behind_our_back(tmp_path: Path) -> None:
    """Each default of the library that loses or blocks records has another value."""
    options = kafka_client.consumer(kafka('session_timeout = "45s"\n', tmp_path))
    assert options["enable_auto_commit"] is False
    assert options["auto_offset_reset"] == "none"
    assert options["isolation_level"] == "read_committed"
    assert options["session_timeout_ms"] == 45_000
    assert options["rebalance_timeout_ms"] >= options["session_timeout_ms"]
    assert options["heartbeat_interval_ms"] * 3 <= options["session_timeout_ms"]
    assert options["max_poll_interval_ms"] > timedelta(days=1) / timedelta(milliseconds=1)
    assert not [name for name in options if "deserializer" in name]
    written = kafka_client.transactional(kafka("", tmp_path), 3)
    assert (written["acks"], written["enable_idempotence"]) == ("all", True)
    assert written["transactional_id"] == "consentry-consentry-outbound-3"


def test_settings_reach_the_door(tmp_path: Path) -> None:
    """What [kafka] says is what the door is told."""
    text = 'topic = "mail"\ngroup = "gate"\nfirst_offset = "latest"\nbatch_records = 7\nbatch_size = "2 MiB"\n'
    options = kafka_client.options(kafka(f'{text}batch_time = "20ms"\nstall_timeout = "30s"\n', tmp_path))
    assert (options.topic, options.group, options.from_beginning) == ("mail", "gate", False)
    assert options.outputs == ("mail.relay", "mail.held", "mail.diverted", "mail.decisions", "mail.dead-letter")
    assert (options.batch_records, options.batch_size) == (7, 2 << 20)
    assert (options.batch_time, options.stall_timeout) == (0.02, 30.0)
    assert options.producer(5)["transactional_id"] == "consentry-gate-mail-5"


def test_the_default_is_no_door() -> None:
    """Without servers nothing is served, and nothing is waited for at the end."""
    default = Config.default().kafka
    assert not default.serves
    assert default.drain_time == 0
