"""What tests get from the Go module proxy: Helm, built from its source, and schemas that lie in published modules.

Go checks every module against the checksum database. What was made is kept outside the checkout, in the user's cache,
as building Helm takes minutes: `begin` does that in the background, at the lowest priority. What cannot be had skips
the test with the reason, and fails it where CI=true. No other exception leaves this module.
"""

import atexit
import contextlib
import functools
import json
import os
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path

from support.alone import alone
from support.parts import NotThereError, without

HELM = ("helm.sh/helm/v3", "v3.22.0")
COMPOSE = ("github.com/compose-spec/compose-go/v2", "v2.16.2")
OPERATOR = ("github.com/prometheus-operator/prometheus-operator", "v0.85.0")
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "consentry-tests"
PATH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/local/go/bin"])
BUILD_SECONDS, DOWNLOAD_SECONDS = 900, 180
# Compiling twice as fast counts for more than Helm doing so.
QUICKLY = ("-gcflags=all=-N -l", "-ldflags=-s -w")

_building: threading.Thread | None = None


def begin() -> None:
    """Have Helm built in the background if it is missing, so that the test that needs it need not wait."""
    global _building  # noqa: PLW0603 -- one for a run
    if _building is None and not _helm().exists() and shutil.which("go", path=PATH):
        _building = threading.Thread(target=_found_helm, daemon=True)
        _building.start()


def helm() -> Path:
    """The helm of HELM."""
    if _building is not None:
        _building.join()
    found = _found_helm()
    return found if isinstance(found, Path) else without(found)


def compose_schema() -> Path:
    """The JSON schema of the Compose specification."""
    return _need(COMPOSE, "schema/compose-spec.json")


def operator_definition(plural: str) -> Path:
    """The CustomResourceDefinition of an object of the Prometheus operator, such as "servicemonitors"."""
    return _need(OPERATOR, f"example/prometheus-operator-crd/monitoring.coreos.com_{plural}.yaml")


def _helm() -> Path:
    return CACHE / f"helm-{HELM[1]}"


@functools.cache
def _found_helm() -> Path | str:
    place = _helm()
    try:
        with alone("helm", directory=CACHE):
            if place.exists():
                return place
            with _workshop() as environment:
                command = ["nice", "-n", "19", "go", "install", *QUICKLY, f"{HELM[0]}/cmd/helm@{HELM[1]}"]
                _run("helm", command, environment, BUILD_SECONDS)
                (Path(environment["GOBIN"]) / "helm").rename(place)
    except (NotThereError, OSError) as reason:
        return str(reason)
    return place


def _need(module: tuple[str, str], file: str) -> Path:
    found = _found(module, file)
    return found if isinstance(found, Path) else without(found)


@functools.cache
def _found(module: tuple[str, str], file: str) -> Path | str:
    name, version = module
    place = CACHE / f"{name.split('/')[2]}-{version}-{Path(file).name}"
    try:
        with alone(place.name, directory=CACHE):
            if place.exists():
                return place
            with _workshop() as environment:
                command = ["go", "mod", "download", "-json", f"{name}@{version}"]
                said = _run(name, command, environment, DOWNLOAD_SECONDS)
                directory = json.loads(said[said.index("{") :])["Dir"]  # behind a line on what is being fetched
                new = Path(environment["GOBIN"]) / place.name
                shutil.copyfile(Path(directory) / file, new)
                new.rename(place)
    except (NotThereError, OSError) as reason:
        return str(reason)
    return place


@contextlib.contextmanager
def _workshop():
    """A Go environment of its own on the file system of the cache; nothing of it stays."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE, prefix="building-", ignore_cleanup_errors=True) as directory:
        work = Path(directory)
        (work / "bin").mkdir()
        yield {
            **os.environ,
            "PATH": PATH,
            "GOPATH": str(work / "go"),
            "GOCACHE": str(work / "cache"),
            "GOBIN": str(work / "bin"),
            "GOFLAGS": "-modcacherw",
            "GOTOOLCHAIN": "local",
            "GOGC": "400",
        }


def _run(name: str, command: list[str], environment: Mapping[str, str], seconds: float) -> str:
    if not shutil.which("go", path=PATH):
        raise NotThereError(f"{name} is not here, and without Go it cannot be fetched")
    missing = f"{name} could not be fetched by Go"
    with tempfile.TemporaryFile("w+") as output:
        try:
            child = subprocess.Popen(
                command,
                env=dict(environment),
                cwd=environment["GOPATH"].removesuffix("go"),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        except OSError as error:
            raise NotThereError(f"{missing}: {error}") from None
        stop = functools.partial(_end, child)
        atexit.register(stop)
        try:
            code = child.wait(seconds)
        except subprocess.TimeoutExpired:
            raise NotThereError(f"{missing} in {seconds} s") from None
        finally:
            stop()
            atexit.unregister(stop)
        output.seek(0)
        said = output.read()
    if code:
        raise NotThereError(f"{missing}: {said.strip().splitlines()[-1:]}")
    return said


def _end(child: subprocess.Popen[bytes]) -> None:
    """End a program of ours and what it started, if it has not ended."""
    if child.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, 9)
        child.wait()
