"""Streams: the first match decides, the last stream takes the rest."""

import pytest

from filter.stream import Match, Mode, Said, Stream, meant, select

BANK = Stream("bank", "bank", "offers", match=Match(from_domain=frozenset({"bank.example"})))
SHOP = Stream("shop", "shop", "offers", match=Match(mail_from=frozenset({"bulk.shop.example"})))
REST = Stream("group", "group", "general")


@pytest.mark.parametrize(
    ("from_domain", "mail_from_domain", "expected"),
    [
        ("bank.example", "anything.example", BANK),
        ("mail.bank.example", "", BANK),
        ("notbank.example", "", REST),
        ("bank.example.evil.example", "", REST),
        ("", "shop.example", REST),
        ("", "bulk.shop.example", SHOP),
        ("", "a.bulk.shop.example", SHOP),
        ("", "", REST),
    ],
)
def test_select(from_domain: str, mail_from_domain: str, expected: Stream) -> None:
    """Domains match with their subdomains and no others; the last stream takes the rest."""
    assert select([BANK, SHOP, REST], from_domain, mail_from_domain) is expected


def test_what_was_said_takes_the_place_of_the_stream() -> None:
    """What a door was told of a message counts, the rest is the stream's, and so is the mode in any case."""
    stream = Stream("group", "group", "general", mode=Mode.MONITOR)
    assert Said().over(stream) is stream
    assert Said(controller="shop", topic="offers").over(stream) == Stream("shop", "group", "offers", mode=Mode.MONITOR)


def test_the_streams_that_may_be_meant() -> None:
    """Those of the scope, all of them; every stream there is where none has it."""
    other = Stream("bank", "bank", "offers", match=Match(mail_from=frozenset({"bank.example"})))
    assert list(meant([BANK, SHOP, other, REST], "bank", "bank", "offers")) == [BANK, other]
    assert list(meant([BANK, SHOP, REST], "bank", "bank", "letters")) == [BANK, SHOP, REST]
