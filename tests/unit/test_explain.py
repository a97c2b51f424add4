"""The page for lawyers: what is highlighted is what was found."""

from rich.text import Text

from filter.classify import Evidence
from filter.display import printable, visible
from filter.explain import _quote
from filter.labels import SegmentLabel


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
