"""Configuration: a TOML file -> frozen `Config`, or `ConfigError` with everything that is wrong at once.

The models below are the one place where settings stand; `config/filter.toml` shows each at its default and
`config/README.md` explains it (tests compare all three). Read once at start: nothing here changes while messages flow.
Raises ConfigError only. Values are parsed by `config_values`, problems are put into words by `config_errors`.
"""

import tomllib
from collections import Counter
from collections.abc import Mapping
from datetime import timedelta
from enum import StrEnum
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Annotated, Any, Final, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
    ValidationError,
    ValidationInfo,
)

from . import config_values as values
from .config_errors import Contradiction, cannot_use, explain, syntax_problem
from .config_values import Endpoint
from .consent import ConsentState
from .errors import Problem
from .labels import Label
from .policy import DEFAULT_TABLE, Disposition, Policy
from .stream import Match, Mode, Stream

EVERY_TOPIC: Final = "*"
_DEFAULT_POLICY: Final = Policy()
_SETTLED: Final = (Disposition.RELAY, Disposition.HOLD, Disposition.DIVERT, Disposition.REJECT)


def _choice(*allowed: StrEnum) -> PlainValidator:
    """One of these words; the value becomes the member."""

    def parse(value: Any) -> StrEnum:
        if value not in allowed:
            words = ", ".join(f'"{word}"' for word in allowed)
            raise ValueError(f"one of {words}")
        return allowed[allowed.index(value)]

    return PlainValidator(parse)


def _tuple(value: Any) -> tuple[Any, ...]:
    if not isinstance(value, list | tuple):
        raise ValueError("a list in square brackets")  # noqa: TRY004 - pydantic collects ValueError
    return tuple(value)


def _tables(value: Any) -> tuple[Any, ...]:
    if not isinstance(value, list | tuple):
        raise ValueError("a list of tables, each headed [[stream]]")  # noqa: TRY004 - pydantic collects ValueError
    return tuple(value)


def _once_each(found: tuple[Any, ...]) -> tuple[Any, ...]:
    for item, count in Counter(found).items():
        if count > 1:
            raise ValueError(f'a list without repetition; "{item}" stands in it {count} times')
    return found


def _over(default: Mapping[Any, Any]) -> BeforeValidator:
    """A table of which any keys may be given: the others keep their default."""
    return BeforeValidator(lambda given: {**default, **given} if isinstance(given, dict) else given)


def _base(info: ValidationInfo) -> Path:
    """The directory of the configuration file."""
    context: Mapping[str, Path] = info.context or {}
    return context.get("base", Path())


def _path(value: Any, info: ValidationInfo) -> Path:
    return values.path(value, _base(info))


def _secret_path(value: Any, info: ValidationInfo) -> Path | None:
    return values.secret_path(value, _base(info))


def _topic(value: Any) -> str:
    return EVERY_TOPIC if value == EVERY_TOPIC else values.name(value)


_LIST: Final = (BeforeValidator(_tuple), AfterValidator(_once_each))
Listen = Annotated[Endpoint, PlainValidator(values.endpoint)]
Peer = Annotated[Endpoint, PlainValidator(values.peer)]
Network = Annotated[IPv4Network | IPv6Network, PlainValidator(values.network)]
Domain = Annotated[str, PlainValidator(values.domain)]
Name = Annotated[str, PlainValidator(values.name)]
FilePath = Annotated[Path, PlainValidator(_path)]
Duration = Annotated[timedelta, PlainValidator(values.duration)]
Cell = Annotated[Disposition, _choice(*_SETTLED)]
OrTempfail = Annotated[Disposition, _choice(*_SETTLED, Disposition.TEMPFAIL)]


class Section(BaseModel):
    """A table of the file: unknown keys are errors, values do not change."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class SmtpSettings(Section):
    """[smtp]: where mail comes in, and from whom."""

    listen: Annotated[tuple[Listen, ...], *_LIST] = (Endpoint("127.0.0.1", 2625),)
    relay_networks: Annotated[tuple[Network, ...], *_LIST] = ()


class NextHopSettings(Section):
    """[next_hop]: the MTA that takes what is relayed."""

    hosts: Annotated[tuple[Peer, ...], *_LIST] = (Endpoint("127.0.0.1", 2525),)


class StoreSettings(Section):
    """[store]: where everything durable is kept."""

    dir: FilePath = Field(default="var", validate_default=True)


class HttpSettings(Section):
    """[http]: health and metrics."""

    listen: Listen = Endpoint("127.0.0.1", 9625)


class KafkaSettings(Section):
    """[kafka]: the Kafka door; without servers there is none."""

    bootstrap_servers: Annotated[tuple[Peer, ...], *_LIST] = ()


class ClassifySettings(Section):
    """[classify]: by what content is judged."""

    rules: Annotated[tuple[FilePath, ...], *_LIST] = ()
    cache: Annotated[bool, PlainValidator(values.boolean)] = True


class ConsentSettings(Section):
    """[consent]: how long consent counts, and how old the data may be."""

    key_file: Annotated[Path | None, PlainValidator(_secret_path)] = None
    max_age: Annotated[
        dict[Annotated[str, PlainValidator(_topic)], Duration],
        _over({EVERY_TOPIC: "24 months"}),
    ] = Field(default={}, validate_default=True)
    stale_after: Duration = timedelta(hours=48)
    default_country_code: Annotated[str, PlainValidator(values.country_code)] = ""

    def max_age_ms(self) -> dict[str, int]:
        """`max_age` in milliseconds, as the consent index takes it; "*" is every topic not named (law rule R32)."""
        return {topic: _milliseconds(age) for topic, age in self.max_age.items()}

    def stale_after_ms(self) -> int:
        """`stale_after` in milliseconds."""
        return _milliseconds(self.stale_after)


def _milliseconds(duration: timedelta) -> int:
    return duration // timedelta(milliseconds=1)


class Row(Section):
    """One row of the policy table: what happens to a copy in each consent state."""

    consent: Cell
    soft_opt_in: Cell
    solicited: Cell
    corporate: Cell
    objected: Cell
    unknown: Cell


def _row(label: Label) -> BeforeValidator:
    return _over({str(state): disposition for state, disposition in DEFAULT_TABLE[label].items()})


class PolicySettings(Section):
    """[policy]: the table of dispositions, and what is done when we do not know. Defaults are `policy.Policy`'s."""

    service: Annotated[Row, _row(Label.SERVICE)] = Field(default={}, validate_default=True)
    survey: Annotated[Row, _row(Label.SURVEY)] = Field(default={}, validate_default=True)
    marketing: Annotated[Row, _row(Label.MARKETING)] = Field(default={}, validate_default=True)
    mixed: Annotated[Row, _row(Label.MIXED)] = Field(default={}, validate_default=True)
    re_permission: Annotated[Row, _row(Label.RE_PERMISSION)] = Field(default={}, validate_default=True)
    on_consent_unavailable: OrTempfail = _DEFAULT_POLICY.on_consent_unavailable
    on_consent_stale: OrTempfail = _DEFAULT_POLICY.on_consent_stale
    on_bad_address: Cell = _DEFAULT_POLICY.on_bad_address
    on_unread_content: Cell = _DEFAULT_POLICY.on_unread_content
    on_unsure: Cell = _DEFAULT_POLICY.on_unsure
    on_blocked: Cell = _DEFAULT_POLICY.on_blocked
    unsure_from: Annotated[float, PlainValidator(values.probability)] = _DEFAULT_POLICY.unsure_from


class MatchSettings(Section):
    """[stream.match]: what a message must show to belong to a stream."""

    from_domain: Annotated[tuple[Domain, ...], *_LIST] = ()
    mail_from: Annotated[tuple[Domain, ...], *_LIST] = ()


class StreamSettings(Section):
    """[[stream]]: one sender's mail; the last, without match, is the default stream."""

    match: MatchSettings | None = None
    controller: Name
    brand: Name
    topic: Name
    mode: Annotated[Mode, _choice(*Mode)] = Mode.ENFORCE


# Nobody gives consent to a controller of this name: mail of no known stream is held unless it is service.
DEFAULT_STREAM: Final = StreamSettings(controller="default", brand="default", topic="default")


def _ordered(streams: tuple[StreamSettings, ...]) -> tuple[StreamSettings, ...]:
    """Every stream must be reachable; a default stream is added where none is given."""
    problems = [p for index, stream in enumerate(streams) for p in _unreachable(index, stream, streams)]
    if problems:
        raise Contradiction(problems)
    return streams if streams and streams[-1].match is None else (*streams, DEFAULT_STREAM)


_UNREACHED: Final = "(never reached)"


def _unreachable(index: int, stream: StreamSettings, streams: tuple[StreamSettings, ...]) -> list[Problem]:
    place = f"[{index + 1}]"
    if stream.match is not None and stream.match == MatchSettings():
        return [Problem(f"{place}.match", "(empty)", "names nothing to match; give from_domain or mail_from")]
    for number, earlier in enumerate(streams[:index], 1):
        if earlier.match is None:
            return [Problem(place, _UNREACHED, f"stream[{number}] has no match and takes everything; put it last")]
        if earlier.match == stream.match:
            return [Problem(f"{place}.match", _UNREACHED, f"stream[{number}] matches the same; the first match wins")]
    return []


class Config(Section):
    """Everything that can be set; every path is absolute."""

    workers: Annotated[int, PlainValidator(values.worker_count)] = 2
    smtp: SmtpSettings = SmtpSettings()
    next_hop: NextHopSettings = NextHopSettings()
    store: StoreSettings = Field(default={}, validate_default=True)
    http: HttpSettings = HttpSettings()
    kafka: KafkaSettings = KafkaSettings()
    classify: ClassifySettings = ClassifySettings()
    consent: ConsentSettings = ConsentSettings()
    policy: PolicySettings = PolicySettings()
    stream: Annotated[tuple[StreamSettings, ...], BeforeValidator(_tables), AfterValidator(_ordered)] = (
        DEFAULT_STREAM,
    )

    @classmethod
    def default(cls, base: Path | None = None) -> Self:
        """The configuration of an empty file in the directory `base` (the working directory if not given)."""
        return cls.model_validate({}, context={"base": base or Path.cwd()})

    @property
    def subject_key_file(self) -> Path:
        """The file with the key of the subject keys."""
        return self.consent.key_file or self.store.dir / "subject.key"

    @property
    def rules_cache(self) -> Path | None:
        """The directory for compiled rule sets; None when they are not kept."""
        return self.store.dir / "cache" if self.classify.cache else None

    def decision_policy(self) -> Policy:
        """[policy] as the decision core takes it."""
        settings = dict(self.policy)
        rows = {label: settings.pop(label) for label in Label}
        table = {label: {state: getattr(row, state) for state in ConsentState} for label, row in rows.items()}
        return Policy(table=table, **settings)

    def streams(self) -> tuple[Stream, ...]:
        """The [[stream]] tables as the decision core takes them; the last is the default stream."""
        return tuple(_stream(settings) for settings in self.stream)


def _stream(settings: StreamSettings) -> Stream:
    match = settings.match or MatchSettings()
    return Stream(
        settings.controller,
        settings.brand,
        settings.topic,
        settings.mode,
        Match(frozenset(match.from_domain), frozenset(match.mail_from)),
    )


def load_config(file: str | Path) -> Config:
    """Read and check a configuration file; raises ConfigError with all its problems.

    Relative paths in it are relative to its directory.
    """
    file = Path(file)
    document = _read(file)
    try:
        config = Config.model_validate(document, context={"base": file.absolute().parent})
    except ValidationError as error:
        raise cannot_use(file, explain(error, Config)) from None
    if problems := _contradictions(config):
        raise cannot_use(file, problems)
    return config


def _read(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_bytes().decode())
    except OSError as error:
        raise cannot_use(file, [Problem("file", "(cannot be read)", str(error.strerror))]) from None
    except ValueError as error:
        raise cannot_use(file, [syntax_problem(error)]) from None


def _contradictions(config: Config) -> list[Problem]:
    """What is fine in each section and cannot be meant together."""
    problems = []
    smtp, hosts, servers = config.smtp.listen, config.next_hop.hosts, config.kafka.bootstrap_servers
    if not smtp and not servers:
        problems.append(Problem("smtp.listen", "[]", "nothing comes in: there are no kafka.bootstrap_servers either"))
    if smtp and not hosts:
        problems.append(Problem("next_hop.hosts", "[]", "mail that comes in by smtp.listen needs a next hop"))
    for number, host in enumerate(hosts, 1):
        if any(_reaches(host, listener) for listener in smtp):
            place = f"next_hop.hosts[{number}]"
            problems.append(Problem(place, f'"{host}"', "a mail loop: this is our own smtp.listen"))
    if config.http.listen.port and config.http.listen in smtp:
        problems.append(Problem("http.listen", f'"{config.http.listen}"', "taken by smtp.listen"))
    return problems


def _reaches(host: Endpoint, listener: Endpoint) -> bool:
    """Whether a connection to `host` certainly ends at `listener`."""
    everywhere = listener.host in {"0.0.0.0", "::"} and host.host in {"127.0.0.1", "::1", "localhost"}  # noqa: S104 - compared
    return host.port == listener.port and (host.host == listener.host or everywhere)
