"""The supervisor's metrics: health as of now, build and certificates as of the configuration at work."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trustme
from prometheus_client import CollectorRegistry

from filter import __version__
from filter.certificates import expiry
from filter.config import Config, parse_config
from filter.health import Health, Notice, NotReady
from filter.metrics_whole import WholeMetrics

CONFIG = """
[smtp]
listen = ["127.0.0.1:2625"]
relay_networks = ["127.0.0.0/8"]
tls_cert_file = "cert.pem"
tls_key_file = "key.pem"
[next_hop]
hosts = ["127.0.0.1:2525"]
[[stream]]
controller = "bank"
brand = "bank"
topic = "offers"
"""
SOON, LATER = datetime(2031, 5, 1, tzinfo=UTC), datetime(2032, 5, 1, tzinfo=UTC)
EXPIRY = "consentry_certificate_expiry_timestamp_seconds"


def write(path: Path, *ends: datetime) -> None:
    """A file of certificates that expire then."""
    authority = trustme.CA()
    issued = [authority.issue_cert("relay.example", not_after=end) for end in ends]
    path.write_bytes(b"".join(one.cert_chain_pems[0].bytes() for one in issued))


def config(directory: Path) -> Config:
    """A configuration with a certificate of its own."""
    return parse_config(CONFIG.encode(), directory / "filter.toml")


def test_the_first_certificate_to_expire_counts(tmp_path: Path) -> None:
    """Of a chain, the end of the certificate that ends first, to the second."""
    write(tmp_path / "cert.pem", LATER, SOON)
    assert expiry(tmp_path / "cert.pem") == pytest.approx(SOON.timestamp(), abs=1)
    (tmp_path / "cert.pem").write_text("no certificate\n")
    with pytest.raises(ValueError, match="PEM"):
        expiry(tmp_path / "cert.pem")


def test_build_and_certificates_are_those_of_the_last_configuration(tmp_path: Path) -> None:
    """After a reload the new ones are shown alone; what cannot be read is not shown, and nothing fails."""
    registry = CollectorRegistry()
    metrics, value = WholeMetrics(registry), registry.get_sample_value
    write(tmp_path / "cert.pem", SOON)
    metrics.configured(config(tmp_path), "rules-1")
    assert value("consentry_build_info", {"version": __version__, "ruleset": "rules-1"}) == 1
    assert value(EXPIRY, {"use": "smtp"}) == pytest.approx(SOON.timestamp(), abs=1)
    assert value(EXPIRY, {"use": "kafka"}) is None
    write(tmp_path / "cert.pem", LATER)
    assert value(EXPIRY, {"use": "smtp"}) == pytest.approx(SOON.timestamp(), abs=1)
    metrics.configured(config(tmp_path), "rules-2")
    assert value(EXPIRY, {"use": "smtp"}) == pytest.approx(LATER.timestamp(), abs=1)
    assert value("consentry_build_info", {"version": __version__, "ruleset": "rules-1"}) is None
    (tmp_path / "cert.pem").unlink()
    metrics.configured(config(tmp_path), "rules-2")
    assert value(EXPIRY, {"use": "smtp"}) is None


def test_health_is_shown_by_reason() -> None:
    """Every reason and notice is on the page, 1 for those that are given."""
    registry = CollectorRegistry()
    page = WholeMetrics(registry).page(Health((NotReady.HOLD_NO_ROOM,), (Notice.CONSENT_STALE,), 2, 1)).decode()
    assert 'consentry_not_ready{reason="hold_no_room"} 1.0' in page
    assert page.count("consentry_not_ready{") == len(NotReady)
    assert 'consentry_notice{notice="consent_stale"} 1.0' in page
    assert page.count("consentry_notice{") == len(Notice)
    assert "consentry_workers_wanted 2.0" in page
    assert "consentry_workers_ready 1.0" in page
    started = registry.get_sample_value("consentry_start_timestamp_seconds")
    assert started is not None
    assert abs(datetime.now(UTC) - datetime.fromtimestamp(started, UTC)) < timedelta(hours=1)
