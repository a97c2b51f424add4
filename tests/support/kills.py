"""Rounds of load during which the relay, or a part of it, is killed at a random moment, and the ledger of them all.

Raises AssertionError when the relay or a client does not come back; what is wrong in the ledger is in the `Audit`.
"""

import random
import time
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path

from support.ledger import RECORDS, Audit, Letter, Load, audit, deliveries, letters, moody
from support.relay import Relay
from support.script_sink import ScriptSink

KILLS = 2  # in a round; the second may hit a relay that has not recovered from the first
LETTERS = 100  # in a round
MOMENT = 0.5  # seconds from the begin of the load to the first kill, and on to the second, at most


class Victim(StrEnum):
    """What is killed."""

    WORKER = "worker"
    SUPERVISOR = "supervisor"
    TREE = "tree"


WEIGHTS = {Victim.WORKER: 6, Victim.TREE: 3, Victim.SUPERVISOR: 1}


def rounds(
    directory: Path, cache: Path, number: int, seed: int, *, tell: Callable[[str], None] = lambda _line: None
) -> Audit:
    """So many rounds with one installation; every message is answered 250 at the end of its round."""
    chooser = random.Random(seed)
    sent: list[Letter] = []
    answered: set[tuple[str, str]] = set()
    with (
        ScriptSink(moody(random.Random(seed))) as sink,
        Relay(directory, sink.port, cache=cache, consents=RECORDS) as relay,
    ):
        relay.wait_serving()
        for count in range(number):
            batch = letters(chooser, LETTERS, prefix=f"{seed}.{count}")
            victims = chooser.choices(list(WEIGHTS), list(WEIGHTS.values()), k=KILLS)
            load = Load(relay.port, batch, chooser)
            began = time.monotonic()
            load.start()
            for victim in victims:
                time.sleep(chooser.uniform(0.02, MOMENT))
                kill(relay, victim, chooser)
            relay.bring_back()
            load.wait()
            sent += batch
            answered |= load.answered
            took = time.monotonic() - began
            tell(f"round {count + 1}: {', '.join(victims)} killed, replies {dict(load.replies)}, {took:.1f} s")
        code = relay.process.stop(seconds=30)
        assert code == 0, relay.printed
        found = audit(sent, answered, deliveries(sink.transactions), relay.held(), relay.events())
        tell(f"{number} rounds, {number * KILLS} kills, seed {seed}: {found}")
        return found


def kill(relay: Relay, victim: Victim, chooser: random.Random) -> None:
    """Kill, and start again what nobody else starts."""
    if victim is Victim.WORKER:
        relay.kill_worker(chooser.randrange(relay.workers))
        return
    if victim is Victim.TREE:
        relay.kill_tree()
    else:
        relay.kill_supervisor()
    relay.start_again()
