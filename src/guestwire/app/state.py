"""What stands in the state directory; a file of its own, for the command line must not load the server to know it."""

from typing import Final

STORE: Final = "access.db"
"""Users, access and audit records."""
