"""Streams: the first match decides, the last stream takes the rest."""

import pytest

from filter.stream import Match, Stream, select

BANK = Stream("bank", "bank", "offers", match=Match(from_domain=frozenset({"bank.example"})))
SHOP = Stream("shop", "shop", "offers", match=Match(mail_from=frozenset({"news@shop.example", "@bulk.shop.example"})))
REST = Stream("group", "group", "general")


@pytest.mark.parametrize(
    ("from_domain", "mail_from", "expected"),
    [
        ("bank.example", "x@anything.example", BANK),
        ("mail.bank.example", "", BANK),
        ("notbank.example", "", REST),
        ("bank.example.evil.example", "", REST),
        ("", "news@SHOP.example", SHOP),
        ("", "other@shop.example", REST),
        ("", "x@bulk.shop.example", SHOP),
        ("", "x@a.bulk.shop.example", REST),
        ("", "", REST),
    ],
)
def test_select(from_domain: str, mail_from: str, expected: Stream) -> None:
    """From domains match with their subdomains, envelope senders as addresses or whole domains."""
    assert select([BANK, SHOP, REST], from_domain, mail_from) is expected
