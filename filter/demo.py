"""`consentry demo`: the relay at work between a sender and a next hop of the demo's own, on this machine.

A mailbox of realistic messages (`config/demo`) is sent by SMTP to recipients in every consent state; then it is shown
where each copy is. Everything stays up until Ctrl-C, unless `once`. Raises DemoError and whatever keeps a relay from
starting; ends with status 1 when a copy is not where it must be.
"""

import signal
import smtplib
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Final

from rich.text import Text

from . import app, console
from .address import SubjectKeyer
from .config import Config, load_config
from .consent_import import import_file
from .demo_copies import ACCEPTED, Followed, Journal, Sent, held, whereabouts
from .demo_mailbox import SOURCE, DemoError, Mail, mailbox, prepare
from .demo_page import arrival, balance, page, picture, sound
from .demo_relay import DemoRelay, port_or_any
from .demo_sink import HOST, DemoSink

SMTP_PORT: Final = 2625
NEXT_HOP_PORT: Final = 2525
HTTP_PORT: Final = 9625
DASHBOARDS: Final = Path(__file__).parents[1] / "deploy" / "grafana"  # of a checkout; a wheel has none
_TIMEOUT: Final = 60.0  # seconds for any reply
_LOOK_EVERY: Final = 0.5  # seconds between looks at the journal
_SETTLE_WITHIN: Final = 10.0  # seconds


def run_demo(directory: Path, *, once: bool = True) -> None:
    """Show the demo in `directory`, which is emptied first; with `once`, end when everything is shown."""
    with interruptible():
        try:
            good = _run(directory, once=once)
        except KeyboardInterrupt:
            raise DemoError("interrupted before everything was shown") from None
    if not good:
        raise console.found_something()


def _run(directory: Path, *, once: bool) -> bool:
    """Put everything up, show it and, unless `once`, stay; whether every copy was where it must be."""
    records = prepare(directory, datetime.now(UTC).date())
    with DemoSink(port_or_any(NEXT_HOP_PORT)) as sink:
        config_file = _configure(directory, sink.port)
        config = load_config(config_file)
        keyer = take_records(config, records)
        journal = Journal(config.store.dir / "journal", keyer)
        with DemoRelay(config_file, directory / "relay.log") as relay:
            followed = _follow(config, relay, sink, journal)
            console.out.print(page(followed))
            console.out.print(balance(followed))
            _explain(followed, config_file)
            if not once:
                _addresses(relay, directory)
                _invite(followed, relay.addresses["smtp"])
                stay(relay, journal)
    return sound(followed)


@contextmanager
def interruptible() -> Iterator[None]:
    """SIGTERM, and SIGHUP unless it is ignored (nohup), end the demo as Ctrl-C does, with everything it started."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    hangup = () if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else (signal.SIGHUP,)
    before = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM, *hangup)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _configure(directory: Path, next_hop: int) -> Path:
    """The demo's configuration, with the usual ports or, where one is taken, another."""
    text = (SOURCE / "filter.toml").read_text("utf-8")
    for usual, port in (
        (SMTP_PORT, port_or_any(SMTP_PORT)),
        (NEXT_HOP_PORT, next_hop),
        (HTTP_PORT, port_or_any(HTTP_PORT)),
    ):
        text = text.replace(f'"{HOST}:{usual}"', f'"{HOST}:{port}"')
    file = directory / "filter.toml"
    file.write_text(text, "utf-8")
    return file


def take_records(config: Config, records: Path) -> SubjectKeyer:
    """Take in the consent records; gives the keyer that the index is made with."""
    with app.consent_store(config, readonly=False) as store:
        report = import_file(store, records, now=console.now())
        if not report.imported:
            raise DemoError("; ".join(str(problem) for problem in report.problems))
        console.out.print(f"{report.accepted} consent records imported, dated relative to today.")
        return store.keyer


def _follow(config: Config, relay: DemoRelay, sink: DemoSink, journal: Journal) -> list[Followed]:
    """Send the mail, and find out where every copy is."""
    mails = mailbox()
    with console.busy("Starting the relay (the first time it compiles the rules) …"):
        relay.wait_ready()
    smtp = relay.addresses["smtp"]
    console.out.print(picture(len(mails), config.workers, smtp, f"{HOST}:{sink.port}"))
    with console.busy("Sending …"):
        sent = [_send(mail, smtp) for mail in mails]
    vault, end = app.vault(config), time.monotonic() + _SETTLE_WITHIN
    while True:  # copies beside relayed ones are confirmed as held a moment after the reply
        journal.look()
        followed = list(whereabouts(sent, sink.delivered(), held(config.store.dir / "hold", vault), journal))
        if sound(followed) or time.monotonic() > end:
            return followed
        time.sleep(_LOOK_EVERY)


def _send(mail: Mail, smtp: str) -> Sent:
    """Send a message to all its recipients in one transaction, in a session of its own."""
    host, _, port = smtp.rpartition(":")
    refused = {}
    try:
        with smtplib.SMTP(host, int(port), local_hostname="sender.example", timeout=_TIMEOUT) as client:
            client.ehlo()
            client.mail(mail.sender)
            for recipient in mail.recipients:
                code, text = client.rcpt(recipient)
                if code != ACCEPTED:
                    refused[recipient] = f"{code} {text.decode('utf-8', 'replace')}"
            code, text = client.data(mail.content)
    except (OSError, smtplib.SMTPException) as error:
        raise DemoError(f"{mail.file.name} could not be sent to {smtp}: {error}") from error
    return Sent(mail, refused, code, text.decode("utf-8", "replace"))


def _explain(followed: Sequence[Followed], config_file: Path) -> None:
    """The command that tells why."""
    shown = next((one for one in followed if one.disguised), followed[0])
    console.out.print("\nWhy, in words a lawyer can read:\n")
    command(
        f"{program()} explain {shortened(shown.sent.mail.file)}",
        *(f"--rcpt {one}" for one in _one_of_each(shown)),
        f"-c {shortened(config_file)}",
    )


def _one_of_each(followed: Followed) -> list[str]:
    """The first recipient of each place."""
    return list({copy.place: copy.recipient for copy in reversed(followed.copies)}.values())[::-1]


def _addresses(relay: DemoRelay, directory: Path) -> None:
    """What is running, and where to look at it."""
    console.out.print("\nThe relay is still running:\n")
    for what, where in (
        ("mail", f"{relay.addresses['smtp']} (SMTP)"),
        ("health", f"http://{relay.addresses['http']}/readyz"),
        ("metrics", f"http://{relay.addresses['http']}/metrics"),
        *([("dashboards", f"{shortened(DASHBOARDS)}, for Grafana")] if DASHBOARDS.is_dir() else []),
        ("journal", f"{shortened(directory / 'store' / 'journal')}"),
        ("log", f"{shortened(relay.log)}"),
    ):
        console.out.print(Text(f"  {what:<10} {where}"), soft_wrap=True)


def command(first: str, *rest: str) -> None:
    """A command to type, broken where a shell allows it."""
    console.out.print(Text("  " + " \\\n    ".join([first, *rest])), soft_wrap=True)


def _invite(followed: Sequence[Followed], smtp: str) -> None:
    """The command that sends one more message."""
    last = followed[-1].sent.mail
    console.out.print("\nSend a message yourself; what becomes of it appears below:\n")
    command(
        f"curl smtp://{smtp} -T {shortened(last.file)}",
        f"--mail-from {last.sender}",
        *(f"--mail-rcpt {one}" for one in _one_of_each(followed[-1])),
    )
    console.out.print("\nCtrl-C ends everything.\n")


def stay(relay: DemoRelay, journal: Journal) -> None:
    """Print what becomes of further mail until somebody has seen enough."""
    try:
        while relay.running:
            for queue_id, copy in journal.look():
                console.out.print(arrival(copy, journal.label(queue_id)))
            time.sleep(_LOOK_EVERY)
    except KeyboardInterrupt:
        console.out.print("\nDraining; then everything ends.")
    else:
        raise relay.failure("has ended")


def program() -> str:
    """How the user starts this command again."""
    return str(shortened(Path(sys.argv[0]))) if Path(sys.argv[0]).name == "consentry" else "consentry"


def shortened(path: Path) -> Path:
    """A path as one would type it here."""
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path
