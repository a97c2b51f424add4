"""When certificates that we show to others expire.

Raises OSError for a file that cannot be read and ValueError for one that holds no certificate.
"""

from pathlib import Path

from cryptography import x509


def expiry(path: Path) -> float:
    """The end of a PEM file's validity, in epoch seconds: of its certificates, the one that expires first."""
    certificates = x509.load_pem_x509_certificates(path.read_bytes())
    return min(one.not_valid_after_utc.timestamp() for one in certificates)
