"""Who calls, and what they may do: `engine.py` decides, `control.py` is what the server uses."""

from guestwire.access.control import Access
from guestwire.access.credentials import Credentials, credentials
from guestwire.access.subject import Subject

__all__ = ["Access", "Credentials", "Subject", "credentials"]
