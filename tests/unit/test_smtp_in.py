"""A session without a socket: whatever a client says, there are replies and no faults."""

import asyncio
import re

from hypothesis import given, settings
from hypothesis import strategies as st
from support.server import ALL_EXTENSIONS, LOOPBACK, FakePipeline

from filter import replies
from filter.smtp_door import Door
from filter.smtp_in import Server, as_reply
from filter.smtp_limits import Limits
from filter.smtp_sessions import Sessions

PIECES = (
    b"EHLO x",
    b"HELO x",
    b"MAIL FROM:<a@b.example>",
    b"MAIL FROM:<> SIZE=10 BODY=8BITMIME",
    b"RCPT TO:<c@d.example>",
    b"RCPT TO:<c@d.example> NOTIFY=NEVER",
    b"DATA",
    b"Subject: x",
    b"",
    b".",
    b"RSET",
    b"AUTH PLAIN AAAA",
    b"XFORWARD NAME=x",
    b"VRFY x",
    b"STARTTLS",
    b"\xff\0",
)
REPLY = re.compile(rb"(?:[2-5]\d\d(?:-[\x20-\x7e]*\r\n[2-5]\d\d)*(?: [\x20-\x7e]*)?\r\n)+")


class Wire(asyncio.Transport):
    """Keeps what the server says."""

    def __init__(self, protocol):
        super().__init__({"peername": ("127.0.0.1", 4711)})
        self.protocol = protocol
        self.said = b""
        self.open = True

    def write(self, data):
        """Keep it."""
        self.said += data

    def close(self):
        """End the connection at the next turn, as a real transport does."""
        if self.open:
            self.open = False
            asyncio.get_running_loop().call_soon(self.protocol.connection_lost, None)

    abort = close

    def pause_reading(self):
        """Nothing to pause."""

    def resume_reading(self):
        """Nothing to go on with."""


async def _converse(chunks):
    """What a server says to these chunks, the faults of it, and what became of its sessions."""
    pipeline, faults = FakePipeline(), []
    sessions = Sessions(Limits(), lambda where, error: faults.append((where, error)))
    door = Door(pipeline, lambda: ALL_EXTENSIONS, lambda _: True, LOOPBACK)
    server = Server(door, sessions=sessions, hostname="relay.example", loop=asyncio.get_running_loop())
    wire = Wire(server)
    server.connection_made(wire)
    for chunk in chunks:
        if wire.open:
            server.data_received(chunk)
            for _ in range(6):  # turns for what is waited for
                await asyncio.sleep(0)
    wire.close()
    for _ in range(6):
        await asyncio.sleep(0)
    return wire.said, faults, sessions, pipeline


lines = st.lists(st.one_of(st.sampled_from(PIECES), st.binary(max_size=30)), max_size=20)


@settings(deadline=None)
@given(lines, st.data())
def test_no_input_makes_a_fault(said, data):
    """Any lines in any cut are answered by well-formed replies, nothing is left open afterwards (B14)."""
    octets = b"".join(line + b"\r\n" for line in said)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(octets)), max_size=12)))
    chunks = [octets[a:b] for a, b in zip([0, *cuts], [*cuts, len(octets)], strict=True)]
    heard, faults, sessions, pipeline = asyncio.run(_converse([chunk for chunk in chunks if chunk]))
    assert faults == []
    assert REPLY.fullmatch(heard), heard
    assert not sessions
    assert (sessions.usage.connections, sessions.usage.bytes_in_flight) == (0, 0)
    ends = {"abort", "acknowledged", "unacknowledged"}
    assert all(ends & set(one.events) for one in pipeline.transactions)


def test_status_lines_of_other_handlers_are_made_safe():
    """A handler's text becomes a reply of one line in ASCII; what is no status becomes a 451 (D11)."""
    forged = as_reply("250 ok\r\n250 forged", replies.OK)
    assert (forged.code, forged.encode().count(b"\r\n")) == (250, 1)
    foreign = as_reply("550 n\u00f6", replies.OK)
    assert foreign.code == 550
    assert foreign.encode().isascii()
    assert as_reply(None, replies.OK) is replies.OK
    assert as_reply("nonsense", replies.OK) is replies.INTERNAL_ERROR
    assert as_reply(17, replies.OK) is replies.INTERNAL_ERROR
