# ruff: noqa: INP001 -- a program, no package
"""Makes the secrets of deploy/compose.yaml at its first start: random, each for one user, none of them ever shown.

    python make_secrets.py DIRECTORY

writes into DIRECTORY/consentry, DIRECTORY/postgres and DIRECTORY/grafana, which are volumes. A file that is there stays
as it is. Exit status 1, with the reason, when something cannot be written.
"""

import os
import sys
from pathlib import Path

# The users of the images.
CONSENTRY, POSTGRES, GRAFANA = 10001, 999, 472
OCTETS = 32
# Each line is one secret and everybody who gets it.
SECRETS = (
    (("consentry/store.password", CONSENTRY), ("postgres/password", POSTGRES)),
    (("consentry/hold.key", CONSENTRY),),
    (("consentry/subject.key", CONSENTRY),),
    (("grafana/admin.password", GRAFANA),),
)


def main(base: Path) -> None:
    """Make what is missing. Raises OSError."""
    for places in SECRETS:
        found = [path.read_text() for name, _ in places if (path := base / name).exists()]
        text = found[0] if found else os.urandom(OCTETS).hex() + "\n"
        for name, owner in places:
            _give(base / name, text, owner)


def _give(path: Path, text: str, owner: int) -> None:
    """Write a file for one user alone, whole or not at all; leaves one that is there."""
    if path.exists():
        return
    path.parent.mkdir(exist_ok=True)
    new = path.with_name(f".{path.name}.new")
    new.unlink(missing_ok=True)
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o400)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(descriptor)
    if os.geteuid() == 0:
        os.chown(new, owner, owner)
        os.chown(path.parent, owner, owner)
        path.parent.chmod(0o700)
    new.rename(path)


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]))
    except OSError as error:
        sys.exit(f"secrets: {error}")
