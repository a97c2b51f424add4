"""A consent event as a form on the web gives it."""

from filter.consent import Capture, EventKind, Grade, Scope


def grant(scope: Scope) -> Capture:
    """A yes that holds: freely given, to words that are kept, proved for the one person."""
    return Capture(
        kind=EventKind.GRANT,
        scope=scope,
        source="join",
        method="web form",
        affirmative=True,
        conditional=False,
        wording_id="join-7",
        wording_sha256="ab" * 32,
        grade=Grade.INDIVIDUAL_PROOF,
    )
