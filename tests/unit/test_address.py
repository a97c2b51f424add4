"""The normaliser and subject keys: both sides of every look-up agree, and what is no address is refused."""

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from filter.address import SubjectKeyer, normalise, wide
from filter.errors import AddressError
from filter.labels import Channel

EMAIL, SMS = Channel.EMAIL, Channel.SMS
KEY = bytes(range(32))

ascii_local_parts = st.one_of(
    st.from_regex(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]{1,20}(\.[A-Za-z0-9+_-]{1,9}){0,2}", fullmatch=True),
    st.from_regex(r'"([A-Za-z0-9 .,:@+]|\\[ "\\])*"', fullmatch=True),
)
local_parts = st.one_of(
    ascii_local_parts,
    st.text(st.characters(codec="utf-8", min_codepoint=0xA1, max_codepoint=0x2FF), min_size=1, max_size=12),
)
domains = st.one_of(
    st.from_regex(r"[A-Za-z0-9]{1,9}(-[A-Za-z0-9]{1,5})?(\.[A-Za-z0-9]{1,9}){1,3}\.?", fullmatch=True),
    st.sampled_from(
        [
            "gmail.com",
            "GoogleMail.com",
            "stra\u00dfe.example",
            "B\u00dcCHER.example",
            "[192.0.2.7]",
            "[IPv6:2001:DB8::1]",
        ]
    ),
)
addresses = st.builds("{}@{}".format, local_parts, domains)
ascii_addresses = st.builds("{}@{}".format, ascii_local_parts, domains.filter(str.isascii))


@pytest.mark.parametrize(
    ("written", "exact"),
    [
        ("Jo.Bloggs@Shop.Example", "jo.bloggs@shop.example"),
        ("  jo@shop.example.  ", "jo@shop.example"),
        ('"jo"@shop.example', "jo@shop.example"),
        (r'"j\o"@shop.example', "jo@shop.example"),
        ('"jo bloggs"@shop.example', '"jo bloggs"@shop.example'),
        ("jo@b\u00fccher.example", "jo@xn--bcher-kva.example"),
        ("jo@stra\u00dfe.example", "jo@xn--strae-oqa.example"),
        ("jo@XN--BCHER-KVA.example", "jo@xn--bcher-kva.example"),
        ("Jose\u0301@shop.example", "jos\u00e9@shop.example"),
        ("JOS\u00c9@shop.example", "jos\u00c9@shop.example"),
        ("jo@[IPv6:2001:DB8:0::1]", "jo@[ipv6:2001:db8::1]"),
    ],
)
def test_spellings_of_one_mailbox_have_one_exact_form(written, exact):
    """Case, trailing dot, IDN, composition and needless quoting make no difference; only ASCII letters are folded."""
    assert normalise(written, EMAIL) == exact


@pytest.mark.parametrize(
    "written",
    [
        "",
        "jo",
        "@shop.example",
        "jo@",
        "jo bloggs@shop.example",
        "jo..b@shop.example",
        ".jo@shop.example",
        '""@shop.example',
        "jo@shop..example",
        "jo@-shop.example",
        "jo@shop_.example",
        "jo@[192.0.2.999]",
        "jo@[192.0.2.1",
        "jo\x00@shop.example",
        "jo\r\n@shop.example",
        "jo\u202e@shop.example",
        "jo\u200b@shop.example",
        "jo\udc80@shop.example",
        "jo@xn--a.example",
        "l" * 65 + "@shop.example",
        "jo@" + "d" * 64 + ".example",
        "jo@" + ".".join(["d" * 60] * 5),
    ],
)
def test_what_is_no_mailbox_is_refused(written):
    """Controls, text-direction marks, bad syntax and excess length raise AddressError, which quotes no address."""
    with pytest.raises(AddressError) as caught:
        normalise(written, EMAIL)
    assert len(written) < 4 or written not in str(caught.value)


def test_look_alikes_are_not_confused():
    """Characters that merely look like others (full-width, Cyrillic) stay what they are."""
    forms = {normalise(f"{letter}ay@shop.example", EMAIL) for letter in ("k", "\uff4b", "\u043a")}
    assert len(forms) == 3


@given(addresses)
def test_normalising_twice_is_normalising_once(address):
    """The exact form of an exact form is itself, and so is the wide form of a wide form."""
    try:
        exact = normalise(address, EMAIL)
    except AddressError:
        assume(False)
    assert normalise(exact, EMAIL) == exact
    assert wide(wide(exact, EMAIL), EMAIL) == wide(exact, EMAIL)


@given(ascii_addresses)
def test_letter_case_never_matters(address):
    """Upper and lower case ASCII spellings have one exact form."""
    try:
        exact = normalise(address, EMAIL)
    except AddressError:
        assume(False)
    assert normalise(address.upper(), EMAIL) == normalise(address.lower(), EMAIL) == exact


@given(st.text(max_size=40), st.sampled_from(list(Channel)))
@example("0\u16800", Channel.PUSH)
def test_any_text_is_normalised_or_refused(text, channel):
    """No text raises anything but AddressError, and what comes out has no controls."""
    try:
        exact = normalise(text, channel, "44")
    except AddressError:
        return
    assert exact.isprintable()


@pytest.mark.parametrize(
    ("exact", "folded"),
    [
        ("jo+news@shop.example", "jo@shop.example"),
        ("jo+a+b@shop.example", "jo@shop.example"),
        ("+jo@shop.example", "+jo@shop.example"),
        ("j.o+x@gmail.com", "jo@gmail.com"),
        ("j.o@googlemail.com", "jo@gmail.com"),
        ("j.o@hotmail.com", "j.o@hotmail.com"),
        ('"j+o b"@shop.example', '"j+o b"@shop.example'),
    ],
)
def test_wide_form_folds_tags_and_dots(exact, folded):
    """Opt-outs match the mailbox behind plus tags everywhere, and behind dots where the provider ignores them."""
    assert wide(exact, EMAIL) == folded


@pytest.mark.parametrize(
    "written",
    ["+44 7700 900123", "+44 (0)7700 900123", "0044 7700-900123", "07700 900 123", "447700900123", "+44.7700.900123"],
)
def test_spellings_of_one_number_have_one_exact_form(written):
    """Punctuation, 00, (0) and the national form make no difference once the country is known."""
    assert normalise(written, SMS, "44") == "+447700900123"


@pytest.mark.parametrize(
    "written",
    [
        "07700 900123",
        "7700900123",
        "+0 7700 900123",
        "+44",
        "+44 7700 9001234567890",
        "call me",
        "+44\u0667700900123",
        "",
    ],
)
def test_number_without_country_is_refused(written):
    """A national number means nothing without a country, and only ASCII digits are digits."""
    with pytest.raises(AddressError):
        normalise(written, SMS)


def test_italian_numbers_keep_their_zero():
    """The leading zero belongs to the number in Italy."""
    assert normalise("06 1234 5678", SMS, "39") == "+390612345678"


def test_identifiers_are_opaque():
    """A push token keeps its case; only surrounding space goes."""
    assert normalise(" AbC:1 ", Channel.PUSH) == "AbC:1"


def test_subject_key_depends_on_key_space_and_address():
    """Another secret, another address space or another address gives another key; the key id tells secrets apart."""
    keyer, other = SubjectKeyer(KEY), SubjectKeyer(KEY[::-1])
    keys = {
        keyer.subject("7@x.example", EMAIL).exact,
        keyer.subject("8@x.example", EMAIL).exact,
        keyer.subject("7@x.example", Channel.PUSH).exact,
        keyer.subject("7@x.example", Channel.INAPP).exact,
        other.subject("7@x.example", EMAIL).exact,
    }
    assert len(keys) == 5
    assert keyer.key_id != other.key_id
    assert all(len(key) == 16 for key in keys)


def test_texts_and_voicemail_to_one_number_share_a_subject():
    """An objection on a number reaches every channel that uses the number."""
    keyer = SubjectKeyer(KEY)
    assert keyer.subject("+447700900123", SMS) == keyer.subject("0044 7700 900123", Channel.VOICEMAIL)


def test_tagged_address_shares_only_the_wide_key():
    """A tagged address is found by opt-outs of the plain one, not by its grants."""
    keyer = SubjectKeyer(KEY)
    plain, tagged = keyer.subject("jo@shop.example", EMAIL), keyer.subject("Jo+news@shop.example", EMAIL)
    assert plain.exact == plain.wide == tagged.wide != tagged.exact


@pytest.mark.parametrize("size", [0, 15, 65])
def test_key_of_wrong_length_is_refused(size):
    """A subject key has 16 to 64 octets."""
    with pytest.raises(ValueError, match="octets"):
        SubjectKeyer(bytes(size))
