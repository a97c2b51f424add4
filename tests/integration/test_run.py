"""The running relay from outside: two worker processes between a client and a scripted next hop."""

import os
import signal
import smtplib
import ssl
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest
import trustme
from support.bank_mail import MARKETING, SERVICE, grants
from support.processes import run, wait_until
from support.running import Running, consentry, environment
from support.script_sink import ScriptSink

from filter.master_keys import load_vault
from filter.users import hash_password

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def sink() -> Iterator[ScriptSink]:
    """The next hop of the shared relay, and of others that leave it alone."""
    with ScriptSink() as sink:
        yield sink


@pytest.fixture(scope="module")
def relay(tmp_path_factory: pytest.TempPathFactory, sink: ScriptSink, rules_cache: Path) -> Iterator[Running]:
    """One relay for the tests that leave it as it was."""
    with Running(tmp_path_factory.mktemp("relay"), sink.port, cache=rules_cache) as relay:
        yield relay.wait_ready()


def test_consent_counts_from_the_moment_it_is_imported(relay: Running, sink: ScriptSink, tmp_path: Path) -> None:
    """Without consent data service mail flows and marketing is held; an import reaches every worker at once."""
    assert relay.health()["notices"] == ["consent_missing"]
    assert relay.health()["ready"]
    relayed, held = relay.counter("relayed"), relay.counter("held")
    assert relay.send(SERVICE % 1, ["one@home.example"])[0] == 250
    assert relay.send(MARKETING % 2, ["one@home.example"])[0] == 250
    assert (relay.counter("relayed") - relayed, relay.counter("held") - held) == (1, 1)

    file = tmp_path / "grants.csv"
    file.write_text(grants("one@home.example"))
    done = consentry("consent", "import", file, "-c", relay.config)
    assert done.code == 0, done.output
    relay.wait_health(notices=())
    for number in range(3, 13):  # whichever worker it reaches
        assert relay.send(MARKETING % number, ["one@home.example", "two@home.example"])[0] == 250
    assert (relay.counter("relayed") - relayed, relay.counter("held") - held) == (11, 11)
    lines = [line for each in sink.delivered for line in each.accepted]
    assert sum(b"one@home.example" in line for line in lines) == 11
    assert not any(b"two@home.example" in line for line in lines)
    decisions = [(each["disposition"], each["reason"]) for each in relay.journal() if each["event"] == "decision"]
    assert set(decisions) >= {("relay", "service"), ("hold", "consent_unavailable"), ("hold", "no_consent")}


def test_a_worker_that_is_killed_is_replaced(relay: Running) -> None:
    """After kill -9 of a worker the port answers on, and soon there are two again."""
    restarts = relay.counter("worker_restarts")
    killed, other = relay.worker_pids()
    os.kill(killed, signal.SIGKILL)
    for number in range(8):
        assert relay.send(SERVICE % number, ["a@home.example"])[0] == 250
    wait_until(lambda: len(relay.worker_pids()) == 2 and killed not in relay.worker_pids(), "a second worker")
    assert other in relay.worker_pids()
    relay.wait_health(ready="True")
    assert relay.counter("worker_restarts") - restarts == 1
    assert f"pid={killed} status=SIGKILL" in relay.printed


LEAVE_A_FLIGHT = """
import os, sys
from pathlib import Path
from filter.flights import Flights
from filter.ports import Stage
Flights(Path(sys.argv[1]), 7, slots=4).begin("LEFT-BEHIND", bytes(16)).reach(Stage.SENDING)
os._exit(1)
"""


def test_what_a_worker_without_successor_left_is_settled(relay: Running) -> None:
    """Workers that live see to what one left that nobody follows, such as the last of an old generation (D5)."""
    assert run([sys.executable, "-c", LEAVE_A_FLIGHT, relay.store / "flights"], environment()).code == 1
    wait_until(lambda: any(line["queue_id"] == "LEFT-BEHIND" for line in relay.journal()), "the flight to be settled")
    (line,) = [line for line in relay.journal() if line["queue_id"] == "LEFT-BEHIND"]
    assert line["event"] == "in_doubt"


def test_a_bad_reload_changes_nothing(relay: Running) -> None:
    """SIGHUP with a bad file: the log says what is wrong with it, and the same workers go on (I4)."""
    before = relay.worker_pids()
    relay.config.write_text('workers = "two"')
    relay.signal(signal.SIGHUP)
    relay.wait_printed("reload_refused")
    relay.configure()
    assert 'workers: \\"two\\": must be a whole number' in relay.printed
    assert relay.send(SERVICE % 1, ["a@home.example"])[0] == 250
    assert relay.worker_pids() == before


def test_a_full_disk_is_a_reason(relay: Running) -> None:
    """With less free space than asked for, mail is turned away for now, and /readyz says why (E6, I1).

    It is asked for by a reload, and taken back by another: each takes effect (I4).
    """
    relay.configure(store='min_free_space = "1 TiB"\n')
    relay.reload()
    relay.wait_health(reasons=("hold_no_room",))
    assert relay.get("/readyz")[0] == 503
    assert relay.get("/livez")[0] == 200
    with relay.client() as client:
        client.ehlo()
        assert client.mail("service@bank.example")[0] == 452
    relay.configure()
    relay.reload()
    relay.wait_health(ready="True")
    assert relay.send(SERVICE % 1, ["a@home.example"])[0] == 250


def test_a_store_has_one_owner(relay: Running) -> None:
    """A second start on the same store directory is refused with exit status 2, and the first one goes on (E8)."""
    done = consentry("run", "-c", relay.config)
    assert done.code == 2
    assert "in use by another installation" in done.output
    assert relay.send(SERVICE % 1, ["a@home.example"])[0] == 250


def test_a_busy_port_stops_the_start(relay: Running, tmp_path: Path, rules_cache: Path) -> None:
    """A port where somebody listens is an error that names it, with exit status 2 (I3)."""
    host, port = relay.address("smtp")
    config = tmp_path / "filter.toml"
    (tmp_path / "var").mkdir(mode=0o700)
    (tmp_path / "var" / "cache").symlink_to(rules_cache)
    config.write_text(f'[smtp]\nlisten = ["{host}:{port}"]\n')
    done = consentry("run", "-c", config)
    assert done.code == 2
    assert f'smtp.listen: "{host}:{port}": cannot listen there: Address already in use' in done.output


def test_users_relay_inside_tls(tmp_path: Path, sink: ScriptSink, rules_cache: Path) -> None:
    """With a certificate and users, who logs in may relay, by STARTTLS or on the TLS port, and nobody else (C1, C6)."""
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1")
    issued.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    for name, content in (
        ("key.pem", issued.private_key_pem.bytes().decode()),
        ("users", f"ann:{hash_password('correct horse')}\n"),
    ):
        (tmp_path / name).write_text(content)
        (tmp_path / name).chmod(0o600)
    before = len(sink.delivered)
    believe = ssl.create_default_context()
    authority.configure_trust(believe)
    smtp = 'tls_listen = ["127.0.0.1:0"]\ntls_cert_file = "cert.pem"\ntls_key_file = "key.pem"\nusers_file = "users"\n'
    with Running(tmp_path, sink.port, cache=rules_cache, workers=1, smtp=smtp).wait_ready() as relay:
        with relay.client() as client:
            client.ehlo()
            assert not client.has_extn("auth")
            client.starttls(context=believe)
            client.login("ann", "correct horse")
            client.sendmail("service@bank.example", ["a@home.example"], SERVICE % 1)
        with smtplib.SMTP_SSL(*relay.address("smtps"), timeout=30, context=believe) as client:
            client.ehlo()
            client.mail("service@bank.example")
            assert client.rcpt("a@home.example")[0] == 550
            client.rset()
            client.login("ann", "correct horse")
            client.sendmail("service@bank.example", ["a@home.example"], SERVICE % 2)
    assert len(sink.delivered) - before == 2


def test_diverted_copies_go_elsewhere(tmp_path: Path, sink: ScriptSink, rules_cache: Path) -> None:
    """A copy that the policy diverts goes to the address set for that, and says whom it was for."""
    rest = '[policy]\non_consent_unavailable = "divert"\n[divert]\naddress = "seen@archive.example"\n'
    with Running(tmp_path, sink.port, cache=rules_cache, workers=1, rest=rest).wait_ready() as relay:
        assert relay.send(MARKETING % 1, ["a@home.example"])[0] == 250
    diverted = sink.delivered[-1]
    assert b"RCPT TO:<seen@archive.example>" in diverted.accepted[0]
    assert diverted.data is not None
    assert b"X-Consentry-Original-Recipient: " in diverted.data
    assert b"a@home.example" in diverted.data


class UnderWay(NamedTuple):
    """A message whose final dot the next hop has, and answers when `release` is set."""

    sink: ScriptSink
    relay: Running
    client: smtplib.SMTP
    release: threading.Event
    sending: threading.Thread
    answers: list[tuple[int, bytes] | Exception]  # what the client got for it in the end


@contextmanager
def message_under_way(directory: Path, cache: Path) -> Iterator[UnderWay]:
    """A relay with one worker, and a message under way."""
    release, answers = threading.Event(), []

    def when_released(_command: object) -> None:
        release.wait(30)

    def send() -> None:
        try:
            answers.append(client.data(SERVICE % 1))
        except (smtplib.SMTPException, OSError) as error:
            answers.append(error)

    with (
        ScriptSink({".": when_released}) as sink,
        Running(directory, sink.port, cache=cache, workers=1).wait_ready() as relay,
        relay.client() as client,
    ):
        client.ehlo()
        client.mail("service@bank.example")
        client.rcpt("a@home.example")
        sending = threading.Thread(target=send)
        sending.start()
        sink.wait_until(lambda: any(each.verb == "." for each in sink.commands), "the final dot")
        yield UnderWay(sink, relay, client, release, sending, answers)


def test_a_successor_settles_what_was_in_flight(tmp_path: Path, rules_cache: Path) -> None:
    """A worker is killed while the next hop is about to answer: its successor notes the doubt before it serves (D5)."""
    with message_under_way(tmp_path, rules_cache) as letter:
        relay = letter.relay
        (killed,) = relay.worker_pids()
        os.kill(killed, signal.SIGKILL)
        letter.sending.join(30)
        letter.client.close()
        (lost,) = letter.answers
        assert isinstance(lost, Exception)
        letter.release.set()
        assert relay.send(SERVICE % 1, ["a@home.example"])[0] == 250  # the client tries again
        events = [each["event"] for each in relay.journal()]
        second = events.index("started", 1)
        assert events.count("in_doubt") == 1
        assert events.index("in_doubt") < second


def test_workers_leave_with_their_supervisor(tmp_path: Path, sink: ScriptSink, rules_cache: Path) -> None:
    """After kill -9 of the supervisor no worker stays behind, and the relay can be started again at once."""
    with Running(tmp_path, sink.port, cache=rules_cache, workers=1).wait_ready() as relay:
        left = relay.worker_pids()
        relay.signal(signal.SIGKILL)
        wait_until(lambda: not any(Path(f"/proc/{pid}/cmdline").exists() for pid in left), "the workers to leave")
    with Running(tmp_path, sink.port, cache=rules_cache, workers=1).wait_ready() as relay:
        assert relay.send(SERVICE % 1, ["a@home.example"])[0] == 250


def test_a_message_under_way_is_seen_to_its_end(tmp_path: Path, rules_cache: Path) -> None:
    """SIGTERM during a delivery: its client gets the reply, nobody else gets in, the exit status is 0 (D21)."""
    with message_under_way(tmp_path, rules_cache) as letter:
        relay = letter.relay
        relay.signal(signal.SIGTERM)
        relay.wait_printed("draining")
        wait_until(lambda: not _connects(relay), "a closed port")
        assert not relay.process.ended
        letter.release.set()
        letter.sending.join(30)
        ((code, _),) = letter.answers
        assert code == 250
        letter.client.quit()
        assert relay.wait_end() == 0
    assert len(letter.sink.delivered) == 1


def test_a_next_hop_that_is_down_is_a_reason(tmp_path: Path, rules_cache: Path) -> None:
    """Without a next hop the relay starts, is not ready and answers 451; when it is back all is well (I1)."""
    with (
        ScriptSink(refusing=True) as sink,
        Running(tmp_path, sink.port, cache=rules_cache, workers=1).wait_ready() as relay,
    ):
        assert relay.get("/readyz")[0] == 503
        assert relay.health()["reasons"] == ["next_hop_unavailable"]
        assert relay.get("/livez")[0] == 200
        assert relay.send(SERVICE % 1, ["a@home.example"])[0] == 451
        with relay.client() as client:
            client.ehlo()
            assert client.has_extn("smtputf8")  # or a client would give up what must only wait
            assert client.docmd("MAIL FROM:<a@bank.example> SMTPUTF8 BODY=8BITMIME")[0] == 250
        sink.accept()
        relay.wait_health(ready="True")
        assert relay.send(SERVICE % 1, ["a@home.example"])[0] == 250


def test_a_damaged_store_stops_the_start(tmp_path: Path, sink: ScriptSink, rules_cache: Path) -> None:
    """Held mail that cannot be read is never made anew: the start fails, and says which file it is (E7, I3)."""
    (tmp_path / "var" / "hold").mkdir(mode=0o700, parents=True)
    (tmp_path / "var" / "hold" / "held.sqlite").write_bytes(b"not a database" * 1000)
    load_vault(tmp_path / "var" / "keys" / "hold.key")
    with Running(tmp_path, sink.port, cache=rules_cache, workers=1) as relay:
        assert relay.wait_end() == 2
        assert "held.sqlite" in relay.printed


def _connects(relay: Running) -> bool:
    try:
        with smtplib.SMTP(*relay.address("smtp"), timeout=5):
            return True
    except (OSError, smtplib.SMTPException):
        return False
