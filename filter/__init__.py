"""consentry: judges outbound messages by content and relays, holds or diverts each recipient's copy."""

__version__ = "0.1.0"
