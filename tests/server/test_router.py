"""The router: finds what was added, and nothing else."""

import itertools
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from guestwire.contract import ENDPOINTS, Context, Effect, Endpoint, Parameters
from guestwire.errors import NotImplementedHere
from guestwire.server.router import Router

METHODS = ("GET", "POST", "PUT", "DELETE")


async def nothing(_context: Context, _parameters: Parameters) -> None:
    """Does nothing."""


def endpoint(method: str, path: str) -> Endpoint:
    return Endpoint(method, path, path, "", Parameters, Any, None, Effect.READS, 1.0, nothing)


WORDS = st.sampled_from(["a", "b", "agent", "{id}", "{id}x", "{}"])
PATHS = st.lists(WORDS, max_size=4).map(lambda words: "/" + "/".join(words))
CALLS = st.tuples(st.sampled_from(METHODS), PATHS)


def filled(path: str) -> str:
    """The path with values for its parameters."""
    return path.replace("{id}x", "\x01").replace("{id}", "100").replace("\x01", "{id}x")


@given(calls=st.sets(CALLS, max_size=12))
def test_what_was_added_is_found(calls: set[tuple[str, str]]) -> None:
    endpoints = {call: endpoint(*call) for call in calls}
    router = Router(endpoints.values())

    for (method, path), added in endpoints.items():
        found, in_path = router.find(method, filled(path))
        assert found is added
        assert in_path == ({"id": "100"} if "{id}" in path.split("/") else {})


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

    with pytest.raises(NotImplementedHere):
        Router(endpoint(*call) for call in calls).find(method, path)


@pytest.mark.parametrize("path", ["/nodes/pve1/qemu", "nodes/pve1/qemu", "//nodes///pve1/qemu/", "/nodes/pve1//qemu//"])
def test_empty_steps_do_not_count(path: str) -> None:
    found, in_path = Router(ENDPOINTS).find("GET", path)

    assert (found.path, in_path) == ("/nodes/{node}/qemu", {"node": "pve1"})


def test_every_endpoint_of_the_contract_is_found() -> None:
    router = Router(ENDPOINTS)

    found = [router.find(known.method, known.path.format(node="pve1", vmid="100"))[0] for known in ENDPOINTS]

    assert found == list(ENDPOINTS)
    assert len(found) == 31


def test_a_known_path_answers_only_its_own_methods() -> None:
    router, known = Router(ENDPOINTS), {(one.method, one.path) for one in ENDPOINTS}
    others = [(method, one.path) for method, one in itertools.product(METHODS, ENDPOINTS) if (method, one.path) not in known]  # fmt: skip

    for method, path in others:
        with pytest.raises(NotImplementedHere, match=f"Method '{method} "):
            router.find(method, path.format(node="pve1", vmid="100"))
    assert others


@pytest.mark.parametrize("value", ["pve1", "a.b", "%41", "..", "{node}", "\xe9"])
def test_a_parameter_is_anything_without_white_space(value: str) -> None:
    assert Router(ENDPOINTS).find("GET", f"/nodes/{value}/qemu")[1] == {"node": value}


@pytest.mark.parametrize("value", [" ", "a b", "a\tb", "\n", "a\n"])
def test_white_space_is_no_parameter(value: str) -> None:
    with pytest.raises(NotImplementedHere):
        Router(ENDPOINTS).find("GET", f"/nodes/{value}/qemu")
