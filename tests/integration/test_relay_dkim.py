"""What was signed passes unchanged: signatures verify at the next hop and in the hold store, octets are the same."""

import base64
import re
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import NamedTuple

import dkim
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from support import ed25519
from support.relay import Relay
from support.script_sink import ScriptSink

pytestmark = pytest.mark.integration

AGREED, NOBODY = "agreed@home.example", "nobody@home.example"
CANONICAL = list(product((b"simple", b"relaxed"), repeat=2))
PREPENDED = re.compile(rb"Received: from [^\r\n]+\r\n(?:\t[^\r\n]+\r\n)*X-Consentry: [0-9A-Z]{21}\r\n")

HEAD = (
    b"From: Bank <news@bank.example>\r\nTo: You <agreed@home.example>\r\nSubject:  Save   20%\r\n today \r\n"
    b"Date: Sun, 22 Nov 2026 10:00:00 +0000\r\nMessage-ID: <1@bank.example>\r\nX-Consentry: spoofed\r\n"
)
OFFER = b"Get 20% off your next order today. Shop now and save! Limited time offer, do not miss it.\r\n"
PART = (
    b"--cut\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n" + OFFER + b"--cut\r\nContent-Type: text/html\r\n\r\n<p>"
)
MESSAGES = {
    "plain": HEAD + b"\r\n" + OFFER,
    "multipart": HEAD
    + b'MIME-Version: 1.0\r\nContent-Type: multipart/alternative; boundary="cut"\r\n\r\nPreamble\r\n\r\n'
    + PART
    + OFFER
    + b"</p>\r\n--cut--\r\nEpilogue\r\n",
    "8-bit": HEAD
    + b"Content-Type: text/plain; charset=iso-8859-1\r\nContent-Transfer-Encoding: 8bit\r\n\r\n"
    + OFFER
    + bytes(range(0xA0, 0x100))
    + b"\r\n",
    "long lines": HEAD + b"\r\n" + OFFER + b"x" * 998 + b"\r\n" + b"y" * 999 + b"\r\n" + b"z " * 40_000 + b"\r\n",
    "trailing blank lines": HEAD + b"\r\n" + OFFER + b"\r\n\r\n \r\n\t\r\n\r\n\r\n",
    "spaces and dots": HEAD + b"\r\n" + OFFER + b". \r\n.\t.  x  \r\n..\r\n...\r\n trailing   \t \r\n",
    "no body": HEAD + b"\r\n",
    "odd fields": HEAD + b"Empty:\r\nX-Tab:\tone\r\n\ttwo\r\nRECEIVED: from a by b; now\r\nx-Tab:three\r\n\r\n" + OFFER,
}


class Signer(NamedTuple):
    """A private key as dkimpy wants it, and the record that DNS has of it."""

    algorithm: bytes
    private: bytes
    record: bytes


def rsa_signer() -> Signer:
    """A new RSA key."""
    key = rsa.generate_private_key(65537, 2048)
    private = key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    public = base64.b64encode(key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))
    return Signer(b"rsa-sha256", private, b"v=DKIM1; k=rsa; p=" + public)


def ed25519_signer() -> Signer:
    """A new Ed25519 key."""
    private, public = ed25519.key_pair()
    return Signer(b"ed25519-sha256", private, b"v=DKIM1; k=ed25519; p=" + public)


@pytest.fixture(scope="module")
def through(tmp_path_factory: pytest.TempPathFactory, rules_cache: Path) -> Iterator[tuple[Relay, ScriptSink]]:
    """One relay for all of it, with one recipient who has consented, and its next hop."""
    with (
        ScriptSink() as sink,
        Relay(
            tmp_path_factory.mktemp("dkim"), sink.port, cache=rules_cache, workers=1, consents={AGREED: "grant"}
        ).wait_serving() as relay,
    ):
        yield relay, sink


@pytest.mark.parametrize("name", MESSAGES)
@pytest.mark.parametrize("make", [rsa_signer, ed25519_signer], ids=["rsa", "ed25519"])
def test_signatures_stay_valid(
    through: tuple[Relay, ScriptSink], monkeypatch: pytest.MonkeyPatch, make: Callable[[], Signer], name: str
) -> None:
    """Each message, signed in each way, arrives with a valid signature and is held with one (D17); only our own
    documented fields stand before it, and everything else is the same, octet for octet (D18).
    """
    relay, sink = through
    monkeypatch.setattr(dkim, "nacl", ed25519.nacl, raising=False)
    signer = make()
    with relay.client() as client:
        client.ehlo()
        for canonical in CANONICAL:
            original = MESSAGES[name]
            signature = dkim.sign(
                original,
                *(b"s", b"bank.example", signer.private),
                canonicalize=canonical,
                signature_algorithm=signer.algorithm,
            )
            before = len(sink.delivered)
            client.mail("news@bank.example", ["BODY=8BITMIME"])
            assert [client.rcpt(one)[0] for one in (AGREED, NOBODY)] == [250, 250]
            assert client.data(signature + original)[0] == 250
            (arrived,) = sink.wait(before + 1)[before:]
            passed = arrived.message
            prepended = PREPENDED.match(passed)
            assert prepended
            assert passed[prepended.end() :] == signature + original
            assert verifies(passed, signer)
            assert not verifies(passed.replace(b"20%", b"30%"), signer), "the check itself checks nothing"
            (queue_id,) = re.findall(rb"X-Consentry: ([0-9A-Z]{21})", prepended[0])
            content = relay.content(queue_id.decode())
            assert content == signature + original
            assert verifies(content, signer)


def verifies(message: bytes, signer: Signer) -> bool:
    """Whether the signature of a message is good."""
    return bool(dkim.verify(message, dnsfunc=lambda _name, timeout=5: signer.record))
