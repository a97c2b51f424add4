"""The door's decisions without a socket: what is offered, who may relay, what is refused before any octet comes."""

import asyncio
from ipaddress import ip_network

import pytest
from support.server import FakePipeline

from filter import replies
from filter.envelope import Capabilities, MailFrom, RcptTo
from filter.replies import RefusedError
from filter.smtp_door import Door
from filter.smtp_session import Envelope, Session

LINES = ["250-relay.example", "250-PIPELINING", "250-SIZE 1000", "250-8BITMIME", "250-SMTPUTF8", "250-DSN"]


def _door(pipeline=None, *, keywords=(), networks=("192.0.2.0/24", "2001:db8::/32")):
    pipeline = pipeline or FakePipeline()
    offered = Capabilities(dict(keywords))
    return Door(pipeline, lambda: offered, lambda _: pipeline.room, [ip_network(one) for one in networks])


def _session(address):
    session = Session(asyncio.new_event_loop())
    session.loop.close()
    session.come_from(address)
    return session


@pytest.mark.parametrize(
    ("address", "relays"),
    [
        ("192.0.2.7", True),
        ("::ffff:192.0.2.7", True),
        ("2001:db8::1", True),
        ("2001:db8::1%eth0", True),
        ("198.51.100.7", False),
        ("::ffff:198.51.100.7", False),
        ("::1", False),
        ("", False),
    ],
)
def test_networks_decide_who_may_relay(address, relays):
    """Mapped and scoped addresses are what they stand for; a local socket has no rights (C3)."""
    assert _door().may_relay(_session(address)) is relays


def test_nobody_may_relay_by_default():
    """Without relay_networks nobody may (C1)."""
    assert not _door(networks=()).may_relay(_session("127.0.0.1"))


def test_right_is_looked_up_for_each_recipient():
    """Who logs in, or turns out to be somebody else, is judged by what holds now (C6, C8)."""
    pipeline = FakePipeline()
    door, session, envelope = _door(pipeline), _session("198.51.100.7"), Envelope()
    envelope.mail, envelope.recipient = MailFrom(b"a@bank.example"), RcptTo(b"b@customer.example")
    with pytest.raises(RefusedError) as caught:
        door.handle_RCPT(None, session, envelope, "", [])
    assert caught.value.reply is replies.RELAY_DENIED
    assert pipeline.transactions == []
    session.log_in("shop")
    door.handle_RCPT(None, session, envelope, "", []).close()
    assert pipeline.transactions[0].client.user == "shop"


def test_ehlo_without_a_next_hop_promises_nothing_for_it():
    """Before the next hop was seen, what needs it is not offered (A7)."""
    assert _door().handle_EHLO(None, None, None, "x", LINES) == LINES[:3]


@pytest.mark.parametrize(("size", "offered"), [("", "1000"), ("0", "1000"), ("999", "999"), ("2000", "1000")])
def test_ehlo_offers_the_smaller_size(size, offered):
    """A message that the next hop would refuse for its size is refused at MAIL (A7)."""
    door = _door(keywords={"SIZE": size})
    assert door.handle_EHLO(None, None, None, "x", LINES)[2] == f"250-SIZE {offered}"


@pytest.mark.parametrize(
    ("mail", "room", "reply"),
    [
        (MailFrom(b"", size=1001), True, replies.SIZE_EXCEEDED),
        (MailFrom(b"", smtputf8=True), True, replies.SMTPUTF8_UNAVAILABLE),
        (MailFrom(b"", eight_bit=True), True, replies.EIGHT_BIT_REFUSED),
        (MailFrom(b""), False, replies.STORAGE_FULL),
        (MailFrom(b""), True, replies.SENDER_OK),
    ],
)
def test_mail_that_cannot_go_on_is_refused_first(mail, room, reply):
    """What the next hop or the hold store cannot take now is refused before the message is sent (A7, B8)."""
    pipeline = FakePipeline()
    pipeline.room = room
    envelope = Envelope()
    envelope.mail = mail
    assert _door(pipeline, keywords={"SIZE": "1000"}).handle_MAIL(None, None, envelope, "", []) is reply
