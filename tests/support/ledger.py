"""The ledger of a run under load: what clients were answered, against what next hop, hold store and journal have.

`Load` is some clients that send letters and try again, as an MTA does, whatever is not answered 250. `audit` says
afterwards what is wrong; it computes only, and takes the word of nobody who could be wrong together with the relay: the
recipients that may get marketing are those whom the test gave a record. A load that does not come to its end raises
AssertionError.
"""

import random
import smtplib
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import pairwise
from typing import Any, Final, NamedTuple

from support.relay import Copy, message_id, queue_id
from support.script import Command, Reply, Transaction, drop, reply

RECORDS: Final = {  # one address in each consent state; nobody@ has no record
    "agreed@home.example": "grant",
    "customer@home.example": "soft_opt_in",
    "asked@home.example": "solicited",
    "company@firm.example": "corporate",
    "objected@home.example": "object",
}
NOBODY: Final = "nobody@home.example"
CONSENTING: Final = frozenset(RECORDS) - {"objected@home.example"}
SENDER: Final = "news@bank.example"

_SERVICE: Final = (
    "Subject: Your new card\r\nMessage-ID: <{name}>\r\n\r\n"
    "Your new debit card ending 4471 was posted today. It should arrive within five working days.\r\n"
)
_MARKETING: Final = (
    "Subject: Save 20% today\r\nMessage-ID: <{name}>\r\n\r\n"
    "Get 20% off your next order today. Shop now and save! Limited time offer, do not miss it.\r\n"
)
_LONGEST: Final = 90.0  # seconds that a load may take
_MOST_ATTEMPTS: Final = 200
_RETRY: Final = (1.0, 2.0)  # seconds until a client tries again: MTAs wait longer, and one commit must fit in


class Kind(StrEnum):
    """What a letter is."""

    SERVICE = "service"
    MARKETING = "marketing"


@dataclass(slots=True)
class Letter:
    """A message that a client is to hand over; `attempts` and `due` (monotonic seconds) change as it tries."""

    name: str  # the Message-ID
    kind: Kind
    recipients: tuple[str, ...]
    content: bytes
    attempts: int = 0
    due: float = 0.0


def letters(chooser: random.Random, number: int, *, prefix: str) -> list[Letter]:
    """So many letters of both kinds, each to some of the recipients, with names that no other prefix has."""
    made = []
    for count in range(number):
        kind = chooser.choice(list(Kind))
        name = f"{prefix}.{count}@bank.example"
        text = _MARKETING if kind is Kind.MARKETING else _SERVICE
        recipients = chooser.sample([*RECORDS, NOBODY], chooser.randint(1, 4))
        content = f"From: Bank <{SENDER}>\r\nTo: You <you@home.example>\r\n{text.format(name=name)}".encode()
        made.append(Letter(name, kind, tuple(recipients), content))
    return made


def moody(chooser: random.Random) -> dict[str, Callable[[Command], Reply | None]]:
    """The script of a next hop that mostly takes its time and everything, and sometimes defers or hangs up."""

    def at_rcpt(_command: Command) -> Reply | None:
        return reply("450 4.2.0 Busy") if chooser.random() < 0.01 else None

    def at_dot(_command: Command) -> Reply | None:
        chance = chooser.random()
        if chance < 0.02:
            return drop(reset=chance < 0.01)
        if chance < 0.04:
            return reply("451 4.3.0 Try again")
        return reply("250 2.0.0 Ok: taken", delay=0.02 * chooser.random())

    return {"RCPT": at_rcpt, ".": at_dot}


class Load:
    """Clients, one thread each, that share letters. `answered` is every recipient of a message answered 250."""

    def __init__(self, port: int, letters: Sequence[Letter], chooser: random.Random, *, clients: int = 6) -> None:
        self.answered: set[tuple[str, str]] = set()
        self.replies: Counter[int] = Counter()
        self._port = port
        self._waiting = list(letters)
        self._under_way = 0
        self._changed = threading.Condition()
        self._errors: list[BaseException] = []
        self._end = time.monotonic() + _LONGEST
        seeds = [chooser.random() for _ in range(clients)]
        self._threads = [threading.Thread(target=self._run, args=(random.Random(seed),)) for seed in seeds]

    def start(self) -> None:
        """Begin to send."""
        for thread in self._threads:
            thread.start()

    def wait(self) -> None:
        """Return when every letter was answered 250; raises the first error of a client."""
        for thread in self._threads:
            thread.join(_LONGEST + 60)
            assert not thread.is_alive(), "a client hangs"
        if self._errors:
            raise self._errors[0]

    def _run(self, chooser: random.Random) -> None:
        try:
            while (letter := self._next()) is not None:
                with suppress(OSError, smtplib.SMTPException):  # SMTPException: hung up on, or greeted by 421
                    self._session(letter, chooser)
                self._put_back(letter, chooser)
        except BaseException as error:  # noqa: BLE001 - raised again by wait(), in the thread of the test
            self._errors.append(error)

    def _session(self, letter: Letter, chooser: random.Random) -> None:
        """Send one letter, and others while the connection lasts."""
        with smtplib.SMTP("127.0.0.1", self._port, local_hostname="client.example", timeout=30) as client:
            client.ehlo()
            self._hand_over(client, letter, chooser)
            for _ in range(chooser.randrange(4)):
                more = self._next(wait=False)
                if more is None:
                    return
                try:
                    self._hand_over(client, more, chooser)
                finally:
                    self._put_back(more, chooser)

    def _hand_over(self, client: smtplib.SMTP, letter: Letter, chooser: random.Random) -> None:
        letter.attempts += 1
        assert letter.attempts <= _MOST_ATTEMPTS, f"{letter.name} is never answered 250; replies {self.replies}"
        for command in (f"MAIL FROM:<{SENDER}>", *(f"RCPT TO:<{recipient}>" for recipient in letter.recipients)):
            code, text = client.docmd(command)
            if code != 250:
                self._deferred(code, text)
                client.rset()
                return
        if chooser.random() < 0.03:
            client.docmd("data")
            client.send(letter.content + b".\r\n")
            client.close()  # without waiting for the reply
            return
        code, text = client.data(letter.content)
        if code != 250:
            self._deferred(code, text)
            return
        with self._changed:
            self.replies[code] += 1
            self.answered |= {(letter.name, recipient) for recipient in letter.recipients}

    def _deferred(self, code: int, text: bytes) -> None:
        with self._changed:
            self.replies[code] += 1
        assert 400 <= code < 500, f"{code} {text!r}: nothing here deserves more than a 4xx"

    def _next(self, *, wait: bool = True) -> Letter | None:
        """A letter that is due; None when all are done, or, not to `wait`, when none is due now."""
        with self._changed:
            while self._waiting or self._under_way:
                now = time.monotonic()
                assert now < self._end, f"{len(self._waiting)} letters are never answered 250; replies {self.replies}"
                due = next((letter for letter in self._waiting if letter.due <= now), None)
                if due:
                    self._waiting.remove(due)
                    self._under_way += 1
                    return due
                if not wait:
                    return None
                self._changed.wait(0.05)
        return None

    def _put_back(self, letter: Letter, chooser: random.Random) -> None:
        """A letter goes back to the others unless it was answered."""
        with self._changed:
            self._under_way -= 1
            if (letter.name, letter.recipients[0]) not in self.answered:
                letter.due = time.monotonic() + chooser.uniform(*_RETRY)
                self._waiting.append(letter)
            self._changed.notify_all()


class Delivery(NamedTuple):
    """A copy that reached the next hop, and whether that said so."""

    copy: Copy
    confirmed: bool


def deliveries(transactions: Iterable[Transaction]) -> list[Delivery]:
    """What arrived whole at a scripted next hop and was not refused there."""
    found = []
    for each in transactions:
        if each.message is not None and each.answered in (b"2", b""):
            name, passage = message_id(each.message), queue_id(each.message)
            found += [Delivery(Copy(name, path.decode(), passage), each.answered == b"2") for path in each.rcpt_tos]
    return found


@dataclass(slots=True)
class Audit:
    """What `audit` found: `wrong` is a list of sentences, empty if all is well; the rest counts what may happen.

    `doubtful` are copies beyond the first whose passage is `in_doubt` in the journal. `overtaken` are those of a
    message that was taken by a worker that died or by a session that was lost, and that its client repeated before
    this could be noted.
    """

    wrong: list[str] = field(default_factory=list)
    answered: int = 0
    relayed: int = 0
    held: int = 0
    doubtful: int = 0
    overtaken: int = 0
    events: Counter[str] = field(default_factory=Counter)

    def __str__(self) -> str:
        counts = f"answered {self.answered}, relayed {self.relayed}, held {self.held}"
        extra = f"second copies: in doubt {self.doubtful}, overtaken {self.overtaken}"
        noted = ", ".join(f"{name} {self.events[name]}" for name in _NOTED)
        return f"{counts}; {extra}; journal: {noted}; wrong: {len(self.wrong)}"


_NOTED: Final = ("in_doubt", "died_judging", "unacknowledged", "duplicate_suppressed", "deferred", "not_voided")


def audit(
    sent: Iterable[Letter],
    answered: set[tuple[str, str]],
    delivered: Sequence[Delivery],
    held: Sequence[Copy],
    journal: Sequence[Mapping[str, Any]],
) -> Audit:
    """Compare what was promised with what is there."""
    kinds = {letter.name: letter.kind for letter in sent}
    found = Audit(answered=len(answered), relayed=len(delivered), held=len(held))
    found.events.update(event["event"] for event in journal)
    doubtful = {event["queue_id"] for event in journal if event["event"] == "in_doubt"}
    lost_clients = {event["queue_id"]: event["at"] for event in journal if event["event"] == "unacknowledged"}
    unscanned = {event["queue_id"] for event in journal if event["event"] == "unscanned"}
    _complain_of_leaks(found, kinds, delivered)
    _complain_of_needless_holds(found, kinds, held, unscanned)
    safe = {each.copy[:2] for each in delivered if each.confirmed} | {copy[:2] for copy in held}
    found.wrong += [f"lost: {name} to {recipient} was answered 250" for name, recipient in sorted(answered - safe)]
    copies = defaultdict(list)
    for copy in (*(each.copy for each in delivered), *held):
        copies[copy[:2]].append(copy.queue_id)
    for (name, recipient), passages in copies.items():
        certain = sorted(passage for passage in passages if passage not in doubtful)
        found.doubtful += len(passages) - max(1, len(certain))
        for passage, following in pairwise(certain):
            # A queue id begins with the instant (epoch milliseconds, eleven digits) at which the client began.
            if lost_clients.get(passage, 0) >= int(following[:11], 16):
                found.overtaken += 1
            else:
                found.wrong.append(f"twice: {name} to {recipient} as {passage} and {following}")
    return found


def _complain_of_leaks(found: Audit, kinds: Mapping[str, Kind], delivered: Sequence[Delivery]) -> None:
    for (name, recipient, passage), _ in delivered:
        if name not in kinds:
            found.wrong.append(f"invented: {name} as {passage}")
        elif kinds[name] is Kind.MARKETING and recipient not in CONSENTING:
            found.wrong.append(f"leaked: {name} to {recipient} as {passage}")


def _complain_of_needless_holds(
    found: Audit, kinds: Mapping[str, Kind], held: Sequence[Copy], unscanned: set[str]
) -> None:
    """Mail is only held for want of consent, or because a worker died over it."""
    for name, recipient, passage in held:
        wanted = kinds[name] is Kind.SERVICE or recipient in CONSENTING
        if wanted and passage not in unscanned:
            found.wrong.append(f"held: {name} to {recipient} as {passage}")
