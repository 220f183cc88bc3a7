"""The ways to a guest: an agent's own socket, guestwire, and guestwire with what Proxmox VE has and no more."""

from dataclasses import dataclass
from pathlib import Path

from serving import Serving

from guestwire.client import Guest, Host, connect
from guestwire.testing import SandboxedAgent


@dataclass
class Way:
    """To one real agent.

    Attributes:
        host: connected.
        guest: the only one of interest there.
        agent: the guest's.
        server: between them, if there is one.
        options: what stands before a command of `guestwire` to go the same way.
    """

    host: Host
    guest: Guest
    agent: SandboxedAgent
    server: Serving | None
    options: list[str]

    def leftovers(self, *folders: Path) -> list[str]:
        """What copies left in the guest's home and in folders here."""
        return [
            path.name for folder in (self.agent.home, *folders) for path in folder.iterdir() if "guestwire" in path.name
        ]


@dataclass
class Target:
    """A guest, whatever it is called: what stands before the command to reach it, its agent, and the host name that it has.

    `is_limited`: by a server with what Proxmox VE has and no more.
    """

    options: list[str]
    agent: SandboxedAgent
    host_name: str
    is_limited: bool = False


async def over_https(server: Serving) -> Host:
    """As its administrator."""
    return await connect(f"https://127.0.0.1:{server.port}", token=server.token, ca=ca_of(server))


def ca_of(server: Serving) -> str:
    """The file with its certificate."""
    return str(server.folder / "state" / "server.pem")


def options_for(server: Serving) -> list[str]:
    """What stands before a command."""
    token = str(server.folder / "state" / "admin-token")
    return ["--host", f"https://127.0.0.1:{server.port}", "--token-file", token, "--ca", ca_of(server)]
