"""The one normaliser: an address as received -> the form that is looked up, and its subject key.

Used by the importer and by every door, so that both sides of a look-up agree. Two forms per address: *exact* (opt-ins
match it: narrow) and *wide* (opt-outs match it: plus tags and Gmail dots folded away). The forms are for look-up only;
mail goes to the address as the sender wrote it (RFC 5321 section 2.4: the local part keeps its case on the wire).

Raises `AddressError` for whatever cannot be one recipient; the message never quotes the address. Nothing else is
raised. Pure: no I/O, no clock.
"""

import re
import unicodedata
from hashlib import blake2b
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from typing import Final, NamedTuple

import idna

from .errors import AddressError
from .labels import Channel

MAX_ADDRESS: Final = 254  # octets; RFC 5321 section 4.5.3.1.3 less the angle brackets
MAX_LOCAL: Final = 64  # octets; RFC 5321 section 4.5.3.1.1
MAX_DOMAIN: Final = 253  # octets of A-labels; RFC 1035 section 2.3.4
MAX_LABEL: Final = 63  # octets; RFC 1035 section 2.3.4
MIN_KEY: Final = 16  # octets; a shorter secret can be searched
MAX_IDENTIFIER: Final = 255  # octets of a push token, in-app or social id

# Channels that share one address space share subject keys, so that an objection on a number without stated channel
# stops texts and voicemail alike; a grant still names its channel in its scope (law rule R26).
_SPACES: Final = {
    Channel.EMAIL: "email",
    Channel.SMS: "phone",
    Channel.MMS: "phone",
    Channel.VOICEMAIL: "phone",
    Channel.PUSH: "push",
    Channel.INAPP: "inapp",
    Channel.SOCIAL_DM: "social_dm",
}

_EMAIL = Channel.EMAIL
_new = tuple.__new__  # what a named tuple's own constructor calls, at a third of the time

# Providers where dots in the local part mean nothing, and the name their mailboxes are folded to.
_DOTLESS: Final = {"gmail.com": "gmail.com", "googlemail.com": "gmail.com"}
_DOTLESS_ENDING: Final = "mail.com"  # of all of them: one quick look spares most addresses the rest

_LABEL = r"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?"
_ATEXT = r"[a-z0-9!#$%&'*+/=?^_`{|}~-]"
# Addresses that need nothing but lower case: possessive, so one pass; a double hyphen (A-labels) goes the long way.
_PLAIN = re.compile(rf"{_ATEXT}++(?:\.{_ATEXT}++)*@[a-z0-9]++(?:[.-][a-z0-9]++)+").fullmatch
_DOT_ATOM = re.compile(r"[^\s.\"(),:;<>@\[\\\]]+(?:\.[^\s.\"(),:;<>@\[\\\]]+)*").fullmatch
_LDH_DOMAIN = re.compile(rf"{_LABEL}(?:\.{_LABEL})*").fullmatch
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"').fullmatch
_QUOTED_PAIR = re.compile(r"\\(.)")
_NEEDS_ESCAPE = re.compile(r'(["\\])')
_ASCII_LOWER = {upper: upper + 32 for upper in range(ord("A"), ord("Z") + 1)}

_PHONE_PUNCTUATION = re.compile(r"[ \t\u00a0().\-/\u2010-\u2015]")
_PHONE = re.compile(r"\+[1-9][0-9]{6,14}").fullmatch  # ITU-T E.164: at most 15 digits
_DIGITS = re.compile(r"[0-9]+").fullmatch
_KEEPS_TRUNK_ZERO = frozenset({"39", "378"})  # Italy, San Marino: the leading zero is part of the number


def normalise(address: str, channel: Channel, default_country_code: str = "") -> str:
    """The exact form: what two spellings of one address have in common. Idempotent.

    Mail: lower-case domain as UTS-46 A-labels without trailing dot, NFC local part without needless quoting, ASCII
    letters lower-case. Numbers: `+` and digits (E.164); a national number needs `default_country_code` ("44").
    Other channels: an opaque identifier, trimmed, NFC. No NFKC and no confusable folding anywhere.
    """
    if channel is _EMAIL:
        lowered = address.lower()
        if len(lowered) <= MAX_LOCAL and _PLAIN(lowered) and address.isascii():
            return lowered  # most addresses: nothing below would change or refuse them
        return _normalise_mail(address)
    if _SPACES[channel] == "phone":
        return _normalise_phone(address, default_country_code)
    return _normalise_identifier(address)


def wide(normalised: str, channel: Channel) -> str:
    """The folded form that opt-outs match: without plus tag, and without dots where the provider ignores them.

    Takes the result of `normalise`; idempotent. Equal to its input for most addresses and for every other channel.
    """
    if channel is not _EMAIL or ("+" not in normalised and not normalised.endswith(_DOTLESS_ENDING)):
        return normalised
    local, _, domain = normalised.rpartition("@")
    if local.startswith('"'):
        return normalised
    base = local.partition("+")[0] or local
    if domain in _DOTLESS:
        base, domain = base.replace(".", ""), _DOTLESS[domain]
    return f"{base}@{domain}"


class Subject(NamedTuple):
    """Subject keys of one address: 16 octets for the exact and the wide form (often equal), and the key's id."""

    exact: bytes
    wide: bytes
    key_id: str


class SubjectKeyer:
    """Turns addresses into subject keys: keyed BLAKE2b-128 over address space and normalised address.

    A plain hash of an address can be undone by trying addresses; with a secret key that takes the key. `key` has 16 to
    64 octets. `key_id` names the key without giving it away, so that an index refuses a keyer with another key.
    """

    def __init__(self, key: bytes, *, default_country_code: str = "") -> None:
        if not MIN_KEY <= len(key) <= blake2b.MAX_KEY_SIZE:
            raise ValueError(f"subject key has {len(key)} octets; allowed are {MIN_KEY} to {blake2b.MAX_KEY_SIZE}")
        self.key_id = blake2b(key, digest_size=4, person=b"consentry key id").hexdigest()
        self.default_country_code = default_country_code.lstrip("+")
        # The key block and the address space are hashed once; each address continues from a copy.
        self._started = {
            channel: blake2b(f"{space}\0".encode(), digest_size=16, key=key) for channel, space in _SPACES.items()
        }

    def subject(self, address: str, channel: Channel) -> Subject:
        """Subject keys of `address`; raises `AddressError` when it is no address of that channel."""
        exact = normalise(address, channel, self.default_country_code)
        state = self._started[channel].copy()
        state.update(exact.encode())
        exact_key = wide_key = state.digest()
        folded = wide(exact, channel)
        if folded != exact:
            state = self._started[channel].copy()
            state.update(folded.encode())
            wide_key = state.digest()
        return _new(Subject, (exact_key, wide_key, self.key_id))


def _normalise_mail(address: str) -> str:
    local, at, domain = address.strip(" \t").rpartition("@")
    if not at or not local or not domain:
        raise AddressError("not a mail address: allowed is local-part@domain")
    return _check_lengths(f"{_normalise_local(local)}@{_normalise_domain(domain)}")


def _check_lengths(address: str) -> str:
    octets = len(address) if address.isascii() else len(address.encode())
    if octets > MAX_ADDRESS:
        raise AddressError(f"address too long: {octets} octets, allowed are {MAX_ADDRESS}")
    if any(len(label) > MAX_LABEL for label in address.rpartition("@")[2].split(".")):
        raise AddressError(f"domain label too long: allowed are {MAX_LABEL} octets")
    return address


def _normalise_local(local: str) -> str:
    text = unicodedata.normalize("NFC", local).translate(_ASCII_LOWER)
    _refuse_controls(text, "local part")
    quoted = _QUOTED(text)
    if quoted:
        text = _QUOTED_PAIR.sub(r"\1", quoted[1])
        if not text:
            raise AddressError("local part is empty")
    if not _DOT_ATOM(text):
        if not quoted:
            raise AddressError("local part has characters that need quoting, or misplaced dots")
        text = '"' + _NEEDS_ESCAPE.sub(r"\\\1", text) + '"'
    if len(text.encode()) > MAX_LOCAL:
        raise AddressError(f"local part too long: allowed are {MAX_LOCAL} octets")
    return text


def _normalise_domain(domain: str) -> str:
    if domain.startswith("[") and domain.endswith("]"):
        return _normalise_literal(domain)
    lowered = domain.translate(_ASCII_LOWER).removesuffix(".")
    if not (_LDH_DOMAIN(lowered) and "xn--" not in lowered):
        lowered = _to_a_labels(lowered)
    if len(lowered) > MAX_DOMAIN:
        raise AddressError(f"domain too long: allowed are {MAX_DOMAIN} octets")
    return lowered


def _to_a_labels(domain: str) -> str:
    try:
        encoded = idna.encode(domain, uts46=True, std3_rules=True).decode().removesuffix(".")
    except (idna.IDNAError, UnicodeError) as error:
        raise AddressError("domain is not a valid host name (letters, digits, hyphens, or a valid IDN)") from error
    if not _LDH_DOMAIN(encoded):
        raise AddressError("domain is not a valid host name (letters, digits, hyphens, or a valid IDN)")
    return encoded


def _normalise_literal(domain: str) -> str:
    """An address literal (RFC 5321 section 4.1.3) in its one canonical spelling."""
    inner = domain[1:-1]
    try:
        if inner[:5].lower() == "ipv6:":
            return f"[ipv6:{IPv6Address(inner[5:])}]"
        return f"[{IPv4Address(inner)}]"
    except AddressValueError as error:
        raise AddressError("address literal is not [IPv4] or [IPv6:...]") from error


def _normalise_phone(number: str, default_country_code: str) -> str:
    text = number.strip(" \t\u00a0")
    if text.startswith(("+", "00")):
        text = text.replace("(0)", "")  # +44 (0)20 ...: the trunk zero is not dialled from abroad
    digits = _PHONE_PUNCTUATION.sub("", text)
    if digits.startswith("00"):
        digits = "+" + digits[2:]
    if not digits.startswith("+"):
        digits = _from_national(digits, default_country_code)
    if not _PHONE(digits):
        raise AddressError("not a telephone number: allowed is + and 7 to 15 digits (E.164)")
    return digits


def _from_national(digits: str, country: str) -> str:
    if not _DIGITS(digits):
        raise AddressError("not a telephone number: allowed is + and 7 to 15 digits (E.164)")
    if not country:
        raise AddressError("national telephone number: write +COUNTRY..., or set a default country code")
    if digits.startswith("0"):
        return f"+{country}{digits if country in _KEEPS_TRUNK_ZERO else digits[1:]}"
    if digits.startswith(country) and len(digits) >= 11:  # noqa: PLR2004 - country code and a full national number
        return f"+{digits}"
    if country == "1" and len(digits) == 10:  # noqa: PLR2004 - North America dials ten digits without trunk zero
        return f"+1{digits}"
    raise AddressError("national telephone number without its leading zero: write +COUNTRY...")


def _normalise_identifier(identifier: str) -> str:
    text = unicodedata.normalize("NFC", identifier.strip())
    _refuse_controls(text, "identifier")
    if not text:
        raise AddressError("identifier is empty")
    if len(text.encode()) > MAX_IDENTIFIER:
        raise AddressError(f"identifier too long: allowed are {MAX_IDENTIFIER} octets")
    return text


def _refuse_controls(text: str, what: str) -> None:
    """Refuse what nobody sees or can tell apart: controls, text direction, spaces other than the plain one."""
    if not text.isprintable():
        raise AddressError(f"{what} has control, invisible or text-direction characters")
