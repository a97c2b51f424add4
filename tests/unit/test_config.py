"""Configuration: defaults, what a file may say, and every message about what it may not."""

import re
import tomllib
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from filter.config import Config, load_config
from filter.config_errors import explain, setting_paths
from filter.config_held import OnExpiry
from filter.config_values import Endpoint, duration, duration_text, endpoint, size, size_text
from filter.consent import ConsentState
from filter.errors import ConfigError
from filter.labels import Label
from filter.policy import DEFAULT_TABLE, Disposition, Policy
from filter.stream import Match, Mode, Stream
from filter.tls_policy import TlsPolicy

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / "config"
BY_NAME = ("consent.max_age", "hold.retention", "hold.on_expiry")  # settings that are tables themselves
BAD = sorted((ROOT / "tests" / "bad_configs").iterdir())


@pytest.fixture
def load(tmp_path):
    """Load a configuration from TOML text."""

    def load(text: str) -> Config:
        file = tmp_path / "filter.toml"
        file.write_text(text)
        return load_config(file)

    return load


def test_an_empty_file_is_the_default_configuration(load, tmp_path):
    """A file without a setting gives the defaults, whole."""
    assert load("") == Config.default(tmp_path)


def test_the_shipped_file_shows_every_default():
    """config/filter.toml loads to exactly the defaults."""
    assert load_config(CONFIG / "filter.toml") == Config.default(CONFIG)


def test_the_shipped_file_shows_every_setting():
    """Every setting stands in config/filter.toml; a stream's match stands there as an example."""
    document = tomllib.loads(_with_example_stream())
    shown = set(_paths(document))
    assert shown == set(setting_paths(Config))


def test_the_example_stream_in_the_shipped_file_works(load):
    """The commented stream can be taken as it stands."""
    config = load(_with_example_stream())
    assert [stream.controller for stream in config.stream] == ["bank", "default"]
    assert config.stream[0].mode is Mode.MONITOR


def test_the_defaults_are_those_of_the_policy():
    """Configuration repeats no default of the decision core."""
    assert Config.default().decision_policy() == Policy()


def test_the_names_that_others_rely_on(load, tmp_path):
    """The configuration of the design loads to what it says."""
    config = load("""
workers = 4
[smtp]
listen = ["127.0.0.1:2626", "[::1]:2626"]
relay_networks = ["127.0.0.0/8", "192.0.2.7"]
[next_hop]
hosts = ["mta.example:25"]
[store]
dir = "state"
[http]
listen = "127.0.0.1:9626"
[kafka]
bootstrap_servers = ["kafka.example:9092"]
[[stream]]
match.from_domain = ["Bank.Example"]
controller = "bank"
brand = "bank"
topic = "offers"
mode = "enforce"
""")
    assert config.workers == 4
    assert config.smtp.listen == (Endpoint("127.0.0.1", 2626), Endpoint("::1", 2626))
    assert [str(network) for network in config.smtp.relay_networks] == ["127.0.0.0/8", "192.0.2.7/32"]
    assert config.next_hop.hosts == (Endpoint("mta.example", 25),)
    assert config.store.dir == tmp_path / "state"
    assert config.http.listen == Endpoint("127.0.0.1", 9626)
    assert config.kafka.bootstrap_servers == (Endpoint("kafka.example", 9092),)
    assert config.streams() == (
        Stream("bank", "bank", "offers", Mode.ENFORCE, Match(from_domain=frozenset({"bank.example"}))),
        Stream("default", "default", "default"),
    )


def test_one_cell_of_the_policy_can_be_changed(load):
    """A row with one cell changes that cell and leaves the rest of the table."""
    table = (
        load('[policy]\nmarketing = { solicited = "divert" }\n[divert]\naddress = "seen@bank.example"')
        .decision_policy()
        .table
    )
    changed = {**DEFAULT_TABLE[Label.MARKETING], ConsentState.SOLICITED: Disposition.DIVERT}
    assert table == {**DEFAULT_TABLE, Label.MARKETING: changed}


def test_unknown_cases_can_be_set(load):
    """Each unknown case has its own setting, which reaches the policy."""
    policy = load(
        '[policy]\non_unsure = "relay"\non_consent_unavailable = "tempfail"\nunsure_from = 1'
    ).decision_policy()
    assert policy == Policy(on_unsure=Disposition.RELAY, on_consent_unavailable=Disposition.TEMPFAIL, unsure_from=1.0)


def test_a_stream_can_have_its_own_uncertain_band(load):
    """A stream's band reaches the decision; one that diverts needs a way for diverted copies."""
    stream = '[[stream]]\ncontroller = "a"\nbrand = "a"\ntopic = "a"\n'
    (plain,) = load(stream).streams()
    assert (plain.unsure_from, plain.on_unsure) == (None, None)
    (own,) = load(f'{stream}unsure_from = 0.2\non_unsure = "relay"\n').streams()
    assert (own.unsure_from, own.on_unsure) == (0.2, Disposition.RELAY)
    with pytest.raises(ConfigError, match="divert"):
        load(f'{stream}on_unsure = "divert"\n')


@pytest.mark.parametrize("name", [name for name in Policy.__dataclass_fields__ if name.startswith("on_")])
def test_every_unknown_case_reaches_the_policy(load, name):
    """No setting of an unknown case is read and then forgotten."""
    assert getattr(Policy(), name) is not Disposition.RELAY
    assert load(f'[policy]\n{name} = "relay"\n').decision_policy() == Policy(**{name: Disposition.RELAY})


def test_max_age_is_by_topic(load):
    """A topic can have its own age; that of every other topic keeps its default unless given."""
    consent = load('[consent]\nmax_age = { offers = "12 months" }\nstale_after = "90s"').consent
    assert consent.max_age_ms() == {"offers": 365 * 86_400_000, "*": 730 * 86_400_000}
    assert consent.stale_after_ms() == 90_000


def test_retention_is_by_reason(load):
    """A reason can have its own time and outcome; those of every other reason keep their default."""
    hold = load('[hold]\nretention = { objected = "7d" }\non_expiry = { unsure = "dsn" }').hold
    assert (hold.retention_of("objected"), hold.retention_of("unsure")) == (timedelta(days=7), timedelta(days=30))
    assert (hold.on_expiry_of("objected"), hold.on_expiry_of("unsure")) == (OnExpiry.DISCARD, OnExpiry.DSN)
    assert load('[hold]\nretention = { "*" = "90d" }').hold.retention_of("objected") == timedelta(days=90)


def test_a_notice_names_its_sender(load):
    """`from` is a setting like any other, though no word for a field in Python."""
    assert load('[notice]\nto = "dpo@bank.example"\nfrom = "gate@bank.example"').notice.from_ == "gate@bank.example"


def test_relative_paths_are_relative_to_the_file(load, tmp_path):
    """Paths are taken from the file's directory, absolute ones as they are."""
    config = load('[store]\ndir = "/srv/consentry"\n[classify]\nrules = ["own"]\n[consent]\nkey_file = "../key"')
    assert config.store.dir == Path("/srv/consentry")
    assert config.classify.rules == (tmp_path / "own",)
    assert config.subject_key_file == tmp_path / "../key"


def test_key_and_cache_live_in_the_store_unless_set(load, tmp_path):
    """Without own settings the key and the compiled rules are kept in the store directory."""
    assert load("").subject_key_file == tmp_path / "var" / "subject.key"
    assert load("").hold_key_file == tmp_path / "var" / "keys" / "hold.key"
    assert load('[hold]\nkey_file = "own"').hold_key_file == tmp_path / "own"
    assert load("").rules_cache == tmp_path / "var" / "cache"
    assert load("[classify]\ncache = false").rules_cache is None


def test_configuration_does_not_change():
    """A loaded configuration is frozen."""
    with pytest.raises(ValueError, match="frozen"):
        Config.default().workers = 3


@pytest.mark.parametrize("case", BAD, ids=lambda case: case.name)
def test_bad_configuration(case):
    """A file that cannot be used is refused with exactly the message beside it."""
    with pytest.raises(ConfigError) as caught:
        load_config(case / "filter.toml")
    message = str(caught.value).replace(str(case / "filter.toml"), "filter.toml")
    assert message == (case / "expected-error").read_text().rstrip("\n")


def test_a_secret_is_never_shown(load):
    """No message repeats a value that may be a secret."""
    with pytest.raises(ConfigError) as caught:
        load(
            '[smtp]\npassword = "correct horse"\n'
            '[consent]\nkey = "correct horse"\n'
            '[next_hop]\nhosts = ["u:correct horse@h:25"]\n'
        )
    assert "correct horse" not in str(caught.value)
    assert len(caught.value.problems) == 3


@pytest.mark.parametrize("name", ["missing.toml", "."])
def test_a_file_that_cannot_be_read(tmp_path, name):
    """A missing file or a directory is a configuration error that names it."""
    with pytest.raises(ConfigError, match=re.escape(str(tmp_path / name))):
        load_config(tmp_path / name)


VALUES = st.recursive(
    st.booleans() | st.integers() | st.floats() | st.text() | st.dates(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,  # no setting is deeper than a list of tables
)


@given(st.sampled_from(sorted(setting_paths(Config))), VALUES)
def test_any_value_is_taken_or_explained(path, value):
    """Whatever stands in a setting, it is taken, or the problem names the setting."""
    *tables, name = path.replace("[]", "").split(".")
    document = {name: value}
    for table in reversed(tables):
        document = {table: [document] if table == "stream" else document}
    try:
        Config.model_validate(document, context={"base": ROOT})
    except ValidationError as error:
        problems = explain(error, Config)
        assert all(problem.place and problem.allowed for problem in problems)
        assert any(problem.place.startswith((tables or [name])[0]) for problem in problems)


@given(st.binary() | st.text().map(str.encode))
def test_any_file_is_taken_or_refused(tmp_path_factory, content):
    """Whatever a file holds, it is a configuration or a configuration error."""
    file = tmp_path_factory.getbasetemp() / "any.toml"
    file.write_bytes(content)
    try:
        assert isinstance(load_config(file), Config)
    except ConfigError as error:
        assert error.problems  # noqa: PT017 - most files raise


@given(st.ip_addresses(), st.integers(0, 65535))
def test_an_endpoint_reads_what_it_prints(address, port):
    """Endpoints survive printing and reading."""
    assert endpoint(str(Endpoint(str(address), port))) == Endpoint(str(address), port)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("90s", timedelta(seconds=90)),
        ("15min", timedelta(minutes=15)),
        ("1 hour", timedelta(hours=1)),
        ("730d", timedelta(days=730)),
        ("6 weeks", timedelta(weeks=6)),
        ("24 months", timedelta(days=730)),
        ("2 years", timedelta(days=730)),
    ],
)
def test_durations(text, expected):
    """Durations are a number and a unit; a month is a twelfth of 365 days."""
    assert duration(text) == expected


@pytest.mark.parametrize(
    ("text", "octets"), [("512 B", 512), ("1KiB", 1024), ("50 MiB", 50 << 20), ("1 GiB", 1 << 30), ("0 B", 0)]
)
def test_sizes(text, octets):
    """Sizes are a number and a unit of octets."""
    assert size(text, 0, 1 << 40) == octets


@given(st.integers(0, 1 << 39))
def test_a_size_reads_what_it_prints(octets):
    """Sizes survive printing and reading."""
    assert size(size_text(octets), 0, 1 << 50) == octets


@given(st.integers(1, 999_999).flatmap(lambda n: st.sampled_from([n, n * 1000])))
def test_a_duration_reads_what_it_prints(milliseconds):
    """Durations survive printing and reading."""
    value = timedelta(milliseconds=milliseconds)
    assert duration(duration_text(value)) == value


@pytest.mark.parametrize(
    "text",
    [
        '[divert]\nhosts = ["archive.example:25"]\n',
        '[divert]\naddress = "held@bank.example"\n',
    ],
)
def test_diverted_copies_need_a_way_of_their_own(load, text):
    """Other hosts or another address keep diverted copies from where relayed ones go."""
    config = load(f'{text}[policy]\non_unsure = "divert"\n')
    assert config.policy.diverts()


def test_what_belongs_together_is_taken_together(load, tmp_path):
    """TLS, AUTH and a login at the next hop can be set up whole."""
    config = load("""
[smtp]
tls_listen = ["127.0.0.1:2465"]
tls_cert_file = "cert.pem"
tls_key_file = "key.pem"
users_file = "users"
require_tls = true
[next_hop]
tls = "verify"
tls_ca_file = "ca.pem"
user = "consentry"
password_file = "password"
""")
    assert config.smtp.tls_key_file == tmp_path / "key.pem"
    assert config.next_hop.tls is TlsPolicy.VERIFY


def _with_example_stream() -> str:
    """The shipped file with its commented example stream made active."""
    return re.sub(
        r"^#   (?=\[\[stream|match|controller|brand|topic|mode|unsure_from|on_unsure)",
        "",
        (CONFIG / "filter.toml").read_text(),
        flags=re.MULTILINE,
    )


def _paths(table: dict, prefix: str = ""):
    for key, value in table.items():
        if isinstance(value, list) and value and isinstance(value[0], dict):
            for item in value:
                yield from _paths(item, f"{prefix}{key}[].")
        elif isinstance(value, dict) and f"{prefix}{key}" not in BY_NAME:
            yield from _paths(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"


def test_what_is_hardly_meant_is_told(tmp_path):
    """A relay that takes mail from nobody is no error, and is told; without SMTP door it is meant."""
    file = tmp_path / "filter.toml"
    file.write_text("")
    assert [concern.partition(" ")[0] for concern in load_config(file).concerns()] == ["smtp.relay_networks"]
    file.write_text('[smtp]\nlisten = []\n[kafka]\nbootstrap_servers = ["kafka.example:9092"]\n')
    assert load_config(file).concerns() == []
    file.write_text('[smtp]\nrelay_networks = ["192.0.2.0/24"]\n')
    assert load_config(file).concerns() == []


@pytest.mark.parametrize(
    "url",
    [
        "",
        "postgresql://consentry@db.example/held",
        "postgresql://consentry@one.example:5432,two.example/held?target_session_attrs=read-write",
        "postgresql:///held?host=/run/postgresql&user=consentry",
        "postgresql://consentry@[::1]:5432/held?sslmode=verify-full&sslrootcert=/etc/ssl/ca.pem",
    ],
)
def test_a_database_by_its_url(load, url):
    """A URL of libpq is taken as it is."""
    assert load(f'[store]\nurl = "{url}"\n').store.url == url


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://consentry:correct@db.example/held",
        "postgresql://consentry@db.example/held?password=correct",
        "postgresql://consentry@db.example/held?sslmode=require&sslpassword=correct",
        "postgresql:/consentry:correct@db.example/held",
        "postgresql:///consentry:correct@db.example/held",
        "mysql://consentry:correct@db.example/held",
        "consentry:correct@db.example/held",
    ],
)
def test_a_database_password_is_never_shown(load, url):
    """Wherever it stands in a URL, good or bad, it is refused and left out of the message."""
    with pytest.raises(ConfigError, match=r"store\.password_file") as caught:
        load(f'[store]\nurl = "{url}"\n')
    assert "correct" not in str(caught.value)
