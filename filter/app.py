"""The composition root: puts configuration, rules, consent index and policy together, straight down the page.

Everything is built here and handed on. Raises ConfigError, RuleError or ConsentDataError, whose text says what to do.
"""

import os
from pathlib import Path

from .address import SubjectKeyer
from .classify import Classifier
from .config import Config, load_config
from .consent_store import ConsentStore
from .decision import Decider
from .errors import ConsentDataError
from .keys import load_key
from .rule_files import LoadedRules, load


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


def decider(config: Config, loaded: LoadedRules, consent: ConsentStore | None) -> Decider:
    """Everything that is needed to decide about messages."""
    return Decider(Classifier(loaded.rules), consent, config.streams(), config.decision_policy())
