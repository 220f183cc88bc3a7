"""The endpoints of `/access` and `/pools`: what they do, who may, and that it holds from the next request on."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import quote

import pytest
from access_calls import ACCESS, PASSWORD, POOLS, As, logged_in, made_token, made_user, stranger
from calling import Client, agent, site, vm
from persons import SECRET, person, settling
from serving import Serving

from guestwire.stores import AclEntry, Group, Pool, Put, Role
from guestwire.testing import FakeGuest

PEOPLE = settling(
    person("boss@pve", ("/", "Administrator")),
    person("keeper@pve", ("/access/groups/staff", "PVEUserAdmin"), ("/access/realm/pve", "PVEUserAdmin")),
    person("auditor@pve", ("/", "PVEAuditor")),
    person("owner@pve", ("/vms/100", "PVEVMAdmin")),
    person("nobody@pve"),
    [Put(Group("staff", members=frozenset({"nobody@pve"}))), Put(Group("others"))],
    [Put(Pool("1000"))],
    [Put(Role("Small", frozenset({"VM.Audit"}))), Put(AclEntry("/vms/101", "group", "staff", "Small"))],
)


@pytest.fixture(scope="module")
async def server() -> AsyncIterator[Serving]:
    async with Serving.of(site(vm(100, "web"), vm(101)), prepare=PEOPLE) as server:
        yield server


@pytest.fixture
def boss(server: Serving) -> As:
    return As(server)


# Users


async def test_a_user_is_made_shown_changed_and_removed(boss: As) -> None:
    userid = await made_user(boss, "ann", comment="one", email="ann@example.org", groups="staff", expire=4_000_000_000)

    shown = (await boss.call("GET", f"{ACCESS}/users/{userid}")).data
    assert shown == {
        "enable": 1, "expire": 4_000_000_000, "comment": "one", "email": "ann@example.org", "groups": ["staff"],
    }  # fmt: skip
    await boss.call("PUT", f"{ACCESS}/users/{userid}", comment="two", groups="others", append=1, enable=0)
    shown = (await boss.call("GET", f"{ACCESS}/users/{userid}")).data
    assert (shown["comment"], shown["groups"], shown["enable"]) == ("two", ["others", "staff"], 0)
    await boss.call("PUT", f"{ACCESS}/users/{userid}", groups="")
    assert (await boss.call("GET", f"{ACCESS}/users/{userid}")).data["groups"] == []

    assert (await boss.call("DELETE", f"{ACCESS}/users/{userid}")).data is None
    assert (await boss.call("GET", f"{ACCESS}/users/{userid}")).reason == f"no such user ('{userid}')"


@pytest.mark.parametrize("userid", ["joe@example.org@pve", "é@pve", "a@b@c@pve"])
async def test_a_name_may_be_an_address_and_its_realm_is_what_follows_the_last_at(
    boss: As, server: Serving, userid: str
) -> None:
    assert (await boss.call("POST", f"{ACCESS}/users", userid=userid, password=PASSWORD)).status == 200

    ticket, _ = await logged_in(server, userid, PASSWORD)
    assert ticket.startswith(f"PVE:{userid}:")
    assert (await boss.call("GET", f"{ACCESS}/users/{quote(userid)}")).status == 200
    assert (await boss.call("DELETE", f"{ACCESS}/users/{quote(userid)}")).status == 200


async def test_a_list_of_users_never_holds_a_secret(boss: As) -> None:
    userid = await made_user(boss, "ben", password=PASSWORD)
    await made_token(boss, userid)

    answer = await boss.call("GET", f"{ACCESS}/users", full=1)

    ben = next(user for user in answer.data if user["userid"] == userid)
    assert ben["tokens"] == [{"tokenid": "t1", "privsep": 1, "expire": 0}]
    assert ben["realm-type"] == "pve"
    assert b"argon2" not in answer.body
    assert PASSWORD.encode() not in answer.body


@pytest.mark.parametrize(
    ("parameters", "reason"),
    [
        ({"userid": "boss@pve"}, "create user failed: user 'boss@pve' already exists"),
        ({"userid": "x@none"}, "create user failed: domain 'none' does not exist"),
        ({"userid": "x@pve", "groups": "ghosts"}, "create user failed: no such group 'ghosts'"),
        ({"userid": "x@pam", "password": PASSWORD}, "realm 'pam' keeps its passwords elsewhere: change it on the host, with passwd"),
        ({"userid": "x y@pve"}, "Parameter verification failed."),
        ({"userid": "x@pve", "password": "short"}, "Parameter verification failed."),
    ],
)  # fmt: skip
async def test_a_user_that_cannot_be_is_refused(boss: As, parameters: dict[str, Any], reason: str) -> None:
    answer = await boss.call("POST", f"{ACCESS}/users", **parameters)

    assert (answer.status, answer.reason) == (400 if reason.startswith("Parameter") else 500, reason)


@pytest.mark.parametrize(
    ("who", "method", "path", "parameters", "reason"),
    [
        ("nobody@pve", "POST", "/users", {"userid": "z@pve"}, "Permission check failed (/access/realm/pve, Realm.AllocateUser)"),
        ("keeper@pve", "POST", "/users", {"userid": "z@pve"}, "Permission check failed (/access/groups, User.Modify)"),
        ("keeper@pve", "POST", "/users", {"userid": "z@pve", "groups": "others"}, "Permission check failed (/access/groups/others, User.Modify)"),
        ("keeper@pve", "PUT", "/users/boss@pve", {"comment": "x"}, "Permission check failed (/access/groups, User.Modify)"),
        ("keeper@pve", "PUT", "/users/boss@pve", {"groups": "staff"}, "Permission check failed"),
        ("nobody@pve", "PUT", "/users/boss@pve", {"comment": "x"}, "Permission check failed (/access/groups, User.Modify)"),
        ("keeper@pve", "PUT", "/users/nobody@pve", {"groups": "others"}, "Permission check failed (/access/groups/others, User.Modify)"),
        ("keeper@pve", "PUT", "/users/ghost@pve", {}, "no such user ('ghost@pve')"),
        ("nobody@pve", "GET", "/users/boss@pve", {}, "Permission check failed"),
        ("nobody@pve", "POST", "/users/boss@pve/token/x", {}, "Permission check failed"),
        ("boss@pve", "GET", "/users/ghost@pve/token", {}, "Permission check failed"),
        ("boss@pve", "PUT", "/users/ghost@pve/token/tok", {}, "Permission check failed"),
        ("nobody@pve", "POST", "/groups", {"groupid": "x"}, "Permission check failed (/access/groups, Group.Allocate)"),
        ("auditor@pve", "POST", "/roles", {"roleid": "x"}, "Permission check failed (/access, Sys.Modify)"),
        ("auditor@pve", "PUT", "/acl", {"path": "/vms/100", "roles": "Small", "users": "nobody@pve"}, "Permission check failed (/vms/100, Permissions.Modify|VM.Allocate)"),
        ("nobody@pve", "GET", "/permissions", {"userid": "boss@pve"}, "Permission check failed (/access, Sys.Audit)"),
    ],
)  # fmt: skip
async def test_who_may_not_is_told_what_is_missing(
    server: Serving, who: str, method: str, path: str, parameters: dict[str, Any], reason: str
) -> None:
    answer = await As(server, who).call(method, f"{ACCESS}{path}", **parameters)

    assert answer.reason == reason
    assert answer.status == (403 if reason.startswith("Permission") else 500)


async def test_a_keeper_of_a_group_makes_and_changes_its_users(server: Serving) -> None:
    keeper = As(server, "keeper@pve")

    assert (await keeper.call("POST", f"{ACCESS}/users", userid="staffer@pve", groups="staff")).data is None
    changed = await keeper.call("PUT", f"{ACCESS}/users/staffer@pve", comment="new", groups="staff", append=1)
    assert changed.data is None
    assert {user["userid"] for user in (await keeper.call("GET", f"{ACCESS}/users")).data} == {
        "nobody@pve",
        "staffer@pve",
    }


# Tokens


async def test_a_token_works_at_once_and_is_refused_in_the_next_request_when_it_is_gone(
    server: Serving, boss: As
) -> None:
    userid = await made_user(boss, "cleo")
    await boss.call("PUT", f"{ACCESS}/acl", path="/vms/100", roles="PVEVMUser", users=userid)
    cleo = await made_token(boss, userid, privsep=0)
    async with FakeGuest(server.folder / "100.qga"):
        assert (await cleo.post(agent("ping"))).status == 200
        assert (await boss.call("DELETE", f"{ACCESS}/users/{userid}/token/t1")).data is None
        refused = await cleo.post(agent("ping"))

    assert (refused.status, refused.reason) == (401, "Authentication failed!")


async def test_a_disabled_user_is_refused_in_the_next_request(boss: As) -> None:
    userid = await made_user(boss, "dora")
    dora = await made_token(boss, userid, privsep=0)
    assert (await dora.get("/api2/json/version")).status == 200

    await boss.call("PUT", f"{ACCESS}/users/{userid}", enable=0)

    assert (await dora.get("/api2/json/version")).status == 401


async def test_a_token_with_privilege_separation_has_only_what_it_is_given(server: Serving, boss: As) -> None:
    userid = await made_user(boss, "emil")
    await boss.call("PUT", f"{ACCESS}/acl", path="/", roles="PVEVMUser", users=userid)
    emil = await made_token(boss, userid)
    async with FakeGuest(server.folder / "100.qga"):
        assert (await emil.post(agent("ping"))).status == 403
        await boss.call("PUT", f"{ACCESS}/acl", path="/vms/100", roles="PVEVMAdmin", tokens=f"{userid}!t1")
        assert (await emil.post(agent("ping"))).status == 200
        assert (await emil.call("POST", agent("exec"), command="id")).status == 403


async def test_a_token_is_not_its_user_and_cannot_get_what_its_user_may(boss: As) -> None:
    userid = await made_user(boss, "erna")
    await boss.call("PUT", f"{ACCESS}/acl", path="/", roles="Administrator", users=userid)
    erna = await made_token(boss, userid)
    tokens = f"{ACCESS}/users/{userid}/token"

    refused = [
        await erna.call("POST", f"{tokens}/t2", privsep=0),
        await erna.call("PUT", f"{tokens}/t1", privsep=0),
        await erna.call("DELETE", f"{tokens}/t1"),
        await erna.call("GET", tokens),
        await erna.call("GET", f"{ACCESS}/permissions", userid=userid),
    ]

    assert [answer.status for answer in refused] == [403] * len(refused)
    assert (await boss.call("GET", tokens)).data == [{"tokenid": "t1", "privsep": 1, "expire": 0}]
    assert (await erna.call("GET", f"{ACCESS}/users")).data == []
    assert (await erna.call("GET", f"{ACCESS}/permissions", userid=f"{userid}!t1")).data == {}


async def test_a_user_makes_tokens_of_its_own(boss: As) -> None:
    userid = await made_user(boss, "frida", password=PASSWORD)
    ticket, csrf = await logged_in(boss.server, userid, PASSWORD)
    frida = As(boss.server, secret=f"Cookie: PVEAuthCookie={quote(ticket)}\r\nCSRFPreventionToken: {csrf}")

    made = await frida.call("POST", f"{ACCESS}/users/{userid}/token/t1")

    assert made.data["full-tokenid"] == f"{userid}!t1"
    assert (await frida.call("GET", f"{ACCESS}/permissions", userid=f"{userid}!t1")).status == 200
    assert [user["userid"] for user in (await frida.call("GET", f"{ACCESS}/users")).data] == [userid]


async def test_a_token_is_shown_and_changed_but_its_secret_never_again(boss: As) -> None:
    userid = await made_user(boss, "fred")
    made = await boss.call("POST", f"{ACCESS}/users/{userid}/token/t1", comment="one", expire=4_000_000_000)
    changed = await boss.call("PUT", f"{ACCESS}/users/{userid}/token/t1", privsep=0, delete="comment")
    again = await boss.call("POST", f"{ACCESS}/users/{userid}/token/t1")

    assert changed.data == {"privsep": 0, "expire": 4_000_000_000}
    assert (await boss.call("GET", f"{ACCESS}/users/{userid}/token/t1")).data == changed.data
    assert again.json["errors"] == {"tokenid": "Token already exists."}
    for path in (f"/users/{userid}", f"/users/{userid}/token", f"/users/{userid}/token/t1", "/users?full=1"):
        assert made.data["value"].encode() not in (await boss.get(f"{ACCESS}{path}")).body


async def test_a_password_is_not_changed_with_a_token(boss: As) -> None:
    answer = await boss.call("PUT", f"{ACCESS}/password", userid="boss@pve", password=PASSWORD)

    assert answer.status == 403
    assert "not available with API token, need proper ticket" in answer.reason


# Tickets


@pytest.mark.slow
async def test_somebody_with_a_ticket_changes_the_password_and_logs_in_with_it(boss: As) -> None:
    userid = await made_user(boss, "gina", password=PASSWORD)
    ticket, csrf = await logged_in(boss.server, userid, PASSWORD)
    gina = As(boss.server, secret=f"Cookie: PVEAuthCookie={quote(ticket)}\r\nCSRFPreventionToken: {csrf}")

    others = await gina.call("PUT", f"{ACCESS}/password", userid="boss@pve", password="another-pass-1")
    changed = await gina.call("PUT", f"{ACCESS}/password", userid=userid, password="another-pass-1")

    assert (changed.data, others.status) == (None, 403)
    assert others.reason == "Permission check failed (/access/realm/pve, Realm.AllocateUser)"
    await logged_in(boss.server, userid, "another-pass-1")
    refused = await stranger(boss.server).post(f"{ACCESS}/ticket", username=userid, password=PASSWORD)
    assert (refused.status, refused.reason) == (401, "authentication failure")


@pytest.mark.slow
async def test_failed_logins_wait_and_hold_up_nobody_else(boss: As) -> None:
    userid = await made_user(boss, "hugo", password=PASSWORD)
    wrong = [
        asyncio.create_task(stranger(boss.server).post(f"{ACCESS}/ticket", username="boss@pve", password="wrong"))
        for _ in range(20)
    ]
    await logged_in(boss.server, userid, PASSWORD)
    assert (await boss.get("/api2/json/version")).status == 200
    assert not any(attempt.done() for attempt in wrong)

    assert {answer.status for answer in await asyncio.gather(*wrong)} == {401}


async def test_a_ticket_of_a_user_who_was_disabled_is_refused(boss: As) -> None:
    userid = await made_user(boss, "ida", password=PASSWORD)
    ticket, _ = await logged_in(boss.server, userid, PASSWORD)
    ida = As(boss.server, secret=f"Authorization: PVEAuthCookie={ticket}")
    assert (await ida.get("/api2/json/version")).status == 200

    await boss.call("PUT", f"{ACCESS}/users/{userid}", enable=0)

    assert (await ida.get("/api2/json/version")).reason == "Authentication failed!"


# Groups, roles, ACL, permissions


async def test_groups_are_made_shown_changed_and_removed(boss: As) -> None:
    assert (await boss.call("POST", f"{ACCESS}/groups", groupid="ops", comment="one")).data is None
    userid = await made_user(boss, "jim", groups="ops")
    assert (await boss.call("GET", f"{ACCESS}/groups/ops")).data == {"members": [userid], "comment": "one"}
    await boss.call("PUT", f"{ACCESS}/groups/ops", comment="two")
    listed = (await boss.call("GET", f"{ACCESS}/groups")).data
    assert {"groupid": "ops", "users": userid, "comment": "two"} in listed
    again = await boss.call("POST", f"{ACCESS}/groups", groupid="ops")
    assert again.reason == "create group failed: group 'ops' already exists"

    await boss.call("DELETE", f"{ACCESS}/groups/ops")

    assert (await boss.call("GET", f"{ACCESS}/groups/ops")).reason == "group 'ops' does not exist"


async def test_roles_are_made_shown_changed_and_removed(boss: As) -> None:
    await boss.call("POST", f"{ACCESS}/roles", roleid="Freezer", privs="VM.GuestAgent.FileSystemMgmt")
    await boss.call("PUT", f"{ACCESS}/roles/Freezer", privs="VM.Audit", append=1)
    shown = (await boss.call("GET", f"{ACCESS}/roles/Freezer")).data
    built_in = await boss.call("DELETE", f"{ACCESS}/roles/PVEAdmin")
    unknown = await boss.call("PUT", f"{ACCESS}/roles/Freezer", privs="VM.Fly")

    assert shown == {"VM.Audit": 1, "VM.GuestAgent.FileSystemMgmt": 1}
    assert (built_in.status, unknown.status) == (500, 400)
    assert built_in.reason == "auto-generated role 'PVEAdmin' cannot be deleted"
    assert unknown.json["errors"] == {"privs": "invalid format - invalid privilege 'VM.Fly'\n"}
    listed = {role["roleid"]: role for role in (await boss.call("GET", f"{ACCESS}/roles")).data}
    assert listed["Freezer"]["special"] == 0
    assert listed["PVEAuditor"]["special"] == 1
    await boss.call("DELETE", f"{ACCESS}/roles/Freezer")
    assert (await boss.call("GET", f"{ACCESS}/roles/Freezer")).status == 500


async def test_the_acl_is_changed_and_shown(boss: As) -> None:
    await boss.call(
        "PUT",
        f"{ACCESS}/acl",
        path="/vms//102/",
        roles="Small,PVEAuditor",
        users="nobody@pve",
        groups="others",
        propagate=0,
    )
    entries = [entry for entry in (await boss.call("GET", f"{ACCESS}/acl")).data if entry["path"] == "/vms/102"]
    await boss.call(
        "PUT", f"{ACCESS}/acl", path="/vms/102", roles="Small,PVEAuditor", users="nobody@pve", groups="others", delete=1
    )
    left = [entry for entry in (await boss.call("GET", f"{ACCESS}/acl")).data if entry["path"] == "/vms/102"]

    assert [(entry["type"], entry["ugid"], entry["roleid"], entry["propagate"]) for entry in entries] == [
        ("group", "others", "PVEAuditor", 0), ("group", "others", "Small", 0),
        ("user", "nobody@pve", "PVEAuditor", 0), ("user", "nobody@pve", "Small", 0),
    ]  # fmt: skip
    assert left == []


@pytest.mark.parametrize(
    ("parameters", "reason"),
    [
        ({"path": "/nowhere", "roles": "Small", "users": "nobody@pve"}, "Parameter verification failed."),
        (
            {"path": "/vms/100", "roles": "Ghost", "users": "nobody@pve"},
            "ACL update failed: role 'Ghost' does not exist",
        ),
        (
            {"path": "/vms/100", "roles": "Small", "users": "ghost@pve"},
            "ACL update failed: user 'ghost@pve' does not exist",
        ),
        (
            {"path": "/vms/100", "roles": "Small", "groups": "ghosts"},
            "ACL update failed: group 'ghosts' does not exist",
        ),
        (
            {"path": "/vms/100", "roles": "Small", "tokens": "boss@pve!none"},
            "ACL update failed: no such token 'none' for user 'boss@pve'",
        ),
        (
            {"path": "/vms/100", "roles": "Small", "tokens": "ghost@pve!none"},
            "ACL update failed: no such user ('ghost@pve')",
        ),
    ],
)
async def test_an_acl_entry_that_cannot_be_is_refused(boss: As, parameters: dict[str, Any], reason: str) -> None:
    assert (await boss.call("PUT", f"{ACCESS}/acl", **parameters)).reason == reason


async def test_who_has_a_vm_may_give_what_it_has_and_no_more(server: Serving) -> None:
    owner = As(server, "owner@pve")

    given = await owner.call("PUT", f"{ACCESS}/acl", path="/vms/100", roles="PVEVMUser", users="nobody@pve")
    more = await owner.call("PUT", f"{ACCESS}/acl", path="/vms/100", roles="Administrator", users="owner@pve")
    elsewhere = await owner.call("PUT", f"{ACCESS}/acl", path="/vms/101", roles="PVEVMUser", users="owner@pve")

    assert given.data is None
    assert (more.status, more.json["errors"]) == (
        400, {"role": "Cannot add role 'Administrator' - requires 'Permissions.Modify' or superset of privileges."},
    )  # fmt: skip
    assert elsewhere.status == 403


async def test_what_does_not_propagate_is_not_given_with_propagation(boss: As) -> None:
    userid = await made_user(boss, "nora")
    await boss.call("PUT", f"{ACCESS}/acl", path="/pool/some", roles="PVEPoolAdmin", users=userid, propagate=0)
    nora = await made_token(boss, userid, privsep=0)
    entry: dict[str, object] = {"path": "/pool/some", "roles": "PVEPoolUser", "users": "nobody@pve"}

    refused = await nora.call("PUT", f"{ACCESS}/acl", **entry)
    given = await nora.call("PUT", f"{ACCESS}/acl", **entry, propagate=0)
    taken = await nora.call("PUT", f"{ACCESS}/acl", **entry, delete=1)

    why = "Cannot add role 'PVEPoolUser' with propagation - requires 'Permissions.Modify' or propagated superset of privileges."
    assert (refused.status, refused.json["errors"]) == (400, {"role": why})
    assert (given.data, taken.data) == (None, None)


async def test_permissions_are_shown_by_path(server: Serving, boss: As) -> None:
    own = (await As(server, "owner@pve").call("GET", f"{ACCESS}/permissions")).data
    one = (await boss.call("GET", f"{ACCESS}/permissions", userid="owner@pve", path="/vms/100")).data
    tokens = (await boss.call("GET", f"{ACCESS}/permissions", userid="owner@pve!tok", path="/vms/101")).data

    assert own["/vms/100"] == one["/vms/100"]
    assert one["/vms/100"]["VM.GuestAgent.Unrestricted"] == 1
    assert tokens == {"/vms/101": {}}


async def test_only_vms_that_the_caller_may_see_are_listed(server: Serving, boss: As) -> None:
    owners = (await As(server, "owner@pve").get("/api2/json/nodes/pve1/qemu")).data
    all_of_them = (await boss.get("/api2/json/nodes/pve1/qemu")).data

    assert [vm["vmid"] for vm in owners] == [100]
    assert [vm["vmid"] for vm in all_of_them] == [100, 101]


# Pools


async def test_a_pool_gives_its_vms_to_whoever_has_the_pool(server: Serving, boss: As) -> None:
    userid = await made_user(boss, "kim")
    kim = await made_token(boss, userid, privsep=0)
    await boss.call("POST", POOLS, poolid="lab", comment="one")
    await boss.call("PUT", f"{ACCESS}/acl", path="/pool/lab", roles="PVEVMUser", users=userid)
    async with FakeGuest(server.folder / "101.qga"):
        assert (await kim.post(agent("ping", 101))).status == 403
        assert (await boss.call("PUT", f"{POOLS}/lab", vms="101")).data is None
        assert (await kim.post(agent("ping", 101))).status == 200

    shown = (await boss.call("GET", f"{POOLS}/lab")).data
    assert shown["comment"] == "one"
    assert [(member["id"], member["node"], member["vmid"]) for member in shown["members"]] == [
        ("qemu/101", "pve1", 101)
    ]
    assert shown["poolid"] == "lab"
    refused = await boss.call("DELETE", f"{POOLS}/lab")
    assert refused.reason == "delete pool failed: pool 'lab' is not empty (contains VM 101)"
    await boss.call("PUT", POOLS, poolid="lab", vms="101", delete=1)
    assert (await boss.call("DELETE", f"{POOLS}?poolid=lab")).data is None
    assert (await boss.call("GET", f"{POOLS}/lab")).reason == "pool 'lab' does not exist"


@pytest.mark.parametrize("storage", [",", "\0", " ; "])
async def test_a_list_of_storages_without_any_changes_a_pool_as_if_it_was_not_there(boss: As, storage: str) -> None:
    await boss.call("POST", POOLS, poolid="empty")
    try:
        assert (await boss.call("PUT", f"{POOLS}/empty", storage=storage, comment="new")).data is None
        assert (await boss.call("GET", f"{POOLS}/empty")).data["comment"] == "new"
        refused = await boss.call("PUT", f"{POOLS}/empty", storage=f"{storage}local")
        assert refused.reason == "update pools failed: storage 'local' does not exist"
    finally:
        await boss.call("DELETE", f"{POOLS}/empty")


async def test_a_refusal_that_names_bytes_which_are_no_text_is_an_answer(server: Serving) -> None:
    client = Client(server)
    refused = await client.send(client.request("POST", POOLS, b"poolid=p%ff"))

    assert refused.status == 403
    assert refused.json["message"] == "Permission check failed (/pool/p\ufffd, Pool.Allocate)\n"


async def test_a_vm_is_taken_only_from_a_pool_that_one_may_change(boss: As) -> None:
    userid = await made_user(boss, "mia")
    for pool in ("hers", "theirs"):
        await boss.call("POST", POOLS, poolid=pool)
    await boss.call("PUT", f"{POOLS}/theirs", vms="102")
    for path, role in (("/pool/hers", "PVEPoolAdmin"), ("/vms/102", "PVEVMAdmin")):
        await boss.call("PUT", f"{ACCESS}/acl", path=path, roles=role, users=userid)
    mia = await made_token(boss, userid, privsep=0)
    take: dict[str, object] = {"vms": "102", "allow-move": 1}

    refused = await mia.call("PUT", f"{POOLS}/hers", **take)
    await boss.call("PUT", f"{ACCESS}/acl", path="/pool/theirs", roles="PVEPoolAdmin", users=userid)
    taken = await mia.call("PUT", f"{POOLS}/hers", **take)

    assert (refused.status, refused.reason) == (403, "Permission check failed (/pool/theirs, Pool.Allocate)")
    assert taken.data is None


async def test_a_number_is_the_pool_that_it_names_and_no_other(boss: As) -> None:
    userid = await made_user(boss, "pia")
    await boss.call("PUT", f"{ACCESS}/acl", path="/pool/1000.0", roles="PVEPoolAdmin", users=userid)
    pia = await made_token(boss, userid, privsep=0)

    refused = await pia.call("PUT", POOLS, poolid=1000.0, comment="mine")

    assert (refused.status, refused.reason) == (403, "Permission check failed (/pool/1000, Pool.Allocate)")
    assert (await boss.call("PUT", POOLS, poolid=1000.0, comment="ours")).status == 200


async def test_a_vm_moves_between_pools_only_when_that_is_said(boss: As) -> None:
    await boss.call("POST", POOLS, poolid="one")
    await boss.call("POST", POOLS, poolid="two")
    await boss.call("PUT", f"{POOLS}/one", vms="500")
    refused = await boss.call("PUT", f"{POOLS}/two", vms="500")
    await boss.call("PUT", f"{POOLS}/two", vms="500", **{"allow-move": 1})

    assert refused.status == 500
    assert "VM 500 belongs already to pool 'one'" in refused.reason
    pools = {pool["poolid"]: pool for pool in (await boss.call("GET", POOLS)).data}
    assert {"one", "two"} <= pools.keys()
    assert (await boss.call("GET", f"{POOLS}/one")).data["members"] == []


# Secrets


@pytest.mark.slow
async def test_no_secret_is_in_the_log_or_in_clear_in_the_store(server: Serving, boss: As) -> None:
    userid = await made_user(boss, "lena", password=PASSWORD)
    made = await boss.call("POST", f"{ACCESS}/users/{userid}/token/t1")
    ticket, csrf = await logged_in(boss.server, userid, PASSWORD)
    await boss.post(f"{ACCESS}/ticket?username={userid}&password=planted-in-query")

    written = [path.read_bytes() for path in (server.folder / "state").iterdir() if path.name.startswith("access.db")]
    for secret in (PASSWORD, made.data["value"], ticket, csrf, SECRET, "planted-in-query"):
        assert secret not in server.log
        assert not any(secret.encode() in data for data in written)


# Root


@pytest.mark.parametrize(
    ("method", "path", "parameters"),
    [
        ("PUT", "/users/root@pam", {"enable": 0}),
        ("DELETE", "/users/root@pam", {}),
        ("POST", "/users/root@pam/token/mine", {"privsep": 0}),
        ("PUT", "/users/root@pam/token/admin", {"privsep": 1}),
        ("DELETE", "/users/root@pam/token/admin", {}),
    ],
)
async def test_only_root_changes_root(boss: As, method: str, path: str, parameters: dict[str, Any]) -> None:
    answer = await boss.call(method, f"{ACCESS}{path}", **parameters)

    assert (answer.status, answer.reason) == (
        403,
        "Permission check failed (only root@pam may change root@pam and its tokens)",
    )
    assert (await Client(boss.server).get("/api2/json/version")).status == 200
