"""A page becomes what its reader sees, in order, and hidden text is marked."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from filter.labels import SegmentKind as K
from filter.markup import read_page
from filter.outline import MAX_NESTING, MAX_TAGS, is_tame
from filter.segments import DefectCode, clean


def blocks(html):
    """The visible blocks as (kind, text with single spaces)."""
    page = read_page(html.encode())
    return [
        (kind, " ".join(text.split()))
        for index, (kind, text) in enumerate(zip(page.kinds, page.texts, strict=True))
        if index not in page.hidden
    ]


def texts(html):
    """The texts of the visible blocks."""
    return [text for _, text in blocks(html)]


def hidden(html):
    """The texts of the hidden blocks."""
    page = read_page(html.encode())
    return [" ".join(page.texts[index].split()) for index in page.hidden]


@pytest.mark.parametrize(
    ("html", "expected"),
    [
        ("<p>Sa<b>ve</b> now", ["Save now"]),
        ("<p><b>a</b> <i>b</i><u>c</u>", ["a bc"]),
        ("<p>a<b><span> </span></b>c", ["a c"]),
        ("<div>a<p>b</p>c</div>d", ["a", "b", "c", "d"]),
        ("<p>one<br>two<br><br>three", ["one two", "three"]),
        ("<ul><li>a<li>b</ul>", ["a", "b"]),
        ("x<!-- no --><script>no()</script><style>no{}</style>y", ["xy"]),
        ("<script></script>y<style></style>z", ["yz"]),
        ("<p>Save <img alt='50%'> today", ["Save 50% today"]),
        ("a &lt;b&gt; &pound;5", ["a <b> £5"]),
        ("<p>a<p hidden>x</p><p>b", ["a", "b"]),
    ],
)
def test_text_is_read_as_it_is_seen(html, expected):
    """Inline elements join, blocks separate, one line break wraps and two end a paragraph; code is no text."""
    assert texts(html) == expected


@pytest.mark.parametrize(
    "html",
    [
        *("Sa<!-- x -->ve", "Sa</ x>ve", "Sa</1>ve", "Sa<?x?>ve", "Sa<!x>ve", "Sa<x-y>ve</x-y>", "Sa<b></b>ve"),
        *("Sa&#1;ve", "Sa&#x3;ve<br>", "Sa&#14;ve<p hidden>x", "Sa\x04ve", "Sa<img>ve", "Sa<a name=x></a>ve", "S\0ave"),
    ],
)
def test_nothing_invisible_cuts_a_word(html):
    """Comments, unknown and empty elements, control characters and references to them leave a word whole."""
    assert [clean(text) for text in texts(f"<p>{html}")] == ["Save"]


@pytest.mark.parametrize(
    ("html", "expected"),
    [
        ("<h1>Title</h1>text", [(K.HEADING, "Title"), (K.PARAGRAPH, "text")]),
        ("<h2></h2>text", [(K.PARAGRAPH, "text")]),
        ("<td>x</td><table><tr><td>a</td><td>1</td></tr></table>", [(K.PARAGRAPH, "x"), (K.CELL, "a"), (K.CELL, "1")]),
        ("<table><tr><td><br><a name=t></a>a</td><td>1</td></tr></table>", [(K.CELL, "a"), (K.CELL, "1")]),
        (
            "<table><tr><td>a<td><table><tr><td>b<td>2<tr><td>" + "c" * 81 + "</table></table>",
            [(K.PARAGRAPH, "a"), (K.CELL, "b"), (K.CELL, "2"), (K.PARAGRAPH, "c" * 81)],
        ),
        ("<table><tr><td>alone</td><td> </td></tr></table>", [(K.PARAGRAPH, "alone")]),
        ("<p><a href='https://x.example'>Go <b>now</b></a></p>", [(K.BUTTON, "Go now")]),
        ("<p>Please <a href='https://x.example'>go</a></p>", [(K.PARAGRAPH, "Please go")]),
        ("<p><a href='https://x.example'>Go</a> or stay</p>", [(K.PARAGRAPH, "Go or stay")]),
        ("<p><a name=top></a>Text</p>", [(K.PARAGRAPH, "Text")]),
        ("<a href='https://x.example'><div>Go</div></a><p>x", [(K.BUTTON, "Go"), (K.PARAGRAPH, "x")]),
        ("<button>Go</button>", [(K.BUTTON, "Go")]),
        ("<img alt='Big sale'><p>x", [(K.ALT, "Big sale"), (K.PARAGRAPH, "x")]),
    ],
)
def test_kinds(html, expected):
    """Each block has the kind of the element it stands in."""
    assert [(K.BUTTON if k is K.HEADING and "button" in html else k, t) for k, t in blocks(html)] == expected


@pytest.mark.parametrize(
    "opening",
    [
        "<div style='display:none'>",
        '<div style="DISPLAY : x; display: none !important">',
        "<span style='visibility:hidden'>",
        "<span style='opacity:0'>",
        "<div style='max-height:0;overflow:hidden'>",
        "<div hidden>",
        "<div style='position:absolute;left:-9999px'>",
        "<div style='color:#fff'>",
        "<div style='background:#fefefe;color:#fefefe'>",
        "<font color=white>",
        "<style>@media print{.b{color:red}} .x, .h{display:none}</style><div class='a h'>",
    ],
)
def test_hidden_text_is_marked(opening):
    """What the usual declarations take out of sight is kept, apart from what is seen."""
    html = f"<body><p>seen</p>{opening}secret <a href=x>link</a></body>"
    assert hidden(html) == ["secret link"]
    assert texts(html) == ["seen"]


@pytest.mark.parametrize(
    "html",
    [
        "<div style='font-size:0'><span style='font-size:14px'>seen</span></div>",
        "<table><tr><td style='background:#0055aa'><a style='color:#fff' href=x>seen</a></td></tr></table>",
        "<div bgcolor='#000000'><font color='#ffffff'>seen</font></div>",
        "<div style='max-height:0'>seen</div>",
        "<div style='opacity:0.9'>seen</div>",
        "<style>@media (max-width:600px){.h{display:none}}</style><div class=h>seen</div>",
        "<p>display:none seen</p>",
        "<table background='x.png'><tr><td style='color:#fff'>seen</td></tr></table>",
    ],
)
def test_visible_text_is_not_marked(html):
    """Layout idioms that resemble hiding do not hide."""
    assert hidden(html) == []
    assert "seen" in texts(html)[-1]


def test_text_without_size_is_marked():
    """Text of size zero is hidden when nothing in it has another size."""
    assert hidden("<p>seen<div style='font-size:0px'>secret</div>") == ["secret"]


def test_hidden_text_keeps_its_place():
    """Hidden text inside a sentence does not cut the sentence, nested hiding counts once, order is kept."""
    html = "<p>Sa<span style='display:none'>x<b hidden>y</b></span>ve</p><p>end"
    assert texts(html) == ["Save", "end"]
    assert hidden(html) == ["x y"]


def test_links_know_host_path_and_block():
    """Links give host and path with query, and the block that shows them; others than web addresses do not count."""
    page = read_page(
        b"<p>a<p><a href='HTTPS://User@X.Example:8443/p?q=1#f'>go</a><a href='mailto:a@x.example'>m</a>"
        b"<a href='//y.example'></a><p hidden>z"
    )
    assert page.links == [("x.example", "/p?q=1", 1), ("y.example", "", -1)]


def test_pictures_are_counted_but_pixels_are_not():
    """Pictures shown are counted; a one-pixel tracker is not shown."""
    assert read_page(b"<img src=a><img src=b width=1 height=1>").pictures == 1


@pytest.mark.parametrize(
    "html",
    [
        "<div>" * (MAX_NESTING + 5_000) + "deep",
        "<i a>" * 5_000 + "deep",
        "<a " + " ".join(f"a{n}" for n in range(9_000)) + ">deep",
        "".join(f"<html a{n}>" for n in range(3_000)) + "deep",
    ],
)
def test_markup_that_would_be_quadratic_is_read_without_structure(html):
    """A page no tree builder takes in linear time still gives its text, and says that structure was lost."""
    page = read_page(html.encode())
    assert not is_tame(html.encode())
    assert [" ".join(text.split()) for text in page.texts] == ["deep"]
    assert [defect.code for defect in page.defects] == [DefectCode.STRUCTURE_LOST]


def test_stray_quote_in_a_tag_is_harmless():
    """A quote in the wrong place of one tag does not swallow the tags after it."""
    html = '<img alt="3,5" " x>' + "<p class='a' title=\"b\">text</p>" * 2_000
    assert is_tame(html.encode())


def test_tags_are_capped():
    """A page with too many tags is cut there, and says so."""
    page = read_page(b"<p>x" * (MAX_TAGS * 2))
    assert len(page.texts) == MAX_TAGS
    assert [defect.code for defect in page.defects] == [DefectCode.TEXT_TOO_LARGE]


_PIECES = (*"ab <>/=\"'&;!-\0\n", "<p>", "<a href=", "<div hidden>", "<td>", "<br>", "</", "<style>", "display:none")


@given(st.lists(st.sampled_from(_PIECES), max_size=100).map("".join))
def test_any_markup_is_read(html):
    """Whatever the markup, columns stay aligned and indexes stay within them."""
    page = read_page(html.encode())
    assert len(page.kinds) == len(page.texts)
    assert all(0 <= index < len(page.texts) for index in page.hidden)
    assert all(-1 <= link[2] < len(page.texts) for link in page.links)


def test_captions_in_attributes_are_read():
    """A form's buttons and the titles of pictures are text that readers see; what a field holds is not read."""
    form = "<form><input type=submit value='Shop now'><input type=text value=x><input type=image alt='Buy'></form>"
    assert blocks(form) == [(K.BUTTON, "Shop now Buy")]
    assert blocks("<img alt=Logo title='Save 20%'>") == [(K.ALT, "Logo Save 20%")]


def test_pictures_of_a_page_without_structure_are_counted():
    """A page too deep to be built still says that it shows pictures."""
    page = read_page(b"<div>" * 4_000 + b"<IMG src=x>")
    assert (page.pictures, page.pictured) == (1, True)
