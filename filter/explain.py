"""A decision as a page that a lawyer can read: what the message is, and what happens to each recipient's copy, and why.

Builds rich renderables from a `Decision`; prints nothing. Message text is shown as `Text`, never as markup, with
unprintable characters made visible. Raises nothing.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from itertools import pairwise
from typing import Final

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.rule import Rule as Line
from rich.table import Table
from rich.text import Text

from .campaigns import ANY_EVIDENCE, CampaignDecision, Decided
from .classification import WORDS, Classification, Evidence, JudgedSegment
from .consent import (
    ANY,
    ConsentAnswer,
    ConsentEvent,
    ConsentState,
    Considered,
    EventKind,
    Outcome,
    Review,
    Scope,
    UnknownBecause,
)
from .decision import Decision, RecipientDecision
from .display import visible
from .labels import Label, SegmentLabel
from .law import LawRule, cited
from .message import DefectCode
from .policy import Disposition, Reason, Trouble
from .stream import Mode

MEANING: Final = {
    Label.SERVICE: (
        "service",
        "Information on a running contract, purchase, account or appointment; nothing promotes.",
        "R10",
    ),
    Label.MARKETING: (
        "marketing",
        "It promotes goods, services, aims or ideals, or benefits of what is already held.",
        "R1",
    ),
    Label.MIXED: (
        "mixed",
        "A service message with a promotional passage: the law treats the whole as marketing.",
        "R12",
    ),
    Label.RE_PERMISSION: (
        "re-permission",
        "It asks for consent or to reconsider a refusal: that is itself marketing.",
        "R35",
    ),
    Label.SURVEY: (
        "survey",
        "Genuine research without promotion or request for consent: it may go where service goes.",
        "R7",
    ),
}
STATE: Final = {
    ConsentState.CONSENT: "has consented",
    ConsentState.SOFT_OPT_IN: "soft opt-in: own customer, own similar products",
    ConsentState.SOLICITED: "asked for this",
    ConsentState.CORPORATE: "corporate subscriber, no objection",
    ConsentState.OBJECTED: "has said no",
    ConsentState.UNKNOWN: "no valid basis on record",
}
DONE: Final = {
    Disposition.RELAY: ("RELAY", "bold green"),
    Disposition.HOLD: ("HOLD", "bold red"),
    Disposition.DIVERT: ("DIVERT", "bold yellow"),
    Disposition.REJECT: ("REJECT", "bold red"),
    Disposition.TEMPFAIL: ("TEMPFAIL", "bold yellow"),
}
BECAUSE: Final = {
    Reason.SERVICE: "a service message goes to everyone",
    Reason.SURVEY: "genuine research goes to everyone",
    Reason.CONSENT: "valid consent for this organisation, channel and topic",
    Reason.SOFT_OPT_IN: "the soft opt-in covers it",
    Reason.SOLICITED: "the person asked for this very message",
    Reason.CORPORATE: "a corporate subscriber who has not objected",
    Reason.OBJECTED: "promotional, and the person has said no",
    Reason.NO_CONSENT: "promotional, and no valid consent or other basis is on record",
    Reason.BLOCKED: "the address is blocked for all mail",
    Reason.NULL_SENDER: "a report (null sender) is never held",
    Reason.DISGUISED_MARKETING: "declared as service, but its content promotes",
    Reason.CONSENT_UNAVAILABLE: "promotional, and the consent index cannot be read",
    Reason.CONSENT_STALE: "promotional, and the consent data is older than allowed",
    Reason.BAD_ADDRESS: "promotional, and the address cannot be looked up",
    Reason.UNREAD_CONTENT: "content that could not be read, and nothing read shows a service purpose",
    Reason.UNKNOWN_LANGUAGE: "in no language that rules are written in, and little read shows a service purpose",
    Reason.UNSURE: "too close to promotion to be sure, and no service purpose shows",
    Reason.TIME_CRITICAL: "promotional, but what it serves for cannot wait: take the promotion out of such mail",
    Reason.UNSCANNED: "a fault kept the message from being judged",
    Reason.DECIDED_SERVICE: "a reviewer decided that this campaign is service",
    Reason.DECIDED_MARKETING: "a reviewer decided that this campaign is marketing",
    Reason.REJECTED: "rejected by policy, after copies for others had been taken",
    Reason.DECISION_OUTGROWN: "a reviewer decided on this campaign, but had not seen what is found here",
}
_UNKNOWN: Final = {
    UnknownBecause.NO_RECORD: "there is no record for this organisation, channel and topic",
    UnknownBecause.EXPIRED: "what there was has run out",
    UnknownBecause.PENDING: "a double opt-in was never confirmed",
    UnknownBecause.INVALID: "the record does not count as evidence",
}
_OUTCOME: Final = {
    Outcome.RELIED_ON: "relied on",
    Outcome.VALID: "valid; another record is relied on",
    Outcome.OVERRULED: "valid, but overruled by an opt-out",
    Outcome.EXPIRED: "has run out",
    Outcome.PENDING: "never confirmed",
    Outcome.INVALID: "does not count as evidence",
    Outcome.NOT_YET: "dated after this decision",
    Outcome.OTHER_SCOPE: "about another organisation, channel or topic",
    Outcome.IN_FORCE: "in force",
    Outcome.LIFTED: "ended by a later act",
}
_ACT: Final = {
    EventKind.GRANT: "consent given",
    EventKind.SOFT_OPT_IN: "details taken in a sale or enquiry",
    EventKind.CHARITY_SOFT_OPT_IN: "details taken by the charity",
    EventKind.SOLICITED: "asked for a reply",
    EventKind.CORPORATE: "corporate subscriber on file",
    EventKind.REFUSE: "refused when details were taken",
    EventKind.WITHDRAW: "consent withdrawn",
    EventKind.OBJECT: "objected to direct marketing",
    EventKind.BLOCK: "address blocked",
    EventKind.LIFT: "block lifted",
}
_TROUBLE: Final = {
    Trouble.UNAVAILABLE: "The consent index cannot be read.",
    Trouble.STALE: "The consent data is older than the configured limit.",
    Trouble.BAD_ADDRESS: "The address cannot be brought into a form that can be looked up.",
}
_PROMOTIONAL: Final = (SegmentLabel.MARKETING, SegmentLabel.RE_PERMISSION)
_CONTEXT: Final = 160  # characters shown on each side of evidence


def page(decision: Decision, law: Mapping[str, LawRule], name: str) -> RenderableType:
    """The whole page for one message."""
    return Group(
        _heading(decision, name),
        _what_it_is(decision.classification, law),
        *_passages(decision.classification, law),
        *_campaign(decision),
        _scope(decision),
        *(_recipient(recipient, law) for recipient in decision.recipients),
    )


def _heading(decision: Decision, name: str) -> RenderableType:
    message = decision.message
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim")
    table.add_column()
    sender = f"{message.from_name} <{message.from_address}>" if message.from_name else message.from_address
    for label, value in (("Message", name), ("Subject", message.subject), ("From", sender)):
        table.add_row(label, visible(value) or Text("(none)", style="dim"))
    return Group(Line("consentry: who may receive this message", style="dim"), table)


def _what_it_is(classification: Classification, law: Mapping[str, LawRule]) -> RenderableType:
    name, meaning, number = MEANING[classification.label]
    style = "bold red" if classification.label.promotional else "bold green"
    lines = [
        Text.assemble("\n", (f"This message is {name}. ", style), meaning, " ", (_source(law.get(number)), "dim")),
        Text(f"Probability that it is not pure service: {_percent(classification.score)}"),
        Text(f"Judged by rules {classification.ruleset}", style="dim"),
    ]
    if claimed := classification.message.declared:
        lines.append(
            Text.assemble("The sender declares it ", visible(f'"{claimed[:80]}"'), "; that decides nothing (R14).")
        )
    if classification.disguised:
        lines.append(Text("Declared as service, promotional in content: disguised marketing.", style="bold red"))
    if (urgency := classification.urgency).rules:
        found = f"Something that cannot wait ({', '.join(urgency.rules)})"
        told = f"It is time-critical all the same. {found}, and little promotion beside it."
        lines.append(
            Text(f"{found}, but not time-critical: {urgency.bound}." if urgency.bound else told, style="yellow")
        )
    lines += [Text(f"Not judged: {_defect(classification, code)}.", style="yellow") for code in classification.unread]
    return Group(*lines)


def _percent(score: float) -> str:
    """A probability; never a certainty."""
    return f"{min(max(score, 0.001), 0.999):.1%}"


def _source(rule: LawRule | None) -> str:
    return f"[{rule.number}: {rule.source}]" if rule else ""


def _defect(classification: Classification, code: DefectCode) -> str:
    details = [d.detail for d in classification.message.defects if d.code is code and d.detail]
    return code.value.replace("_", " ") + (f" ({', '.join(details[:5])})" if details else "")


def _passages(classification: Classification, law: Mapping[str, LawRule]) -> Iterable[RenderableType]:
    """What promotes, then what shows a service purpose; each passage quoted with its words highlighted."""
    segments = classification.segments
    promoting = [s for s in segments if s.label in _PROMOTIONAL or (classification.label.promotional and s.score)]
    serving = [s for s in segments if any(e.label in (SegmentLabel.SERVICE, SegmentLabel.SURVEY) for e in s.evidence)]
    if promoting:
        yield Line("What promotes", style="dim", align="left")
        for segment in promoting:
            yield _passage(segment, _PROMOTIONAL, "bold red", law)
    if serving:
        yield Line("What shows a service purpose", style="dim", align="left")
        for segment in serving[:6]:
            yield _passage(segment, (SegmentLabel.SERVICE, SegmentLabel.SURVEY), "green", law)
    if classification.support:
        words = ", ".join(e.text for e in classification.support)
        yield Text(f"Also found, weak by itself: {words}.", style="dim")


def _passage(
    segment: JudgedSegment, labels: Sequence[SegmentLabel], style: str, law: Mapping[str, LawRule]
) -> RenderableType:
    shown = [e for e in segment.evidence if e.label in labels]
    lines: list[RenderableType] = [Text.assemble((_where(segment) + ": ", "dim"), _quote(segment.text, shown, style))]
    for rule in dict.fromkeys(e.rule for e in shown):
        lines += [Padding(_reason([e for e in shown if e.rule == rule], law), (0, 0, 0, 4))]
    against = [e for e in segment.evidence if e.label is SegmentLabel.NEUTRAL]
    if against and style == "bold red":
        words = ", ".join(f'"{e.text}"' for e in against)
        lines.append(Padding(visible(f"Taken off as innocent in this context: {words}", "dim"), (0, 0, 0, 4)))
    return Group(*lines)


def _where(segment: JudgedSegment) -> str:
    return f"{segment.kind}{' (hidden text)' if segment.hidden else ''}"


def _reason(evidence: Sequence[Evidence], law: Mapping[str, LawRule]) -> Text:
    """One rule at work in a passage: the words it found, its weight, and what it rests on."""
    if evidence[0].rule == WORDS:
        telling = ", ".join(dict.fromkeys(f'"{e.text}" {e.weight:+g}' for e in evidence))
        return visible(f"of which, by what was learned: {telling}", "dim")
    words = ", ".join(dict.fromkeys(f'"{e.text}"' for e in evidence))
    cites = evidence[0].cites
    text = Text.assemble(visible(words), f" ({evidence[0].rule}, {evidence[0].weight:g}) ", (", ".join(cites), "dim"))
    for rule in cited(cites, law)[:1]:
        text.append(f": {rule.says} ({rule.source})", style="dim")
    return text


def _quote(text: str, evidence: Sequence[Evidence], style: str) -> Text:
    """The passage with evidence highlighted, cut to what surrounds it."""
    marks = sorted({place for e in evidence for place in (e.start, e.end)})
    first = max(0, marks[0] - _CONTEXT) if marks else 0
    last = min(len(text), marks[-1] + _CONTEXT) if marks else len(text)
    spans = [(e.start, e.end) for e in evidence]
    quoted = Text("… " if first else "")
    for start, end in pairwise([first, *marks, last]):
        marked = any(begin <= start < stop for begin, stop in spans)
        quoted.append(visible(text[start:end], style if marked else ""))
    return quoted.append(" …" if last < len(text) else "")


def _campaign(decision: Decision) -> Iterable[RenderableType]:
    """The campaign, and what a reviewer decided about it."""
    if decision.campaign:
        yield Text(f"Campaign {decision.campaign}", style="dim")
    if decided := decision.decided:
        if any(Reason.DECISION_OUTGROWN in one.verdict.notes for one in decision.recipients):
            yield Text("A reviewer decided on it, but had not seen what is found here: that does not count.")
        else:
            acts = "service, whatever its content" if decided.decided is Decided.IS_SERVICE else "marketing"
            yield Text.assemble("A reviewer decided: its messages are treated as ", (acts, "bold yellow"), ".")
        yield Padding(decided_line(decided), (0, 0, 0, 4))


def decided_line(decision: CampaignDecision) -> Text:
    """Who decided when and why, who seconded it, and until when it counts."""
    parts = [f"by {decision.author}, {moment(decision.at)}: {decision.why}"]
    if decision.approver:
        parts.append(f"approved by {decision.approver}, {moment(decision.approved_at)}")
    elif decision.waits:
        parts.append("waits for a second approver")
    if decision.withdrawn_at:
        parts.append(f"withdrawn by {decision.withdrawn_by}, {moment(decision.withdrawn_at)}")
    parts.append(f"until {moment(decision.expires_at)}" if decision.expires_at else "until it is withdrawn")
    if decision.decided is Decided.IS_SERVICE and decision.evidence != ANY_EVIDENCE:
        parts.append(f"in sight of what was found until then: {decision.evidence or 'none'}")
    return visible("; ".join(parts))


def _scope(decision: Decision) -> RenderableType:
    scope, stream = decision.scope, decision.stream
    lines: list[RenderableType] = [Line("Who may receive it", style="dim", align="left")]
    words = (
        f"Consent is looked up for {scope.channel} from {scope.controller}, brand {scope.brand}, topic {scope.topic}."
    )
    lines.append(visible(words, "dim"))
    if stream.mode is Mode.MONITOR:
        lines.append(Text("This stream is in monitor mode: everything is relayed, and what would be done is recorded."))
    if stream.unsure_from is not None:
        lines.append(Text(f"This stream has an uncertain band of its own, from {_percent(stream.unsure_from)} on."))
    if stream.on_unsure is not None:
        lines.append(Text(f"What is in doubt goes by this stream's own setting: {stream.on_unsure}."))
    return Group(*lines)


def _recipient(one: RecipientDecision, law: Mapping[str, LawRule]) -> RenderableType:
    verdict = one.verdict
    word, style = DONE[verdict.disposition]
    head = Text.assemble("\n", (word, style), "  ", visible(one.recipient, "bold"), f"  {BECAUSE[verdict.reason]}")
    lines: list[RenderableType] = [head]
    if verdict.would is not verdict.disposition:
        lines.append(Text(f"    Enforced, this would be: {DONE[verdict.would][0]}.", style="yellow"))
    lines.extend(Text(f"    Also: {BECAUSE[note]}.") for note in verdict.notes)
    if isinstance(one.consent, Trouble):
        lines.append(Text(f"    {_TROUBLE[one.consent]}"))
    else:
        lines.extend(Padding(line, (0, 0, 0, 4)) for line in consent_lines(one.consent, law))
    return Group(*lines)


def consent_lines(answer: ConsentAnswer, law: Mapping[str, LawRule]) -> Iterable[RenderableType]:
    """The consent answer in words: the state, the record relied on, and what became of each record on file."""
    words = STATE[answer.state]
    because = [_UNKNOWN[reason] for reason in answer.reasons if isinstance(reason, UnknownBecause)]
    yield Text(f"Consent ({answer.state.letter}): {words}{': ' + '; '.join(because) if because else ''}.")
    if Review.OBJECTION_LIFTED in answer.reasons:
        yield Text("Consent was given after an objection: have somebody check that it was meant.", style="yellow")
    if answer.block:
        yield Text.assemble("Blocked: ", describe(answer.block))
    listed = [item for item in answer.considered if item.outcome is not Outcome.OTHER_SCOPE]
    for item in listed:
        yield Text.assemble("- ", describe(item.event), f": {_OUTCOME[item.outcome]}", *_faults(item, law))
    others = len(answer.considered) - len(listed)
    if others:
        yield Text(
            f"- {others} other record{'s' if others > 1 else ''} about other organisations or topics", style="dim"
        )


def _faults(item: Considered, law: Mapping[str, LawRule]) -> Iterable[str]:
    for fault in item.faults:
        sources = ", ".join(rule.source for rule in cited([fault.rule], law))
        yield f"\n    {fault.sentence} [{fault.rule}{': ' + sources if sources else ''}]"


def describe(event: ConsentEvent) -> Text:
    """One consent event in a line: what, when, where, under which wording."""
    capture = event.capture
    parts = [_ACT[event.kind], moment(event.event_time)]
    if capture.source:
        parts.append(f"by {capture.source}" if not capture.method else f"by {capture.source}, {capture.method}")
    if capture.reason:
        parts.append(capture.reason)
    if capture.wording_id:
        parts.append(f"wording {capture.wording_id} ({capture.wording_sha256[:12] or 'no hash'})")
    parts.append(_for_whom(capture.scope))
    parts += [f"reference {ref}" for ref in (event.evidence_ref, event.transaction_ref, event.request_ref) if ref]
    if capture.batch:
        parts.append(f"import {capture.batch}")
    return visible(", ".join(parts) + (f" [{event.id}]" if event.id else ""))


def _for_whom(scope: Scope) -> str:
    """A scope in words; `*` is every one."""
    if scope.controller == scope.brand == scope.topic == ANY:
        return "for everyone and everything"
    named = ((scope.controller, "organisation"), (scope.brand, "brand"), (scope.topic, "topic"))
    return "for " + " / ".join(name if name != ANY else f"every {what}" for name, what in named)


def moment(at: int) -> str:
    """An instant in words; UTC, to the minute."""
    return datetime.fromtimestamp(at / 1000, UTC).strftime("%Y-%m-%d %H:%M UTC") if at else "at an unknown time"
