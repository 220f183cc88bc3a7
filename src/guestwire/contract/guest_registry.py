"""The endpoints of a node and its guests: they need no users, and so no store, and load quickly."""

from typing import Final

from guestwire.contract.endpoint import Registry
from guestwire.contract.endpoints import agent, files, nodes, processes

GUEST_ENDPOINTS: Final = Registry(nodes.endpoints, agent.endpoints, processes.endpoints, files.endpoints)
