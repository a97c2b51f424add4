"""The how-to guides for those who run it do what they say: their own commands, with a running relay and a next hop."""

import secrets
import shutil
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme
from support.howto import GUIDES, Machine, blocks
from support.kafka import CONSOLE_CONSUMER, CONSOLE_PRODUCER, Kafka, need_kafka
from support.parts import without
from support.script_sink import ScriptSink

TOOLS = {
    "kafka-topics.sh": "org.apache.kafka.tools.TopicCommand",
    "kafka-console-producer.sh": CONSOLE_PRODUCER,
    "kafka-console-consumer.sh": CONSOLE_CONSUMER,
}
ASSUMED = 1.2  # kB of the journal for a message with one recipient, in capacity.md
pytestmark = pytest.mark.integration


@pytest.fixture
def machine(rules_cache: Path, sink: ScriptSink) -> Iterator[Machine]:
    """A machine with swaks, jq and curl, and a next hop at port 25."""
    with Machine(cache=rules_cache) as machine:
        for part in ("swaks", "jq", "curl"):
            machine.install(part, part)
        machine.be(25, sink.port)
        yield machine


def test_held_mail(machine: Machine, sink: ScriptSink) -> None:
    """The reviewer's afternoon: rate letters go by a decision, an offer to the one with consent, the rest ends."""
    machine.follow("held-mail.md")
    sink.wait(4)
    mail = [each for each in sink.delivered if not each.mail.startswith(b"MAIL FROM:<>")]  # but reports to senders
    went = {(each.rcpt_tos[0].decode().partition("@")[0], b"rate changes" in each.message) for each in mail}
    assert went == {("anna", True), ("ben", True), ("olga", True), ("anna", False)}


def test_rollout_and_capacity(machine: Machine, sink: ScriptSink) -> None:
    """From monitor to enforce: everything is relayed, then one stream's promotion is held, then all streams'.

    The calculation of capacity.md gives what that says, and a message takes as much of the journal as it assumes.
    """
    machine.follow("rollout.md")
    assert len(sink.delivered) == 4
    machine.sh(
        "swaks --server 127.0.0.1:2625 --from a@bank.example --to b@customer.example --body 'Save 20%. Shop now!'"
    )
    assert len(sink.delivered) == 4
    before = _counted(machine)
    machine.follow("capacity.md")
    octets, messages = (now - then for now, then in zip(_counted(machine), before, strict=True))
    assert messages == 10
    assert abs(octets / messages / 1000 - ASSUMED) < 0.3


def test_tls(machine: Machine) -> None:
    """The relay shows its certificate and its successor, takes mail from users alone, and verifies its next hop."""
    machine.install("openssl", "openssl")
    authority = trustme.CA()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(context)
    authority.cert_pem.write_to_path(str(machine.path("/etc/consentry/next-hop-ca.pem")))
    with ScriptSink(tls=context) as sink:
        machine.be(25, sink.port)
        machine.follow("tls.md")
        (arrived,) = sink.wait(1)
    assert arrived.tls


def test_disk_full(machine: Machine, sink: ScriptSink) -> None:
    """Too little space turns mail away and says so; with the limit lowered it flows; room is given back to the disk.

    The disk is as it is and the limit too high. That disks which fail in the middle of a write lose nothing is shown
    by tests/unit/test_hold_faults.py.
    """
    if shutil.disk_usage(machine.root).free > 1 << 40:
        without("more than 1 TiB is free, which is the highest limit that can be set")
    machine.exchange['"1 GiB"'] = '"1 TiB"'
    machine.venv("consentry")
    machine.follow("disk-full.md")
    assert not sink.delivered
    machine.sh("swaks --server 127.0.0.1:2625 --from a@bank.example --to b@customer.example --body 'Your statement.'")
    assert len(sink.delivered) == 1
    file = machine.path("/var/lib/consentry/hold/held.sqlite")
    (give_back,) = [block.text for block in blocks(GUIDES / "disk-full.md") if "incremental_vacuum" in block.text]
    machine.sh(
        "printf 'Subject: Save 20%%\\n\\nGet 20%% off. Shop now!\\n\\n' > big\n"
        "head -c 3000000 /dev/urandom | base64 >> big\n"
        "swaks --server 127.0.0.1:2625 --from a@bank.example --to b@customer.example --data @big --silent 2\n"
    )
    machine.sh(give_back)  # nothing yet, but its last step puts the message from the log into the file
    before = file.stat().st_size
    machine.sh("consentry held discard --all --why done --yes")
    machine.sh(give_back)
    assert file.stat().st_size < before - 2_000_000


def test_upgrade(machine: Machine) -> None:
    """Versions are compared before, switched, and switched back, with held mail from a backup."""
    machine.venv("consentry")
    machine.venv("consentry-next")
    machine.follow("upgrade.md")


def test_kafka(machine: Machine, kafka: Kafka) -> None:
    """Topics by Kafka's own tools; service mail and text message go on, the offer to an objector is held."""
    install, token = need_kafka(), secrets.token_hex(4)
    machine.install("openssl", "openssl")
    machine.exchange |= {
        "outbound": f"outbound-{token}",
        "consent.events": f"consent-{token}",
    }  # it may be anybody's cluster
    for name, tool in TOOLS.items():
        machine.program(name, install.command(tool), install.environment)
    machine.be(9092, int(kafka.bootstrap.partition(",")[0].rpartition(":")[2]))
    machine.follow("kafka.md")


def _counted(machine: Machine) -> tuple[int, int]:
    """Octets of the journal without its lines about workers, and messages in it."""
    files = machine.path("/var/lib/consentry/journal").iterdir()
    lines = [line for file in files for line in file.read_bytes().splitlines(keepends=True)]
    about = [line for line in lines if not line.startswith(b'{"queue_id":""')]
    return sum(map(len, about)), sum(b'"event":"message"' in line for line in about)
