"""All endpoints."""

from typing import Final

from guestwire.contract.endpoint import Registry
from guestwire.contract.endpoints import agent, nodes

ENDPOINTS: Final = Registry(nodes.endpoints, agent.endpoints)
