"""A record of the topic of held copies -> the message for the hold store, or why it can be none. Pure.

What was judged comes with the record, in the headers that `kafka_results` writes. The queue id in the store is the one
of the message, so that journal, decisions and held mail name the same; the copies that the policy rejected come in a
record of their own, and have "r" behind theirs. A record that comes again, from whichever place in the topic, has the
same queue id, so that the store knows it (`ports.HoldStore.keep`). An offset would not do: the offsets of a topic that
was made anew begin at 0, and its records would be taken for those from before.
"""

from collections.abc import Sequence
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from .envelope import MailFrom, RcptTo
from .kafka_records import Poison, PoisonCode, Record
from .kafka_results import DEAD_LETTER, PREFIX, Header, Output
from .labels import Channel
from .policy import Disposition
from .ports import HeldCopy, HeldMessage, KafkaOrigin

_RCPT_TO: Final = "rcpt_to"
_REJECTED: Final = "r"
_LAST_TIME: Final = (1 << 43) - 1  # epoch milliseconds
_MAX_QUEUE_ID: Final = 100  # characters

_Hex = Annotated[str, Field(pattern=r"^([0-9a-f]{2})*$")]


class _Told(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class _Copy(_Told):
    subject_key: _Hex
    disposition: Literal[Disposition.HOLD, Disposition.REJECT]
    reason: str
    notes: tuple[str, ...]
    state: str
    evidence: tuple[str, ...]


class _About(_Told):
    channel: Channel
    received_at: Annotated[int, Field(ge=0, le=_LAST_TIME)]
    mail_from: str | None
    label: str
    score: Annotated[float, Field(ge=0, le=1)]
    ruleset: str
    declared: str
    controller: str
    brand: str
    topic: str
    campaign: _Hex
    facts: str
    copies: Annotated[tuple[_Copy, ...], Field(min_length=1)]


def read_held(record: Record) -> HeldMessage | Poison:
    """What the record holds. Never raises; no detail quotes a text or an address."""
    ours = {name: value or b"" for name, value in record.headers if name.startswith(PREFIX)}
    queue_id = ours.get(f"{PREFIX}queue-id", b"").decode("ascii", "replace")
    if not queue_id.isalnum() or not queue_id.isascii() or len(queue_id) > _MAX_QUEUE_ID:
        return _poison(f"{PREFIX}queue-id: must be 1 to {_MAX_QUEUE_ID} letters and digits")
    if record.value is None:
        return _poison("value: null: must be a message")
    try:
        about = _About.model_validate_json(ours.get(f"{PREFIX}held", b""))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(part) for part in (f"{PREFIX}held", *first["loc"]))
        return _poison(f"{place}: {first['msg']}")
    recipients = [value or b"" for name, value in record.headers if name == f"{PREFIX}rcpt"]
    if len(recipients) != len(about.copies) or len({copy.disposition for copy in about.copies}) > 1:
        return _poison(f"{PREFIX}rcpt: {len(recipients)}: must be one for each copy, all of one disposition")
    return _message(queue_id, record.value, about, recipients, record)


def dead_letter(record: Record, poison: Poison) -> Output:
    """The record that one becomes that cannot be stored: all it had, what is wrong, and where it was."""
    headers = [
        *record.headers,
        (f"{PREFIX}error", poison.code.encode()),
        (f"{PREFIX}error-detail", poison.detail.encode("utf-8", "replace")),
        (f"{PREFIX}held-topic", record.topic.encode()),
        (f"{PREFIX}held-partition", b"%d" % record.partition),
        (f"{PREFIX}held-offset", b"%d" % record.offset),
    ]
    return Output(DEAD_LETTER, record.key, record.value, headers)


def _poison(detail: str) -> Poison:
    return Poison(PoisonCode.BAD_HELD, detail)


def _message(queue_id: str, value: bytes, about: _About, recipients: Sequence[bytes], record: Record) -> HeldMessage:
    path = (about.mail_from or "").encode()
    rejected = about.copies[0].disposition is Disposition.REJECT
    return HeldMessage(
        queue_id=queue_id + (_REJECTED if rejected else ""),
        received_at=about.received_at,
        mail=MailFrom(path, smtputf8=not path.isascii()),
        trace=b"",
        content=value,
        label=about.label,
        score=about.score,
        ruleset=about.ruleset,
        declared=about.declared,
        controller=about.controller,
        brand=about.brand,
        topic=about.topic,
        copies=tuple([_copy(path, copy) for path, copy in zip(recipients, about.copies, strict=True)]),
        campaign=about.campaign,
        facts=about.facts,
        kafka=KafkaOrigin(about.channel, about.mail_from is not None, record.key, _kept(record.headers)),
    )


def _kept(headers: Sequence[Header]) -> tuple[Header, ...]:
    """The original headers without recipients: copies of others are not ours to keep."""
    return tuple([(name, value) for name, value in headers if not name.startswith(PREFIX) and name != _RCPT_TO])


def _copy(path: bytes, copy: _Copy) -> HeldCopy:
    return HeldCopy(
        recipient=RcptTo(path),
        subject_key=copy.subject_key,
        disposition=copy.disposition,
        reason=copy.reason,
        notes=copy.notes,
        state=copy.state,
        evidence=copy.evidence,
    )
