"""How a caller shows a server who they are, and how they know the server."""

from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Credentials:
    """A token (`USER@REALM!NAME=SECRET`), or user and password; not shown."""

    token: str = field(default="", repr=False)
    user: str = ""
    password: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Trust:
    """Whose certificate is taken: a CA's (`ca`: a file), the one with this SHA-256 fingerprint, or, with `verify=False`, anybody's."""

    ca: Path | None = None
    fingerprint: str = ""
    verify: bool = True
