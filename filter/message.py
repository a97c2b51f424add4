"""Raw bytes or a JSON message -> frozen `Message`: what was said, where it stands, and what could not be read.

Never raises on bad mail: every oddity becomes a `Defect`, and a defect that left content unread says so (`unread`), so
that the verdict can show it. A JSON message in another form than design's raises `InputError`, naming the field. Pure:
no I/O, no clock. Linear time, bounded memory; the caps are constants of `mime`, `outline` and `transfer`.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from string import punctuation
from types import MappingProxyType
from typing import Any

from .errors import InputError
from .fields import DECLARING_HEADERS, KEPT_HEADERS, MAX_TO, MAX_VALUE, Fields
from .labels import Channel, SegmentKind
from .mailbox import first_mailbox
from .markup import Page, read_page
from .mime import HTML_TYPES, Part, Scan, scan
from .plain import calendar_text, footer_start, paragraphs
from .segments import (
    UNREAD,
    Defect,
    DefectCode,
    Link,
    Segment,
    Segments,
    clean,
    clean_all,
    parse_url,
    whole,
)
from .transfer import MAX_TEXT, decode_body, decode_octets, note

__all__ = [
    "UNREAD",
    "Defect",
    "DefectCode",
    "Link",
    "Message",
    "Segment",
    "message_from_json",
    "message_from_text",
    "parse_message",
]

_FEW_WORDS = 5  # beside a picture of any kind
_FEW_WORDS_BESIDE_LARGE = 29  # beside one that may carry the message
_MAX_LINKS = 5_000
# The engine finds the literal fast; only then is the scheme before it looked at.
_URL = re.compile(r"://(?:(?<=(?i:http)://)|(?<=(?i:https)://))([^\s<>\"]{1,2000})")
_QUICK_LOOKUP = 4_000_000
_META_CHARSET = re.compile(rb"<meta[^>]{0,200}charset\s*=\s*[\"']?([A-Za-z0-9_:.-]{1,40})", re.IGNORECASE)
_HEADS = frozenset({SegmentKind.SENDER, SegmentKind.SUBJECT})
_NOT_SAID = _HEADS | {SegmentKind.FOOTER, SegmentKind.ALT}
# Scripts written without spaces: about two characters make a word.
_UNSPACED = re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff]")
_PGP = "-----BEGIN PGP MESSAGE-----"


@dataclass(frozen=True, slots=True)
class Message:
    """One outbound message as its recipient would read it.

    `headers` holds the relevant fields only (lower-case name -> decoded values, in order of appearance).
    `declared` is the sender's own claim about the message, word for word; it decides nothing (law rule R14).
    `to` is the beginning of the To field, decoded (names and addresses). `images` counts pictures shown; `size` is in
    octets as received.
    """

    channel: Channel
    subject: str = ""
    from_name: str = ""
    from_address: str = ""
    to: str = ""
    message_id: str = ""
    headers: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: MappingProxyType({}))
    segments: Sequence[Segment] = ()
    links: tuple[Link, ...] = ()
    declared: str = ""
    defects: tuple[Defect, ...] = ()
    images: int = 0
    size: int = 0


def parse_message(raw: bytes, *, channel: Channel = Channel.EMAIL) -> Message:
    """Read RFC 5322 octets. Never raises."""
    try:
        return _parse(raw, channel)
    except Exception as error:  # noqa: BLE001 - a fault of ours must show in the verdict, not stop the flow of mail
        return Message(channel, defects=(Defect(DefectCode.INTERNAL, type(error).__name__),), size=len(raw))


def _parse(raw: bytes, channel: Channel) -> Message:
    scanned = scan(raw)
    body = _Body(scanned.defects)
    fields = Fields(scanned.fields, body.defects)
    name, address = fields.sender()
    subjects = fields.all("subject")
    body.add_heads(name, subjects)
    _read_parts(scanned, body)
    body.count_pictures(scanned)
    return body.message(
        channel,
        subject=clean(subjects[0]) if subjects else "",
        from_name=name,
        from_address=address,
        to=fields.recipients(),
        message_id=fields.one("message-id"),
        headers=fields.kept(),
        declared=fields.declared(),
        size=len(raw),
    )


class _Body:
    """Segments and links as they are gathered."""

    def __init__(self, defects: list[Defect]) -> None:
        self.defects = defects
        self.kinds: list[SegmentKind] = []
        self.texts: list[str] = []
        self.hidden: set[int] = set()
        self.links: list[Link] = []
        self.pictures = 0
        self.pictured = False  # whether pictures may carry the message
        self.shown: int | None = None  # texts before those of attached files, if there are any

    def add(self, kind: SegmentKind, text: str) -> None:
        """Add one text, not yet clean."""
        self.kinds.append(kind)
        self.texts.append(text)

    def add_heads(self, sender: str, subjects: Iterable[str]) -> None:
        """Add what a list of messages shows of this one."""
        if sender:
            self.add(SegmentKind.SENDER, sender)
        for subject in subjects:
            self.add(SegmentKind.SUBJECT, subject)

    def count_pictures(self, scanned: Scan) -> None:
        """Count pictures outside pages; those that were to be shown by a page are shown anyway when it does not."""
        own = scanned.pictures + (0 if self.pictures else scanned.page_pictures)
        self.pictures += own + scanned.attached_pictures
        self.pictured = self.pictured or own > 0

    def add_page(self, page: Page, kind: SegmentKind | None) -> None:
        """Add what a page says; `kind` overrides (quoted)."""
        first = len(self.texts)
        self.kinds += page.kinds if kind is None else [kind] * len(page.kinds)
        self.texts += page.texts
        self.hidden.update(index + first for index in page.hidden)
        self.links += [Link(host, path, index if index < 0 else index + first) for host, path, index in page.links]
        self.pictures += page.pictures
        self.pictured = self.pictured or page.pictured
        for defect in page.defects:
            note(self.defects, defect)

    def message(self, channel: Channel, **fields: Any) -> Message:
        """Clean every text, drop the empty ones, settle preheader and footer."""
        self._clean()
        self._settle_kinds()
        if all(kind in _HEADS for kind in self.kinds):
            note(self.defects, Defect(DefectCode.IMAGE_ONLY if self.pictures else DefectCode.EMPTY))
        elif self.pictures and self._few_words():
            note(self.defects, Defect(DefectCode.IMAGE_ONLY, str(self.pictures)))
        segments = Segments(self.kinds, self.texts, self.hidden)
        links, defects = tuple(self.links), tuple(self.defects)
        return Message(
            channel,
            segments=segments,
            links=links,
            defects=defects,
            images=self.pictures,
            **fields,
        )

    def _few_words(self) -> bool:
        """Whether the text beside the pictures is too short to be the message itself."""
        count, most = 0, _FEW_WORDS_BESIDE_LARGE if self.pictured else _FEW_WORDS
        for index, (kind, text) in enumerate(zip(self.kinds[: self.shown], self.texts[: self.shown], strict=True)):
            if kind not in _NOT_SAID and index not in self.hidden:
                count += len(text.split())
                if not text.isascii():
                    count += len(_UNSPACED.findall(text)) // 2
            if count > most:
                return False
        return True

    def _clean(self) -> None:
        self.texts, obfuscated = clean_all(self.texts)
        if obfuscated:
            note(self.defects, Defect(DefectCode.OBFUSCATED))
        if not all(self.texts):
            self._drop_empty()

    def _drop_empty(self) -> None:
        kept = [index for index, text in enumerate(self.texts) if text]
        moved = {old: new for new, old in enumerate(kept)}
        if self.shown is not None:
            self.shown = sum(index < self.shown for index in kept)
        self.links = [link._replace(segment=moved.get(link.segment, -1)) for link in self.links]
        self.kinds = [self.kinds[index] for index in kept]
        self.hidden = {moved[index] for index in self.hidden if index in moved}
        self.texts = [self.texts[index] for index in kept]

    def _settle_kinds(self) -> None:
        first = next((i for i, kind in enumerate(self.kinds) if kind not in _HEADS), len(self.kinds))
        if first < len(self.kinds) and first in self.hidden:
            self.kinds[first] = SegmentKind.PREHEADER
        end = len(self.kinds) if self.shown is None else self.shown
        for index in range(max(first, footer_start(self.texts[:end], self.kinds[:end])), end):
            self.kinds[index] = SegmentKind.FOOTER


def _read_parts(scanned: Scan, body: _Body) -> None:
    """Read the text parts in order; a plain alternative to HTML comes after them and adds only what the HTML does not
    say, and attached files come last.
    """
    parts = [part for part in scanned.parts if not part.attached]
    pages = {part.alternative for part in parts if part.alternative and part.media_type in HTML_TYPES}
    later: list[tuple[Part, str]] = []
    room = MAX_TEXT
    for part in parts:
        octets = decode_body(scanned.octets, (part.start, part.end), part.encoding, room, body.defects)
        room -= len(octets)
        if part.alternative in pages and part.media_type not in HTML_TYPES:
            later.append((part, _part_text(octets, part, body)))
        else:
            _read_part(octets, part, body)
    for part, text in later:
        _add_plain(body, _unsaid(list(paragraphs(text)), body.texts), quoted=part.quoted)
    if len(parts) == len(scanned.parts):
        return
    if parts:
        body.shown = len(body.texts)
    for part in scanned.parts:
        if part.attached:
            octets = decode_body(scanned.octets, (part.start, part.end), part.encoding, room, body.defects)
            room -= len(octets)
            _read_part(octets, part, body)


def _read_part(octets: bytes, part: Part, body: _Body) -> None:
    if part.media_type in HTML_TYPES:
        _read_html(octets, part, body)
    else:
        _add_plain(body, paragraphs(_part_text(octets, part, body)), quoted=part.quoted)


def _part_text(octets: bytes, part: Part, body: _Body) -> str:
    text = decode_octets(octets, part.parameters.get("charset", ""), body.defects)
    return calendar_text(text) if part.media_type == "text/calendar" else text


def _read_html(octets: bytes, part: Part, body: _Body) -> None:
    charset = part.parameters.get("charset", "")
    if not octets.isascii() or charset.lower().startswith(("utf-16", "iso-2022")):
        if not charset and (declared := _META_CHARSET.search(octets, 0, 2048)):
            charset = declared[1].decode("ascii")
        octets = decode_octets(octets, charset or "utf-8", body.defects).encode("utf-8", "replace")
    body.add_page(read_page(octets), SegmentKind.QUOTED if part.quoted else None)


def _add_plain(body: _Body, found: Iterable[tuple[SegmentKind, str]], *, quoted: bool) -> None:
    for kind, text in found:
        if _PGP in text:
            note(body.defects, Defect(DefectCode.ENCRYPTED, "pgp"))
        if "://" in text and len(body.links) < _MAX_LINKS:
            for url in islice(_URL.finditer(text), _MAX_LINKS - len(body.links)):
                if target := parse_url("//" + url[1].rstrip(".,;:)>]'")):
                    body.links.append(Link(*target, len(body.texts)))
        body.add(SegmentKind.QUOTED if quoted else kind, text)


def _unsaid(found: list[tuple[SegmentKind, str]], said: list[str]) -> Iterator[tuple[SegmentKind, str]]:
    """The paragraphs whose words the page does not have: more than one in five, and at least three."""
    page = _lower(" ".join(said))
    # Words are looked up in the text itself; when that could take long, in the set of its words.
    short = len(page) * sum(len(text) for _, text in found) < _QUICK_LOOKUP
    words = page if short else {word.strip(punctuation) for word in page.split()}
    for kind, text in found:
        own = _lower(text).split()
        if short and " ".join(own) in page:
            continue
        told = [word.strip(punctuation) for word in own if "://" not in word]
        if len([word for word in told if word not in words]) > max(2, len(told) // 5):
            yield kind, text


def _lower(text: str) -> str:
    """The text with ASCII letters in lower case, to compare words by; for all letters it would cost several times."""
    return text.lower() if text.isascii() else text.encode("utf-8", "replace").lower().decode()


def message_from_text(text: str, *, channel: Channel, subject: str = "") -> Message:
    """A message given as plain text (SMS, push)."""
    body, text, subject = _Body([]), whole(text), whole(subject)
    if subject:
        body.add(SegmentKind.SUBJECT, subject)
    _add_plain(body, paragraphs(text), quoted=False)
    return body.message(channel, subject=clean(subject), size=len(text.encode("utf-8", "replace")))


_STRINGS = ("id", "from", "subject", "text", "html", "controller", "brand", "topic", "declared", "campaign")


def message_from_json(document: Mapping[str, Any]) -> Message:
    """A JSON message (design §5). Raises `InputError` naming the field, its value's type and what is allowed."""
    values = {name: _string(document, name) for name in _STRINGS}
    channel = _channel(document)
    headers = _headers(document)
    if not values["text"] and not values["html"] and not values["subject"]:
        raise InputError("text: missing: a message needs text, html or subject")
    body = _Body([])
    name, address = first_mailbox(values["from"].encode("utf-8", "replace"), body.defects)
    body.add_heads(name, [values["subject"]] if values["subject"] else [])
    _read_json_body(values["text"], values["html"], body)
    declaring = (headers[header][0] for header in DECLARING_HEADERS if header in headers)
    kept = {key: value for key, value in headers.items() if key in KEPT_HEADERS or key.startswith("x-campaign")}
    return body.message(
        channel,
        subject=clean(values["subject"]),
        from_name=name,
        from_address=address,
        to=_recipients(document),
        message_id=values["id"],
        headers=MappingProxyType(kept),
        declared=clean(values["declared"]) or next(declaring, ""),
        size=sum(len(values[name].encode("utf-8", "replace")) for name in ("subject", "text", "html")),
    )


def _read_json_body(text: str, html: str, body: _Body) -> None:
    if len(text) + len(html) > MAX_TEXT:
        note(body.defects, Defect(DefectCode.TEXT_TOO_LARGE, str(MAX_TEXT)))
        text, html = text[:MAX_TEXT], html[:MAX_TEXT]
    if html:
        body.add_page(read_page(html.encode("utf-8", "replace")), None)
    found = list(paragraphs(text))
    _add_plain(body, _unsaid(found, body.texts) if html else found, quoted=False)


def _string(document: Mapping[str, Any], name: str) -> str:
    value = document.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise InputError(f"{name}: {type(value).__name__}: must be a string")
    return whole(value)


def _recipients(document: Mapping[str, Any]) -> str:
    """What `to` says, if it has the form of design: who reads the envelope finds fault with it, not we."""
    value = document.get("to")
    listed = value if isinstance(value, list) else [value]
    return whole(", ".join([item for item in listed if isinstance(item, str)])[:MAX_TO])


def _channel(document: Mapping[str, Any]) -> Channel:
    value = document.get("channel", Channel.EMAIL.value)
    try:
        return Channel(value)
    except ValueError:
        allowed = ", ".join(Channel)
        raise InputError(f"channel: {str(value)[:40]!r}: must be one of {allowed}") from None


def _headers(document: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    """Header fields of a JSON message: name -> string, or list of one or more strings."""
    given = document.get("headers") or {}
    if not isinstance(given, Mapping):
        raise InputError(f"headers: {type(given).__name__}: must be an object of strings or lists of strings")
    found: dict[str, tuple[str, ...]] = {}
    for name, value in given.items():
        values = value if isinstance(value, list) else [value]
        if not isinstance(name, str) or not values or not all(isinstance(item, str) for item in values):
            raise InputError(f"headers.{name}: {type(value).__name__}: must be a string or a list of strings")
        found[name.lower()] = tuple(clean(item)[:MAX_VALUE] for item in values)
    return found
