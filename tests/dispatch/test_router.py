"""The router: finds what was added, and nothing else."""

import itertools
import re
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from guestwire.access.checks import LoggedIn
from guestwire.contract import Effect, Endpoint, Parameters
from guestwire.contract.registry import ENDPOINTS
from guestwire.dispatch.pipeline import Router

METHODS = ("GET", "POST", "PUT", "DELETE")


async def nothing(_context: object, _parameters: Parameters) -> None:
    """Does nothing."""


def endpoint(method: str, path: str) -> Endpoint:
    return Endpoint(method, path, path, "", Parameters, Any, LoggedIn(), Effect.READS, 1.0, nothing)


WORDS = st.sampled_from(["a", "b", "agent", "{id}", "{id}x", "{}"])
PATHS = st.lists(WORDS, max_size=4).map(lambda words: "/" + "/".join(words))
CALLS = st.tuples(st.sampled_from(METHODS), PATHS)


def filled(path: str) -> str:
    """The path with values for its parameters."""
    return path.replace("{id}x", "\x01").replace("{id}", "100").replace("\x01", "{id}x")


def with_values(path: str) -> str:
    """A known path, with something for each parameter."""
    return re.sub(r"\{\w+\}", "100", path)


@given(calls=st.sets(CALLS, max_size=12))
def test_what_was_added_is_found(calls: set[tuple[str, str]]) -> None:
    endpoints = {call: endpoint(*call) for call in calls}
    router = Router(endpoints.values())

    for (method, path), added in endpoints.items():
        found = router.find(method, filled(path))
        assert found
        assert found.endpoint is added
        assert found.in_path == ({"id": "100"} if "{id}" in path.split("/") else {})


@given(
    calls=st.sets(CALLS, max_size=6), method=st.sampled_from([*METHODS, "get", ""]), path=PATHS | st.text(max_size=10)
)
def test_what_was_not_added_is_not_found(calls: set[tuple[str, str]], method: str, path: str) -> None:
    def matches(added: str) -> bool:
        wanted, given = ([word for word in text.split("/") if word] for text in (added, path))
        return len(wanted) == len(given) and all(
            want in ("{id}", word) for want, word in zip(wanted, given, strict=True)
        )

    assume(not any(method == other and matches(added) for other, added in calls))

    assert Router(endpoint(*call) for call in calls).find(method, path) is None


@pytest.mark.parametrize("path", ["/nodes/pve1/qemu", "nodes/pve1/qemu", "//nodes///pve1/qemu/", "/nodes/pve1//qemu//"])
def test_empty_steps_do_not_count(path: str) -> None:
    found = Router(ENDPOINTS).find("GET", path)

    assert found
    assert (found.endpoint.path, found.in_path) == ("/nodes/{node}/qemu", {"node": "pve1"})


def test_every_endpoint_of_the_contract_is_found() -> None:
    router = Router(ENDPOINTS)

    for known in ENDPOINTS:
        found = router.find(known.method, with_values(known.path))
        assert found
        assert found.endpoint is known


def test_a_known_path_answers_only_its_own_methods() -> None:
    router, known = Router(ENDPOINTS), {(one.method, one.path) for one in ENDPOINTS}
    others = [(method, one.path) for method, one in itertools.product(METHODS, ENDPOINTS) if (method, one.path) not in known]  # fmt: skip

    assert others
    assert not any(router.find(method, with_values(path)) for method, path in others)


@pytest.mark.parametrize("value", ["pve1", "a.b", "%41", "..", "{node}", "\xe9"])
def test_a_parameter_is_anything_without_white_space(value: str) -> None:
    found = Router(ENDPOINTS).find("GET", f"/nodes/{value}/qemu")

    assert found
    assert found.in_path == {"node": value}


@pytest.mark.parametrize("value", [" ", "a b", "a\tb", "\n", "a\n"])
def test_white_space_is_no_parameter(value: str) -> None:
    assert Router(ENDPOINTS).find("GET", f"/nodes/{value}/qemu") is None
