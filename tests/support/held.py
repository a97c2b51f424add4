"""Held messages for tests."""

import random

from filter.envelope import MailFrom, RcptTo
from filter.policy import Disposition
from filter.ports import HeldCopy, HeldMessage
from filter.sealing import Vault

VAULT = Vault.of([bytes(range(32))])
"""The master key of tests."""
NOW = 1_790_000_000_000


def held_copy(number: int, disposition: Disposition = Disposition.HOLD) -> HeldCopy:
    """A copy for a recipient of its own."""
    return HeldCopy(
        recipient=RcptTo(b"Person.%d@Mail.example" % number, (b"NOTIFY=FAILURE,DELAY", b"ORCPT=rfc822;p+2B@x")),
        subject_key=f"{number:032x}",
        disposition=disposition,
        reason="objected",
        notes=("disguised_marketing",),
        state="objected",
        evidence=("offer.discount", "offer.deadline"),
    )


def held_message(queue_id: str, *copies: HeldCopy, octets: int = 3000) -> HeldMessage:
    """A message of so many octets, most of them not compressible, the same for the same id and size."""
    chooser = random.Random(f"{queue_id}/{octets}")
    return HeldMessage(
        queue_id=queue_id,
        received_at=NOW,
        mail=MailFrom(b"bounce+1@mail.example", (b"SIZE=3000", b"BODY=8BITMIME"), 3000, eight_bit=True),
        trace=b"Received: from client (client.example [192.0.2.1])\r\n\tby relay.example with ESMTP\r\n",
        content=b"Subject: Offers\r\n\r\n" + chooser.randbytes(octets // 2).hex().encode(),
        label="marketing",
        score=0.98,
        ruleset="2026.11-1a2b3c4d",
        declared="service",
        controller="shop",
        brand="shop",
        topic="offers",
        copies=copies or (held_copy(1),),
    )
