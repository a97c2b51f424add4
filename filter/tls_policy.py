"""How far encryption to the next hop must go: the words of `next_hop.tls`. Raises nothing."""

from enum import StrEnum


class TlsPolicy(StrEnum):
    """How connections to the next hop are encrypted; `VERIFY` alone also checks who is there."""

    OFF = "off"
    OPPORTUNISTIC = "opportunistic"  # where offered; in the clear if it then fails
    REQUIRE = "require"
    VERIFY = "verify"
