"""The contract as a client sees it: which endpoint a method and path mean, and all that there are."""

from collections.abc import Iterable, Mapping
from functools import cache, lru_cache
from typing import Any, Final

from guestwire.contract import Effect, Endpoint
from guestwire.contract.endpoints import agent, files, nodes

Found = tuple[Endpoint, Mapping[str, str]]

NEAR: Final = (*nodes.endpoints, *agent.endpoints, *files.endpoints)
"""What nearly every call is about; the rest is loaded when it is wanted."""


@cache
def _every() -> tuple[Endpoint, ...]:
    from guestwire.contract.registry import ENDPOINTS  # noqa: PLC0415  # see NEAR

    return tuple(ENDPOINTS)


@lru_cache(maxsize=1024)
def find(method: str, path: str) -> Found | None:
    """The endpoint with this method and path (below `/api2/json`), and the parameters in the path; None: the contract has none."""
    return _among(NEAR, method, path) or _among(_every(), method, path)


def _among(endpoints: Iterable[Endpoint], method: str, path: str) -> Found | None:
    steps = path.strip("/").split("/")
    for endpoint in endpoints:
        if endpoint.method == method and (given := _match(endpoint.path.strip("/").split("/"), steps)) is not None:
            return endpoint, given
    return None


def _match(template: list[str], steps: list[str]) -> dict[str, str] | None:
    if len(template) != len(steps):
        return None
    given = {}
    for wanted, step in zip(template, steps, strict=True):
        if wanted.startswith("{") and step:
            given[wanted.strip("{}")] = step
        elif wanted != step:
            return None
    return given


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
        for endpoint in sorted(_every(), key=lambda one: (one.path, one.method))
    ]
