"""The state directory of a server: where it is, and who may use it."""

import contextlib
import os
import pwd
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import argon2 as _  # noqa: F401  # a package of the extra is missed here, and not in the middle of a change

from guestwire.errors import StoreError
from guestwire.inventory.config import ServerConfig, read_config

STORE: Final = "access.db"
"""Users, access and audit records."""

DEFAULT_CONFIG: Final = Path("/etc/guestwire/guestwire.toml")


@dataclass(frozen=True, slots=True)
class StateLocation:
    """The state directory of a server, and the name of its node."""

    state_dir: Path
    node: str

    @property
    def store(self) -> Path:
        """The store's file."""
        return self.state_dir / STORE

    def require_store(self) -> None:
        """Refuses a place without a store: only the server makes one, else a wrong folder would get one that no server uses.

        Raises:
            StoreError: there is none.
        """
        if not _exists(self.store):
            raise StoreError(
                f"{self.store}: there is no store yet; start the server once, it makes one: guestwire serve --config FILE;"
                " if it has one, name the server's configuration here too: --config FILE, or GUESTWIRE_CONFIG"
            )

    def require_access(self) -> None:
        """Refuses a store that this process can't write: SQLite writes beside the file even to read it.

        Raises:
            StoreError: it belongs to another user; the text says who can use it.
        """
        if _may_write(self.state_dir, os.X_OK) and not (_exists(self.store) and not _may_write(self.store)):
            return
        who_can = ""
        for path in (self.store, self.state_dir):
            with contextlib.suppress(OSError):
                owner = path.stat().st_uid
                if owner != os.geteuid():
                    name = user_name(owner)
                    who_can = f"; user '{name}' can: sudo -u {name} guestwire …"
                break
        raise StoreError(f"{self.store}: user '{user_name(os.geteuid())}' can't use it{who_can}")

    def give_to_owner(self) -> None:
        """Makes files that root put there belong to the folder's owner: the server may run as another user."""
        if os.geteuid() != 0:
            return
        owner = self.state_dir.stat()
        for path in self.state_dir.glob(f"{STORE}*"):
            os.chown(path, owner.st_uid, owner.st_gid)


def state_location(config: Path | None = None, state_dir: Path | None = None) -> StateLocation:
    """The place that a configuration file or a state directory means; by default that of `DEFAULT_CONFIG`, if it is there.

    Raises:
        ConfigurationError: the file can't be used.
    """
    if config is None and state_dir is None and _exists(DEFAULT_CONFIG):
        config = DEFAULT_CONFIG
    server = read_config(config).server if config else ServerConfig()
    return StateLocation(state_dir or Path(server.state_dir), server.node)


def configured_vms(config: Path | None = None) -> dict[int, str] | None:
    """The names of VMs by their ids ("": it has none), as a configuration file has them, by default `DEFAULT_CONFIG`.

    None: there is no file, and nothing is known of VMs.

    Raises:
        ConfigurationError: the file can't be used.
    """
    if config is None and not _exists(DEFAULT_CONFIG):
        return None
    return {vm.vmid: vm.name or "" for vm in read_config(config or DEFAULT_CONFIG).vm}


def user_name(uid: int) -> str:
    """The account's name, or its number where it has none."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _exists(path: Path) -> bool:
    """True also when it can't be seen: opening it says why not."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True
    return True


def _may_write(path: Path, more: int = 0) -> bool:
    """As the user that the process acts as, which is the one that opens files."""
    return os.access(path, os.R_OK | os.W_OK | more, effective_ids=os.access in os.supports_effective_ids)
