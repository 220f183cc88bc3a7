"""The registry: how a record comes to be, and what it refuses."""

from typing import Annotated

import pytest

from guestwire.access.checks import Privileges
from guestwire.contract import (
    Effect,
    Endpoint,
    Level,
    Origin,
    Parameters,
    Registry,
    Role,
    ToolView,
    VmParameters,
    parameter,
)
from guestwire.contract.endpoint import DEFAULT_TIMEOUT, LEVELS, VM
from guestwire.contract.parameters import RoleBy
from guestwire.contract.registry import ENDPOINTS


async def nothing(_context: object, _parameters: Parameters) -> int:
    """Does nothing.

    And takes its time.
    """
    return 0


async def silent(_context: object, _parameters: Parameters) -> None:
    """Says nothing."""


async def undocumented(_context: object, _parameters: Parameters) -> None:
    pass


def registry(*paths: str) -> Registry:
    made = Registry()
    for path in paths:
        made.endpoint("GET", path, Parameters)(nothing)
    return made


def test_the_decorator_returns_the_record_and_adds_it() -> None:
    made = Registry()

    endpoint = made.endpoint("GET", "/a/b-c", Parameters)(nothing)

    assert list(made) == [endpoint]


def test_a_record_takes_name_summary_and_result_from_path_and_function() -> None:
    check = Privileges("/vms/{vmid}", ("VM.Audit",))

    endpoint = Registry().endpoint("POST", "/a/b-c", Parameters, check=check, effect=Effect.WRITES, timeout=3)(nothing)

    assert endpoint == Endpoint(
        method="POST",
        path="/a/b-c",
        name="b-c",
        summary="Does nothing.",
        parameters=Parameters,
        returns=int,
        check=check,
        effect=Effect.WRITES,
        timeout=3,
        function=nothing,
    )


def test_a_record_that_says_nothing_of_them_reads_and_has_the_default_time() -> None:
    endpoint = Registry().endpoint("GET", "/a", Parameters)(nothing)

    assert (endpoint.effect, endpoint.timeout) == (Effect.READS, DEFAULT_TIMEOUT)


def test_a_function_without_result_makes_a_record_too() -> None:
    assert Registry().endpoint("GET", "/a", Parameters)(silent).returns is type(None)


def test_a_function_without_docstring_makes_no_record() -> None:
    with pytest.raises(TypeError, match="GET /a is not documented"):
        Registry().endpoint("GET", "/a", Parameters)(undocumented)


class Unnamed(Parameters, frozen=True, kw_only=True):
    file: str


class List(Parameters, frozen=True, kw_only=True):
    command: list[str]


class Vague(Parameters, frozen=True, kw_only=True):
    secret: Annotated[str, parameter("A secret.")] | None = None


@pytest.mark.parametrize("parameters", [Unnamed, List, Vague])
def test_a_text_or_a_list_without_a_role_does_not_load(parameters: type[Parameters]) -> None:
    with pytest.raises(TypeError, match=r"is a text without a role"):
        Registry().endpoint("GET", "/a", parameters)(nothing)


class Paths(Parameters, frozen=True, kw_only=True):
    files: Annotated[list[str], parameter("Several.", Role.READ_PATH)]


class NoProgram(Parameters, frozen=True, kw_only=True):
    env: Annotated[list[str], parameter("NAME=VALUE.", Role.ENVIRONMENT)]


class SometimesPlain(Parameters, frozen=True, kw_only=True):
    way: Annotated[str, parameter("Which.", Role.TEXT, enum=("a", "b"))]
    what: Annotated[str, parameter("It.", RoleBy("way", {"a": Role.READ_PATH, "b": Role.PLAIN}))]


@pytest.mark.parametrize(
    ("parameters", "why"),
    [
        (Paths, "is a list of paths"),
        (NoProgram, r"no parameter has Role\.ARGUMENTS"),
        (SometimesPlain, "is a text without a role"),
    ],
)
def test_what_no_rule_could_be_asked_about_does_not_load(parameters: type[Parameters], why: str) -> None:
    with pytest.raises(TypeError, match=why):
        Registry().endpoint("GET", "/a", parameters)(nothing)


def test_a_tool_that_is_about_no_guest_does_not_load() -> None:
    with pytest.raises(TypeError, match="is a tool, but about no guest"):
        Registry().endpoint("GET", "/a", Parameters, tool=ToolView(Level.READ))(nothing)


def test_a_parameter_in_the_path_that_is_no_parameter_does_not_load() -> None:
    with pytest.raises(TypeError, match="name is in the path and no parameter"):
        Registry().endpoint("GET", "/a/{name}", Parameters)(nothing)


def test_a_tool_whose_level_nothing_names_does_not_load() -> None:
    with pytest.raises(TypeError, match="is a tool without a level"):
        Registry().endpoint("GET", "/a", Parameters, tool=ToolView())(nothing)


@pytest.mark.parametrize(("privilege", "level"), LEVELS.items())
def test_a_tool_has_the_level_of_its_first_privilege_unless_its_view_names_one(privilege: str, level: Level) -> None:
    check = Privileges("/vms/{vmid}", (privilege, "VM.GuestAgent.Unrestricted"))

    assert Registry().endpoint("GET", f"{VM}/a", VmParameters, check=check, tool=ToolView())(nothing).level is level
    named = Registry().endpoint("GET", f"{VM}/a", VmParameters, check=check, tool=ToolView(Level.POWER))(nothing)
    assert named.level is Level.POWER


@pytest.mark.parametrize(
    ("path", "origin"), [("/nodes/{node}/qemu/{vmid}/agent/x", Origin.PVE), ("/nodes/{node}/guestwire/x", Origin.OWN)]
)
def test_an_endpoint_below_our_own_step_is_ours(path: str, origin: Origin) -> None:
    assert Registry().endpoint("GET", path, VmParameters)(nothing).origin is origin


def test_a_method_and_path_is_taken_once() -> None:
    made = registry("/a")

    with pytest.raises(ValueError, match="GET /a is there already"):
        made.endpoint("GET", "/a", Parameters)(silent)
    assert [endpoint.function for endpoint in made] == [nothing]


def test_the_same_path_may_have_several_methods() -> None:
    made = registry("/a")
    made.endpoint("POST", "/a", Parameters)(nothing)

    assert [endpoint.method for endpoint in made] == ["GET", "POST"]


def test_a_registry_is_made_of_others_in_their_order() -> None:
    assert [endpoint.path for endpoint in Registry(registry("/b", "/a"), registry("/c"))] == ["/b", "/a", "/c"]


def test_registries_that_overlap_make_no_registry() -> None:
    with pytest.raises(ValueError, match="GET /a is there already"):
        Registry(registry("/a"), registry("/a"))


def test_children_are_the_names_one_step_below_sorted_and_once() -> None:
    made = registry("/a", "/a/c", "/a/b/x", "/a/b/y", "/a/b", "/ab/z", "/d")

    assert made.children("/a") == ["b", "c"]
    assert made.children("/a/b") == ["x", "y"]


@pytest.mark.parametrize("path", ["/a/c", "/nothing", "/A"])
def test_where_nothing_is_below_there_are_no_children(path: str) -> None:
    assert registry("/a/c").children(path) == []


@pytest.mark.parametrize("endpoint", list(ENDPOINTS), ids=lambda endpoint: f"{endpoint.method} {endpoint.path}")
def test_every_endpoint_has_a_summary_of_one_sentence_and_some_time(endpoint: Endpoint) -> None:
    assert endpoint.summary.endswith(".")
    assert endpoint.timeout >= DEFAULT_TIMEOUT
