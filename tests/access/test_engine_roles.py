"""Built-in roles and privileges are Proxmox VE's; own roles are beside them, never in their place."""

import pytest
from slow_engine import BUILT_IN as WRITTEN_OUT
from slow_engine import EVERY_PRIVILEGE

from guestwire.access.capabilities import capabilities
from guestwire.access.paths import LONGEST, is_known, normalize, steps
from guestwire.access.privileges import ALL
from guestwire.access.roles import BUILT_IN, refuse_built_in, roles
from guestwire.errors import BuiltInRole
from guestwire.stores import AclEntry, Role, User
from guestwire.stores.snapshot import of

NAMES = """
Administrator NoAccess PVEAdmin PVEAuditor PVEDatastoreAdmin PVEDatastoreUser PVEMappingAdmin PVEMappingUser PVEPoolAdmin PVEPoolUser
PVESDNAdmin PVESDNUser PVESysAdmin PVETemplateUser PVEUserAdmin PVEVMAdmin PVEVMUser
"""


def test_the_built_in_roles_are_those_of_proxmox_ve() -> None:
    assert sorted(BUILT_IN) == NAMES.split()


def test_the_privileges_are_those_that_proxmox_ve_lists() -> None:
    assert ALL == EVERY_PRIVILEGE


@pytest.mark.parametrize("role", WRITTEN_OUT)
def test_a_role_made_from_levels_is_what_it_is_when_it_is_written_out(role: str) -> None:
    assert BUILT_IN[role] == WRITTEN_OUT[role]


@pytest.mark.parametrize(
    ("role", "expected"),
    [
        ("PVESysAdmin", "Sys.Audit Sys.Console Sys.Syslog"),
        ("PVEUserAdmin", "Group.Allocate Realm.AllocateUser User.Modify"),
        ("PVEPoolUser", "Pool.Audit"),
        ("PVESDNUser", "SDN.Audit SDN.Use"),
        ("PVEMappingAdmin", "Mapping.Audit Mapping.Modify Mapping.Use"),
        ("PVEDatastoreUser", "Datastore.AllocateSpace Datastore.Audit"),
        ("PVEAuditor", "Datastore.Audit Mapping.Audit Pool.Audit SDN.Audit Sys.Audit VM.Audit VM.GuestAgent.Audit"),
    ],
)
def test_other_built_in_roles(role: str, expected: str) -> None:
    assert " ".join(sorted(BUILT_IN[role])) == expected


def test_pveadmin_lacks_what_changes_the_system_or_permissions() -> None:
    missing = "Mapping.Modify Permissions.Modify Realm.Allocate Sys.AccessNetwork Sys.Incoming Sys.Modify Sys.PowerMgmt"

    assert " ".join(sorted(ALL - BUILT_IN["PVEAdmin"])) == missing


def test_own_roles_stand_beside_built_in_ones_and_never_in_their_place() -> None:
    snapshot = of(1, [Role("Own", frozenset({"VM.Audit", "VM.Monitor"})), Role("NoAccess", frozenset({"VM.Audit"}))])

    assert roles(snapshot)["Own"] == {"VM.Audit"}
    assert roles(snapshot)["NoAccess"] == frozenset()


def test_a_built_in_role_can_not_be_changed() -> None:
    refuse_built_in("Own", "modified")
    with pytest.raises(BuiltInRole, match="auto-generated role 'PVEAdmin' cannot be deleted"):
        refuse_built_in("PVEAdmin", "deleted")


RECORDED = {
    "access": "Group.Allocate Permissions.Modify User.Modify",
    "dc": "SDN.Allocate SDN.Audit SDN.Use Sys.Audit Sys.Modify",
    "mapping": "Mapping.Audit Mapping.Modify Mapping.Use Permissions.Modify",
    "nodes": "Permissions.Modify Sys.AccessNetwork Sys.Audit Sys.Console Sys.Incoming Sys.Modify Sys.PowerMgmt Sys.Syslog",
    "sdn": "Permissions.Modify SDN.Allocate SDN.Audit SDN.Use",
    "storage": "Datastore.Allocate Datastore.AllocateSpace Datastore.AllocateTemplate Datastore.Audit Permissions.Modify",
}
"""Of an Administrator, as Proxmox VE answers them; `vms` holds every privilege of VMs too."""


def caps(*acl: AclEntry) -> dict[str, str]:
    found = capabilities(of(1, [User("ann@pve"), *acl]), "ann@pve", 0.0)
    return {area: " ".join(sorted(held)) for area, held in found.items()}


def test_an_administrators_capabilities_are_the_recorded_ones() -> None:
    vms = sorted({"Permissions.Modify"} | {name for name in ALL if name.startswith("VM.")})

    assert caps(AclEntry("/", "user", "ann@pve", "Administrator")) == {**RECORDED, "vms": " ".join(vms)}


def test_who_has_nothing_has_every_area_empty() -> None:
    assert caps() == dict.fromkeys([*RECORDED, "vms"], "")


def test_a_pool_counts_for_virtual_machines_and_storage() -> None:
    found = caps(AclEntry("/pool/web", "user", "ann@pve", "PVEAuditor"))

    assert {area: held for area, held in found.items() if held} == {
        "vms": "VM.Audit VM.GuestAgent.Audit",
        "storage": "Datastore.Audit",
    }


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/", "/"), ("//", "/"), ("/vms", "/vms"), ("vms/100", "/vms/100"), ("//vms//100//", "/vms/100"), ("/vms/..", "/vms/.."),
        ("", None), ("/vms 1", None), ("/vms/1\n", None), ("/ä", None), ("/" + "a" * LONGEST, None), ("/vms/100%2f", None),
    ],
)  # fmt: skip
def test_a_path_is_brought_to_one_form(path: str, expected: str | None) -> None:
    assert normalize(path) == expected


def test_a_path_is_walked_from_the_top() -> None:
    assert steps("/") == ["/"]
    assert steps("/vms") == ["/", "/vms"]
    assert steps("/pool/a/b") == ["/", "/pool", "/pool/a", "/pool/a/b"]


@pytest.mark.parametrize("path", ["/", "/vms", "/vms/100", "/pool/a/b/c", "/access/realm/pve", "/storage/local", "/nodes/pve1", "/sdn/zones/z/v/10", "/mapping/pci/x"])  # fmt: skip
def test_paths_that_mean_something(path: str) -> None:
    assert is_known(path)


@pytest.mark.parametrize("path", ["/vms/99", "/vms/0100", "/vms/abc", "/vms/100/x", "/users", "/access/users", "/pool/a/b/c/d", "/nodes/a/b", "vms", "/vms/100\n"])  # fmt: skip
def test_paths_that_mean_nothing(path: str) -> None:
    assert not is_known(path)
