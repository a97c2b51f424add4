"""`systemctl` and `journalctl` for the guides: a few programs, started, reloaded and stopped as their units would.

    howto_service.py DIR systemctl start|stop|restart|reload|is-active UNIT
    howto_service.py DIR journalctl -u UNIT …

DIR/UNIT.json says how a unit starts, and what it prints or where it listens when it serves; DIR/UNIT.started has the
number of its process, DIR/UNIT.log what it printed. Ends with status 1, and says so, when a unit does not start
or stop in time.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

SECONDS = 60.0


def main() -> None:
    """Do one thing."""
    directory, program, *words = sys.argv[1:]
    words = [word for word in words if not word.startswith("-")]
    if program == "journalctl":
        sys.stdout.write((Path(directory) / f"{words[0]}.log").read_text())
        return
    verb, *units = words
    for unit in units:
        base = Path(directory) / unit
        if verb == "is-active":
            print("active" if lives(running(base)) else "inactive")
        if verb in ("stop", "restart"):
            stop(base)
        if verb in ("start", "restart"):
            start(base)
        if verb == "reload":
            reload(base)


def running(base: Path) -> int:
    """The process of a unit, 0 for none."""
    file = base.with_suffix(".started")
    return int(file.read_text()) if file.exists() else 0


def start(base: Path) -> None:
    """Start a unit unless it runs, and wait until it serves."""
    if lives(running(base)):
        return
    unit = json.loads(base.with_suffix(".json").read_text())
    log = base.with_suffix(".log")
    with log.open("wb") as file:
        child = subprocess.Popen(
            unit["start"], stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT, start_new_session=True
        )
    base.with_suffix(".started").write_text(str(child.pid))

    def serves() -> bool:
        if child.poll() is not None:
            sys.exit(f"{base.name} ended with status {child.returncode}: {log.read_text()}")
        return unit["ready"] in log.read_text() and (not unit["port"] or listening(unit["port"]))

    wait(serves, f"{base.name} to start")


def listening(port: int) -> bool:
    """Whether something listens on a port of 127.0.0.1."""
    rows = (line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:])
    return any(row[1] == f"0100007F:{port:04X}" and row[3] == "0A" for row in rows)


def stop(base: Path) -> None:
    """Ask a unit to end, and wait for that."""
    pid = running(base)
    if lives(pid):
        os.kill(pid, signal.SIGTERM)
        wait(lambda: not lives(pid), f"{base.name} to stop")


def reload(base: Path) -> None:
    """Have a unit read its configuration again; of consentry wait until that is done, or was refused."""
    log = base.with_suffix(".log")
    before = log.stat().st_size if log.exists() else 0
    os.kill(running(base), signal.SIGHUP)
    if base.name == "consentry":
        wait(lambda: any(word in log.read_text()[before:] for word in ("reloaded", "reload_refused")), "the reload")


def lives(pid: int) -> bool:
    """Whether a process runs: it may be a zombie, whose parent has ended."""
    try:
        return bool(pid) and Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait(done: Callable[[], bool], what: str) -> None:
    """Wait for something, with an end."""
    end = time.monotonic() + SECONDS
    while not done():
        if time.monotonic() > end:
            sys.exit(f"waited in vain for {what}")
        time.sleep(0.02)


if __name__ == "__main__":
    main()
