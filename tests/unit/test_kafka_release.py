"""Released copies as records of the relay topic, and who carries what."""

import asyncio
from dataclasses import replace

from support.held import NOW, held_copy, held_message
from support.release import NOON, SENDER, ReleaseWorld, path

from filter.consent import ConsentState
from filter.delivery import Attempt
from filter.events import Event, Outcome
from filter.held import CopyState
from filter.held_content import ReleaseTo
from filter.kafka_release import Couriers, released
from filter.labels import Channel
from filter.message import message_from_text
from filter.policy import Disposition
from filter.ports import HeldMessage, KafkaOrigin

ORIGIN = KafkaOrigin(Channel.SMS, sender_known=False, key=b"k", headers=(("channel", b"sms"), ("odd", None)))
TEXT = b"A promotion for you."


def fields(headers) -> dict[str, list[bytes]]:
    """Record headers by name."""
    found: dict[str, list[bytes]] = {}
    for name, octets in headers:
        found.setdefault(name, []).append(octets)
    return found


def test_a_record_goes_on_as_it_came() -> None:
    """Key, octets and headers are the original ones; only who is released is named, and no source is."""
    message = replace(held_message("Q1", held_copy(1), held_copy(2)), content=TEXT, kafka=ORIGIN)
    output = released(message, [message.copies[1].recipient], "o1", NOW)
    assert (output.suffix, output.key, output.value) == ("relay", b"k", TEXT)
    assert fields(output.headers) == {
        "channel": [b"sms"],
        "odd": [None],
        "rcpt_to": [b"Person.2@Mail.example"],
        "consentry-queue-id": [b"Q1"],
        "consentry-disposition": [b"relay"],
        "consentry-release": [b"o1"],
        "consentry-rcpt": [b"Person.2@Mail.example"],
    }


def test_mail_that_came_by_smtp_is_a_record_of_mail() -> None:
    """Our header fields stand before its octets, the envelope is in the record headers."""
    message = held_message("Q1")
    output = released(message, [message.copies[0].recipient], "o1", NOW)
    assert output.key == b"Q1"
    assert output.value.endswith(message.trace + message.content)
    assert output.value.startswith(b"X-Consentry")
    found = fields(output.headers)
    assert (found["content-type"], found["mail_from"]) == ([b"message/rfc822"], [b"bounce+1@mail.example"])


class Topic:
    """Takes the copies, or does what it is told."""

    def __init__(self) -> None:
        self.taken: list[tuple[str, bytes, str]] = []
        self.outcome = Outcome.TAKEN

    async def deliver(self, message: HeldMessage, recipients, order: str, at: int) -> list[Attempt]:
        """See `delivery.Courier`."""
        assert at >= NOON
        if self.outcome is Outcome.TAKEN:
            self.taken += [(message.queue_id, recipient.path, order) for recipient in recipients]
        return [Attempt(self.outcome)] * len(recipients)


class KafkaWorld(ReleaseWorld):
    """Held copies that came by SMTP and by Kafka, both released."""

    def __init__(self, to: ReleaseTo = ReleaseTo.ORIGIN) -> None:
        super().__init__()
        self.topic = Topic()
        self.to = to

    def releaser(self):
        """With a topic beside the next hop."""
        releaser = super().releaser()
        couriers = Couriers(releaser.handler.courier, self.topic, self.to)
        releaser.handler = replace(releaser.handler, courier=couriers)
        return releaser

    def hold_text(self, name: str, channel: Channel = Channel.SMS) -> str:
        """Hold a text that came by Kafka; its queue id."""
        queue_id = self.hold(name, content=TEXT)
        kafka = replace(ORIGIN, channel=channel, headers=(("channel", channel.encode()),))
        self._replace(queue_id, kafka=kafka, mail=replace(SENDER, path=b""))
        return queue_id

    def _replace(self, queue_id: str, **changes: object) -> None:
        for number, message in self.mail.messages.items():
            if message.queue_id == queue_id:
                self.mail.messages[number] = replace(message, **changes)


def test_copies_go_back_to_where_they_came_from() -> None:
    """What came by Kafka goes to the topic, what came by SMTP to the next hop; the journal has both."""
    world = KafkaWorld()
    world.hold("mail")
    queue_id = world.hold_text("text")
    world.consents.states = {path(name).decode(): ConsentState.CONSENT for name in ("mail", "text")}
    world.release()
    world.deliver()
    assert world.topic.taken == [(queue_id, path("text"), "o1")]
    assert world.reached == [path("mail")]
    assert {world.state("mail"), world.state("text")} == {CopyState.DELIVERED}
    assert len(world.journal.of(Event.RELEASED)) == 2


def test_consent_is_looked_up_for_the_channel() -> None:
    """Consent to mail is none to text messages, and a sender nobody named opens no door."""
    world = KafkaWorld()
    world.hold_text("text")
    world.consents.scopes.clear()
    world.release()
    world.deliver()
    assert {scope.channel for scope in world.consents.scopes} == {Channel.SMS}
    assert (world.state("text"), world.topic.taken) == (CopyState.HELD, [])


def test_who_objected_meanwhile_gets_nothing() -> None:
    """Whatever the order says."""
    world = KafkaWorld()
    world.hold_text("text")
    world.consents.states[path("text").decode()] = ConsentState.OBJECTED
    world.release(despite=True)
    world.deliver()
    assert (world.state("text"), world.outcome("text")) == (CopyState.HELD, "recheck: objected_meanwhile")
    assert world.topic.taken == []


def test_new_rules_read_the_text_as_it_was_judged() -> None:
    """A text message is judged again as one, not as damaged mail."""
    from support.release import NEW_RULES  # noqa: PLC0415 - a classifier that finds no promotion

    world = KafkaWorld()
    world.hold_text("text")
    message = next(iter(world.mail.messages.values()))
    assert NEW_RULES.classify(message_from_text(TEXT.decode(), channel=Channel.SMS)).label == "service"
    world.classifier = NEW_RULES
    world.release()
    world.deliver()
    assert world.topic.taken == [(message.queue_id, path("text"), "o1")]


def test_what_is_not_written_is_tried_again() -> None:
    """Nothing is lost while the topic cannot be written."""
    world = KafkaWorld()
    world.hold_text("text")
    world.consents.states[path("text").decode()] = ConsentState.CONSENT
    world.release()
    world.topic.outcome = Outcome.UNREACHABLE
    world.deliver()
    assert (world.state("text"), world.outcome("text")) == (CopyState.RELEASED, "unreachable")
    world.topic.outcome = Outcome.TAKEN
    world.pass_time(3_600_000)
    world.deliver()
    assert world.state("text") is CopyState.DELIVERED


def test_nobody_is_told_by_mail_of_what_came_by_kafka() -> None:
    """In the end the copy is bounced, without a report."""
    world = KafkaWorld()
    world.hold_text("text", Channel.EMAIL)
    world._replace(next(iter(world.mail.messages.values())).queue_id, mail=SENDER)
    world.consents.states[path("text").decode()] = ConsentState.CONSENT
    world.release()
    world.topic.outcome = Outcome.UNREACHABLE
    for _ in range(40):
        world.deliver()
        world.pass_time(12 * 3_600_000)
    assert world.state("text") is CopyState.BOUNCED
    assert world.reports == []
    (line,) = world.journal.of(Event.BOUNCED)
    assert line["told"] == "not_wanted"


def test_without_kafka_it_waits() -> None:
    """A configuration that lost its brokers delivers nothing elsewhere."""
    message = replace(held_message("Q1", held_copy(1, Disposition.HOLD)), kafka=ORIGIN)

    async def attempts() -> list[Attempt]:
        couriers = Couriers(Topic(), None, ReleaseTo.ORIGIN)
        return await couriers.deliver(message, [message.copies[0].recipient], "o1", NOON)

    assert asyncio.run(attempts()) == [Attempt(Outcome.UNREACHABLE)]
