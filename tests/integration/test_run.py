"""The running relay from outside: two worker processes between a client and a scripted next hop."""

import os
import signal
import smtplib
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme
from support.processes import wait_until
from support.running import Running, consentry
from support.script_sink import ScriptSink

from filter.users import hash_password

pytestmark = pytest.mark.integration

SERVICE = (
    b"From: Bank <service@bank.example>\r\nTo: You <a@home.example>\r\nSubject: Your new card\r\n"
    b"Message-ID: <%d@bank.example>\r\n\r\n"
    b"Your new debit card ending 4471 was posted today. It should arrive within five working days.\r\n"
)
MARKETING = (
    b"From: Bank <news@bank.example>\r\nTo: You <a@home.example>\r\nSubject: Save 20%% today\r\n"
    b"Message-ID: <%d@bank.example>\r\n\r\n"
    b"Get 20%% off your next order today. Shop now and save! Limited time offer, do not miss it.\r\n"
)
GRANT = (
    "address,kind,channel,controller,brand,topic,event_time,source,method,affirmative,conditional,wording_id,"
    "wording_sha256,grade\n"
    "{address},grant,email,bank,bank,offers,2026-10-05T09:30:00Z,web form,web form,true,false,w1," + "a" * 64 + ",A\n"
)


@pytest.fixture
def sink() -> Iterator[ScriptSink]:
    """The next hop."""
    with ScriptSink() as sink:
        yield sink


def test_consent_counts_from_the_moment_it_is_imported(tmp_path: Path, sink: ScriptSink, rules_cache: Path) -> None:
    """Without consent data service mail flows and marketing is held; an import reaches every worker at once."""
    with Running(tmp_path, sink.port, cache=rules_cache).wait_ready() as relay:
        assert relay.health()["notices"] == ["consent_missing"]
        assert relay.health()["ready"]
        assert relay.send(SERVICE % 1, ["a@home.example"])[0] == 250
        assert relay.send(MARKETING % 2, ["a@home.example"])[0] == 250
        assert [each["disposition"] for each in relay.journal() if each["event"] == "decision"] == ["relay", "hold"]
        (relayed,) = sink.delivered
        assert b"Your new card" in relayed.data

        grants = tmp_path / "grants.csv"
        grants.write_text(GRANT.format(address="a@home.example"))
        done = consentry("consent", "import", grants, "-c", relay.config)
        assert done.code == 0, done.output
        relay.wait_health(notices=())
        for number in range(3, 15):  # whichever worker it reaches
            assert relay.send(MARKETING % number, ["a@home.example"])[0] == 250
        assert len(sink.wait(13)) == 13
        assert relay.send(MARKETING % 15, ["a@home.example", "b@home.example"])[0] == 250
        assert [line.split()[0] for line in sink.wait(14)[-1].accepted] == [b"RCPT"]
        page = relay.get("/metrics")[1]
        assert "consentry_held_total 2.0" in page
        assert "consentry_relayed_total 14.0" in page
    assert relay.process.stop() == 0


def test_nobody_may_relay_unless_allowed(tmp_path: Path, sink: ScriptSink, rules_cache: Path) -> None:
    """With relay_networks left out every recipient is refused, and the next hop hears nothing of it (C1)."""
    with Running(tmp_path, sink.port, cache=rules_cache, workers=1, smtp="").wait_ready() as relay:
        code, text = relay.send(SERVICE % 1, ["a@home.example"])
        assert (code, text[:5]) == (550, b"5.7.1")
        assert not sink.transactions


def test_users_relay_inside_tls(tmp_path: Path, sink: ScriptSink, rules_cache: Path) -> None:
    """With a certificate and users, whoever logs in may relay, by STARTTLS or on the TLS port; nobody else may (C6)."""
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1")
    issued.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    for name, content in (
        ("key.pem", issued.private_key_pem.bytes().decode()),
        ("users", f"ann:{hash_password('correct horse')}\n"),
    ):
        (tmp_path / name).write_text(content)
        (tmp_path / name).chmod(0o600)
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
    assert len(sink.delivered) == 2


def test_diverted_copies_go_elsewhere(tmp_path: Path, sink: ScriptSink, rules_cache: Path) -> None:
    """A copy that the policy diverts goes to the address set for that, and says whom it was for."""
    rest = '[policy]\non_consent_unavailable = "divert"\n[divert]\naddress = "seen@archive.example"\n'
    with Running(tmp_path, sink.port, cache=rules_cache, workers=1, rest=rest).wait_ready() as relay:
        assert relay.send(MARKETING % 1, ["a@home.example"])[0] == 250
    (diverted,) = sink.delivered
    assert b"RCPT TO:<seen@archive.example>" in diverted.accepted[0]
    assert diverted.data is not None
    assert b"X-Consentry-Original-Recipient: " in diverted.data
    assert b"a@home.example" in diverted.data


def test_a_worker_that_is_killed_is_replaced(tmp_path: Path, sink: ScriptSink, rules_cache: Path) -> None:
    """After kill -9 of a worker the port answers on, and soon there are two again."""
    with Running(tmp_path, sink.port, cache=rules_cache).wait_ready() as relay:
        killed, other = relay.worker_pids()
        os.kill(killed, signal.SIGKILL)
        for number in range(8):
            assert relay.send(SERVICE % number, ["a@home.example"])[0] == 250
        wait_until(lambda: len(relay.worker_pids()) == 2 and killed not in relay.worker_pids(), "a second worker")
        assert other in relay.worker_pids()
        relay.wait_health(ready="True")
        assert "consentry_worker_restarts_total 1.0" in relay.get("/metrics")[1]
        assert f"pid={killed} status=SIGKILL" in relay.printed


def test_workers_leave_with_their_supervisor(tmp_path: Path, sink: ScriptSink, rules_cache: Path) -> None:
    """After kill -9 of the supervisor no worker stays behind, and the relay can be started again at once."""
    with Running(tmp_path, sink.port, cache=rules_cache).wait_ready() as relay:
        left = relay.worker_pids()
        relay.signal(signal.SIGKILL)
        wait_until(lambda: not any(Path(f"/proc/{pid}/cmdline").exists() for pid in left), "the workers to leave")
    with Running(tmp_path, sink.port, cache=rules_cache, workers=1).wait_ready() as relay:
        assert relay.send(SERVICE % 1, ["a@home.example"])[0] == 250


def test_a_message_under_way_is_seen_to_its_end(tmp_path: Path, rules_cache: Path) -> None:
    """SIGTERM during a delivery: its client gets the reply, nobody else gets in, the exit status is 0 (D21)."""
    release = threading.Event()

    def when_released(_command: object) -> None:
        release.wait(30)

    with (
        ScriptSink({".": when_released}) as sink,
        Running(tmp_path, sink.port, cache=rules_cache).wait_ready() as relay,
        relay.client() as client,
    ):
        client.ehlo()
        client.mail("service@bank.example")
        client.rcpt("a@home.example")
        answers: list[tuple[int, bytes]] = []
        sending = threading.Thread(target=lambda: answers.append(client.data(SERVICE % 1)))
        sending.start()
        sink.wait_until(lambda: any(each.verb == "." for each in sink.commands), "the final dot")
        relay.signal(signal.SIGTERM)
        relay.wait_printed("draining")
        wait_until(lambda: not _connects(relay), "a closed port")
        assert not relay.process.ended
        release.set()
        sending.join(30)
        assert [code for code, _ in answers] == [250]
        client.quit()
        assert relay.wait_end() == 0
    assert len(sink.delivered) == 1


def test_a_reload_takes_the_new_configuration(tmp_path: Path, sink: ScriptSink, rules_cache: Path) -> None:
    """SIGHUP with a good file changes who may relay; with a bad one nothing changes, and the log says why (I4)."""
    with Running(tmp_path, sink.port, cache=rules_cache).wait_ready() as relay:
        relay.config.write_text('workers = "two"')
        relay.signal(signal.SIGHUP)
        relay.wait_printed("reload_refused")
        assert 'workers: \\"two\\": must be a whole number' in relay.printed
        assert relay.send(SERVICE % 1, ["a@home.example"])[0] == 250
        before = relay.worker_pids()

        relay.configure(smtp='relay_networks = ["192.0.2.0/24"]\n')
        relay.signal(signal.SIGHUP)
        relay.wait_printed("reloaded")
        wait_until(lambda: not set(before) & set(relay.worker_pids()), "the old workers to leave")
        assert relay.send(SERVICE % 2, ["a@home.example"])[0] == 550
        assert relay.health()["ready"]


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
        sink.accept()
        relay.wait_health(ready="True")
        assert relay.send(SERVICE % 1, ["a@home.example"])[0] == 250


def test_a_full_disk_is_a_reason(tmp_path: Path, sink: ScriptSink, rules_cache: Path) -> None:
    """With less free space than asked for, mail is turned away for now, and /readyz says why (E6, I1)."""
    with Running(
        tmp_path, sink.port, cache=rules_cache, workers=1, store='min_free_space = "1 TiB"\n'
    ).wait_ready() as relay:
        relay.wait_health(reasons=("hold_no_room",))
        with relay.client() as client:
            client.ehlo()
            assert client.mail("service@bank.example")[0] == 452


def test_a_store_has_one_owner(tmp_path: Path, sink: ScriptSink, rules_cache: Path) -> None:
    """A second start on the same store directory is refused, and the first one goes on (E8)."""
    with Running(tmp_path, sink.port, cache=rules_cache, workers=1).wait_ready() as relay:
        done = consentry("run", "-c", relay.config)
        assert done.code == 2
        assert "in use by another installation" in done.output
        assert relay.send(SERVICE % 1, ["a@home.example"])[0] == 250


def test_a_busy_port_stops_the_start(tmp_path: Path, sink: ScriptSink, rules_cache: Path) -> None:
    """A port where somebody listens is an error that names it, with exit status 2 (I3)."""
    config = tmp_path / "filter.toml"
    (tmp_path / "var").mkdir(mode=0o700)
    (tmp_path / "var" / "cache").symlink_to(rules_cache)
    config.write_text(f'[smtp]\nlisten = ["127.0.0.1:{sink.port}"]\n')
    done = consentry("run", "-c", config)
    assert done.code == 2
    assert f'smtp.listen: "127.0.0.1:{sink.port}": cannot listen there: Address already in use' in done.output


def test_a_damaged_store_stops_the_start(tmp_path: Path, sink: ScriptSink, rules_cache: Path) -> None:
    """Held mail that cannot be read is never made anew: the start fails, and says which file it is (E7, I3)."""
    (tmp_path / "var" / "hold").mkdir(mode=0o700, parents=True)
    (tmp_path / "var" / "hold" / "held.sqlite").write_bytes(b"not a database" * 1000)
    with Running(tmp_path, sink.port, cache=rules_cache) as relay:
        assert relay.wait_end() == 2
        assert "held.sqlite" in relay.printed


def _connects(relay: Running) -> bool:
    try:
        with smtplib.SMTP(*relay.address("smtp"), timeout=5):
            return True
    except (OSError, smtplib.SMTPException):
        return False
