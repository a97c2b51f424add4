"""The closed vocabulary: channels, labels, segment kinds, dispositions (design: words of the field, used everywhere).

Pure names with their meaning; no behaviour that could fail.
"""

from enum import StrEnum


class Channel(StrEnum):
    """How a message reaches a person; consent is given per channel (PECR reg 2(1), law rules R4, R26)."""

    EMAIL = "email"
    SMS = "sms"
    MMS = "mms"
    PUSH = "push"
    INAPP = "inapp"
    SOCIAL_DM = "social_dm"
    VOICEMAIL = "voicemail"


class Label(StrEnum):
    """What a message is, judged from its content only (law rules R1-R19)."""

    SERVICE = "service"
    MARKETING = "marketing"
    MIXED = "mixed"
    RE_PERMISSION = "re_permission"
    SURVEY = "survey"

    @property
    def promotional(self) -> bool:
        """Whether the law treats it as direct marketing: marketing, mixed and re-permission (R1, R3, R12)."""
        return self in _PROMOTIONAL


_PROMOTIONAL = frozenset({Label.MARKETING, Label.MIXED, Label.RE_PERMISSION})


class SegmentLabel(StrEnum):
    """What one segment is. `neutral` is branding, greetings, plain footers and anything without evidence (R11)."""

    NEUTRAL = "neutral"
    SERVICE = "service"
    SURVEY = "survey"
    RE_PERMISSION = "re_permission"
    MARKETING = "marketing"


class Disposition(StrEnum):
    """What happens to one recipient's copy."""

    RELAY = "relay"
    HOLD = "hold"
    DIVERT = "divert"
    REJECT = "reject"
    TEMPFAIL = "tempfail"


class SegmentKind(StrEnum):
    """Where a piece of text stands in the message."""

    SUBJECT = "subject"
    PREHEADER = "preheader"
    HEADING = "heading"
    PARAGRAPH = "paragraph"
    BUTTON = "button"
    CELL = "cell"
    ALT = "alt"
    FOOTER = "footer"
    QUOTED = "quoted"
    SENDER = "sender"
