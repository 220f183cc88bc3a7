"""Our endpoint records against the facts of Proxmox VE's API, in both directions."""

import tomllib
from pathlib import Path
from typing import Any, Final

import pytest

from guestwire.access.checks import (
    AllOf,
    AnyOf,
    Check,
    Everybody,
    LoggedIn,
    ModifyPermissions,
    OverRealm,
    OverUser,
    Privileges,
    Self,
)
from guestwire.contract import Endpoint, rules
from guestwire.contract.parameters import Rule
from guestwire.contract.registry import ENDPOINTS

FACTS: Final[dict[str, Any]] = tomllib.loads(Path(__file__).with_name("pve-api.toml").read_text(encoding="utf-8"))
PVE: Final = {(fact["method"], fact["path"]): fact for fact in FACTS["endpoint"]}
OURS: Final = {(endpoint.method, endpoint.path): endpoint for endpoint in ENDPOINTS}

UNCHANGED_WHEN_ABSENT: Final = {
    ("GET", "/access/users"): ("enabled",),
    ("PUT", "/access/users/{userid}"): ("enable",),
    ("PUT", "/access/users/{userid}/token/{tokenid}"): ("privsep",),
}
"""Booleans that mean nothing when they are absent, whatever default the schema names: Proxmox VE does not apply it."""

AGENT: Final = "/nodes/{node}/qemu/{vmid}/agent"
ROOT: Final = ("GET", "/")
"""Served by Proxmox VE too; its schema leaves it out."""

OF_OUR_OWN: Final = (
    ("GET", "/nodes/{node}/guestwire/audit"),
    ("GET", "/nodes/{node}/guestwire/events"),
    ("GET", "/nodes/{node}/guestwire/frozen"),
    ("POST", "/nodes/{node}/qemu/{vmid}/guestwire/fsfreeze-freeze"),
    ("POST", "/nodes/{node}/qemu/{vmid}/guestwire/agent-channel"),
    ("GET", "/nodes/{node}/qemu/{vmid}/guestwire/file-list"),
    ("POST", "/nodes/{node}/qemu/{vmid}/guestwire/file-piece"),
    ("POST", "/nodes/{node}/qemu/{vmid}/guestwire/file-append"),
    ("POST", "/nodes/{node}/qemu/{vmid}/guestwire/exec"),
    ("GET", "/nodes/{node}/qemu/{vmid}/guestwire/stream"),
    *(("GET", f"/nodes/{{node}}/qemu/{{vmid}}/guestwire/{name}") for name in (
        "get-disks", "get-diskstats", "get-cpustats", "get-load", "get-devices", "network-get-route", "ssh-get-authorized-keys",
    )),
    *(("POST", f"/nodes/{{node}}/qemu/{{vmid}}/guestwire/{name}") for name in (
        "ssh-add-authorized-keys", "ssh-remove-authorized-keys", "set-time", "set-vcpus", "set-memory-blocks", "shutdown", "fstrim",
    )),
)  # fmt: skip
"""Under a name of our own."""


NOT_IN_THE_FACTS: Final = {
    (method, path)
    for method, path in OURS
    if path.startswith(("/cluster/", "/storage", "/nodes/{node}/tasks"))
    or (method == "POST" and "/status/" in path)
    or path.endswith(("/lxc", "/storage", "/replication", "/subscription", "/nodes/{node}/config", "/pending"))
    or "/snapshot" in path
} - PVE.keys()
"""Proxmox VE's, beyond the part of its schema that is kept here: `tests/conformance` holds their recorded answers."""


def names(keys: set[tuple[str, str]]) -> list[str]:
    return sorted(" ".join(key) for key in keys)


def test_the_facts_hold_every_endpoint_once() -> None:
    assert len(PVE) == len(FACTS["endpoint"])


def test_every_endpoint_of_the_facts_is_ours() -> None:
    assert names(PVE.keys() - OURS.keys()) == []


def test_every_endpoint_of_ours_is_in_the_facts() -> None:
    assert names(OURS.keys() - PVE.keys()) == names({ROOT, *OF_OUR_OWN, *NOT_IN_THE_FACTS})


@pytest.mark.parametrize("key", PVE, ids=" ".join)
def test_an_endpoint_has_the_parameters_of_proxmox_ve(key: tuple[str, str]) -> None:
    assert our_parameters(OURS[key]) == expected_parameters(PVE[key])


@pytest.mark.parametrize("key", PVE, ids=" ".join)
def test_an_endpoint_needs_what_it_needs_in_proxmox_ve(key: tuple[str, str]) -> None:
    assert as_schema(OURS[key].check) == (PVE[key].get("user") or PVE[key]["check"])


@pytest.mark.parametrize("key", PVE, ids=" ".join)
def test_an_endpoint_takes_api_tokens_where_proxmox_ve_does(key: tuple[str, str]) -> None:
    assert OURS[key].tokens == PVE[key].get("tokens", True)


def as_schema(check: Check) -> Any:  # noqa: PLR0911  # one case each
    """As the schema writes it."""
    match check:
        case Everybody():
            return "world"
        case LoggedIn():
            return "all"
        case Privileges():
            several = ["any", 1] if len(check.any_of) > 1 else []
            return ["perm", check.path, list(check.any_of), *several]
        case ModifyPermissions():
            return ["perm-modify", "{path}"]
        case Self():
            return ["userid-param", "self"]
        case OverRealm():
            return ["userid-param", check.privilege]
        case OverUser():
            return ["userid-group", list(check.any_of), *(["groups_param", check.groups] if check.groups else [])]
        case AnyOf() | AllOf():
            return ["or" if isinstance(check, AnyOf) else "and", *map(as_schema, check.checks)]


@pytest.mark.parametrize("key", PVE, ids=" ".join)
def test_an_endpoint_allows_other_parameters_as_proxmox_ve_does(key: tuple[str, str]) -> None:
    assert OURS[key].parameters.ignore_unknown == PVE[key].get("allows-others", False)


@pytest.mark.parametrize("key", [key for key in PVE if key[1].startswith(AGENT + "/")], ids=" ".join)
def test_an_endpoint_is_named_by_the_last_word_of_its_path(key: tuple[str, str]) -> None:
    assert key[1] == f"{AGENT}/{OURS[key].name}"


def expected_parameters(fact: dict[str, Any]) -> dict[str, dict[str, Any]]:
    kept = UNCHANGED_WHEN_ABSENT.get((fact["method"], fact["path"]), ())
    in_path = {name: rule for name, rule in FACTS["path-parameters"].items() if f"{{{name}}}" in fact["path"]}
    rules_there = {name: with_default(rule) for name, rule in {**in_path, **fact.get("parameters", {})}.items()}
    return {name: without_default(rule) if name in kept else rule for name, rule in rules_there.items()}


def without_default(rule: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in rule.items() if key != "default"}


def with_default(rule: dict[str, Any]) -> dict[str, Any]:
    """Perl takes an absent boolean for false: it has that default, said or not."""
    unsaid = {"default": False} if rule["type"] == "boolean" and rule.get("optional") else {}
    return unsaid | rule


def our_parameters(endpoint: Endpoint) -> dict[str, dict[str, Any]]:
    return {name: as_fact(rule) for name, rule in rules(endpoint.parameters).items()}


def as_fact(rule: Rule) -> dict[str, Any]:
    fact = {
        "type": rule.kind,
        "items": "string" if rule.kind == "array" else None,
        "format": rule.format,
        "minimum": rule.minimum,
        "maximum": rule.maximum,
        "min-length": rule.min_length,
        "max-length": rule.max_length,
        "enum": list(rule.enum) if rule.enum else None,
        "pattern": rule.pattern,
        "requires": rule.requires,
        "optional": True if not rule.required else None,
        "default": rule.default,
    }
    return {key: value for key, value in fact.items() if value is not None}
