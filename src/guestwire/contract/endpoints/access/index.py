"""The index of `/access`.

Source: Proxmox VE's API of the same path.
"""

from typing import Final

from guestwire.contract.endpoint import Registry
from guestwire.contract.parameters import Parameters
from guestwire.contract.results import Subdirectory

endpoints = Registry()

INDEX: Final = ("users", "groups", "roles", "acl", "domains", "openid", "tfa", "ticket", "password")
"""What Proxmox VE lists, in its order."""


@endpoints.endpoint("GET", "/access", Parameters)
async def index(_context: object, _parameters: Parameters) -> list[Subdirectory]:
    """Names what is below."""
    return [Subdirectory(name) for name in INDEX]
