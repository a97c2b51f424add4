"""The composition root: puts configuration, rules, consent index and policy together, straight down the page.

Everything that decides is built here and handed on; what moves mail around it is put together in `relay`. Raises
ConfigError, RuleError, ConsentDataError or HoldKeyError, whose text says what to do, and what `hold_stores` raises.
"""

import os
from dataclasses import dataclass
from pathlib import Path

from . import credentials, hold_stores, tracing
from .address import SubjectKeyer
from .campaign import fingerprint
from .classify import Classifier
from .config import Config, load_config, parse_config, read_config
from .consent_store import ConsentStore
from .decision import ConsentView, Decider, Decisions, no_decision
from .errors import ConsentDataError
from .hold_stores import OpenHeldMail, OpenHold, OpenLedger
from .keys import load_key
from .master_keys import load_vault
from .rule_files import LoadedRules, load
from .sealing import Vault


def settings(file: Path | None) -> Config:
    """The configuration in `file`, or every default relative to the working directory."""
    return load_config(file) if file else Config.default()


def user_cache() -> Path:
    """Where compiled rules are kept for a command that was given no configuration (XDG base directories)."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "consentry"


def rules(config: Config | None) -> LoadedRules:
    """The compiled rule set of a configuration, or the shipped one for None."""
    if config is None:
        return load(cache=user_cache())
    return load(config.classify.rules, cache=config.rules_cache)


def keyer(config: Config, *, create: bool) -> SubjectKeyer:
    """The subject keys of a configuration; with `create`, a missing key file is made."""
    key = load_key(config.subject_key_file, create=create)
    return SubjectKeyer(key, default_country_code=config.consent.default_country_code)


def consent_store(config: Config, *, readonly: bool = True) -> ConsentStore:
    """The consent index of a configuration; a writer creates index and key on first use."""
    directory = config.store.dir / "consent"
    if readonly and not directory.exists():
        raise ConsentDataError(
            f"{directory}: no consent index there yet; take in records with: consentry consent import"
        )
    return ConsentStore(
        directory,
        keyer(config, create=not readonly),
        readonly=readonly,
        max_age=config.consent.max_age_ms(),
        stale_after=config.consent.stale_after_ms(),
    )


def vault(config: Config, *, create: bool = False) -> Vault:
    """The master keys of held mail; with `create`, a missing key file is made where no mail is held yet."""
    create = create and not hold_stores.holds_mail(config.store)
    return load_vault(config.hold_key_file, create=create)


def hold(config: Config) -> OpenHold:
    """The hold store of a worker; the first one makes it, and its master key where that is kept in a file."""
    return hold_stores.open_hold(config.store, vault(config, create=True))


def held_mail(config: Config) -> OpenHeldMail:
    """Held mail, for review."""
    hold_stores.refuse_nothing(config.store)  # before its missing key is complained about
    return hold_stores.open_review(config.store, vault(config))


def campaign_ledger(config: Config) -> OpenLedger:
    """The campaign ledger; made if there is none."""
    return hold_stores.open_ledger(config.store)


def decider(
    config: Config, loaded: LoadedRules, consent: ConsentView | None, decisions: Decisions = no_decision
) -> Decider:
    """Everything that is needed to decide about messages; `decisions` are those of reviewers on campaigns."""
    streams, policy = config.streams(), config.decision_policy()
    return Decider(Classifier(loaded.rules), consent, streams, policy, fingerprint, decisions)


@dataclass(frozen=True, slots=True)
class Checked:
    """A configuration with which a relay can start, and the text it came from. `version` is that of its rule set."""

    config: Config
    text: str
    version: str
    counts: tuple[int, int]  # rules, patterns


def check(file: Path) -> Checked:
    """Read a configuration and every file it names, and compile its rules; nothing is changed but their cache."""
    text = read_config(file)
    config = parse_config(text, file)
    credentials.server_context(config.smtp)
    credentials.users(config.smtp)
    credentials.next_hop_password(config.next_hop)
    credentials.store_password(config.store)
    credentials.check_authorities(config.next_hop)
    credentials.kafka_password(config.kafka)
    credentials.kafka_context(config.kafka)
    tracing.check(enabled=config.tracing.enabled)
    if hold_stores.holds_mail(config.store) or config.hold_key_file.exists():
        vault(config)
    loaded = rules(config).rules
    return Checked(config, text.decode(), loaded.version, (len(loaded.rules), len(loaded.patterns)))
