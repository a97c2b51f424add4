"""What a client may take: connections, octets in flight, errors."""

import pytest

from filter import replies
from filter.smtp_limits import Conduct, Limits, Usage


def test_connections_are_capped_in_all_and_for_each_client():
    """Past either cap a connection is refused with its 421, and one that ends makes room (B4)."""
    usage = Usage(Limits(connections=3, connections_per_client=2))
    assert usage.connect("192.0.2.1") is None
    assert usage.connect("192.0.2.1") is None
    assert usage.connect("192.0.2.1") is replies.TOO_MANY_FROM_CLIENT
    assert usage.connect("192.0.2.2") is None
    assert usage.connect("192.0.2.3") is replies.TOO_MANY_CONNECTIONS
    usage.disconnect("192.0.2.1")
    assert usage.connect("192.0.2.3") is None
    assert usage.connections == 3


def test_clients_without_an_address_share_no_cap():
    """A balancer's own checks are capped among all connections only (B4)."""
    usage = Usage(Limits(connections=3, connections_per_client=1))
    assert [usage.connect("") for _ in range(3)] == [None] * 3


def test_nothing_is_kept_of_clients_that_left():
    """Ten thousand clients that came and went leave nothing behind (B4)."""
    usage = Usage(Limits())
    for number in range(10_000):
        usage.connect(f"2001:db8::{number:x}")
        usage.disconnect(f"2001:db8::{number:x}")
    assert (usage.connections, len(usage._clients)) == (0, 0)


def test_octets_in_flight_are_counted_and_given_back():
    """There is room up to the limit and again after octets are given back (B8)."""
    usage = Usage(Limits(bytes_in_flight=100))
    assert usage.has_room(100)
    assert usage.take(100)
    assert not usage.has_room(1)
    assert not usage.take(1)
    usage.give_back(101)
    assert usage.has_room(100)


@pytest.mark.parametrize(
    ("count", "allowed", "reply"),
    [
        (Conduct.error, 2, replies.TOO_MANY_ERRORS),
        (Conduct.idle_command, 3, replies.TOO_MANY_IDLE_COMMANDS),
        (Conduct.auth_failure, 2, replies.TOO_MANY_AUTH_FAILURES),
    ],
)
def test_conduct_has_limits(count, allowed, reply):
    """The last error, and the first idle command too many, end the session (B6)."""
    conduct = Conduct(Limits(errors=3, idle_commands=3, auth_failures=3))
    assert [count(conduct) for _ in range(allowed)] == [None] * allowed
    assert count(conduct) is reply


def test_a_message_makes_good_for_errors_but_not_for_wrong_passwords():
    """A client that sends mail may go on for ever; guesses at passwords are never forgotten (B6)."""
    conduct = Conduct(Limits(errors=2, idle_commands=1, auth_failures=2))
    conduct.error()
    conduct.idle_command()
    conduct.auth_failure()
    conduct.message()
    assert conduct.error() is None
    assert conduct.idle_command() is None
    assert conduct.auth_failure() is replies.TOO_MANY_AUTH_FAILURES
