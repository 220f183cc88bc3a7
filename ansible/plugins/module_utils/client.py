"""guestwire's client, as plugins and modules of this collection use it. It runs where Ansible runs, never in a guest."""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING, Any, Final

from ansible.module_utils.basic import AnsibleModule

__all__ = (
    "MISSING",
    "SETTINGS",
    "AgentRefused",
    "GuestModule",
    "GuestwireError",
    "connect",
    "is_there",
    "load_all",
    "plain",
    "settings_in",
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from guestwire import SyncGuest, SyncHost

try:
    import guestwire
    import msgspec
    from guestwire.client.errors import AgentRefused, FileRefused
    from guestwire.errors import GuestwireError
except ImportError as error:
    MISSING = f"guestwire is not in the Python that runs Ansible ({error}): {sys.executable} -m pip install guestwire"

    class GuestwireError(Exception):  # type: ignore[no-redef]
        """Stands for that of the package, so that it can be caught."""

    class AgentRefused(GuestwireError):  # type: ignore[no-redef]
        """As above."""

    class FileRefused(GuestwireError):  # type: ignore[no-redef]
        """As above."""
else:
    MISSING = ""

SETTINGS: Final = {
    "host": {"type": "str"},
    "token": {"type": "str", "no_log": True},
    "token_file": {"type": "path", "no_log": False},
    "user": {"type": "str"},
    "password": {"type": "str", "no_log": True},
    "ca": {"type": "path"},
    "fingerprint": {"type": "str"},
    "profile": {"type": "str"},
}
"""What says which host, and who calls; documented in plugins/doc_fragments/host.py."""


def settings_in(options: Mapping[str, Any]) -> dict[str, str]:
    """Those that are given, of the very type C(str): a template's result is of a type of its own."""
    return {name: "".join(options[name]) for name in SETTINGS if options.get(name)}


def load_all() -> None:
    """Loads all that a task in a guest needs.

    Ansible's tasks are forks of the process that reads the inventory: each would load it again, for a third of a second.
    """
    for part in ("sync", "carriers.https", "transfer.files"):
        importlib.import_module(f"guestwire.client.{part}")


def plain(record: Any) -> Any:
    """A result of the client as JSON has it, with the API's names."""
    return msgspec.to_builtins(record)


def connect(options: Mapping[str, Any]) -> SyncHost:
    """The host that these options name.

    Raises:
        GuestwireError: an option can't be used.
    """
    settings = settings_in(options)
    return guestwire.connect_sync(settings.pop("host", None), profile=settings.pop("profile", None), **settings)


class GuestModule(AnsibleModule):
    """A module that works in the guest that its option C(guest) names."""

    def __init__(self, spec: dict[str, Any], **more: Any) -> None:
        spec = {"guest": {"type": "str", "required": True}, **SETTINGS, **spec}
        super().__init__(argument_spec=spec, supports_check_mode=True, **more)
        if MISSING:
            self.fail_json(msg=MISSING)

    def run(self, work: Any) -> None:
        """Ends the module with what C(work) makes of module and guest, or with the client's error."""
        try:
            with connect(self.params) as host:
                guest: SyncGuest = host.guest("".join(self.params["guest"]))
                self.exit_json(**work(self, guest))
        except GuestwireError as error:
            facts = {"http_status": getattr(error, "http_status", None), "error": type(error).__name__}
            self.fail_json(msg=str(error), **facts)


def is_there(guest: SyncGuest, path: str) -> bool:
    """True if something stands at this path of the guest, links followed."""
    try:
        guest.files.stat(path)
    except FileRefused:
        return False
    return True
