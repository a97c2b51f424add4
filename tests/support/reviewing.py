"""A store of held mail for commands: made as a relay makes it, filled with messages, and looked into."""

import asyncio
import json
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

from support import fakes
from typer.testing import CliRunner, Result

from filter import app
from filter.campaigns import Seen
from filter.classify import Classifier
from filter.cli import cli
from filter.config import Config, load_config
from filter.envelope import MailFrom, RcptTo
from filter.facts import facts_of
from filter.flights import now
from filter.held import By, HeldQuery
from filter.hold_store import HoldStore
from filter.journal import read_journal
from filter.labels import Channel
from filter.message import parse_message
from filter.policy import Disposition
from filter.ports import HeldCopy, HeldMessage

CAMPAIGN, OTHER = "ab" * 16, "ac" * 16
PROMOTION = (
    b"From: Bank <news@bank.example>\r\nSubject: Save now\r\n\r\n"
    b"Get 20% off your next order today. Shop now and save!\r\n..and a dot.\r\n"
)
TRACE = b"Received: from client by gate.example; noon\r\nX-Consentry: Q\r\n"
HOUR = 3_600_000


class Reviewed:
    """A configuration, its stores, and its command line."""

    def __init__(self, directory: Path, rules_cache: Path, classifier: Classifier, settings: str = "") -> None:
        self.directory = directory
        self.store = directory / "var"
        self.store.mkdir()
        (self.store / "cache").symlink_to(rules_cache)
        self.file = directory / "filter.toml"
        stream = '[[stream]]\ncontroller = "bank"\nbrand = "bank"\ntopic = "offers"\n'
        self.file.write_text(f'{stream}[next_hop]\nhosts = ["192.0.2.9:25"]\n{settings}')
        self.hop = _Hop("hop", fakes.Script())
        self.now = now()
        self._classifier = classifier
        self._keyer = app.keyer(self.config, create=True)
        self._with_store(lambda _store: None)

    @property
    def config(self) -> Config:
        """As the commands read it."""
        return load_config(self.file)

    def run(self, *arguments: str | Path, stdin: bytes | None = None) -> Result:
        """Run one command with this configuration."""
        return CliRunner().invoke(cli, [*map(str, arguments), "-c", str(self.file)], input=stdin)

    def documents(self, *arguments: str | Path) -> list[dict[str, Any]]:
        """The JSON documents that a command writes, which succeeds."""
        result = self.run(*arguments, "--json")
        assert result.exception is None, result.exception
        return [json.loads(line) for line in result.stdout.splitlines()]

    def hold(
        self,
        queue_id: str,
        *addresses: str,
        content: bytes = PROMOTION,
        campaign: str = CAMPAIGN,
        reason: str = "no_consent",
        declared: str = "service",
        age: int = HOUR,
        pending: bool = False,
    ) -> None:
        """Hold a message for these addresses; `age` in milliseconds."""
        classification = self._classifier.classify(parse_message(content))
        state = "objected" if reason == "objected" else "unknown"
        copies = [self._copy(address, reason, state, classification.decisive_rules) for address in addresses]
        message = HeldMessage(
            queue_id=queue_id,
            received_at=self.now - age,
            mail=MailFrom(b"bounce@bank.example", (b"SIZE=300",), 300),
            trace=TRACE,
            content=content,
            label=classification.label,
            score=classification.score,
            ruleset=classification.ruleset,
            declared=declared,
            controller="bank",
            brand="bank",
            topic="offers",
            copies=tuple(copies),
            campaign=campaign,
            facts=facts_of(classification).to_json(),
            pending=pending,
        )
        self._with_store(lambda store: asyncio.run(store.store(message)))

    def seen(self, campaign: str = CAMPAIGN, **values: Any) -> None:
        """Have a campaign in the ledger."""
        about = {"subject": "Save …", "sender": "bank.example", "client": "192.0.2.1", "controller": "bank"}
        one = Seen(campaign=campaign, first_at=self.now - HOUR, last_at=self.now, messages=3, **{**about, **values})
        with closing(app.campaign_ledger(self.config)) as ledger:
            ledger.add([one])

    def states(self) -> dict[str, int]:
        """How many copies are in each state."""
        with closing(app.held_mail(self.config)) as held:
            return {one.value: one.copies for one in held.tally(HeldQuery(states=frozenset()), By.STATE)}

    def journal(self, event: str) -> list[dict[str, Any]]:
        """The events of one kind."""
        lines = read_journal(sorted((self.store / "journal").glob("*.jsonl")))
        return [line for line in lines if line["event"] == event]

    def _copy(self, address: str, reason: str, state: str, rules: tuple[str, ...]) -> HeldCopy:
        return HeldCopy(
            recipient=RcptTo(address.encode(), (b"NOTIFY=NEVER",)),
            subject_key=self._keyer.subject(address, Channel.EMAIL).exact.hex(),
            disposition=Disposition.HOLD,
            reason=reason,
            notes=(),
            state=state,
            evidence=rules,
        )

    def _with_store(self, work: Callable[[HoldStore], None]) -> None:
        with closing(
            HoldStore(self.store / "hold", vault=app.vault(self.config, create=True), min_free_space=0, check_time=0)
        ) as store:
            work(store)


class _Hop(fakes.NextHop):
    """A next hop that somebody closes."""

    async def close(self) -> None:
        """Nothing to close."""
