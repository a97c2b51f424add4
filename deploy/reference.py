#!/usr/bin/env python3
"""Writes the reference documents that are made from the program itself: `make reference`.

    deploy/commands.md       every command with its arguments and options
    deploy/man/consentry.1   the same as a manual page (roff, man macros)
    deploy/rules.md          every shipped rule: what it argues for, an example, its citations

With `--check` it writes nothing and ends with status 1 if one of them is out of date; tests/unit/test_docs_reference.py
does the same.
"""

import enum
import re
import sys
import tomllib
import typing
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import NoneType
from typing import Any, Final

import typer

ROOT: Final = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from filter.cli import cli  # noqa: E402 -- this checkout, whatever is installed
from filter.law import load_law  # noqa: E402 -- the same

MADE: Final = "Made by `make reference` from the program; do not edit."
WORDS: Final = {Path: "FILE", int: "N", float: "N", str: "TEXT", datetime: "TIME"}
COMMANDS_TOP: Final = """# Command line

{made}

Results go to standard output, errors to standard error. Exit status: 0 fine, 1 something was found (a bad line, a wrong
label, a copy that had to stay), 2 it could not be done. `consentry --install-completion` has bash, zsh, fish or
PowerShell complete commands and options; [the manual page](man/consentry.1) says the same as this page (`man
deploy/man/consentry.1`)."""
RULES_TOP: Final = """# The shipped rules

{made}

A rule argues for what a sentence is; from weight 2 on it decides a segment alone. How the words of a message are
matched, and how to write rules: [config/README.md](../config/README.md#rules). Citations that begin with R are
explained [at the end](#citations); others are cases and guidance. An engineer's reading, not legal advice."""
MAN_TOP: Final = """.\\" {made}
.TH CONSENTRY 1 "" consentry "User Commands"
.SH NAME
consentry \\- consent gate for outbound messages
.SH SYNOPSIS
.B consentry
.I COMMAND
[ARGUMENTS] [OPTIONS]
.SH DESCRIPTION
It stands where mail leaves a company, judges each message by its content, looks up what each recipient has agreed to,
and relays, holds or diverts each recipient's copy."""
_SAME: Final = ("--help", "--install-completion", "--show-completion")


@dataclass(frozen=True, slots=True)
class Parameter:
    """An argument or option: as it is written, and what is said of it."""

    written: str
    text: str
    argument: bool
    required: bool


@dataclass(frozen=True, slots=True)
class Command:
    """A command: its whole name, its help by paragraphs, what it takes."""

    name: str
    help: tuple[str, ...]
    parameters: tuple[Parameter, ...]
    group: bool

    @property
    def usage(self) -> str:
        """How it is called."""
        arguments = [one.written if one.required else f"[{one.written}]" for one in self.parameters if one.argument]
        options = ["[OPTIONS]"] if any(not one.argument for one in self.parameters) else []
        return " ".join([self.name, *(["COMMAND"] if self.group else []), *arguments, *options])


def commands() -> list[Command]:
    """Every command, in the order of `consentry --help`."""
    return list(_walk(typer.main.get_command(cli), "consentry"))


def _walk(command: Any, name: str) -> Iterator[Command]:
    parameters = tuple(_parameter(one) for one in command.params if not set(_SAME) & set(one.opts))
    inner = getattr(command, "commands", {})
    paragraphs = tuple(" ".join(part.split()) for part in (command.help or "").split("\n\n"))
    yield Command(name, paragraphs, parameters, bool(inner))
    for word, one in inner.items():
        yield from _walk(one, f"{name} {word}")


def _parameter(given: Any) -> Parameter:
    argument = not given.opts[0].startswith("-")
    value = given.metavar or _value(given.type_descriptor.annotation)
    if argument:
        written = (given.metavar or given.name).strip("[]{}").upper().replace("_", "-")
        written += "…" if given.nargs == -1 else ""
    else:
        names = ", ".join(sorted(given.opts, key=len))
        written = names if given.is_flag else f"{names} {value}"
    return Parameter(written, _told(given), argument, given.required)


def _told(given: Any) -> str:
    """The help with what else is to be known: default, environment, repetition."""
    text = " ".join((given.help or "").split())
    default, shown = given.default, given.show_default
    notes = []
    if given.required and given.opts[0].startswith("-"):
        notes.append("required")
    if given.multiple and "repeated" not in text:
        notes.append("may be repeated")
    if isinstance(shown, str):
        notes.append(f"default: {shown}")
    elif shown and default not in (None, "", False, ()) and not given.required:
        notes.append(f"default: {default}")
    if given.envvar:
        notes.append(f"environment: {given.envvar}")
    return f"{text} ({'; '.join(notes)})" if notes else text


def _value(annotation: Any) -> str:
    inner = [one for one in typing.get_args(annotation) if one is not NoneType]
    if inner and not isinstance(annotation, type):
        return _value(inner[0])
    if isinstance(annotation, type) and issubclass(annotation, enum.Enum):
        return "|".join(str(one.value) for one in annotation)
    return WORDS.get(annotation, "VALUE")


def commands_page() -> str:
    """deploy/commands.md."""
    parts = [COMMANDS_TOP.format(made=MADE)]
    for command in commands():
        parts += [f"## {command.name}", *command.help, f"```text\n{command.usage}\n```"]
        if command.parameters:
            rows = [f"| `{_cell(one.written)}` | {_cell(one.text)} |" for one in command.parameters]
            parts.append("\n".join(["| argument or option | meaning |", "|---|---|", *rows]))
    return "\n\n".join(parts) + "\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def man_page() -> str:
    """deploy/man/consentry.1."""
    first, *others = commands()
    lines = [MAN_TOP.format(made=MADE), ".SH OPTIONS", *_man_parameters(first.parameters), ".SH COMMANDS"]
    for command in others:
        if command.group:
            continue
        lines += [f'.SS "{_roff(command.usage)}"', *_paragraphs(command.help), *_man_parameters(command.parameters)]
    lines += [*_MAN_END.strip().splitlines()]
    return "\n".join(lines) + "\n"


_MAN_END: Final = """
.SH "EXIT STATUS"
.TP
.B 0
Everything is fine.
.TP
.B 1
Something was found: a bad line, a wrong label, a copy that had to stay held.
.TP
.B 2
It could not be done; standard error says why.
.SH SIGNALS
Of
.BR "consentry run" :
SIGHUP reads and checks the configuration, and replaces the workers without a gap. SIGTERM and SIGINT drain: what is
under way is finished. A second one ends at once; senders keep what was not answered.
.SH ENVIRONMENT
.TP
.B CONSENTRY_CONFIG
The configuration file, where \\-\\-config is not given.
.TP
.B CONSENTRY_SUBJECT_KEY
The key that hides addresses, before consent.key_file.
.TP
.B CONSENTRY_HOLD_KEYS
The master keys of held mail, before hold.key_file.
.SH FILES
.TP
.I /etc/consentry/filter.toml
The configuration, by custom: it is what \\-\\-config names.
.TP
.I /var/lib/consentry
The store directory, by custom (store.dir): consent index, held mail, journal, keys, caches.
.SH "SEE ALSO"
The directory deploy of the source: README.md, commands.md, journal.md, metrics.md, smtp\\-replies.md, howto/.
"""


def _paragraphs(help_: Sequence[str]) -> Iterator[str]:
    for number, part in enumerate(help_):
        if number:
            yield ".PP"
        yield _roff(part)


def _man_parameters(parameters: Sequence[Parameter]) -> Iterator[str]:
    for one in parameters:
        yield ".TP"
        yield f'.B "{_roff(one.written)}"'
        yield _roff(one.text) or "\\&"


def _roff(text: str) -> str:
    """Text that roff takes as it is."""
    text = text.replace("\\", "\\e").replace("-", "\\-").replace('"', "\\(dq").replace("…", "...")
    text = text.replace("`", "").replace("**", "")
    return f"\\&{text}" if text[:1] in {".", "'"} else text


def rules_page() -> str:
    """deploy/rules.md."""
    law = load_law()
    lines = [RULES_TOP.format(made=MADE)]
    cited: set[str] = set()
    for file in sorted((ROOT / "config" / "rules").glob("*.toml")):
        document = tomllib.loads(file.read_text("utf-8"))
        if "rule" not in document:
            continue
        lines += ["", f"## {file.stem}", "", _theme(file), ""]
        lines += ["| rule | argues for | weight | such as | because of |", "|---|---|---|---|---|"]
        for rule in document["rule"]:
            cited.update(rule["cites"])
            such = rule.get("note") or rule["match"][0]
            cells = (f"`{rule['id']}`", rule["label"], f"{rule['weight']:g}", _cell(such), ", ".join(rule["cites"]))
            lines.append(f"| {' | '.join(cells)} |")
    lines += ["", "## Citations", "", "| citation | says | source |", "|---|---|---|"]
    known = sorted((one for one in cited if one in law), key=lambda one: (one.rstrip("0123456789"), _number(one)))
    lines += [f"| {one} | {_cell(law[one].says)} | {_cell(law[one].source)} |" for one in known]
    return "\n".join(lines) + "\n"


def _number(citation: str) -> int:
    digits = re.search(r"\d+", citation)
    return int(digits[0]) if digits else 0


def _theme(file: Path) -> str:
    """What a rule file says of itself, in the comment at its top."""
    top = []
    for line in file.read_text("utf-8").splitlines():
        if not line.startswith("#"):
            break
        top.append(line.removeprefix("#").strip())
    return " ".join(top)


PAGES: Final = {
    "deploy/commands.md": commands_page,
    "deploy/man/consentry.1": man_page,
    "deploy/rules.md": rules_page,
}


def main() -> None:
    """Write the documents, or with --check compare them."""
    outdated = []
    for name, page in PAGES.items():
        file, text = ROOT / name, page()
        if file.exists() and file.read_text("utf-8") == text:
            continue
        outdated.append(name)
        if "--check" not in sys.argv[1:]:
            file.write_text(text, "utf-8")
    words = "out of date" if "--check" in sys.argv[1:] else "written"
    print("\n".join(f"{name}: {words}" for name in outdated) or "Everything is up to date.")  # noqa: T201 -- a program
    if outdated and "--check" in sys.argv[1:]:
        sys.exit(1)


if __name__ == "__main__":
    main()
