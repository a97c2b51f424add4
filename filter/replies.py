"""Every SMTP reply this program can send: one closed table, and what becomes of a reply of the next hop.

A reply is ASCII, without control characters, in lines of at most 512 octets (RFC 5321 section 4.5.3.1.5), and never
quotes an address, a file or an exception. Codes: RFC 5321 section 4.2; enhanced: RFC 3463, RFC 5248. Constants with
{name} in the text are filled by the function of the same name in lower case. Nothing here raises; `RefusedError` is
what the parsers of commands raise.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Final

from .errors import ConsentryError

MAX_LINE: Final = 512  # octets with CRLF; RFC 5321 section 4.5.3.1.5
MAX_RELAYED_LINES: Final = 8  # of a reply that is handed on; more than real servers give to RCPT or a message
_SUCCESS: Final = 2
_PERMANENT: Final = 5
_CLOSING: Final = 421
_HIGHEST: Final = 59  # the second digit of a code is 0 to 5
_SHORT: Final = 64  # octets
_GENERAL: Final = {2: 250, 4: 450, 5: 550}

# Control characters become spaces; what is not ASCII becomes a question mark before that.
_PRINTABLE: Final = {**dict.fromkeys(range(32), " "), 127: " "}
_NUMBER: Final = rb"(?:0|[1-9][0-9]{0,2})"
_ENHANCED: Final = re.compile(rb"([245]\." + _NUMBER + rb"\." + _NUMBER + rb")(?: |\Z)").match
_LIKE_ENHANCED: Final = re.compile(rb"[0-9]\.[0-9]+\.[0-9]+(?: +|\Z)").match


@dataclass(frozen=True, slots=True)
class Reply:
    """One SMTP reply: `code` 200-599, `enhanced` such as "2.1.0" or empty, `lines` of text (at least one).

    `when` says of a constant of the table what it answers; it is no part of the reply.
    """

    code: int
    enhanced: str
    lines: tuple[str, ...]
    when: str = field(default="", compare=False, repr=False)
    _octets: bytes = field(default=b"", init=False, compare=False, repr=False)

    @property
    def ok(self) -> bool:
        """Whether it is a 2xx."""
        return self.code // 100 == _SUCCESS

    @property
    def permanent(self) -> bool:
        """Whether it is a 5xx."""
        return self.code // 100 == _PERMANENT

    def encode(self) -> bytes:
        """The octets on the wire, CRLF included: made safe whatever the text is, and made once."""
        if not self._octets:
            object.__setattr__(self, "_octets", self._encoded())
        return self._octets

    def _encoded(self) -> bytes:
        between = _safe(f"{self.enhanced} ") if self.enhanced else ""
        room = MAX_LINE - len("250 \r\n") - len(between)
        texts = [_safe(line)[:room] for line in self.lines] or [""]
        last = len(texts) - 1
        parts = [f"{self.code}{' ' if at == last else '-'}{between}{text}\r\n" for at, text in enumerate(texts)]
        return "".join(parts).encode()


class RefusedError(ConsentryError):
    """A command cannot be taken; `reply` is the answer to it. The message never quotes the command."""

    def __init__(self, reply: Reply) -> None:
        self.reply = reply
        super().__init__(reply.when or reply.lines[0])


def _safe(text: str) -> str:
    """The text with a question mark for what is not ASCII and a space for control characters."""
    if text.isascii() and text.isprintable():
        return text
    return text.encode("ascii", "replace").decode().translate(_PRINTABLE)


def _reply(code: int, enhanced: str, text: str, when: str) -> Reply:
    return Reply(code, enhanced, (text,), when)


# Sessions
SERVICE_READY: Final = _reply(220, "", "{hostname} ESMTP", "a client has connected")
READY_FOR_TLS: Final = _reply(220, "2.0.0", "Ready to start TLS", "STARTTLS")
BYE: Final = _reply(221, "2.0.0", "Bye", "QUIT")
HELLO: Final = _reply(250, "", "{hostname}", "HELO and EHLO; for EHLO the keywords follow, each on its line")
HELP: Final = _reply(214, "2.0.0", "See RFC 5321", "HELP")
OK: Final = _reply(250, "2.0.0", "Ok", "RSET, NOOP and XFORWARD")
CANNOT_VERIFY: Final = _reply(252, "2.5.0", "Cannot verify, will take mail for it", "VRFY")
SHUTTING_DOWN: Final = _reply(421, "4.3.2", "Shutting down, try again", "this server is stopping")
TOO_MANY_CONNECTIONS: Final = _reply(421, "4.3.2", "Too many connections, try again", "max_connections is reached")
TOO_MANY_FROM_CLIENT: Final = _reply(
    421, "4.7.0", "Too many connections from you, try again", "max_connections_per_client is reached"
)
TOO_MANY_ERRORS: Final = _reply(421, "4.7.0", "Too many errors", "max_errors is reached")
TOO_MANY_IDLE_COMMANDS: Final = _reply(
    421, "4.7.0", "Too many commands without mail", "max_idle_commands is reached since the last message"
)
TOO_MANY_AUTH_FAILURES: Final = _reply(421, "4.7.0", "Too many failed attempts", "max_auth_failures is reached")
TIMEOUT: Final = _reply(421, "4.4.2", "Timeout", "no command within command_timeout, or TLS not up within tls_timeout")
DATA_TIMEOUT: Final = _reply(421, "4.4.2", "Timeout within message", "data_timeout or min_data_rate")
SESSION_TOO_LONG: Final = _reply(421, "4.3.2", "Session too long, connect again", "max_session has passed")
TOO_BUSY: Final = _reply(421, "4.3.2", "Too busy, try again", "max_bytes_in_flight was reached within a message")
NOT_SMTP: Final = _reply(421, "4.7.0", "This is an SMTP server", "the first line is HTTP or a header field")

# TLS and authentication
AUTHENTICATED: Final = _reply(235, "2.7.0", "Authenticated", "AUTH with the right password")
CHALLENGE: Final = _reply(334, "", "{challenge}", "AUTH: the next part is wanted")
AUTH_UNAVAILABLE: Final = _reply(
    454, "4.7.0", "Cannot check passwords now, try again", "AUTH, and too many passwords wait to be checked"
)
AUTH_CANCELLED: Final = _reply(501, "5.7.0", "Authentication cancelled", "AUTH was cancelled with *")
AUTH_NOT_BASE64: Final = _reply(501, "5.5.2", "Cannot decode", "a part of AUTH is not base64 or not in its form")
AUTH_LINE_TOO_LONG: Final = _reply(500, "5.5.6", "Authentication line too long", "a part of AUTH over 12288 octets")
AUTH_MECHANISM_UNKNOWN: Final = _reply(504, "5.5.4", "Unknown mechanism", "AUTH with a mechanism not offered")
TLS_REQUIRED: Final = _reply(530, "5.7.0", "STARTTLS first", "require_tls, and the session is in the clear")
AUTH_FAILED: Final = _reply(535, "5.7.8", "User or password is wrong", "AUTH with a wrong user or password")
AUTH_NEEDS_TLS: Final = _reply(538, "5.7.11", "STARTTLS before AUTH", "AUTH in the clear")
ALREADY_TLS: Final = _reply(503, "5.5.1", "TLS is on already", "STARTTLS within TLS")
ALREADY_AUTHENTICATED: Final = _reply(503, "5.5.1", "Authenticated already", "a second AUTH")

# Commands
UNKNOWN_COMMAND: Final = _reply(500, "5.5.2", "Unknown command", "a verb that is none")
COMMAND_TOO_LONG: Final = _reply(500, "5.5.2", "Line too long", "a command line over 2048 octets")
COMMAND_LINE_END: Final = _reply(500, "5.5.2", "Commands end in CRLF", "a command with bare CR, bare LF or NUL")
SYNTAX: Final = _reply(501, "5.5.4", "Syntax error in arguments", "arguments that do not fit the command")
NOT_IMPLEMENTED: Final = _reply(502, "5.5.1", "Not implemented", "EXPN, TURN, BDAT and other verbs not offered")
HELLO_FIRST: Final = _reply(503, "5.5.1", "HELO or EHLO first", "a mail command before HELO or EHLO")
MAIL_FIRST: Final = _reply(503, "5.5.1", "MAIL first", "RCPT or DATA outside a transaction")
MAIL_TWICE: Final = _reply(503, "5.5.1", "Sender already given", "MAIL within a transaction")
RCPT_FIRST: Final = _reply(503, "5.5.1", "RCPT first", "DATA before any RCPT")
WITHIN_TRANSACTION: Final = _reply(503, "5.5.1", "Not within a transaction", "STARTTLS, AUTH or XFORWARD after MAIL")
NO_RECIPIENTS: Final = _reply(554, "5.5.1", "No valid recipients", "DATA when every RCPT was refused")
EARLY_DATA: Final = _reply(554, "5.5.0", "Message sent before 354", "more input came with DATA; the session ends")
XFORWARD_DENIED: Final = _reply(550, "5.7.0", "Not allowed", "XFORWARD from a host outside xforward_networks")

# Sender and recipients
SENDER_OK: Final = _reply(250, "2.1.0", "Sender ok", "MAIL")
RECIPIENT_OK: Final = _reply(250, "2.1.5", "Recipient ok", "RCPT, where the next hop is not asked")
BAD_SENDER: Final = _reply(501, "5.1.7", "Bad sender address", "MAIL with a path that RFC 5321 does not allow")
BAD_RECIPIENT: Final = _reply(553, "5.1.3", "Bad recipient address", "RCPT with a path that RFC 5321 does not allow")
SENDER_NEEDS_SMTPUTF8: Final = _reply(
    550, "5.6.7", "Address needs SMTPUTF8", "MAIL with an address beyond ASCII and without SMTPUTF8"
)
RECIPIENT_NEEDS_SMTPUTF8: Final = _reply(
    553, "5.6.7", "Address needs SMTPUTF8", "RCPT with an address beyond ASCII, and MAIL was without SMTPUTF8"
)
BAD_PARAMETER: Final = _reply(501, "5.5.4", "Bad parameter", "a MAIL or RCPT parameter twice or with a bad value")
UNKNOWN_PARAMETER: Final = _reply(555, "5.5.4", "Unknown parameter", "a MAIL or RCPT parameter that is not offered")
RELAY_DENIED: Final = _reply(550, "5.7.1", "Relaying denied", "the client may not relay")
TOO_MANY_RECIPIENTS: Final = _reply(452, "4.5.3", "Too many recipients", "max_recipients is reached")
SIZE_EXCEEDED: Final = _reply(552, "5.3.4", "Message too big", "max_message_size, by SIZE at MAIL or by the message")
STORAGE_FULL: Final = _reply(452, "4.3.1", "Not enough storage, try again", "the hold store cannot take the message")
BUSY_FOR_MAIL: Final = _reply(452, "4.3.1", "Too busy, try again", "MAIL when max_bytes_in_flight is reached")

# The message
START_MAIL: Final = _reply(354, "", "End data with <CR><LF>.<CR><LF>", "DATA")
TAKEN: Final = _reply(250, "2.0.0", "Ok: taken as {queue_id}", "every copy is with the next hop or in the hold store")
BARE_LINE_ENDS: Final = _reply(550, "5.6.0", "Bare CR, LF or NUL in message", 'bare_line_endings = "reject"')
LONG_LINE: Final = _reply(554, "5.6.0", "Line over 998 octets in message", 'long_lines = "reject"')
LOOP: Final = _reply(554, "5.4.6", "Mail loop", "max_hops Received fields")
EIGHT_BIT_REFUSED: Final = _reply(
    554, "5.6.3", "8-bit message cannot be relayed", "8-bit content, and the next hop does not offer 8BITMIME"
)
SMTPUTF8_UNAVAILABLE: Final = _reply(
    550, "5.6.7", "SMTPUTF8 cannot be relayed", "an SMTPUTF8 message, and the next hop does not offer it"
)
REJECTED: Final = _reply(550, "5.7.1", "Rejected by policy", "the policy rejects every copy")
POLICY_DEFERRED: Final = _reply(451, "4.7.1", "Deferred by policy, try again", "the policy defers a copy")
NOT_JUDGED: Final = _reply(
    451, "4.3.0", "Cannot judge message now, try again", 'judging failed, on_scan_error = "tempfail"'
)
INTERNAL_ERROR: Final = _reply(451, "4.3.0", "Internal error, try again", "a fault of this program")
OUT_OF_TIME: Final = _reply(451, "4.3.0", "Took too long, try again", "transaction_timeout ran out before sending")

# The next hop
NEXT_HOP_DOWN: Final = _reply(451, "4.4.1", "Next hop not available, try again", "the next hop cannot be reached")
NEXT_HOP_REFUSED: Final = _reply(
    451, "4.4.0", "Next hop refuses now, try again", "a recipient taken before is refused when sent without held ones"
)
NEXT_HOP_GARBLED: Final = _reply(451, "4.5.0", "Bad reply of next hop, try again", "what the next hop said is no reply")
IN_DOUBT: Final = _reply(451, "4.4.2", "Connection to next hop lost, try again", "it was lost after the final dot")

ALL: Final[dict[str, Reply]] = {name: value for name, value in list(globals().items()) if isinstance(value, Reply)}


@lru_cache(maxsize=16)
def service_ready(hostname: str) -> Reply:
    """The greeting."""
    return replace(SERVICE_READY, lines=(f"{hostname} ESMTP",))


def hello(hostname: str, keywords: Sequence[str] = ()) -> Reply:
    """The answer to HELO, or with keywords ("SIZE 1000") to EHLO."""
    return _hello(hostname, *keywords)


@lru_cache(maxsize=256)
def _hello(*lines: str) -> Reply:
    return replace(HELLO, lines=lines)


def challenge(text: str) -> Reply:
    """The 334 of AUTH; `text` is base64."""
    return replace(CHALLENGE, lines=(text,))


def taken(queue_id: str) -> Reply:
    """The 250 at the end of data."""
    return Reply(250, "2.0.0", (f"Ok: taken as {queue_id}",))


def relayed(code: int, lines: Sequence[bytes]) -> Reply:
    """A reply of the next hop as our client gets it: class kept, text made safe; NEXT_HOP_GARBLED for what is none.

    `lines` are the texts after the code and its separator; 3xx is no answer to hand on. Of the lines the first eight
    are kept. 421 becomes 451, as it is the next hop's connection that ends and not ours; a code outside of the grammar,
    such as 571, becomes that of its class. An enhanced code that is not well-formed or of another class gives way to
    the general one of the class, as every reply must have one (RFC 2034 section 4).
    """
    if len(lines) == 1 and len(lines[0]) <= _SHORT:
        return _relayed_short(code, lines[0])
    return _relayed(code, lines)


@lru_cache(maxsize=256)
def _relayed_short(code: int, line: bytes) -> Reply:
    """Most replies of one next hop are the same few, such as "250 2.1.5 Ok"."""
    return _relayed(code, (line,))


def _relayed(code: int, lines: Sequence[bytes]) -> Reply:
    kind = code // 100
    if kind not in _GENERAL or not lines:
        return NEXT_HOP_GARBLED
    if code == _CLOSING:
        code = INTERNAL_ERROR.code
    elif code % 100 > _HIGHEST:
        code = _GENERAL[kind]
    enhanced = f"{kind}.0.0"
    if (found := _ENHANCED(lines[0])) and found[0][0] == ord(enhanced[0]):
        enhanced = found[1].decode()
    return Reply(code, enhanced, tuple([_text(line) for line in lines[:MAX_RELAYED_LINES]]))


def _text(line: bytes) -> str:
    """The text of a line of the next hop, without an enhanced code, not longer than it can be sent."""
    if found := _LIKE_ENHANCED(line):
        line = line[found.end() :]
    return _safe(line[:MAX_LINE].decode("ascii", "replace")).strip()
