"""The contract as a client sees it: which endpoint a method and path mean, and all that there are."""

import re
from typing import Any, Final

from guestwire.contract import Effect, Endpoint
from guestwire.contract.registry import ENDPOINTS


def find(method: str, path: str) -> tuple[Endpoint, dict[str, str]] | None:
    """The endpoint with this method and path (below `/api2/json`), and the parameters in the path; None: the contract has none."""
    for endpoint, pattern in _PATTERNS:
        if endpoint.method == method and (found := pattern.fullmatch(path.rstrip("/") or "/")):
            return endpoint, found.groupdict()
    return None


def disrupts(method: str, path: str) -> bool:
    """Whether a call stops a guest, or what runs in it, from working; of a call that the contract does not have, unless it is a GET, nobody knows."""
    found = find(method, path)
    return found[0].effect is Effect.DISRUPTS if found else method != "GET"


def every() -> list[dict[str, Any]]:
    """All endpoints in the order of their paths: `method`, `path`, `name`, `summary`, `privileges`, `effect`, `timeout` in seconds."""
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


_PATTERNS: Final = [
    (endpoint, re.compile(re.sub(r"\\\{(\w+)\\\}", r"(?P<\1>[^/\\s]+)", re.escape(endpoint.path))))
    for endpoint in ENDPOINTS
]
