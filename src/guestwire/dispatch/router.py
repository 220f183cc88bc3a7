"""Finds the endpoint of a method and a path."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from guestwire.contract.endpoint import Endpoint

_parameter = re.compile(r"\{(\w+)\}")
_anything: Final = re.compile(r"\S+")


LONGEST_REMEMBERED: Final = 256
REMEMBERED: Final = 1024
"""Calls that need not be looked up again, and the length of their paths."""


class _Step:
    """One place in the tree of paths."""

    def __init__(self) -> None:
        self.named: dict[str, _Step] = {}
        self.parameter: tuple[str, _Step] | None = None
        self.endpoints: dict[str, Endpoint] = {}


@dataclass(frozen=True, slots=True)
class Route:
    """An endpoint, and the parameters in the path."""

    endpoint: Endpoint
    in_path: dict[str, str]


class Router:
    """A tree of path steps; empty steps don't count, a parameter is anything without white space."""

    def __init__(self, endpoints: Iterable[Endpoint]) -> None:
        self._root = _Step()
        self._remembered = lru_cache(maxsize=REMEMBERED)(self._find)
        for endpoint in endpoints:
            self._add(endpoint)

    def find(self, method: str, path: str) -> Route | None:
        """The endpoint of a method and path; None when there is none. Its `in_path` is for reading: the same call gets the same."""
        return self._find(method, path) if len(path) > LONGEST_REMEMBERED else self._remembered(method, path)

    def _find(self, method: str, path: str) -> Route | None:
        step, in_path = self._root, {}
        for word in path.split("/"):
            if not word:
                continue
            if word in step.named:
                step = step.named[word]
            elif step.parameter and _anything.fullmatch(word):
                name, step = step.parameter
                in_path[name] = word
            else:
                return None
        endpoint = step.endpoints.get(method)
        return Route(endpoint, in_path) if endpoint else None

    def _add(self, endpoint: Endpoint) -> None:
        step = self._root
        for word in filter(None, endpoint.path.split("/")):
            step = _next(step, word)
        step.endpoints[endpoint.method] = endpoint


def _next(step: _Step, word: str) -> _Step:
    if found := _parameter.fullmatch(word):
        step.parameter = step.parameter or (found[1], _Step())
        if step.parameter[0] != found[1]:
            raise ValueError(f"a parameter in the same place is called {{{step.parameter[0]}}} and {word}")
        return step.parameter[1]
    return step.named.setdefault(word, _Step())
