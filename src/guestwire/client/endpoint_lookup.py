"""The contract as a client sees it: what a call does, and which endpoints there are."""

from typing import Any

from guestwire.contract import Effect
from guestwire.contract.registry import ENDPOINTS
from guestwire.dispatch import Router

_router = Router(ENDPOINTS)


def disrupts(method: str, path: str) -> bool:
    """True when a call may stop a guest, or what runs in it, from working.

    Of the calls that the contract does not have, only a GET can't.
    """
    found = _router.find(method, path)
    return found.endpoint.effect is Effect.DISRUPTS if found else method != "GET"


def every() -> list[dict[str, Any]]:
    """All endpoints in the order of their paths.

    Each has `method`, `path`, `name`, `summary`, `privileges`, `effect`, and `timeout` in seconds.
    """
    return [
        {
            "method": endpoint.method,
            "path": endpoint.path,
            "name": endpoint.name,
            "summary": endpoint.summary,
            "privileges": str(endpoint.check).replace("`", ""),
            "effect": endpoint.effect.value,
            "timeout": endpoint.timeout,
        }
        for endpoint in sorted(ENDPOINTS, key=lambda one: (one.path, one.method))
    ]
