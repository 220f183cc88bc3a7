"""Who calls, and what they may do."""

from guestwire.access.decision import authorize
from guestwire.access.tokens import Subject, Tokens, admin_token

__all__ = ["Subject", "Tokens", "admin_token", "authorize"]
