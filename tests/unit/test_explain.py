"""The page for lawyers: what is highlighted is what was found."""

import dataclasses
from io import StringIO

from rich.console import Console
from rich.text import Text

from filter.campaigns import CampaignDecision, Decided
from filter.classification import Evidence
from filter.display import printable, visible
from filter.documents import decision_document
from filter.explain import _quote, decided_line, page
from filter.labels import SegmentLabel
from filter.policy import Disposition

from .test_decision import PROMOTION, STREAMS, Consents, decider


def evidence(start: int, end: int) -> Evidence:
    """Evidence at these characters."""
    return Evidence("a.b", SegmentLabel.MARKETING, 1.0, 0, start, end, "", ("R1",))


def highlighted(text: Text) -> list[str]:
    """The words of a quote that are highlighted, in order, touching ones joined."""
    words, last = [], -1
    for span in sorted(text.spans):
        piece = text.plain[span.start : span.end]
        if span.start == last and words:
            words[-1] += piece
        else:
            words.append(piece)
        last = span.end
    return words


def test_the_words_found_are_highlighted() -> None:
    """Highlighting follows the evidence, also where characters are shown as codes and where evidence overlaps."""
    text = "\ue000\u202e hello save 50% today"
    assert highlighted(_quote(text, [evidence(9, 17)], "bold red")) == ["save 50%"]
    assert highlighted(_quote(text, [evidence(3, 8), evidence(6, 17)], "bold red")) == ["hello save 50%"]


def test_a_long_passage_is_cut_around_its_evidence() -> None:
    """Far from the evidence the passage is cut, and the cuts are marked."""
    text = "a" * 500 + " save " + "b" * 500
    shown = _quote(text, [evidence(501, 505)], "bold red")
    assert shown.plain.startswith("… a")
    assert shown.plain.endswith("b …")
    assert highlighted(shown) == ["save"]


def test_text_is_never_markup_or_command() -> None:
    """Markup and escape sequences in a message come out as plain characters and codes."""
    assert visible("[red]x[/red]\x1b[2J").plain == "[red]x[/red]<001b>[2J"
    assert printable("plain") == "plain"


DECIDED = CampaignDecision(
    "c0ffee",
    Decided.IS_SERVICE,
    "recall notice",
    "ann",
    1,
    86_400_000,
    needs_second=True,
    approver="bob",
    approved_at=9,
)


def test_an_outgrown_decision_is_told() -> None:
    """The page says that a reviewer decided before what is found here was seen, and that this does not count."""
    outgrown = DECIDED._replace(evidence="another-rule")
    deciding = dataclasses.replace(decider(Consents()), fingerprint=lambda _: "c0ffee", decisions=lambda _: outgrown)
    decision = deciding.decide(PROMOTION, "b@bank.example", ["never@x.example"], 5)
    shown = StringIO()
    Console(width=200, file=shown).print(page(decision, {}, "x.eml"))
    text = shown.getvalue()
    assert "had not seen what is found here: that does not count." in text
    assert "in sight of what was found until then: another-rule" in text
    assert decision.recipients[0].verdict.disposition is not Disposition.RELAY


def test_a_decision_is_told_with_the_verdict() -> None:
    """The page and the document say what was decided, by whom and why, and that the verdict rests on it."""
    deciding = dataclasses.replace(decider(Consents()), fingerprint=lambda _: "c0ffee", decisions=lambda _: DECIDED)
    decision = deciding.decide(PROMOTION, "b@bank.example", ["never@x.example"], 5)
    shown = StringIO()
    Console(width=200, file=shown).print(page(decision, {}, "x.eml"))
    text = shown.getvalue()
    assert "Campaign c0ffee" in text
    assert "A reviewer decided: its messages are treated as service, whatever its content." in text
    assert (
        "by ann, 1970-01-01 00:00 UTC: recall notice; approved by bob, 1970-01-01 00:00 UTC; "
        "until 1970-01-02 00:00 UTC" in text
    )
    assert "never@x.example  a reviewer decided that this campaign is service" in text
    document = decision_document("x", decision)
    assert (document["campaign"], document["decided"]["why"]) == ("c0ffee", "recall notice")
    undecided = dataclasses.replace(deciding, decisions=lambda _: None).decide(PROMOTION, "b@bank.example", ["a@b"], 5)
    assert decision_document("x", undecided)["decided"] is None


def test_every_turn_of_a_decision_has_words() -> None:
    """A decision that waits, that was withdrawn or that has no end says so; a reason cannot command the terminal."""
    waiting = DECIDED._replace(approver="", expires_at=0, why="\x1b[2J")
    assert decided_line(waiting).plain.endswith("<001b>[2J; waits for a second approver; until it is withdrawn")
    withdrawn = DECIDED._replace(withdrawn_at=5, withdrawn_by="cem")
    assert "withdrawn by cem, 1970-01-01 00:00 UTC" in decided_line(withdrawn).plain


def test_the_page_tells_of_a_band_of_its_own() -> None:
    """Where a stream is unsure earlier than others, or does something else then, the page says so; elsewhere not."""
    own = dataclasses.replace(STREAMS[0], unsure_from=0.1, on_unsure=Disposition.DIVERT)
    for stream, told in ((own, True), (STREAMS[0], False)):
        deciding = dataclasses.replace(decider(Consents()), streams=(stream, STREAMS[1]))
        out = StringIO()
        decision = deciding.decide(PROMOTION, "b@bank.example", ["no@x.example"], 1)
        Console(file=out, width=200).print(page(decision, {}, "x.eml"))
        assert ("uncertain band of its own, from 10.0% on" in out.getvalue()) is told
        assert ("own setting: divert" in out.getvalue()) is told
