"""Open files: the limit is raised as far as it goes, and shared out, so that guests can't take the places of clients."""

import logging
from dataclasses import dataclass
from typing import Final

from guestwire.counting import counted
from guestwire.inventory import Config
from guestwire.open_files import raise_limit
from guestwire.server.listener import MAX_CONNECTIONS

log = logging.getLogger("guestwire")

RESERVED: Final = 128
"""For the store, logs, files, the loop's own, and connections that are just being closed to make room for others."""

CLIENTS: Final = 4
"""Where there are too few descriptors, 1 in so many is for clients."""


@dataclass(frozen=True, slots=True)
class Shares:
    """How many connections there may be to guests and of clients."""

    guests: int
    clients: int


def share_out(config: Config) -> Shares:
    """Raises the soft limit of open files to the hard one, and says in the log what it allows when that is too little."""
    limit = raise_limit()
    needed = sum((vm.agent is not None) + (vm.qmp is not None) for vm in config.vm)
    shares = shares_of(limit, needed)
    if shares.guests < needed or shares.clients < MAX_CONNECTIONS:
        log.warning(
            "%s, which is enough for %d of %s to guests that the configuration names, and for %s; raise the limit to %d (systemd: LimitNOFILE, a shell: ulimit -n)",
            counted(limit, "open file is allowed", "open files are allowed"), min(shares.guests, needed),
            counted(needed, "connection"), counted(shares.clients, "client"), needed + MAX_CONNECTIONS + RESERVED,
        )  # fmt: skip
    return shares


def shares_of(limit: int, needed: int) -> Shares:
    """The shares of a limit, when `needed` connections to guests are wanted."""
    usable = max(limit - RESERVED, CLIENTS)
    clients = min(MAX_CONNECTIONS, max(usable // CLIENTS, usable - needed))
    return Shares(usable - clients, clients)
