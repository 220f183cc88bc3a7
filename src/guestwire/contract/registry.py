"""All endpoints; and those that one guest agent's socket can serve, which are quick to load."""

from typing import Final

from guestwire.contract.endpoint import Registry
from guestwire.contract.endpoints import audit, cluster, events, pools, program_streams, tasks
from guestwire.contract.endpoints.access import acl, groups, index, roles, tickets, tokens, users
from guestwire.contract.guest_registry import GUEST_ENDPOINTS, MACHINE_ENDPOINTS

ENDPOINTS: Final = Registry(
    GUEST_ENDPOINTS, MACHINE_ENDPOINTS, index.endpoints, tickets.endpoints, users.endpoints, tokens.endpoints, groups.endpoints, roles.endpoints,
    acl.endpoints, pools.endpoints, audit.endpoints, cluster.endpoints, tasks.endpoints, events.endpoints, program_streams.endpoints,
)  # fmt: skip
