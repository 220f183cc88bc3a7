"""All endpoints."""

from typing import Final

from guestwire.contract.endpoint import Registry
from guestwire.contract.endpoints import access, agent, audit, files, nodes, pools

ENDPOINTS: Final = Registry(
    nodes.endpoints, agent.endpoints, access.endpoints, pools.endpoints, audit.endpoints, files.endpoints
)
