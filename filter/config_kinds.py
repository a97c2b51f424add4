"""The kinds of settings: `config_values`' parsers as types of pydantic fields, and the base of every table.

A model's field says its kind and its default, nothing else. Never raises: values that are not allowed become problems
of the `ValidationError` that pydantic collects.
"""

from collections import Counter
from datetime import timedelta
from functools import partial
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, PlainValidator, ValidationInfo

from . import config_values as values
from .config_values import Endpoint


class Section(BaseModel):
    """A table of the file: unknown keys are errors, values do not change."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def _tuple(value: Any) -> tuple[Any, ...]:
    if not isinstance(value, list | tuple):
        raise ValueError("a list in square brackets")  # noqa: TRY004 - pydantic collects ValueError
    return tuple(value)


def _once_each(found: tuple[Any, ...]) -> tuple[Any, ...]:
    for item, count in Counter(found).items():
        if count > 1:
            raise ValueError(f'a list without repetition; "{item}" stands in it {count} times')
    return found


def _base(info: ValidationInfo) -> Path:
    """The directory of the configuration file."""
    context: dict[str, Path] = info.context or {}
    return context.get("base", Path())


def _path(value: Any, info: ValidationInfo) -> Path:
    return values.path(value, _base(info))


def _optional_path(value: Any, info: ValidationInfo) -> Path | None:
    return values.optional_path(value, _base(info))


def _secret_path(value: Any, info: ValidationInfo) -> Path | None:
    return values.secret_path(value, _base(info))


def counted(least: int, most: int) -> PlainValidator:
    """A whole number within bounds."""
    return PlainValidator(partial(values.count, least=least, most=most))


def sized(least: str, most: str) -> PlainValidator:
    """A size in octets within bounds."""
    bounds = (values.size(bound, 0, 1 << 50) for bound in (least, most))
    return PlainValidator(partial(values.size, **dict(zip(("least", "most"), bounds, strict=True))))


def timed(least: str, most: str) -> PlainValidator:
    """A duration within bounds."""
    return PlainValidator(partial(values.limit, least=values.duration(least), most=values.duration(most)))


def word(*allowed: str) -> PlainValidator:
    """One of these words; a member of an enumeration becomes the value."""

    def parse(value: Any) -> str:
        if value not in allowed:
            words = ", ".join(f'"{one}"' for one in allowed)
            raise ValueError(f"one of {words}")
        return allowed[allowed.index(value)]

    return PlainValidator(parse)


LIST: Final = (BeforeValidator(_tuple), AfterValidator(_once_each))
Listen = Annotated[Endpoint, PlainValidator(values.endpoint)]
Peer = Annotated[Endpoint, PlainValidator(values.peer)]
Network = Annotated[IPv4Network | IPv6Network, PlainValidator(values.network)]
Networks = Annotated[tuple[Network, ...], *LIST]
Domain = Annotated[str, PlainValidator(values.domain)]
OptionalDomain = Annotated[str, PlainValidator(values.optional_domain)]
Address = Annotated[str, PlainValidator(values.address)]
User = Annotated[str, PlainValidator(values.user)]
Name = Annotated[str, PlainValidator(values.name)]
Flag = Annotated[bool, PlainValidator(values.boolean)]
StoreUrl = Annotated[str, PlainValidator(values.store_url)]
FilePath = Annotated[Path, PlainValidator(_path)]
OptionalPath = Annotated[Path | None, PlainValidator(_optional_path)]
SecretPath = Annotated[Path | None, PlainValidator(_secret_path)]
Duration = Annotated[timedelta, PlainValidator(values.duration)]
