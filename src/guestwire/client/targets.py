"""A target is a URL, everywhere the same: `https://host:8006` (Proxmox VE or guestwire), `unix:/path/to.qga` (an agent itself)."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from guestwire.errors import ConfigurationError

PORT: Final = 8006

_https = re.compile(r"(?P<scheme>https?)://(?P<host>\[[0-9a-fA-F:.]+\]|[^/:\s\[\]]+)(?::(?P<port>[0-9]{1,5}))?/?")


@dataclass(frozen=True, slots=True)
class Https:
    """A server; `scheme` is http only where somebody asked for it by name."""

    scheme: str
    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.scheme}://{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Unix:
    """One guest agent's socket."""

    path: Path

    def __str__(self) -> str:
        return f"unix:{self.path}"


Target = Https | Unix


def parse_target(text: str) -> Target:
    """Reads a target; a bare host name means HTTPS on Proxmox VE's port.

    Raises:
        ConfigurationError: it is none.
    """
    if text.startswith("unix:"):
        return Unix(Path(text.removeprefix("unix:")))
    found = _https.fullmatch(text if "://" in text else f"https://{text}")
    if not found or int(found["port"] or PORT) > 65535:  # noqa: PLR2004  # a TCP port
        raise ConfigurationError(f"'{text}' is no target; write https://HOST:8006 or unix:/PATH/TO.qga")
    return Https(found["scheme"], found["host"], int(found["port"] or PORT))
