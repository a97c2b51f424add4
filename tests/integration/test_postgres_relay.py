"""A fleet: relays of two machines, with stores of their own, whose held mail is in one PostgreSQL database."""

import json
import secrets
from contextlib import ExitStack

import pytest
from support.postgres import Postgres
from support.processes import wait_until
from support.relay import Relay
from support.running import OURS, consentry
from support.script_sink import ScriptSink

pytestmark = pytest.mark.integration

OFFER = (
    b"From: Bank <news@bank.example>\r\nTo: %s\r\nSubject: Save 20%% today\r\nMessage-ID: <%s@bank.example>\r\n\r\n"
    b"Dear customer,\r\n\r\nget 20%% off your next order today. Shop now and save!\r\n"
)
OK, LATER = 250, 452
ANNA, CARLA = "anna@customer.example", "carla@customer.example"


class Fleet:
    """Two machines and what is behind them."""

    def __init__(self, postgres: Postgres, sink: ScriptSink, one: Relay, other: Relay) -> None:
        self.postgres, self.sink, self.one, self.other = postgres, sink, one, other

    def send(self, relay, name, *recipients):
        """Hand in an offer; the code of the first reply that refuses something, or of the last one."""
        with relay.client() as client:
            client.ehlo()
            for code, _ in (client.mail("news@bank.example"), *map(client.rcpt, recipients)):
                if code != OK:
                    return code
            return client.data(OFFER % (recipients[0].encode(), name.encode()))[0]

    def documents(self, relay, *arguments):
        """What a command writes as JSON on that machine."""
        done = consentry(*arguments, "--json", "-c", relay.config)
        assert done.code == 0, done.output
        return [json.loads(line) for line in done.output.splitlines() if line.startswith("{")]

    def states(self, relay):
        """Copies by state."""
        counted = self.documents(relay, "held", "stats", "--by", "state", "--state", "all")
        return {one["value"]: one["copies"] for one in counted}


@pytest.fixture
def fleet(tmp_path, rules_cache):
    """A fleet with the same keys on both machines."""
    for name in ("hold.key", "subject.key"):
        (tmp_path / name).touch(0o600)
        (tmp_path / name).write_text(secrets.token_hex(32) + "\n")
    keys = f'[hold]\nkey_file = "{tmp_path}/hold.key"\n[consent]\nkey_file = "{tmp_path}/subject.key"\n'
    with ExitStack() as stack:
        sink = stack.enter_context(ScriptSink())
        postgres = stack.enter_context(Postgres())
        store = f'url = "{postgres.database()}"\npassword_file = "{postgres.password_file}"'
        relays = []
        for machine in ("one", "other"):
            (tmp_path / machine).mkdir()
            relay = Relay(
                tmp_path / machine,
                sink.port,
                cache=rules_cache,
                workers=1,
                consents={CARLA: "grant"},
                smtp=OURS,
                store=store,
                rest=keys,
            )
            relays.append(stack.enter_context(relay))
        for relay in relays:
            relay.wait_serving()
        yield Fleet(postgres, sink, *relays)


def test_held_mail_is_the_fleets(fleet):
    """What one machine holds another one reviews; a decision counts on both, for later copies and for held ones."""
    assert fleet.send(fleet.one, "1", ANNA, CARLA) == OK
    wait_until(lambda: fleet.states(fleet.other) == {"held": 1}, "a held copy")
    (line,) = fleet.documents(fleet.other, "held", "list")
    assert line["reason"] == "no_consent"
    assert not (fleet.one.store / "hold").exists(), "files of held mail beside a database"
    decide = ("campaign", "decide", line["campaign"], "is_service", "--why", "rate change", "--apply-to-held", "--yes")
    done = consentry(*decide, "-c", fleet.other.config)
    assert done.code == 0, done.output
    wait_until(lambda: len(fleet.sink.delivered) == 2, "the released copy", seconds=30)
    for number, relay in enumerate((fleet.one, fleet.other)):
        assert fleet.send(relay, f"later {number}", ANNA) == OK
    wait_until(lambda: len(fleet.sink.delivered) == 4, "later copies", seconds=30)
    assert fleet.states(fleet.one) == {"delivered": 1}


def test_while_the_database_is_away_no_mail_is_taken(fleet):
    """Clients are told to come again, whatever their mail is; nothing that was taken is lost, and when the database is
    back mail flows without a restart.
    """
    assert fleet.send(fleet.one, "1", ANNA) == OK
    fleet.postgres.kill()
    wait_until(lambda: fleet.send(fleet.one, "2", ANNA) == LATER, "a refusal for now")
    assert fleet.send(fleet.one, "3", CARLA) == LATER
    fleet.postgres.run()
    wait_until(lambda: fleet.send(fleet.one, "4", ANNA) == OK, "mail that is taken again", seconds=30)
    assert fleet.states(fleet.other) == {"held": 2}
    assert fleet.one.printed.count("hold_store_lost") == fleet.one.printed.count("hold_store_back") == 1
    assert not fleet.one.process.ended
