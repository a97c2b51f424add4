"""The jars of an Apache Kafka broker, fetched from Maven Central by the machine's Maven, and the Java to run them.

Every file has the SHA-256 of jars.sha256, which goes with pom.xml; after a change there, `fetch` says what differs.
Raises NotThereError when this machine cannot have them, and nothing else.
"""

import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
JAVA_VERSION = 17
FETCH_SECONDS = 600


class NotThereError(Exception):
    """No Kafka can be had on this machine; the text says why."""


def fetch(cache: Path) -> Path:
    """The directory of the jars below `cache`, whole or not at all; a later call finds it there."""
    listed = (HERE / "jars.sha256").read_bytes()
    jars = cache / f"jars-{hashlib.sha256(listed).hexdigest()[:12]}"
    if not jars.is_dir():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as work:
            _download(Path(work) / "jars")
            _check(Path(work) / "jars", listed.decode())
            _place(Path(work) / "jars", jars)
    return jars


def find_java() -> str:
    """The Java of JAVA_HOME, or else of PATH, if it is new enough."""
    home = os.environ.get("JAVA_HOME")
    java = shutil.which("java", path=str(Path(home) / "bin")) if home else shutil.which("java")
    if not java:
        raise NotThereError(f"Kafka needs Java {JAVA_VERSION}, and there is no java in {home or 'PATH'}")
    said = subprocess.run([java, "-version"], capture_output=True, text=True, check=False).stderr  # noqa: S603
    found = re.search(r'version "(\d+)', said)
    if not found or int(found[1]) < JAVA_VERSION:
        raise NotThereError(
            f"Kafka needs Java {JAVA_VERSION} or newer; {java} is {said.partition(chr(10))[0] or 'none'}"
        )
    return java


def _download(target: Path) -> None:
    maven = shutil.which("mvn")
    if not maven:
        raise NotThereError("Kafka is fetched by Maven, and there is no mvn in PATH")
    options = ["--batch-mode", "--no-transfer-progress", "--quiet", "--strict-checksums"]
    goal = ["org.apache.maven.plugins:maven-dependency-plugin:copy-dependencies", f"-DoutputDirectory={target}"]
    try:
        done = subprocess.run(  # noqa: S603 -- the machine's Maven
            [maven, *options, "--file", HERE / "pom.xml", *goal],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=FETCH_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise NotThereError(f"Maven has not fetched Kafka's jars within {FETCH_SECONDS} s") from None
    if done.returncode:
        words = re.sub(r"\x1b\[[0-9;]*m", "", done.stdout.decode(errors="replace"))  # colours, whatever it was told
        lines = re.sub(r"^\[ERROR\] | -> \[Help \d+\]$", "", words, flags=re.MULTILINE).splitlines()
        raise NotThereError(f"Maven cannot fetch Kafka's jars: {next(filter(None, lines), done.returncode)}")


def _check(jars: Path, listed: str) -> None:
    """Compare what was fetched with the list; NotThereError names every file that is not as listed."""
    wanted = {name: digest for digest, name in (line.split() for line in listed.splitlines())}
    there = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in jars.iterdir()}
    wrong = sorted(name for name in wanted.keys() | there.keys() if wanted.get(name) != there.get(name))
    if wrong:
        raise NotThereError(f"fetched jars are not those of {HERE.name}/jars.sha256: {', '.join(wrong)}")


def _place(made: Path, target: Path) -> None:
    try:
        made.rename(target)
    except OSError:
        if not target.is_dir():  # unless another run was quicker
            raise
