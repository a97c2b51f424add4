"""Messages judged for real, whose campaign is their subject; promotion that claims to be service is disguised."""

import dataclasses
from collections.abc import Callable

from prometheus_client import CollectorRegistry

from filter.address import SubjectKeyer
from filter.campaigns import CampaignDecision
from filter.decision import Decider, no_decision
from filter.envelope import Client, MailFrom
from filter.judging import Incoming, Judge, Judged
from filter.message import Message
from filter.metrics import Metrics

from .world import MAIL, NOON, decider, rcpt

SENDER = Client("192.0.2.1", user="mailer")


def subject_of(message: Message) -> str:
    """A stand-in for a fingerprint: the subject."""
    return message.subject


def campaign_decider(decisions: Callable[[str], CampaignDecision | None] = no_decision) -> Decider:
    """A decider that knows campaigns by subject."""
    return dataclasses.replace(decider(), fingerprint=subject_of, decisions=decisions)


def judged_mail(
    subject: str,
    *recipients: str,
    text: str = "Our promotion.",
    declared: str = "",
    queue_id: str = "Q",
    at: int = NOON,
    mail: MailFrom = MAIL,
    decider: Decider | None = None,
) -> tuple[Incoming, Judged]:
    """A message to recipients whose local part is the disposition of promotional mail to them, and its verdicts."""
    claim = f"X-Message-Type: {declared}\r\n" if declared else ""
    content = f"From: News <a@bank.example>\r\nSubject: {subject}\r\n{claim}\r\n{text}\r\n".encode()
    incoming = Incoming(queue_id, at, SENDER, mail, [rcpt(word) for word in recipients or ("hold",)], content)
    judge = Judge(
        lambda: decider or campaign_decider(),
        SubjectKeyer(bytes(32)),
        Metrics(CollectorRegistry()),
        lambda _where, error: (_ for _ in ()).throw(error),
    )
    return incoming, judge.judge(incoming, died_before=False)
