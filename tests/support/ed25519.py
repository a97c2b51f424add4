"""Ed25519 for dkimpy where PyNaCl is not installed: the part of its interface that dkimpy uses, on `cryptography`.

Raises BadSignatureError for a signature that does not fit, and the module's ValueError for a key that is none.
"""

import base64
from types import SimpleNamespace

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat


class BadSignatureError(Exception):
    """A signature that does not fit."""


class _SigningKey:
    def __init__(self, key: bytes, *, encoder: object) -> None:
        del encoder  # dkimpy has but one, base64
        self._key = Ed25519PrivateKey.from_private_bytes(base64.b64decode(key))

    def sign(self, message: bytes) -> SimpleNamespace:
        return SimpleNamespace(signature=self._key.sign(message))


class _VerifyKey:
    def __init__(self, key: bytes, *, encoder: object) -> None:
        del encoder
        self._key = Ed25519PublicKey.from_public_bytes(base64.b64decode(key))

    def verify(self, message: bytes, signature: bytes) -> None:
        try:
            self._key.verify(signature, message)
        except InvalidSignature:
            raise BadSignatureError from None


nacl = SimpleNamespace(
    signing=SimpleNamespace(SigningKey=_SigningKey, VerifyKey=_VerifyKey),
    encoding=SimpleNamespace(Base64Encoder=None),
    exceptions=SimpleNamespace(BadSignatureError=BadSignatureError, ValueError=ValueError),
)


def key_pair() -> tuple[bytes, bytes]:
    """A new private key and its public key, both in base64, as RFC 8463 has them."""
    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(Encoding.Raw, PrivateFormat.Raw, NoEncryption())
    public = key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    return base64.b64encode(private), base64.b64encode(public)
