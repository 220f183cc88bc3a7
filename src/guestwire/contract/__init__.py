"""The contract: every endpoint of the API as a record, from which everything else follows; all of them together are `registry.ENDPOINTS`."""

from guestwire.contract.context import (
    AccessContext,
    FreezeNote,
    GuestContext,
    HostFigures,
    NodeContext,
    PoolContext,
    VmState,
)
from guestwire.contract.endpoint import Effect, Endpoint, Kind, Origin, Registry
from guestwire.contract.faces import CommandView, Level, ToolView
from guestwire.contract.parameters import Parameters, Role, VmParameters, join_lists, parameter, rules, validate
from guestwire.contract.text import ByteText, to_bytes

__all__ = [
    "AccessContext",
    "ByteText",
    "CommandView",
    "Effect",
    "Endpoint",
    "FreezeNote",
    "GuestContext",
    "HostFigures",
    "Kind",
    "Level",
    "NodeContext",
    "Origin",
    "Parameters",
    "PoolContext",
    "Registry",
    "Role",
    "ToolView",
    "VmParameters",
    "VmState",
    "join_lists",
    "parameter",
    "rules",
    "to_bytes",
    "validate",
]
