"""Dialogues with the real SMTP server over loopback, one file each in tests/dialogs.

A file begins with `# <checklist ids>: what is true`. Then, one step a line:
  set: name=value ...     before the first step: `relay=no`, `tls=yes`, `implicit_tls=yes`, `users=yes`, `proxy=yes`,
                          `xforward=yes`, `room=no`, `require_tls=yes`, `reject_bare_line_ends=yes`,
                          `reject_long_lines=yes`, or a field of Limits
  next-hop: rcpt PATH REPLY | data REPLY | fails | lacks KEYWORD | waits | goes on
  C: line                 the client says a line, CRLF is added        C-raw: octets with Python's escapes
  S: pattern              the next reply; its last line must match     S+: / S-: some / no line of that reply matches
  end                     the server closes the connection             again: another connection
  tls                     the client secures the connection            half-close, close, reset: the client leaves
  P: what = value         of the last transaction or of all: messages, content, sender, recipients, parameters,
                          events, address, tls, user, origin
Values of P are waited for, everything else is exact.
"""

import asyncio
import fnmatch
import ssl
from contextlib import AsyncExitStack
from dataclasses import fields
from ipaddress import ip_network
from pathlib import Path

import pytest
import trustme
import uvloop
from support.server import ALL_EXTENSIONS, LOOPBACK, PATIENCE, FakePipeline, Running, Talker, run, running, until

from filter import replies
from filter.envelope import Capabilities
from filter.smtp_limits import Limits
from filter.users import PasswordHash, Users

pytestmark = pytest.mark.integration

DIALOGS = sorted((Path(__file__).parents[1] / "dialogs").glob("*.txt"))
NOWHERE = (ip_network("192.0.2.0/24"),)
LOGIN = "$scrypt$ln=10,r=1,p=1$c2FsdHNhbHRzYWx0c2FsdA$"


@pytest.fixture(scope="session")
def authority():
    """Who signs the server's certificate."""
    return trustme.CA()


@pytest.fixture(scope="session")
def server_tls(authority):
    """TLS with a certificate for relay.example."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    authority.issue_cert("relay.example").configure_cert(context)
    return context


@pytest.fixture(scope="session")
def client_tls(authority):
    """TLS that trusts only this authority."""
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


def _login() -> Users:
    """One user: "shop" with the password "open sesame"."""
    known = PasswordHash.parse(LOGIN + "A" * 43)
    digest = known.cost.derive(b"open sesame", known.salt, 32)
    return Users({"shop": PasswordHash(known.cost, known.salt, digest)})


def _number(value: str) -> float | int:
    return float(value) if "." in value else int(value)


def _settings(values: dict[str, str], tls: ssl.SSLContext) -> dict[str, object]:
    """Arguments of `running` for the names of a `set:` line."""
    known = {field.name for field in fields(Limits)}
    limits = Limits(**{"tick": 0.05} | {name: _number(value) for name, value in values.items() if name in known})
    settings: dict[str, object] = {"limits": limits, "tls_context": tls if "tls" in values else None}
    settings["relay_networks"] = {"no": (), "elsewhere": NOWHERE}.get(values.get("relay", ""), LOOPBACK)
    for flag in ("require_tls", "implicit_tls", "reject_bare_line_ends", "reject_long_lines"):
        settings[flag] = flag in values
    if "implicit_tls" in values:
        settings["tls_context"] = tls
    if "users" in values:
        settings["users"] = _login()
    if "proxy" in values:
        settings["proxy_networks"] = LOOPBACK
    if "xforward" in values:
        settings["xforward_networks"] = LOOPBACK
    return settings


def _octets(text: str) -> bytes:
    return text.encode("latin-1").decode("unicode_escape").encode("latin-1")


class Dialog:
    """One file, step by step."""

    def __init__(self, lines: list[str], tls: ssl.SSLContext, client_tls: ssl.SSLContext) -> None:
        self.steps = [line for line in lines if line.strip() and not line.startswith(("#", "set:"))]
        self.values = dict(
            word.partition("=")[::2] for line in lines if line.startswith("set:") for word in line[4:].split()
        )
        self.tls = tls
        self.client_tls = client_tls
        self.reply: list[str] = []

    async def play(self) -> None:
        """Do all steps; AssertionError names the one that went wrong."""
        async with AsyncExitStack() as stack:
            server = await stack.enter_async_context(running(**_settings(self.values, self.tls)))
            server.pipeline.room = self.values.get("room") != "no"
            talker = await self._connect(server)
            for number, step in enumerate(self.steps, 1):
                try:
                    talker = await self._step(server, talker, step)
                except (AssertionError, TimeoutError, OSError) as error:
                    raise AssertionError(f"step {number}: {step!r}: {error}") from error
            talker.close()

    async def _connect(self, server: Running) -> Talker:
        if "implicit_tls" not in self.values or "proxy" in self.values:
            return await server.connect()
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", server.port, ssl=self.client_tls, server_hostname="relay.example"
        )
        return Talker(reader, writer)

    async def _step(self, server: Running, talker: Talker, step: str) -> Talker:
        """Do one step; the talker of the next one."""
        verb, _, rest = step.partition(": ")
        if verb.startswith("S"):
            await self._check_reply(talker, verb, rest)
        elif verb == "P":
            what, _, wanted = rest.partition(" =")
            await _wait(server.pipeline, what, wanted.removeprefix(" "))
        elif verb == "next-hop":
            _script(server.pipeline, rest)
        elif verb == "again":
            talker.close()
            return await self._connect(server)
        else:
            await self._act(talker, verb, rest)
        return talker

    async def _check_reply(self, talker: Talker, verb: str, pattern: str) -> None:
        if verb == "S":
            self.reply = await talker.reply()
            assert self.reply, "the server closed the connection"
            assert fnmatch.fnmatchcase(self.reply[-1], pattern), self.reply
        else:
            assert bool(fnmatch.filter(self.reply, pattern)) is {"S+": True, "S-": False}[verb], self.reply

    async def _act(self, talker: Talker, verb: str, rest: str) -> None:
        match verb:
            case "C":
                await talker.say(rest)
            case "C-raw":
                await talker.say(_octets(rest))
            case "end":
                await talker.expect_end()
            case "tls":
                await talker.start_tls(self.client_tls)
            case "half-close":
                talker.half_close()
            case "close":
                talker.close()
            case "reset":
                talker.reset()
            case _:
                pytest.fail(f"unknown step: {verb}")


def _script(pipeline: FakePipeline, words: str) -> None:
    match words.split(maxsplit=2):
        case ["rcpt", path, "fails"]:
            pipeline.rcpt_replies[path.encode()] = RuntimeError("secret detail\r\n250 forged")
        case ["rcpt", path, line]:
            pipeline.rcpt_replies[path.encode()] = replies.relayed(int(line[:3]), [line[4:].encode()])
        case ["data", code, text]:
            pipeline.data_reply = replies.relayed(int(code), [text.encode()])
        case ["fails"]:
            pipeline.data_reply = RuntimeError("secret détail\r\n250 forged")
        case ["takes"]:
            pipeline.data_reply = replies.taken("Q2")
        case ["lacks", keyword]:
            rest = {name: value for name, value in pipeline.capabilities.keywords.items() if name != keyword}
            pipeline.capabilities = Capabilities(rest)
        case ["offers", keyword, value]:
            pipeline.capabilities = Capabilities({**ALL_EXTENSIONS.keywords, keyword: value})
        case ["waits"]:
            pipeline.data_waits = asyncio.Event()
        case ["goes", "on"]:
            assert pipeline.data_waits is not None
            pipeline.data_waits.set()
        case _:
            pytest.fail(f"unknown: {words}")


def _seen(pipeline: FakePipeline, what: str) -> str:
    if what == "messages":
        return str(len(pipeline.messages))
    if what == "transactions":
        return str(len(pipeline.transactions))
    if not pipeline.transactions:
        return ""
    last = pipeline.transactions[-1]
    return {
        "content": lambda: repr(last.content)[2:-1],
        "sender": lambda: repr(last.mail.path)[2:-1],
        "parameters": lambda: " ".join(repr(one)[2:-1] for one in last.mail.params),
        "recipients": lambda: " ".join(repr(one.path)[2:-1] for one in last.recipients),
        "recipient parameters": lambda: "; ".join(
            " ".join(repr(one)[2:-1] for one in recipient.params) for recipient in last.recipients
        ),
        "events": lambda: " ".join(last.events),
        "address": lambda: last.client.address,
        "helo": lambda: last.client.helo,
        "tls": lambda: last.client.tls[:3],
        "user": lambda: last.client.user,
        "origin": lambda: f"{last.client.origin.name} {last.client.origin.address}" if last.client.origin else "",
    }[what]()


async def _wait(pipeline: FakePipeline, what: str, wanted: str) -> None:
    """Wait until the server has come so far; there is nothing to wait on but the value itself."""
    deadline = asyncio.get_running_loop().time() + PATIENCE
    while (seen := _seen(pipeline, what)) != wanted:
        assert asyncio.get_running_loop().time() < deadline, f"{what} is {seen!r}"
        await asyncio.sleep(0.002)


@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
@pytest.mark.parametrize("implicit", [False, True])
def test_drain_does_not_wait_for_handshakes(implicit, loop, server_tls):
    """A client that is about to begin TLS, or never does, does not hold up the end (D21)."""

    async def dialogue():
        async with running(tls_context=server_tls, implicit_tls=implicit) as server:
            talker = await server.connect()
            if not implicit:
                await talker.hello()
                await talker.ask("STARTTLS", "220")
            await until(lambda: len(server.service.sessions) == 1)
            await asyncio.sleep(0.05)  # the handshake is waited for
            assert await server.service.drain(1)
            await talker.expect_end()
            talker.close()

    run(dialogue(), loop)


@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
@pytest.mark.parametrize("path", DIALOGS, ids=lambda path: path.stem)
def test_dialog(path, loop, server_tls, client_tls):
    """The server says what the file says, and the pipeline gets what the file says."""
    lines = path.read_text().splitlines()
    assert lines[0].startswith("# "), "the first line says what is true"
    run(Dialog(lines, server_tls, client_tls).play(), loop)
