"""One parser for each kind of setting: a TOML value -> the value the program uses.

Each raises ValueError whose text says what is allowed, in words that follow "file: key: value: "; nothing else.
`SecretError` is a ValueError for values that must not be shown.
"""

import ipaddress
import math
import re
from datetime import timedelta
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import parse_qsl, urlsplit

import idna

MAX_PORT: Final = 65535
MAX_NAME: Final = 64
MAX_USER: Final = 255
_MAX_DOMAIN: Final = 253
_MAPPED_PREFIX: Final = 96  # bits before the IPv4 address in an IPv6 address that stands for it
_LOCAL_PART: Final = re.compile(r"(?!\.)(?:[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]|\.(?!\.)){1,64}(?<!\.)")
_LABEL: Final = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)")
_DURATION: Final = re.compile(r"([0-9]{1,6}) ?([a-z]+)")
_KEY_ITSELF: Final = re.compile(r"[0-9a-fA-F]{32,}|[A-Za-z0-9+/_-]{42,}={1,2}")
_SIZE: Final = re.compile(r"([0-9]{1,12}) ?(B|[KMGT]iB)")
_SIZE_UNITS: Final = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}
_SIZE_ALLOWED: Final = 'a whole number and a unit: "512 B", "64 KiB", "50 MiB", "1 GiB"'
_PEM: Final = "-----BEGIN"
_SECRET_OPTIONS: Final = {"password", "sslpassword", "scram_client_key", "scram_server_key", "oauth_client_secret"}
_USER_AND_PASSWORD: Final = re.compile(r":(?!//)[^@]*@")
_COUNTRY_CODE: Final = re.compile(r"[1-9][0-9]{0,2}")

# A month is a twelfth of 365 days: the shorter reading, because too short only asks again, too long sends unasked.
_UNITS: Final = {
    "ms": timedelta(milliseconds=1),
    "s": timedelta(seconds=1),
    "second": timedelta(seconds=1),
    "min": timedelta(minutes=1),
    "minute": timedelta(minutes=1),
    "h": timedelta(hours=1),
    "hour": timedelta(hours=1),
    "d": timedelta(days=1),
    "day": timedelta(days=1),
    "w": timedelta(weeks=1),
    "week": timedelta(weeks=1),
    "month": timedelta(days=365) / 12,
    "year": timedelta(days=365),
}
_DURATION_ALLOWED: Final = 'a whole number and a unit: "90s", "15min", "48h", "730d", "6 weeks", "24 months", "2 years"'


class SecretError(ValueError):
    """The value may be a secret: messages leave it out."""


class Endpoint(NamedTuple):
    """A host (name, IPv4 or IPv6 address without brackets) and a TCP port; port 0 lets the system choose."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def boolean(value: Any) -> bool:
    """Exactly true or false."""
    if not isinstance(value, bool):
        raise ValueError("true or false, without quotes")  # noqa: TRY004 - pydantic collects ValueError
    return value


def count(value: Any, least: int, most: int) -> int:
    """A whole number from `least` to `most`."""
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise ValueError(f"a whole number from {least} to {most}")
    return value


def size(value: Any, least: int, most: int) -> int:
    """`512 B`, `64 KiB`, `50 MiB`, `1 GiB` as octets, from `least` to `most`."""
    found = _SIZE.fullmatch(value) if isinstance(value, str) else None
    if not found:
        raise ValueError(_SIZE_ALLOWED)
    octets = int(found[1]) * _SIZE_UNITS[found[2]]
    if not least <= octets <= most:
        raise ValueError(f"from {size_text(least)} to {size_text(most)}")
    return octets


def size_text(octets: int) -> str:
    """Octets in the largest unit that needs no fraction."""
    unit = next(
        u for u in reversed(_SIZE_UNITS) if (octets % _SIZE_UNITS[u] == 0 and octets >= _SIZE_UNITS[u]) or u == "B"
    )
    return f"{octets // _SIZE_UNITS[unit]} {unit}"


def probability(value: Any) -> float:
    """A number between 0 and 1, ends included."""
    if not isinstance(value, int | float) or isinstance(value, bool) or not (math.isfinite(value) and 0 <= value <= 1):
        raise ValueError("a number from 0 to 1")
    return float(value)


def endpoint(value: Any) -> Endpoint:
    """`127.0.0.1:2625`, `[::1]:2625` or `mta.example:25`."""
    allowed = 'host and port: "127.0.0.1:2625", "[::1]:2625" or "mta.example:25"'
    if not isinstance(value, str):
        raise ValueError(allowed)  # noqa: TRY004 - pydantic collects ValueError
    if "@" in value:
        raise SecretError(f"{allowed}; user names and passwords are never given inline")
    host, colon, port = value.rpartition(":")
    if not colon or not re.fullmatch(r"[0-9]{1,5}", port):
        raise ValueError(allowed)
    if int(port) > MAX_PORT:
        raise ValueError(f"a port from 0 to {MAX_PORT}")
    return Endpoint(_host(host, allowed), int(port))


def peer(value: Any) -> Endpoint:
    """An endpoint that we connect to; port 0 would make no sense."""
    found = endpoint(value)
    if found.port == 0:
        raise ValueError(f"a port from 1 to {MAX_PORT}")
    return found


def _host(text: str, allowed: str) -> str:
    if text.startswith("[") and text.endswith("]"):
        try:
            return str(ipaddress.IPv6Address(text[1:-1]))
        except ValueError:
            raise ValueError("an IPv6 address in the brackets") from None
    if ":" in text:
        raise ValueError('an IPv6 address in brackets: "[::1]:2625"')
    if re.fullmatch(r"[0-9.]+", text):
        try:
            return str(ipaddress.IPv4Address(text))
        except ValueError:
            raise ValueError("four numbers from 0 to 255 in an IPv4 address") from None
    try:
        return domain(text)
    except ValueError:
        raise ValueError(allowed) from None


def network(value: Any) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    """`192.0.2.0/24`, `2001:db8::/32`, or a single address."""
    allowed = 'a network or address: "192.0.2.0/24", "2001:db8::/32", "192.0.2.7"'
    if not isinstance(value, str):
        raise ValueError(allowed)  # noqa: TRY004 - pydantic collects ValueError
    try:
        found = ipaddress.ip_interface(value.replace("%", " "))  # no interface of this machine belongs to a network
    except ValueError:
        raise ValueError(allowed) from None
    mapped = found.ip.ipv4_mapped if isinstance(found, ipaddress.IPv6Interface) else None
    if mapped is not None and found.network.prefixlen >= _MAPPED_PREFIX:
        plain = ipaddress.ip_network(f"{mapped}/{found.network.prefixlen - _MAPPED_PREFIX}", strict=False)
        raise ValueError(f'a network as clients have it; did you mean "{plain}"?')
    if found.network.prefixlen == 0:
        raise ValueError("smaller than the whole Internet: that would be an open relay")
    if found.ip != found.network.network_address:
        raise ValueError(f'a network without host bits; did you mean "{found.network}"?')
    return found.network


def domain(value: Any) -> str:
    """A domain in look-up form: lower case, A-labels, no dot at the end."""
    allowed = 'a domain: "bank.example"'
    if not isinstance(value, str) or not value:
        raise ValueError(allowed)
    text = value.lower().removesuffix(".")
    if not text.isascii():
        try:
            text = idna.encode(text, uts46=True).decode()
        except idna.IDNAError:
            raise ValueError(allowed) from None
    if len(text) > _MAX_DOMAIN or not all(_LABEL.fullmatch(label) for label in text.split(".")):
        raise ValueError(allowed)
    return text


def name(value: Any) -> str:
    """The name of a controller, brand or topic, as it stands in consent records."""
    allowed = f'a name of 1 to {MAX_NAME} printable characters, without "*" and without spaces at its ends'
    if not isinstance(value, str) or not 1 <= len(value) <= MAX_NAME:
        raise ValueError(allowed)
    # Wildcards belong to objections only: a stream sends for one controller, brand and topic.
    if not value.isprintable() or value != value.strip() or "*" in value:
        raise ValueError(allowed)
    return value


def optional_domain(value: Any) -> str:
    """A domain, or empty."""
    return "" if value == "" else domain(value)


def user(value: Any) -> str:
    """The name we log in with, or empty; RFC 4616 forbids NUL, and nobody means other control characters."""
    if not isinstance(value, str) or len(value) > MAX_USER or not value.isprintable():
        raise ValueError(f'a user name of at most {MAX_USER} printable characters, or "" for none')
    return value


def address(value: Any) -> str:
    """A mail address in its plain form, or empty."""
    allowed = 'a plain mail address: "held@bank.example", or ""'
    if value == "":
        return ""
    if not isinstance(value, str):
        raise ValueError(allowed)  # noqa: TRY004 - pydantic collects ValueError
    local, at, name_of_host = value.rpartition("@")
    if not at or not _LOCAL_PART.fullmatch(local):
        raise ValueError(allowed)
    try:
        return f"{local}@{domain(name_of_host)}"
    except ValueError:
        raise ValueError(allowed) from None


def country_code(value: Any) -> str:
    """Digits of an international dialling code, or empty: national numbers are refused."""
    if not isinstance(value, str) or (value and not _COUNTRY_CODE.fullmatch(value)):
        raise ValueError('the 1 to 3 digits of a dialling code without "+" or "00" ("44"), or "" for none')
    return value


def duration(value: Any) -> timedelta:
    """`90s`, `48h`, `730d`, `24 months`; more than zero."""
    found = _DURATION.fullmatch(value) if isinstance(value, str) else None
    unit = _UNITS.get(found[2]) or _UNITS.get(found[2].removesuffix("s")) if found else None
    if not found or not unit or not int(found[1]):
        raise ValueError(_DURATION_ALLOWED)
    return int(found[1]) * unit


def limit(value: Any, least: timedelta, most: timedelta) -> timedelta:
    """A duration from `least` to `most`."""
    found = duration(value)
    if not least <= found <= most:
        raise ValueError(f"from {duration_text(least)} to {duration_text(most)}")
    return found


def duration_text(duration: timedelta) -> str:
    """A duration of whole units of at most a day, in the largest that fits: `90s`, `1h`."""
    unit = next(unit for unit in ("d", "h", "min", "s", "ms") if not duration % _UNITS[unit])
    return f"{duration // _UNITS[unit]}{unit}"


def path(value: Any, base: Path) -> Path:
    """A path, taken from `base` (the directory of the configuration file) unless absolute."""
    if not isinstance(value, str) or not value or not value.isprintable():
        raise ValueError('a path in quotes, such as "var" or "/var/lib/consentry"')
    return base / value


def optional_path(value: Any, base: Path) -> Path | None:
    """A path, or None for empty."""
    return None if value == "" else path(value, base)


def secret_path(value: Any, base: Path) -> Path | None:
    """The path of a file with a secret, or None for empty; refuses what looks like the secret itself."""
    if value == "":
        return None
    if isinstance(value, str) and (_KEY_ITSELF.fullmatch(value) or _PEM in value):
        raise SecretError("the path of a file that holds the key; this looks like the key itself")
    return path(value, base)


def store_url(value: Any) -> str:
    """The URL of a PostgreSQL database as libpq takes it, or empty; refuses one with a password in it."""
    allowed = 'empty, or "postgresql://USER@HOST:PORT/DATABASE" (more in config/README.md)'
    if value == "":
        return ""
    if not isinstance(value, str) or not value.isprintable() or " " in value:
        raise ValueError(allowed)
    try:
        parts = urlsplit(value)
    except ValueError:
        raise ValueError(allowed) from None
    options = {name.lower() for name, _ in parse_qsl(parts.query, keep_blank_values=True)}
    if _USER_AND_PASSWORD.search(value) or options & _SECRET_OPTIONS:
        raise SecretError("a URL without a password: put that into a file and name it in store.password_file")
    if not value.startswith("postgresql://") or not parts.path.strip("/") or parts.fragment:
        raise ValueError(allowed)
    return value
