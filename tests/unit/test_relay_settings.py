"""Every setting of the relay reaches the part it is for."""

from pathlib import Path

import pytest

from filter import relay_settings
from filter.config import Config, load_config
from filter.config_values import Endpoint
from filter.tls_policy import TlsPolicy

CHANGED = """
[smtp]
hostname = "relay.example"
relay_networks = ["192.0.2.0/24"]
proxy_networks = ["192.0.2.1"]
xforward_networks = ["192.0.2.2"]
max_message_size = "1 MiB"
max_recipients = 11
max_connections = 12
max_connections_per_client = 13
max_errors = 14
max_idle_commands = 15
max_auth_failures = 16
max_bytes_in_flight = "17 MiB"
max_hops = 18
command_timeout = "19s"
data_timeout = "20s"
min_data_rate = "21 B"
tls_timeout = "22s"
max_session = "23s"
transaction_timeout = "24s"
bare_line_endings = "reject"
long_lines = "reject"
[next_hop]
hosts = ["mta.example:25"]
tls = "require"
max_connections = 31
idle_timeout = "32s"
max_age = "33s"
connect_timeout = "4s"
command_timeout = "5s"
breaker_failures = 36
breaker_pause = "37s"
xforward = false
"""


@pytest.fixture
def changed(tmp_path: Path) -> Config:
    """A configuration with every setting away from its default that needs no file."""
    file = tmp_path / "filter.toml"
    file.write_text(CHANGED)
    return load_config(file)


def test_limits(changed: Config) -> None:
    """Sizes are octets, times are seconds."""
    limits = relay_settings.limits(changed)
    assert (limits.message_size, limits.bytes_in_flight, limits.data_rate) == (1 << 20, 17 << 20, 21)
    assert (limits.recipients, limits.connections, limits.connections_per_client) == (11, 12, 13)
    assert (limits.errors, limits.idle_commands, limits.auth_failures) == (14, 15, 16)
    assert (limits.command_timeout, limits.data_timeout, limits.tls_timeout, limits.session) == (19, 20, 22, 23)


def test_server(changed: Config) -> None:
    """What a session may and what its messages must be like."""
    server = relay_settings.server(changed)
    assert server.hostname == "relay.example"
    assert server.proxy_networks == changed.smtp.proxy_networks
    assert server.xforward_networks == changed.smtp.xforward_networks
    assert (server.reject_bare_line_ends, server.reject_long_lines) == (True, True)
    assert (server.require_tls, server.tls_context, server.users) == (False, None, None)


def test_pipeline(changed: Config) -> None:
    """The budget of a message and the number of hops."""
    pipeline = relay_settings.pipeline(changed)
    assert (pipeline.hostname, pipeline.max_hops, pipeline.transaction_timeout) == ("relay.example", 18, 24)


def test_next_hop(changed: Config) -> None:
    """Everything about connections to the next hop, its own hosts or others."""
    options = relay_settings.next_hop(changed, (Endpoint("::1", 26),))
    assert options.hosts == (("::1", 26),)
    assert options.hostname == "relay.example"
    assert options.tls is TlsPolicy.REQUIRE
    assert (options.max_connections, options.idle_timeout, options.max_age) == (31, 32, 33)
    assert (options.connect_timeout, options.command_timeout, options.final_timeout) == (4, 5, 24)
    assert (options.breaker_failures, options.breaker_pause, options.xforward) == (36, 37, False)


def test_defaults_agree(tmp_path: Path) -> None:
    """Where a part has defaults of its own, they are the configuration's."""
    config = Config.default(tmp_path)
    hostname = relay_settings.hostname(config)
    assert relay_settings.limits(config) == relay_settings.Limits()
    assert relay_settings.pipeline(config) == relay_settings.PipelineSettings(hostname=hostname)
    hosts = (("127.0.0.1", 2525),)
    assert relay_settings.next_hop(config, config.next_hop.hosts) == relay_settings.NextHopOptions(
        hosts=hosts, hostname=hostname
    )


@pytest.mark.parametrize(
    ("machine", "name"),
    [("mx1.bank.example", "mx1.bank.example"), ("MX1", "mx1"), ("not a name", "localhost"), ("", "localhost")],
)
def test_a_machine_without_a_proper_name(monkeypatch: pytest.MonkeyPatch, machine: str, name: str) -> None:
    """Without a setting we are called what the machine is called, if that can stand in a greeting."""
    monkeypatch.setattr("socket.gethostname", lambda: machine)
    assert relay_settings.hostname(Config.default()) == name
