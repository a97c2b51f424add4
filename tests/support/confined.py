"""Run a program with few rights, as containers and systemd units do: python confined.py [OPTION...] -- COMMAND...

    --writable DIRECTORY   everything else on the root file system is read-only (root only; may be repeated)
    --user UID             as this user and group, without capabilities (root only)
    --syscalls NAMES       these system calls (separated by spaces) are allowed, all others fail with EPERM (seccomp)
    --no-new-code          memory can never be both writable and executable (PR_SET_MDWE, since Linux 6.3)

Then it becomes the command. Exit status 125, and a line on standard error, when it cannot confine as asked.
"""

import argparse
import ctypes
import ctypes.util
import os
import sys
from collections.abc import Sequence
from pathlib import Path

CANNOT = 125
_CLONE_NEWNS = 0x00020000
_MS_BIND, _MS_REMOUNT, _MS_RDONLY, _MS_REC, _MS_PRIVATE = 4096, 32, 1, 16384, 1 << 18
_PR_SET_NO_NEW_PRIVS, _PR_SET_MDWE, _PR_CAPBSET_DROP = 38, 65, 24
_ALLOW, _EPERM = 0x7FFF0000, 0x00050000 | 1
_MOST_CAPABILITIES = 64

_libc = ctypes.CDLL(None, use_errno=True)


def prefix(
    *, writable: Sequence[Path] = (), user: int | None = None, syscalls: Sequence[str] = (), no_new_code: bool = False
) -> list[str]:
    """What to put before a command so that it is run so."""
    options = [word for directory in writable for word in ("--writable", str(directory))]
    options += ["--user", str(user)] if user is not None else []
    options += ["--syscalls", " ".join(syscalls)] if syscalls else []
    options += ["--no-new-code"] if no_new_code else []
    return [sys.executable, "-I", __file__, *options, "--"]


def main() -> None:
    """Confine ourselves and become the command."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--writable", type=Path, action="append", default=[])
    parser.add_argument("--user", type=int)
    parser.add_argument("--syscalls", default="")
    parser.add_argument("--no-new-code", action="store_true")
    parser.add_argument("command", nargs="+")
    given = parser.parse_args()
    if given.writable:
        _protect_files(given.writable)
    if given.user is not None:
        _become(given.user)
    _call("prctl", _PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    if given.no_new_code:
        _call("prctl", _PR_SET_MDWE, 1, 0, 0, 0)
    if given.syscalls:
        _filter(given.syscalls.split())
    os.execvp(given.command[0], given.command)  # noqa: S606 -- it is what this is for


def _call(name: str, *arguments: object) -> None:
    words = [
        argument if isinstance(argument, bytes | None) else ctypes.c_ulong(int(str(argument))) for argument in arguments
    ]
    if getattr(_libc, name)(*words) < 0:
        raise OSError(ctypes.get_errno(), f"{name}: {os.strerror(ctypes.get_errno())}")


def _protect_files(writable: Sequence[Path]) -> None:
    _call("unshare", _CLONE_NEWNS)
    _call("mount", None, b"/", None, _MS_REC | _MS_PRIVATE, None)
    for directory in writable:
        path = os.fsencode(directory)
        _call("mount", path, path, None, _MS_BIND, None)
    _call("mount", None, b"/", None, _MS_BIND | _MS_REMOUNT | _MS_RDONLY, None)


def _become(user: int) -> None:
    for capability in range(_MOST_CAPABILITIES):
        _libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0)
    os.setgroups([])
    os.setresgid(user, user, user)
    os.setresuid(user, user, user)


def _filter(names: Sequence[str]) -> None:
    """Let these system calls through only. Names that this machine's library does not know are passed over."""
    library = ctypes.CDLL("libseccomp.so.2", use_errno=True)
    library.seccomp_init.restype = ctypes.c_void_p
    context = ctypes.c_void_p(library.seccomp_init(ctypes.c_uint32(_EPERM)))
    for name in names:
        number = library.seccomp_syscall_resolve_name(name.encode())
        if number >= 0 and library.seccomp_rule_add(context, ctypes.c_uint32(_ALLOW), ctypes.c_int(number), 0):
            raise OSError(0, f"seccomp: {name} cannot be allowed")
    if library.seccomp_load(context):
        raise OSError(0, "seccomp: the filter cannot be loaded")


if __name__ == "__main__":
    try:
        main()
    except OSError as error:
        sys.stderr.write(f"confined: {error}\n")
        sys.exit(CANNOT)
