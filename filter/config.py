"""Configuration: a TOML file -> frozen `Config`, or `ConfigError` with everything that is wrong at once.

The models below, in `config_relay`, `config_held` and `config_kafka` are the one place where settings stand;
`config/filter.toml` shows each at its default and `config/README.md` explains it (tests compare all three). Read at
start and at a reload: a `Config` never changes. Raises ConfigError only. Values are parsed by `config_values`, problems
are put into words by `config_errors`.
"""

import tomllib
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Final, Self

from pydantic import AfterValidator, BeforeValidator, Field, PlainValidator, ValidationError

from . import config_values as values
from .config_checks import contradictions
from .config_errors import Contradiction, cannot_use, explain, syntax_problem
from .config_held import CampaignSettings, HoldSettings, NoticeSettings
from .config_kafka import KafkaSettings
from .config_kinds import LIST, Domain, Duration, FilePath, Flag, Name, SecretPath, Section, counted, word
from .config_relay import (
    DivertSettings,
    HttpSettings,
    JournalSettings,
    NextHopSettings,
    SmtpSettings,
    StoreSettings,
)
from .consent import ConsentState
from .errors import Problem
from .labels import Label
from .policy import DEFAULT_TABLE, Disposition, Policy
from .stream import Match, Mode, Stream

EVERY_TOPIC: Final = "*"
MAX_WORKERS: Final = 256
_DEFAULT_POLICY: Final = Policy()
_SETTLED: Final = (Disposition.RELAY, Disposition.HOLD, Disposition.DIVERT, Disposition.REJECT)
_UNSCANNED: Final = (Disposition.HOLD, Disposition.RELAY, Disposition.TEMPFAIL)


def _tables(value: Any) -> tuple[Any, ...]:
    if not isinstance(value, list | tuple):
        raise ValueError("a list of tables, each headed [[stream]]")  # noqa: TRY004 - pydantic collects ValueError
    return tuple(value)


def _over(default: Mapping[Any, Any]) -> BeforeValidator:
    """A table of which any keys may be given: the others keep their default."""
    return BeforeValidator(lambda given: {**default, **given} if isinstance(given, dict) else given)


def _topic(value: Any) -> str:
    return EVERY_TOPIC if value == EVERY_TOPIC else values.name(value)


Cell = Annotated[Disposition, word(*_SETTLED)]
OrTempfail = Annotated[Disposition, word(*_SETTLED, Disposition.TEMPFAIL)]


class ClassifySettings(Section):
    """[classify]: by what content is judged."""

    rules: Annotated[tuple[FilePath, ...], *LIST] = ()
    cache: Flag = True


class ConsentSettings(Section):
    """[consent]: how long consent counts, and how old the data may be."""

    key_file: SecretPath = None
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
    on_unknown_language: Cell = _DEFAULT_POLICY.on_unknown_language
    on_unsure: Cell = _DEFAULT_POLICY.on_unsure
    on_time_critical: Cell = _DEFAULT_POLICY.on_time_critical
    on_blocked: Cell = _DEFAULT_POLICY.on_blocked
    on_scan_error: Annotated[Disposition, word(*_UNSCANNED)] = _DEFAULT_POLICY.on_scan_error
    unsure_from: Annotated[float, PlainValidator(values.probability)] = _DEFAULT_POLICY.unsure_from

    def diverts(self) -> bool:
        """Whether any copy can be diverted."""
        cells = (cell for label in Label for cell in dict(getattr(self, label)).values())
        return Disposition.DIVERT in {*cells, *(value for _, value in self if isinstance(value, Disposition))}


class MatchSettings(Section):
    """[stream.match]: what a message must show to belong to a stream."""

    from_domain: Annotated[tuple[Domain, ...], *LIST] = ()
    mail_from: Annotated[tuple[Domain, ...], *LIST] = ()


class StreamSettings(Section):
    """[[stream]]: one sender's mail; the last, without match, is the default stream."""

    match: MatchSettings | None = None
    controller: Name
    brand: Name
    topic: Name
    mode: Annotated[Mode, word(*Mode)] = Mode.ENFORCE
    unsure_from: Annotated[float | None, PlainValidator(values.probability)] = None
    on_unsure: Annotated[Disposition | None, word(*_SETTLED)] = None


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


class TracingSettings(Section):
    """[tracing]: whether messages leave spans for OpenTelemetry."""

    enabled: Flag = False


class Config(Section):
    """Everything that can be set; every path is absolute."""

    workers: Annotated[int, counted(1, MAX_WORKERS)] = 2
    smtp: SmtpSettings = SmtpSettings()
    next_hop: NextHopSettings = NextHopSettings()
    divert: DivertSettings = DivertSettings()
    store: StoreSettings = Field(default={}, validate_default=True)
    hold: HoldSettings = HoldSettings()
    campaign: CampaignSettings = CampaignSettings()
    notice: NoticeSettings = NoticeSettings()
    journal: JournalSettings = JournalSettings()
    http: HttpSettings = HttpSettings()
    tracing: TracingSettings = TracingSettings()
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
    def hold_key_file(self) -> Path:
        """The file with the master keys of held mail."""
        return self.hold.key_file or self.store.dir / "keys" / "hold.key"

    @property
    def rules_cache(self) -> Path | None:
        """The directory for compiled rule sets; None when they are not kept."""
        return self.store.dir / "cache" if self.classify.cache else None

    def concerns(self) -> list[str]:
        """What is allowed and hardly meant."""
        found = []
        if self.smtp.serves and not self.smtp.relay_networks and not self.smtp.users_file:
            found.append("smtp.relay_networks and smtp.users_file are empty: nobody may send mail through this relay")
        return found

    def diverts(self) -> bool:
        """Whether any copy can be diverted."""
        return self.policy.diverts() or any(stream.on_unsure is Disposition.DIVERT for stream in self.stream)

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
        settings.unsure_from,
        settings.on_unsure,
    )


def load_config(file: str | Path) -> Config:
    """Read and check a configuration file; raises ConfigError with all its problems.

    Relative paths in it are relative to its directory.
    """
    return parse_config(read_config(file), file)


def read_config(file: str | Path) -> bytes:
    """What a configuration file says, unchecked; raises ConfigError if it cannot be read."""
    try:
        return Path(file).read_bytes()
    except OSError as error:
        raise cannot_use(Path(file), [Problem("file", "(cannot be read)", str(error.strerror))]) from None


def parse_config(text: bytes, file: str | Path) -> Config:
    """Check the text of a configuration file; `file` says where it stood. Raises ConfigError with all its problems."""
    file = Path(file)
    try:
        document = tomllib.loads(text.decode())
    except ValueError as error:
        raise cannot_use(file, [syntax_problem(error)]) from None
    try:
        config = Config.model_validate(document, context={"base": file.absolute().parent})
    except ValidationError as error:
        raise cannot_use(file, explain(error, Config)) from None
    problems = contradictions(
        smtp=config.smtp,
        next_hop=config.next_hop,
        divert=config.divert,
        http=config.http,
        kafka=config.kafka,
        hold=config.hold,
        diverts=config.diverts(),
    )
    if problems:
        raise cannot_use(file, problems)
    return config
