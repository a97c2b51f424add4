"""A Postfix of its own: private configuration, queue and log, on loopback ports, started and stopped by the test.

Nothing under /etc is read or changed. Starting raises AssertionError with the log when the master does not come up; a
wait without success raises AssertionError with the queue.
"""

import grp
import json
import os
import pwd
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from support import parts
from support.processes import Done, Process, free_port, listening, run, wait_for_port, wait_until

# Postfix wants an owner and a group that nobody else uses. Where it is only unpacked, those that Debian always has do.
OWNERS, GROUPS = ("postfix", "mail", "daemon"), ("postdrop", "uucp", "tty")
QUEUES = (
    *("active", "bounce", "corrupt", "defer", "deferred", "flush", "hold", "incoming", "maildrop"),
    *("private", "public", "saved", "trace"),
)

MAIN = """\
compatibility_level = 3.6
queue_directory = {home}/queue
data_directory = {home}/data
meta_directory = {home}/etc
command_directory = {commands}
daemon_directory = {daemons}
shlib_directory = {libraries}
maillog_file = {home}/log
maillog_file_prefixes = {home}
mail_owner = {owner}
setgid_group = {group}
import_environment = MAIL_CONFIG MAIL_DEBUG MAIL_LOGTAG TZ LANG=C LD_LIBRARY_PATH POSTLOG_SERVICE POSTLOG_HOSTNAME
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
myhostname = mta.example
mydestination =
alias_maps =
alias_database =
mynetworks = 127.0.0.0/8
smtpd_recipient_restrictions = permit_mynetworks, reject
smtpd_peername_lookup = no
smtpd_client_connection_rate_limit = 0
smtp_dns_support_level = disabled
smtp_connection_cache_on_demand = no
"""
MASTER = """\
pickup unix n - n 60 1 pickup
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
tlsmgr unix - - n 1000? 1 tlsmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
flush unix n - n 1000? 0 flush
proxymap unix - - n - - proxymap
smtp unix - - n - - smtp
relay unix - - n - - smtp
showq unix n - n - - showq
error unix - - n - - error
retry unix - - n - - error
discard unix - - n - - discard
virtual unix - n n - - virtual
anvil unix - - n - 1 anvil
postlog unix-dgram n - n - 1 postlogd
"""
# SMTPD_PROXY_README of Postfix: the second smtpd takes back what the filter has seen, and asks nothing again.
REENTRY = """\
127.0.0.1:{port} inet n - n - 100 smtpd
  -o smtpd_proxy_filter=
  -o smtpd_authorized_xforward_hosts=127.0.0.0/8
  -o smtpd_client_restrictions=
  -o smtpd_helo_restrictions=
  -o smtpd_sender_restrictions=
  -o smtpd_recipient_restrictions=permit_mynetworks,reject
  -o smtpd_data_restrictions=
  -o receive_override_options=no_unknown_recipient_checks
"""


class Postfix:
    """One instance, made by `relaying`, `receiving` or `filtering`, running inside `with` or from `start` to `stop`.

    `settings` are lines of main.cf over those above. `port` is where it takes mail; `reentry_port` where it takes back
    what a filter has let through (of `filtering` only, known before it starts, because the filter must be told).
    """

    def __init__(self, settings: Mapping[str, str], *, filter_port: int | None = None) -> None:
        self.port = free_port()
        self.reentry_port = free_port() if filter_port else 0
        self._settings = dict(settings)
        self._filter_port = filter_port
        self._process: Process | None = None
        self._text = ""

    @classmethod
    def relaying(cls, to_port: int, **settings: str) -> Self:
        """An MTA that queues and passes everything on to a port of 127.0.0.1: in front of us, or beside us."""
        return cls({"relayhost": f"[127.0.0.1]:{to_port}", **settings})

    @classmethod
    def receiving(cls, **settings: str) -> Self:
        """The MTA behind us: it delivers everything to a mailbox, see `mailbox`."""
        user = pwd.getpwnam(_first_user())
        virtual = {
            "virtual_mailbox_domains": "static:all",
            "virtual_mailbox_maps": "static:box/",
            "virtual_mailbox_base": "{home}",
            "virtual_uid_maps": f"static:{user.pw_uid}",
            "virtual_gid_maps": f"static:{user.pw_gid}",
            "virtual_minimum_uid": "1",
        }
        return cls({**virtual, **settings})

    @classmethod
    def filtering(cls, filter_port: int, to_port: int, **settings: str) -> Self:
        """An MTA with a before-queue content filter: what that lets through comes back at `reentry_port`, is queued
        and relayed to `to_port`.
        """
        return cls({"relayhost": f"[127.0.0.1]:{to_port}", **settings}, filter_port=filter_port)

    def start(self) -> None:
        """Write the configuration, start the master and wait until it listens."""
        self._part = parts.need("postfix", as_root=True)
        # Short, because sockets live below it, and readable for the owner of the queue, unlike pytest's directories.
        self.home = Path(tempfile.mkdtemp(prefix="postfix-"))
        self.home.chmod(0o755)
        try:
            self._start(_first_user())
        except BaseException:
            self.stop()
            raise

    def _start(self, owner: str) -> None:
        places = self._places()
        self._directories(owner)
        defaults = MAIN.format(home=self.home, owner=owner, group=_first_group(), **places)
        own = "".join(f"{key} = {value.replace('{home}', str(self.home))}\n" for key, value in self._settings.items())
        overridden = tuple(f"{key} =" for key in self._settings)  # a setting given twice makes Postfix warn
        kept = [line for line in defaults.splitlines(keepends=True) if not line.startswith(overridden)]
        for name, text in (("main.cf", "".join([*kept, own])), ("master.cf", self._doors() + MASTER)):
            file = self.home / "etc" / name
            file.write_text(text)
            os.utime(file, (file.stat().st_mtime - 60,) * 2)  # Postfix waits seconds for a file that was just written
        master = [f"{places['daemons']}/master", "-c", str(self.home / "etc"), "-d"]
        self._process = Process(master, self._part.environment, self.home / "output")
        try:
            for port in filter(None, (self.port, self.reentry_port)):
                wait_for_port(port, self._process)
        except AssertionError as late:  # the master tells nobody but syslog; every program has the same complaint
            raise AssertionError(f"{late}{self._postqueue('-j').output}{self.log()}") from None

    def stop(self) -> None:
        """End every process of the instance, once it was started, and remove its files; the log stays readable."""
        if self._process:
            self._process.stop()
            wait_until(lambda: not listening(self.port), "the end of every process of Postfix")
            self._text = self.log()
            self._process = None
        shutil.rmtree(self.home, ignore_errors=True)

    def log(self) -> str:
        """The mail log so far."""
        file = self.home / "log"
        return file.read_text(errors="replace") if file.exists() else self._text

    def queue(self) -> list[dict[str, object]]:
        """Every message in the queue, as `postqueue -j` gives it: queue_name, queue_id, sender, recipients and more."""
        done = self._postqueue("-j")
        assert done.code == 0, done.output
        return [json.loads(line) for line in done.output.splitlines()]

    def deferred(self) -> list[dict[str, object]]:
        """What waits for another try."""
        return [entry for entry in self.queue() if entry["queue_name"] == "deferred"]

    def flush(self) -> None:
        """Try everything that is deferred again, now."""
        done = self._postqueue("-f")
        assert done.code == 0, done.output

    def wait_empty(self, *, seconds: float = 15) -> None:
        """Return when nothing is left in the queue."""
        try:  # asked twice, because what moves to another queue meanwhile is overlooked once
            wait_until(lambda: not self.queue() and not self.queue(), "an empty queue", seconds=seconds)
        except AssertionError as late:
            raise AssertionError(f"{late}; queue {self.queue()}; log {self.log()}") from None

    def wait_deferred(self, messages: int, *, seconds: float = 15) -> list[dict[str, object]]:
        """Return what is deferred as soon as it is so many messages."""
        wait_until(lambda: len(self.deferred()) >= messages, f"{messages} deferred messages", seconds=seconds)
        return self.deferred()

    def mailbox(self) -> list[bytes]:
        """What `receiving` has delivered, oldest first, LF line ends: a copy per recipient, with the envelope in
        Return-Path, X-Original-To and Delivered-To at its head.
        """
        files = sorted((self.home / "box/new").glob("*"), key=lambda file: file.stat().st_mtime_ns)
        return [file.read_bytes() for file in files]

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self.stop()

    def _places(self) -> dict[str, str]:
        """Where the programs are: below the root that they were unpacked in, or where an installed Postfix says."""
        names = {"commands": "command_directory", "daemons": "daemon_directory", "libraries": "shlib_directory"}
        if self._part.root:
            lib = self._part.root / "usr/lib/postfix"
            return {"commands": f"{self._part.root}/usr/sbin", "daemons": f"{lib}/sbin", "libraries": str(lib)}
        told = {
            key: run([self._part.program("postconf"), "-dh", name], self._part.environment)
            for key, name in names.items()
        }
        return {key: done.output.splitlines()[-1] for key, done in told.items()}  # warnings stand before

    def _directories(self, owner: str) -> None:
        for name in ("etc", "data", "box", "queue", "queue/pid", *(f"queue/{name}" for name in QUEUES)):
            (self.home / name).mkdir()
        for name in ("data", "box", *(f"queue/{name}" for name in QUEUES)):
            (self.home / name).chmod(0o755 if name == "queue/public" else 0o700)
            shutil.chown(self.home / name, owner)

    def _doors(self) -> str:
        """The lines of master.cf that listen."""
        first = f"127.0.0.1:{self.port} inet n - n - 100 smtpd\n"
        if not self._filter_port:
            return first
        return f"{first}  -o smtpd_proxy_filter=127.0.0.1:{self._filter_port}\n{REENTRY.format(port=self.reentry_port)}"

    def _postqueue(self, *arguments: str) -> Done:
        return run([self._part.program("postqueue"), "-c", self.home / "etc", *arguments], self._part.environment)


def _first_user() -> str:
    known = {entry.pw_name for entry in pwd.getpwall()}
    return next(name for name in OWNERS if name in known)


def _first_group() -> str:
    known = {entry.gr_name for entry in grp.getgrall()}
    return next(name for name in GROUPS if name in known)
