"""`consentry demo --kafka`: the Kafka door at work between topics, with mail, text messages and push.

The mailbox of the other demo goes in as it is, `config/demo/texts.jsonl` as JSON. Then it is shown where each copy is:
in which topic, and those that are held in the hold store too. Everything stays up until Ctrl-C, unless `once`. Raises
DemoError and whatever keeps a relay from starting; ends with status 1 when a copy is not where it must be.
"""

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import orjson
from rich.text import Text

from . import app, console
from .config import Config, load_config
from .config_kafka import OUTPUTS
from .demo import command, interruptible, program, shortened, stay, take_records
from .demo_broker import SERVERS, Topics, broker
from .demo_copies import Copy, Followed, Journal, Place, Sent, held
from .demo_mailbox import SOURCE, DemoError, Mail, mailbox, prepare
from .demo_page import kafka_balance, page, sound
from .demo_relay import HOST, DemoRelay, port_or_any
from .kafka_results import HELD, PREFIX, RELAY
from .labels import Channel

HTTP_PORT: Final = 9625
_NUMBER: Final = "demo-number"  # record header
_WITHIN: Final = 60.0  # seconds for all copies to be somewhere
_LOOK_EVERY: Final = 0.5  # seconds


@dataclass(frozen=True, slots=True)
class Message:
    """A message as it is written to the input topic."""

    mail: Mail
    channel: Channel
    value: bytes
    headers: Sequence[tuple[str, bytes]]


def run_demo_kafka(directory: Path, *, once: bool = True) -> None:
    """Show the demo in `directory`, which is emptied first; with `once`, end when everything is shown."""
    with interruptible():
        try:
            good = _run(directory, once=once)
        except KeyboardInterrupt:
            raise DemoError("interrupted before everything was shown") from None
    if not good:
        raise console.found_something()


def _run(directory: Path, *, once: bool) -> bool:
    records = prepare(directory, datetime.now(UTC).date())
    with ExitStack() as stack:
        with console.busy("Starting Apache Kafka (the first time it is fetched) …"):
            topics = Topics(stack.enter_context(broker(directory)))
            topics.create()
            stack.callback(topics.remove)
        return _show(directory, records, topics, once=once)


def _show(directory: Path, records: Path, topics: Topics, *, once: bool) -> bool:
    config_file = _configure(directory, topics)
    config = load_config(config_file)
    journal = Journal(config.store.dir / "journal", take_records(config, records))
    messages = [*_mails(), *_texts()]
    with DemoRelay(config_file, directory / "relay.log") as relay:
        with console.busy("Starting the relay (the first time it compiles the rules) …"):
            relay.wait_ready()
        console.out.print(Text(f"{len(messages)} messages written to {topics.name} at {topics.servers}.\n"))
        topics.produce(
            (b"%d" % number, one.value, (*one.headers, (_NUMBER, b"%d" % number)))
            for number, one in enumerate(messages)
        )
        with console.busy("Waiting for every copy to be somewhere …"):
            followed = _follow(config, topics, messages, journal)
        console.out.print(page(followed))
        console.out.print(kafka_balance(followed, topics.name))
        _topics(topics)
        if not once:
            _invite(topics, config_file)
            stay(relay, journal)
    return sound(followed)


def _configure(directory: Path, topics: Topics) -> Path:
    """The demo's configuration with the Kafka door alone."""
    text = (SOURCE / "filter.toml").read_text("utf-8")
    text = text.replace(f'listen = ["{HOST}:2625"]', "listen = []")
    text = text.replace(f'"{HOST}:{HTTP_PORT}"', f'"{HOST}:{port_or_any(HTTP_PORT)}"')
    servers = ", ".join(f'"{server.strip()}"' for server in topics.servers.split(","))
    kafka = f'[kafka]\nbootstrap_servers = [{servers}]\ntopic = "{topics.name}"\ngroup = "{topics.name}"\n'
    file = directory / "filter.toml"
    file.write_text(f'{text}\n{kafka}consent_topic = ""\nsession_timeout = "10s"\n', "utf-8")
    return file


def _mails() -> list[Message]:
    """The mailbox, as the octets that they are."""
    return [
        Message(one, Channel.EMAIL, one.content, _envelope(one.recipients, mail_from=one.sender)) for one in mailbox()
    ]


def _texts() -> list[Message]:
    """JSON messages: each names its channel and its recipients itself."""
    found, file = [], SOURCE / "texts.jsonl"
    for number, line in enumerate(file.read_bytes().splitlines(), len(mailbox()) + 1):
        document = orjson.loads(line)
        subject = f"{document['channel']}: {document.get('subject') or document['text'][:36] + '…'}"
        name = Path(f"{number:02}-{document['channel']}.json")
        mail = Mail(name, document.get("from", ""), tuple(document["to"]), subject, "", line)
        found.append(Message(mail, Channel(document["channel"]), line, ()))
    return found


def _envelope(recipients: Sequence[str], **others: str) -> list[tuple[str, bytes]]:
    named = [("rcpt_to", one.encode()) for one in recipients]
    return [*named, *[(name, value.encode()) for name, value in others.items()]]


def _follow(config: Config, topics: Topics, messages: Sequence[Message], journal: Journal) -> list[Followed]:
    """Find every copy, as soon as each is somewhere, and those in the topic of held copies are in the hold store."""
    end = time.monotonic() + _WITHIN
    vault = app.vault(config)
    while True:
        found = topics.records(RELAY), topics.records(HELD)
        stored = held(config.store.dir / "hold", vault)
        journal.look()
        followed = [_whereabouts(number, one, found, stored, journal) for number, one in enumerate(messages)]
        if sound(followed) or time.monotonic() > end:
            return followed
        time.sleep(_LOOK_EVERY)


def _whereabouts(
    number: int,
    message: Message,
    found: tuple[Sequence[Any], Sequence[Any]],
    stored: Counter[tuple[str, str]],
    journal: Journal,
) -> Followed:
    mine = [[one for one in records if _fields(one)[_NUMBER] == [b"%d" % number]] for records in found]
    queue_ids = {_fields(one)[f"{PREFIX}queue-id"][0].decode() for records in mine for one in records}
    queue_id = min(queue_ids, default="")
    relayed, waiting = [Counter(name for one in records for name in _fields(one)[f"{PREFIX}rcpt"]) for records in mine]
    copies: list[Copy] = []
    for recipient in message.mail.recipients:
        name, told = recipient.encode(), journal.copy(queue_id, recipient, message.channel)
        places = [Place.RELAYED] * relayed[name]
        places += [Place.HELD] * (waiting[name] if stored[queue_id, recipient] == waiting[name] else 0)
        place = Place.TWICE if len(places) > 1 or len(queue_ids) > 1 else places[0] if places else Place.MISSING
        copies.append(replace(told, recipient=recipient, place=place, agrees=told.place is place))
    sent = Sent(message.mail, {}, 0, "")
    return Followed(sent, journal.label(queue_id), journal.disguised(queue_id), tuple(copies))


def _fields(record: Any) -> Mapping[str, list[bytes]]:
    """Record headers by name."""
    found: dict[str, list[bytes]] = {}
    for name, value in record.headers:
        found.setdefault(name, []).append(value)
    return found


def _topics(topics: Topics) -> None:
    """How much is in each topic."""
    console.out.print("\nTopics, with their records (one for all copies of a message that go the same way):\n")
    for suffix in OUTPUTS:
        count = len(topics.records(suffix))
        console.out.print(Text(f"  {topics.name}.{suffix:<12} {count:>4}"), soft_wrap=True)


def _invite(topics: Topics, config_file: Path) -> None:
    """What to do with it."""
    file = shortened(config_file)
    console.out.print("\nLook at what is held, and release it: released copies go to the relay topic.\n")
    command(f"{program()} held list", f"-c {file}")
    command(f"{program()} held release --all --despite", '--why "trying it out"', f"-c {file}")
    console.out.print(Text(f"\nWrite more to {topics.name} at {topics.servers} ({SERVERS}); it appears below."))
    console.out.print("Ctrl-C ends everything.\n")
