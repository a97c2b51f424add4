"""Programs of other projects that integration tests talk to: found on this machine, or fetched for the tests alone.

Nothing is installed: Debian packages are unpacked into .cache/parts and run from there, so that no service starts, no
other MTA is displaced and nothing outside the checkout changes. `need` is how a test asks for a part: a part that
cannot be had skips the test with the reason, and fails it where CI=true. No other exception leaves this module.
"""

import functools
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

import pytest
from support.alone import alone

CACHE = Path(__file__).parents[2] / ".cache" / "parts"
SERVERS = "usr/lib/postgresql/*/bin"  # where Debian keeps what is not for a user's path
SYSTEM_PATH = os.pathsep.join(
    [
        *(str(directory) for directory in sorted(Path("/").glob(SERVERS), reverse=True)),
        *(os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"),  # users lack the last two
    ]
)
UPDATE_SECONDS, DOWNLOAD_SECONDS = 120, 180


class NotThereError(Exception):
    """A part that is not on this machine and cannot be fetched; the text says why."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """What a part is made of: the programs a test may start, and the Debian packages that hold them."""

    programs: tuple[str, ...]
    packages: tuple[str, ...]


RECIPES = {
    "postgresql": Recipe(("initdb", "postgres"), ("postgresql",)),
    "postfix": Recipe(("smtp-source", "smtp-sink", "postconf", "postqueue"), ("postfix",)),
    # What Debian's Exim is built for is a user that its installation makes: nss_wrapper plays that.
    "exim": Recipe(("exim4", "update-exim4.conf"), ("exim4-daemon-light", "libnss-wrapper")),
    "jq": Recipe(("jq",), ("jq",)),
    "openssl": Recipe(("openssl",), ("openssl",)),
    "curl": Recipe(("curl",), ("curl",)),
    "prometheus": Recipe(("prometheus", "promtool"), ("prometheus",)),
    # Without Net::SSLeay swaks speaks no TLS.
    "swaks": Recipe(("swaks",), ("swaks", "libnet-ssleay-perl")),
}


@dataclass(frozen=True, slots=True)
class Part:
    """Programs that are there. `root` is where they were unpacked, None when the machine has them itself."""

    root: Path | None
    path: str
    extra: dict[str, str] = field(default_factory=dict)

    def program(self, name: str) -> str:
        """The full path of a program of this part; AssertionError when it is not one of them."""
        found = shutil.which(name, path=self.path)
        assert found, f"{name} is not in {self.path}"
        return found

    @property
    def environment(self) -> dict[str, str]:
        """What its programs must be started with: nothing of the caller's own but what unpacked libraries need."""
        return {"PATH": self.path, "LANG": "C", "TZ": "UTC", **self.extra}


def is_root() -> bool:
    """Whether the tests run as root."""
    return os.geteuid() == 0


def need(name: str, *, as_root: bool = False) -> Part:
    """The part of this name. Ends the test with the reason when it cannot run here: skipped, or failed if CI=true."""
    if as_root and not is_root():
        without(f"a running {name} needs root")
    part = _found(name)
    return part if isinstance(part, Part) else without(part)


def find(name: str, *, cache: Path = CACHE, path: str = SYSTEM_PATH) -> Part:
    """Look for a part on `path`, then in `cache`, and fetch it into `cache` as a last resort.

    Raises NotThereError when it is in neither and cannot be fetched.
    """
    recipe = RECIPES[name]
    if all(shutil.which(program, path=path) for program in recipe.programs):
        return Part(None, path)
    root = cache / name
    if not root.is_dir():
        _fetch(name, recipe.packages, root, path)
    return _unpacked(root, path)


@functools.cache  # asked once per run: a machine without a network must not wait for every test
def _found(name: str) -> Part | str:
    try:
        with alone(f"part-{name}"):
            return find(name)
    except NotThereError as reason:
        return str(reason)


def without(reason: str) -> NoReturn:
    """End a test that cannot run here for this reason: skipped, or failed if CI=true."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"CI=true: {reason}", pytrace=False)
    pytest.skip(reason)


def _unpacked(root: Path, path: str) -> Part:
    """Programs under `root` with the libraries and Perl modules that were unpacked beside them."""
    libraries = [root / "usr/lib/postfix", *root.glob("usr/lib/*-linux-*"), *root.glob("lib/*-linux-*")]
    modules = [*root.glob("usr/share/perl5"), *root.glob("usr/share/perl/*"), *root.glob("usr/lib/*/perl*/*")]
    extra = {"LD_LIBRARY_PATH": _joined(libraries), "PERL5LIB": _joined(modules)}
    programs = [*sorted(root.glob(SERVERS), reverse=True), root / "usr/sbin", root / "usr/bin"]
    return Part(root, os.pathsep.join([_joined(programs), path]), extra)


def _joined(directories: Sequence[Path]) -> str:
    return os.pathsep.join(str(directory) for directory in directories if directory.is_dir())


def _fetch(name: str, packages: Sequence[str], root: Path, path: str) -> None:
    """Download packages with all that this machine lacks for them; unpack them under `root`, whole or not at all."""
    for program in ("apt-get", "dpkg"):
        if not shutil.which(program, path=path):
            raise NotThereError(f"{name} is not installed, and without {program} it cannot be fetched")
    root.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=root.parent) as directory:
        work = Path(directory)
        for archive in _download(name, packages, work, path):
            _run(name, ["dpkg", "-x", archive, work / "root"], path, DOWNLOAD_SECONDS)
        try:
            (work / "root").rename(root)
        except OSError:
            if not root.is_dir():  # unless another run was quicker
                raise


def _download(name: str, packages: Sequence[str], work: Path, path: str) -> list[Path]:
    """The archives, by the package lists of the machine, or by fresh ones of our own where those are empty or old."""
    for directory in ("archives/partial", "lists/partial"):
        (work / directory).mkdir(parents=True)
    settings: dict[str, str | Path] = {
        "Dir::Cache::archives": work / "archives",
        "Dir::Cache::pkgcache": "",  # the machine's own caches stay as they are
        "Dir::Cache::srcpkgcache": "",
        "Debug::NoLocking": "1",  # nothing is installed, so that nobody need wait for us
        "APT::Sandbox::User": "",
        "Acquire::Retries": "1",
        "Acquire::http::Timeout": "20",
        "Acquire::https::Timeout": "20",
    }
    own_lists = {**settings, "Dir::State::lists": work / "lists"}
    install = ["install", "--download-only", "--no-install-recommends", "--yes", *packages]
    try:
        _run(name, [*_apt(settings), *install], path, DOWNLOAD_SECONDS)
    except NotThereError as first:
        try:
            _run(name, [*_apt(own_lists), "update"], path, UPDATE_SECONDS)
            _run(name, [*_apt(own_lists), *install], path, DOWNLOAD_SECONDS)
        except NotThereError:  # without a network it says only that the fresh lists are empty
            raise NotThereError(f"{first} (nor by fresh package lists)") from None
    return sorted((work / "archives").glob("*.deb"))


def _apt(settings: dict[str, str | Path]) -> list[str]:
    return ["apt-get", "-qq", *(word for key, value in settings.items() for word in ("-o", f"{key}={value}"))]


def _run(name: str, command: Sequence[str | Path], path: str, seconds: float) -> None:
    environment = {**os.environ, "PATH": path, "LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"}
    missing = f"{name} is not installed and could not be fetched"
    try:
        done = subprocess.run(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NotThereError(f"{missing}: {error}") from None
    if done.returncode:
        words = [line for line in done.stderr.splitlines() if line.startswith("E:")] or done.stderr.splitlines()
        raise NotThereError(f"{missing}: {words[0] if words else command[0]}")
