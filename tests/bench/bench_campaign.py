"""Cost of a campaign's fingerprint, and how often copies of a template share one: bench_campaign.py [--table].

Prints the least and the median processor time for a message over rounds of copies that were not seen before: a letter
of 4 kB with a greeting, a few figures and one paragraph for each recipient alone; the statement of `bench_classify`;
and "cold", the first copy that a process meets. `--table` prints for each template how many of fifty copies share its
campaign, with values that were looked at while the fingerprint was made (tuned) and with the second list.
"""

import argparse
import random
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable
from email.message import EmailMessage
from email.policy import SMTP
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench_classify import statement
from support.campaigns import FORMS, KEPT_BACK, TUNED, copies, templates

from filter import campaign_reading
from filter.campaign import fingerprint
from filter.message import Message, parse_message

ROUNDS, CALLS = 15, 50
NAMES = ("Anna Miller", "Liam O'Brien", "Zoë van der Berg", "Ravi Krishnamurthy", "Ngozi Okonjo", "Rose de la Cruz")
TEXT = (
    "We are writing to tell you how we look after your account from the autumn. Nothing that you pay changes.",
    "When you sign in you will see every payment as soon as it is made, and you can search through all of them.",
    "If you would rather talk to somebody, call the number on the back of your card. Lines are open all week.",
    "Please check that the address we hold for you is right, because we send new cards to it without asking again.",
)


def letter(seed: int) -> bytes:
    """A letter of 4 kB of text for one recipient."""
    chance = random.Random(seed)
    name = chance.choice(NAMES)
    personal = (
        f"Your account ending {chance.randrange(10_000)} had £{chance.randrange(99_999) / 100:.2f} in it, {name}."
    )
    constant = [
        f"{TEXT[n % 4]} {TEXT[(n + 1) % 4]} This is part {'abcdefghijklmnopqrst'[n]} of the letter." for n in range(17)
    ]
    sent = EmailMessage(policy=SMTP)
    sent["From"], sent["To"] = "Example Bank <post@bank.example>", f'"{name}" <x@elsewhere.example>'
    sent["Subject"] = "How we look after your account"
    sent.set_content(
        "\n\n".join([f"Dear {name},", personal, *constant, "Yours sincerely"]) + "\n", cte="quoted-printable"
    )
    return sent.as_bytes()


def measure(name: str, make: Callable[[int], bytes]) -> None:
    """Print the cost for copies of one template."""
    messages = [parse_message(make(seed)) for seed in range((ROUNDS + 2) * CALLS)]
    campaigns = {fingerprint(message) for message in messages[: 2 * CALLS]}
    times = []
    for first in range(2 * CALLS, len(messages), CALLS):
        start = time.process_time()
        for message in messages[first : first + CALLS]:
            fingerprint(message)
        times.append((time.process_time() - start) / CALLS * 1e6)
    size = sum(map(len, (segment.text for segment in messages[0].segments)))
    print(
        f"{name:12} {size:6} characters, {len(messages[0].segments):4} segments: {min(times):5.0f} us at least, "
        f"{statistics.median(times):5.0f} us median, {cold(messages[0]):5.0f} us cold, {len(campaigns)} campaign"
    )


def cold(message: Message) -> float:
    """Microseconds for a message of which nothing was met before."""
    for memory in (campaign_reading._readings, campaign_reading._sentence_readings):
        memory._young, memory._old, memory._used = {}, {}, 0
    start = time.process_time()
    fingerprint(message)
    return (time.process_time() - start) * 1e6


def table() -> None:
    """Print the hit rate of each template."""
    print(f"{'template':28}" + "".join(f"{form + ' ' + kind:>16}" for kind in ("tuned", "second") for form in FORMS))
    hits: Counter[str] = Counter()
    for template in templates():
        shown = []
        for values in (TUNED, KEPT_BACK):
            for form in FORMS:
                found = Counter(fingerprint(parse_message(raw)) for raw in copies(template, form, 50, values))
                shown.append(found.most_common(1)[0][1])
                hits[values] += shown[-1]
        print(f"{template.id:28}" + "".join(f"{hit:16}" for hit in shown))
    whole = 50 * len(FORMS) * len(templates())
    print(f"all: {hits[TUNED] / whole:.2%} tuned, {hits[KEPT_BACK] / whole:.2%} second")


def main() -> None:
    """Measure and print."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--table", action="store_true")
    if arguments.parse_args().table:
        table()
        return
    measure("letter", letter)
    measure("statement", lambda seed: statement(seed=seed))


if __name__ == "__main__":
    main()
