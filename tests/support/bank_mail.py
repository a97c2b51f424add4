"""What a bank writes to its customers, for relays under test, and consent to it; `%d` in a message is its number."""

SERVICE = (
    b"From: Bank <service@bank.example>\r\nTo: You <a@home.example>\r\nSubject: Your new card\r\n"
    b"Message-ID: <%d@bank.example>\r\n\r\n"
    b"Your new debit card ending 4471 was posted today. It should arrive within five working days.\r\n"
)
MARKETING = (
    b"From: Bank <news@bank.example>\r\nTo: You <a@home.example>\r\nSubject: Save 20%% today\r\n"
    b"Message-ID: <%d@bank.example>\r\n\r\n"
    b"Get 20%% off your next order today. Shop now and save! Limited time offer, do not miss it.\r\n"
)
_HEAD = (
    "address,kind,channel,controller,brand,topic,event_time,source,method,affirmative,conditional,wording_id,"
    "wording_sha256,grade\n"
)
_GRANT = f",grant,email,bank,bank,offers,2026-10-05T09:30:00Z,web form,web form,true,false,w1,{'a' * 64},A\n"


def grants(*addresses: str) -> str:
    """A table to import: each of these has agreed to the bank's offers by mail."""
    return _HEAD + "".join(address + _GRANT for address in addresses)
