"""A dashboard against the types that Grafana publishes: `misfits` lists what they have no place for.

The types come from the package grafana-foundation-sdk, which Grafana generates from its own schemas for each version.
It drops what it does not know and checks no values; so what it has read is written again and compared, and each value
is held against the hint of its field. The caller asks for the package first (pytest.importorskip).
"""

import enum
import json
import sys
import types
import typing
from collections.abc import Iterator
from typing import Any

PACKAGE = "grafana_foundation_sdk"


def misfits(document: dict[str, Any]) -> list[str]:
    """What the types have no place for, or give another type: each with its place."""
    from grafana_foundation_sdk.cog import plugins  # noqa: PLC0415 -- only where it is installed
    from grafana_foundation_sdk.models.dashboard import Dashboard  # noqa: PLC0415 -- same

    plugins.register_default_plugins()
    made = Dashboard.from_json(document)
    return [*_lost(document, _written(made), "dashboard"), *_wrong(made, "dashboard")]


def _written(made: Any) -> Any:
    from grafana_foundation_sdk.cog.encoder import JSONEncoder  # noqa: PLC0415 -- same

    return json.loads(json.dumps(made, cls=JSONEncoder))


def _lost(given: Any, written: Any, place: str) -> Iterator[str]:
    """What is not there any more, or is another value."""
    if isinstance(given, dict) and isinstance(written, dict):
        for name, value in given.items():
            if name in written:
                yield from _lost(value, written[name], f"{place}.{name}")
            else:
                yield f"{place}.{name}: no such field"
    elif isinstance(given, list) and isinstance(written, list) and len(given) == len(written):
        for number, (one, other) in enumerate(zip(given, written, strict=True)):
            yield from _lost(one, other, f"{place}[{number}]")
    elif given != written:
        yield f"{place}: {given!r} is read as {written!r}"


def _wrong(made: Any, place: str) -> Iterator[str]:
    """Values that are not of the type of their field."""
    if isinstance(made, list):
        for number, one in enumerate(made):
            yield from _wrong(one, f"{place}[{number}]")
    elif isinstance(made, dict):
        for name, one in made.items():
            yield from _wrong(one, f"{place}.{name}")
    elif type(made).__module__.startswith(PACKAGE) and not isinstance(made, enum.Enum):
        hints = typing.get_type_hints(type(made), vars(sys.modules[type(made).__module__]))
        for name, one in vars(made).items():
            if name in hints and not _fits(one, hints[name]):
                yield f"{place}.{name}: {one!r} is no {hints[name]}"
            yield from _wrong(one, f"{place}.{name}")


def _fits(value: Any, hint: Any) -> bool:  # noqa: PLR0911 -- a table of kinds of types
    """Whether a value is of a type; a JSON object is of a class that reads it without losing anything."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return any(_fits(value, one) for one in inner)
    if origin is typing.Literal:
        return value in inner
    if origin is list:
        return isinstance(value, list) and all(_fits(one, inner[0]) for one in value)
    if origin is dict:
        return isinstance(value, dict) and all(_fits(one, inner[1]) for one in value.values())
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if not isinstance(hint, type):
        return True  # Any
    if issubclass(hint, enum.Enum):
        return value in {one.value for one in hint}
    if isinstance(value, dict) and hasattr(hint, "from_json"):
        made = hint.from_json(value)
        return not [*_lost(value, _written(made), ""), *_wrong(made, "")]
    return isinstance(value, hint)
