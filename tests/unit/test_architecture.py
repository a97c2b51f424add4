"""The shape of the code: imports point one way, the core touches nothing outside, modules stay readable."""

import ast
import re
import sys
from functools import cache
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "filter"
MAX_LINES = 400

# In the order of design section 3: a module may import what stands before it, and nothing else of the package.
CORE = (
    "errors",
    "labels",
    "envelope",
    "replies",
    "path",
    "data_reader",
    "xforward",
    "trace",
    "own_mail",
    "dsn",
    "tls_policy",
    "address",
    "charsets",
    "spelled",
    "segments",
    "transfer",
    "mailbox",
    "fields",
    "mime",
    "outline",
    "allocator",
    "styles",
    "pictures",
    "plain",
    "marked",
    "markup",
    "message",
    "sheet",
    "pattern",
    "weights",
    "language",
    "learned",
    "learned_file",
    "rules",
    "memory",
    "campaign_words",
    "campaign_reading",
    "campaign",
    "findings",
    "urgency",
    "classification",
    "classify",
    "facts",
    "evidence",
    "answer",
    "consent",
    "stream",
    "campaigns",
    "policy",
    "decision",
)
STORES = (
    "resources",
    "logs",
    "law",
    "durable",
    "store_directory",
    "sqlite_file",
    "key_files",
    "keys",
    "sealing",
    "master_keys",
    "rule_files",
    "examples",
    "consent_codec",
    "consent_events",
    "consent_quick",
    "consent_rulings",
    "consent_index",
    "consent_build",
    "consent_store",
    "consent_feed",
    "consent_view",
    "consent_formats",
    "consent_rows",
    "consent_import",
)
# The way of a message: what the pipeline needs, the pipeline, the drivers that fulfil it, the doors before it.
TRANSPORT = (
    "ports",
    "held",
    "events",
    "quick_counts",
    "metrics",
    "message_key",
    "judging",
    "kafka_records",
    "kafka_results",
    "kafka_judging",
    "diverting",
    "held_content",
    "kafka_held",
    "recheck",
    "time_limits",
    "delivery",
    "retry",
    "bouncing",
    "handling",
    "releaser",
    "release",
    "auto_release",
    "steady_clock",
    "retention",
    "held_pruning",
    "rejections",
    "completion",
    "tracing",
    "pipeline",
    "journal",
    "flights",
    "recovery",
    "housekeeping",
    "hold_queue",
    "hold_octets",
    "hold_codec",
    "hold_schema",
    "hold_counts",
    "hold_database",
    "hold_scan",
    "hold_check",
    "hold_orders",
    "hold_lines",
    "hold_search",
    "hold_claims",
    "hold_writer",
    "hold_erase",
    "hold_prune",
    "hold_review",
    "hold_store",
    "postgres_schema",
    "postgres_link",
    "postgres_rows",
    "postgres_keys",
    "postgres_store",
    "postgres_query",
    "postgres_prune",
    "postgres_claims",
    "postgres_review",
    "postgres_ledger",
    "campaign_schema",
    "campaign_store",
    "sightings",
    "campaign_watch",
    "smtp_reply",
    "next_hop_commands",
    "next_hop_breaker",
    "next_hop_connection",
    "next_hop_setup",
    "next_hop_pool",
    "next_hop",
    "users",
    "smtp_limits",
    "smtp_lines",
    "smtp_auth",
    "smtp_commands",
    "smtp_proxy",
    "smtp_session",
    "smtp_sessions",
    "smtp_tls",
    "smtp_channel",
    "smtp_dialogue",
    "smtp_in",
    "smtp_door",
    "smtp_service",
    "http_in",
    "kafka_hash",
    "kafka_output",
    "kafka_partition",
    "kafka_in",
    "kafka_writer",
    "kafka_ingest",
    "kafka_release",
    "notice_mail",
    "notices",
    "consent_follower",
    "consent_publisher",
)
OUTERMOST = (
    "config_values",
    "config_errors",
    "config_kinds",
    "config_relay",
    "config_held",
    "config_kafka",
    "config_checks",
    "config",
    "credentials",
    "certificates",
    "kafka_client",
    "hold_stores",
    "health",
    "app",
    "relay_settings",
    "decision_evidence",
    "reviewing",
    "releasing",
    "relay_held",
    "relay_kafka",
    "relay",
    "listeners",
    "control",
    "worker",
    "consent_node",
    "backoff",
    "worker_process",
    "crew",
    "consent_crew",
    "metrics_whole",
    "status",
    "supervisor",
    "display",
    "tables",
    "documents",
    "explain",
    "held_documents",
    "held_view",
    "console",
    "cli_options",
    "cli_query",
    "cli_orders",
    "cli_hold_file",
    "cli_held",
    "cli_campaign",
    "cli_consent",
    "cli_publish",
    "cli_rules",
    "training",
    "evaluation",
    "report",
    "references",
    "cli_learning",
    "cli_run",
    "demo_mailbox",
    "demo_sink",
    "demo_relay",
    "demo_copies",
    "demo_page",
    "demo",
    "demo_broker",
    "demo_kafka",
    "cli",
    "__main__",
)
ORDER = (*CORE, *STORES, *TRANSPORT, *OUTERMOST)

# What the core may use of the standard library: computation only. No files, sockets, processes, threads, clock, log.
PURE = {
    "binascii",
    "bisect",
    "codecs",
    "collections",
    "dataclasses",
    "enum",
    "functools",
    "hashlib",
    "html",
    "ipaddress",
    "itertools",
    "math",
    "re",
    "string",
    "textwrap",
    "tomllib",
    "types",
    "typing",
    "unicodedata",
}
# Libraries the core is built on, each where it is needed and nowhere else.
LIBRARIES = {
    "data_reader": {"hyperscan"},  # the quickest look at line ends and dots
    "address": {"idna"},  # UTS-46 domains
    "mime": {"io"},  # its newline decoder, which is no I/O: the quickest look at line ends
    "styles": {"hyperscan", "selectolax"},  # one pass over the style declarations of a document
    "marked": {"selectolax"},  # HTML to text
    "facts": {"orjson"},  # what is kept with each held message
    "rules": {"hyperscan"},  # the compiled rule set
}
OUTWARD_CALLS = {"open", "print", "input", "exec", "eval", "__import__"}

MODULES = {path.stem: path for path in sorted(PACKAGE.glob("*.py")) if path.stem != "__init__"}


@cache
def _tree(module: str) -> ast.Module:
    return ast.parse(MODULES[module].read_text())


def _imports(module: str) -> tuple[set[str], set[str]]:
    """The modules of the package and the outside packages that a module imports, anywhere in it."""
    inside, outside = set(), set()
    for node in ast.walk(_tree(module)):
        if isinstance(node, ast.Import):
            outside.update(alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level:
            inside.update([node.module] if node.module else [alias.name for alias in node.names])
        elif isinstance(node, ast.ImportFrom):
            outside.add(node.module.partition(".")[0])
    return inside, outside


def test_every_module_has_its_place():
    """Every module of the package stands in the order above, once."""
    assert len(set(ORDER)) == len(ORDER)
    assert set(MODULES) <= set(ORDER), "say in tests/unit/test_architecture.py where the new module stands"


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_one_way(module):
    """A module imports only modules that stand before it, and those by relative import."""
    inside, outside = _imports(module)
    before = ORDER[: ORDER.index(module)]
    assert inside - {"__version__"} <= set(before)
    assert PACKAGE.name not in outside


@pytest.mark.parametrize("module", [module for module in CORE if module in MODULES])
def test_the_core_touches_nothing_outside(module):
    """A core module computes: no I/O, no clock, no log, and only the libraries it is built on."""
    _, outside = _imports(module)
    assert outside <= PURE | LIBRARIES.get(module, set())
    called = {
        node.func.id
        for node in ast.walk(_tree(module))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }
    assert not called & OUTWARD_CALLS


def test_libraries_are_where_they_are_needed():
    """The table of libraries names no module that does not use them."""
    assert {module: _imports(module)[1] - PURE for module in LIBRARIES} == LIBRARIES


def test_pure_is_standard_library():
    """What the core may use besides is part of Python."""
    assert set(sys.stdlib_module_names) >= PURE


@pytest.mark.parametrize("module", MODULES)
def test_modules_stay_short(module):
    """A module that outgrows its limit has become two things."""
    assert len(MODULES[module].read_text().splitlines()) <= MAX_LINES


@pytest.mark.parametrize("module", MODULES)
def test_every_module_says_what_it_is(module):
    """A module opens with its job."""
    assert ast.get_docstring(_tree(module))


@pytest.mark.parametrize("module", MODULES)
def test_no_group_is_repeated_possessively(module):
    """Python before 3.11.5 matches `(…)*+` wrongly where the group can be given back; Debian 12 has 3.11.2."""
    assert not re.search(r"\)(?:[*+?]|\{[\d,]+\})\+", MODULES[module].read_text())
