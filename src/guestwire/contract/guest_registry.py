"""The endpoints of a node and its guests: they need no users, and so no store, and load quickly."""

from typing import Final

from guestwire.contract.endpoint import Registry
from guestwire.contract.endpoints import agent, files, further_commands, leases, machines, nodes, processes, vm_power

GUEST_ENDPOINTS: Final = Registry(
    nodes.endpoints,
    agent.endpoints,
    leases.endpoints,
    processes.endpoints,
    files.endpoints,
    further_commands.endpoints,
)

MACHINE_ENDPOINTS: Final = Registry(machines.endpoints, vm_power.endpoints)
"""The endpoints of a VM that its agent's socket can't serve: a client of a server has them, too."""

CLIENT_ENDPOINTS: Final = Registry(GUEST_ENDPOINTS, MACHINE_ENDPOINTS)
"""What a client's methods, commands and tools are made of."""
