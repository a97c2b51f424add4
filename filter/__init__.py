"""consentry: judges outbound messages by their content and lets each recipient's copy through, holds it or diverts it."""

__version__ = "0.1.0"
