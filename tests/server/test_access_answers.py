"""What `/access` and `/pools` answer where clients of Proxmox VE look at the very words: as Proxmox VE 9.2 does.

`tests/server/test_access_endpoints.py` has what these endpoints do.
"""

from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import quote

import pytest
from access_calls import ACCESS, PASSWORD, POOLS, As, logged_in, made_token, made_user, stranger
from calling import Client, agent, site, vm
from persons import person, settling
from serving import Serving

from guestwire.stores import Group, Pool, Put, Role

ROOT = "root@pam"
PEOPLE = settling(
    person("boss@pve", ("/", "Administrator")),
    person("owner@pve", ("/vms/100", "PVEVMAdmin")),
    person("auditor@pve", ("/", "PVEAuditor")),
    person("nobody@pve"),
    [Put(Group("staff", members=frozenset({"nobody@pve"}))), Put(Group("others")), Put(Role("Small"))],
    [Put(Pool("lab", vms=frozenset({100, 555}))), Put(Pool("lab/inner")), Put(Pool("ghosts", vms=frozenset({556})))],
)


@pytest.fixture(scope="module")
async def server() -> AsyncIterator[Serving]:
    async with Serving.of(site(vm(100, "web"), vm(101), vm(102)), prepare=PEOPLE) as server:
        yield server


@pytest.fixture
def boss(server: Serving) -> As:
    return As(server)


NO_ONE = "either 'users', 'groups' or 'tokens' is required."
RESERVED = "cannot use role ID starting with the (case-insensitive) 'PVE' namespace"


@pytest.mark.parametrize(
    ("method", "path", "parameters", "reason"),
    [
        ("POST", "/access/users", {"userid": "boss@pve"}, "create user failed: user 'boss@pve' already exists"),
        ("POST", "/access/users", {"userid": "x@pve", "groups": "x"}, "create user failed: no such group 'x'"),
        ("PUT", "/access/users/nobody@pve", {"groups": "x"}, "update user failed: no such group 'x'"),
        ("PUT", "/access/users/x@pve", {}, "no such user ('x@pve')"),
        ("GET", "/access/users/x@pve", {}, "no such user ('x@pve')"),
        ("PUT", "/access/users/boss@pve/token/xx", {}, "no such token 'xx' for user 'boss@pve'"),
        ("DELETE", "/access/users/boss@pve/token/xx", {}, "no such token 'xx' for user 'boss@pve'"),
        ("PUT", "/access/users/boss@pve/token/tok", {"delete": "expire"}, "delete: unknown option 'expire'"),
        ("PUT", "/access/users/boss@pve/token/tok", {"delete": "comment,nosuch"}, "delete: unknown option 'nosuch'"),
        ("POST", "/access/groups", {"groupid": "staff"}, "create group failed: group 'staff' already exists"),
        ("PUT", "/access/groups/x", {"comment": "x"}, "update group failed: group 'x' does not exist"),
        ("DELETE", "/access/groups/x", {}, "delete group failed: group 'x' does not exist"),
        ("GET", "/access/groups/x", {}, "group 'x' does not exist"),
        ("POST", "/access/roles", {"roleid": "Small"}, "create role failed: role 'Small' already exists"),
        ("PUT", "/access/roles/x", {"privs": "VM.Audit"}, "update role failed: role 'x' does not exist"),
        ("DELETE", "/access/roles/x", {}, "delete role failed: role 'x' does not exist"),
        ("GET", "/access/roles/x", {}, "role 'x' does not exist"),
        ("PUT", "/access/acl", {"path": "/", "roles": "x", "users": "x@pve"}, "ACL update failed: role 'x' does not exist"),
        ("PUT", "/access/acl", {"path": "/", "roles": "Small", "users": "x@pve"}, "ACL update failed: user 'x@pve' does not exist"),
        ("PUT", "/access/acl", {"path": "/", "roles": "Small", "groups": "x"}, "ACL update failed: group 'x' does not exist"),
        ("PUT", "/access/acl", {"path": "/", "roles": "Small", "tokens": "boss@pve!xx"}, "ACL update failed: no such token 'xx' for user 'boss@pve'"),
        ("POST", "/pools", {"poolid": "lab"}, "create pool failed: pool 'lab' already exists"),
        ("POST", "/pools", {"poolid": "x/y/z"}, "create pool failed: parent 'x/y' of pool 'x/y/z' does not exist"),
        ("POST", "/pools", {"poolid": "-p"}, "create pool failed: pool name must start with a letter"),
        ("POST", "/pools", {"poolid": "0"}, "create pool failed: pool name must start with a letter"),
        ("PUT", "/pools", {"poolid": "x", "comment": "x"}, "update pools failed: pool 'x' does not exist"),
        ("PUT", "/pools/lab", {"vms": "100"}, "update pools failed: VM 100 is already a pool member"),
        ("PUT", "/pools/lab", {"vms": "101", "delete": 1}, "update pools failed: VM 101 is not a pool member"),
        ("PUT", "/pools/lab/inner", {"vms": "100"}, "update pools failed: VM 100 belongs already to pool 'lab' and allow-move is not set"),
        ("PUT", "/pools", {"poolid": "lab", "storage": "local"}, "update pools failed: storage 'local' does not exist"),
        ("DELETE", "/pools/x", {}, "delete pool failed: pool 'x' does not exist"),
        ("DELETE", "/pools/lab", {}, "delete pool failed: pool 'lab' is not empty (contains pool 'lab/inner')"),
        ("GET", "/pools/x", {}, "pool 'x' does not exist"),
        ("GET", "/access/domains/x1", {}, "domain 'x1' does not exist"),
    ],
)  # fmt: skip
async def test_a_failure_says_what_failed_and_why(
    boss: As, method: str, path: str, parameters: dict[str, Any], reason: str
) -> None:
    path = path.replace("lab/inner", "lab%2finner") if method == "GET" else path
    if path == "/pools/lab/inner":
        path, parameters = "/pools", {**parameters, "poolid": "lab/inner"}
    answer = await boss.call(method, f"/api2/json{path}", **parameters)

    assert (answer.status, answer.reason) == (500, reason)
    assert answer.json["message"] == f"{reason}\n"


@pytest.mark.parametrize(
    ("method", "path", "parameters", "errors"),
    [
        ("POST", "/access/roles", {"roleid": "r", "privs": "VM.Audit,VM.Nope"}, {"privs": "invalid format - invalid privilege 'VM.Nope'\n"}),
        ("PUT", "/access/roles/Small", {"privs": "VM"}, {"privs": "invalid format - invalid privilege 'VM'\n"}),
        ("POST", "/access/ticket", {"username": "a@pve", "password": "x", "path": "/", "privs": "VM.Nope"},
         {"privs": "invalid format - invalid privilege 'VM.Nope'\n"}),
        ("POST", "/access/roles", {"roleid": "PVEx"}, {"roleid": RESERVED}),
        ("POST", "/access/roles", {"roleid": "pvE"}, {"roleid": RESERVED}),
        ("POST", "/access/roles", {"roleid": "PVEAdmin"}, {"roleid": RESERVED}),
        ("PUT", "/access/acl", {"path": "/", "roles": "Small"}, dict.fromkeys(("users", "groups", "tokens"), NO_ONE)),
        ("PUT", "/access/acl", {"path": "/", "roles": "Small", "users": ""}, dict.fromkeys(("users", "groups", "tokens"), NO_ONE)),
        ("PUT", "/access/users/nobody@pve", {"append": 1}, {"groups": "missing property required by 'append'"}),
        ("PUT", "/access/roles/Small", {"append": 1}, {"privs": "missing property required by 'append'"}),
        ("PUT", "/access/acl", {"path": "/", "roles": ["Small", True], "users": "nobody@pve"}, {"roles": "type check ('string') failed - got ARRAY"}),
        ("PUT", "/access/acl", {"path": "/", "roles": ["Small", ["x"]], "users": "nobody@pve"}, {"roles": "type check ('string') failed - got ARRAY"}),
        ("POST", "/access/groups", {"groupid": "g", "comment": ["a", "b"]}, {"comment": "type check ('string') failed - got ARRAY"}),
    ],
)  # fmt: skip
async def test_a_parameter_that_cannot_be_is_named(
    server: Serving, boss: As, method: str, path: str, parameters: dict[str, Any], errors: dict[str, str]
) -> None:
    caller: Client = boss
    if path == "/access/ticket":
        caller = stranger(server)
    answer = await As.call(caller, method, f"/api2/json{path}", **parameters)  # type: ignore[arg-type] # any client will do

    assert (answer.status, answer.reason, answer.json["errors"]) == (400, "Parameter verification failed.", errors)


async def test_lists_are_taken_as_arrays(boss: As) -> None:
    userid = await made_user(boss, "ann", groups=["staff", "others"], password=PASSWORD)
    await boss.call("POST", f"{ACCESS}/roles", roleid="Two", privs=["VM.Audit", "VM.PowerMgmt"])
    entry = {"path": "/vms/101", "roles": ["Two", "Small"], "users": [userid], "groups": ["staff"]}
    assert (await boss.call("PUT", f"{ACCESS}/acl", **entry, tokens=["boss@pve!tok"])).data is None
    assert (await boss.call("PUT", f"{POOLS}/lab", vms=[101, "102"])).data is None

    assert (await boss.call("GET", f"{ACCESS}/users/{userid}")).data["groups"] == ["others", "staff"]
    assert (await boss.call("GET", f"{ACCESS}/roles/Two")).data == {"VM.Audit": 1, "VM.PowerMgmt": 1}
    entries = [each for each in (await boss.call("GET", f"{ACCESS}/acl")).data if each["path"] == "/vms/101"]
    assert len(entries) == 6
    members = (await boss.call("GET", f"{POOLS}/lab")).data["members"]
    assert [member["vmid"] for member in members] == [100, 101, 102]
    wanted: dict[str, object] = {"path": "/vms/101", "privs": ["VM.Audit", "VM.PowerMgmt"]}
    guest = As(boss.server, secret="X-None: 1")
    login = await guest.call("POST", f"{ACCESS}/ticket", username=userid, password=PASSWORD, **wanted)
    assert login.data["username"] == userid
    await boss.call("PUT", f"{POOLS}/lab", vms=[101, 102], delete=1)
    emptied = await boss.call("PUT", f"{ACCESS}/users/{userid}", groups=[])
    assert (emptied.data, (await boss.call("GET", f"{ACCESS}/users/{userid}")).data["groups"]) == (None, [])


async def test_lists_are_taken_as_repeated_keys(boss: As) -> None:
    form = b"path=/vms/102&users=nobody@pve&roles=Small&roles=PVEAuditor"
    headers = ["Content-Type: application/x-www-form-urlencoded"]
    assert (await boss.send(boss.request("PUT", f"{ACCESS}/acl", form, headers))).data is None

    entries = [each["roleid"] for each in (await boss.call("GET", f"{ACCESS}/acl")).data if each["path"] == "/vms/102"]
    assert entries == ["PVEAuditor", "Small"]


async def test_a_list_is_decided_about_as_it_is_done(server: Serving) -> None:
    """A group among others in an array is not overlooked by the check."""
    keeper = await made_user(As(server), "keeper")
    boss = As(server)
    await boss.call("PUT", f"{ACCESS}/acl", path="/access/groups/staff", roles="PVEUserAdmin", users=keeper)
    await boss.call("PUT", f"{ACCESS}/acl", path="/access/realm/pve", roles="PVEUserAdmin", users=keeper)
    client = await made_token(boss, keeper, privsep=0)

    refused = await client.call("POST", f"{ACCESS}/users", userid="bad@pve", groups=["staff", "others"])
    made = await client.call("POST", f"{ACCESS}/users", userid="good@pve", groups=["staff"])

    assert (refused.status, refused.reason) == (403, "Permission check failed (/access/groups/others, User.Modify)")
    assert made.data is None


async def test_a_path_parameter_may_come_again_as_a_number(boss: As) -> None:
    same = [await boss.post(agent("ping", 102), vmid=vmid) for vmid in (102, 102.0, "102")]
    other = [await boss.post(agent("ping", 102), vmid=vmid) for vmid in (103, True, [102], "103")]

    # The VM's agent is not there: the parameters were right.
    assert [answer.status for answer in (*same, *other)] == [500] * 3 + [400] * 4
    assert "conflicting values" in other[0].json["errors"]["vmid"]


async def test_a_token_gets_a_new_secret(boss: As) -> None:
    userid = await made_user(boss, "tom")
    client = await made_token(boss, userid, privsep=0, comment="c")

    answer = (await boss.call("PUT", f"{ACCESS}/users/{userid}/token/t1", regenerate=1, delete="comment")).data

    assert answer == {"full-tokenid": f"{userid}!t1", "privsep": 0, "expire": 0, "value": answer["value"]}
    assert (await client.get("/api2/json/version")).status == 401
    renewed = As(boss.server, secret=f"Authorization: PVEAPIToken={userid}!t1={answer['value']}")
    assert (await renewed.get("/api2/json/version")).status == 200
    assert answer["value"] not in boss.server.log


async def test_members_that_do_not_exist_are_left_out_and_do_not_keep_a_pool(boss: As) -> None:
    page = (await boss.call("GET", f"{POOLS}/lab")).data
    listed = (await boss.call("GET", POOLS, poolid="lab")).data

    [member] = page["members"]
    assert page == {"poolid": "lab", "members": [member]}
    assert {name: member[name] for name in ("id", "node", "type", "vmid", "status", "name", "template")} == {
        "id": "qemu/100", "node": "pve1", "type": "qemu", "vmid": 100, "status": "running", "name": "web", "template": 0,
    }  # fmt: skip
    assert "pool" not in member
    assert listed == [page]
    assert (await boss.call("DELETE", f"{POOLS}/ghosts")).data is None


async def test_a_pool_is_listed_to_those_who_may_look_at_it(boss: As) -> None:
    userid = await made_user(boss, "pooler")
    await boss.call("POST", f"{ACCESS}/roles", roleid="Allocator", privs="Pool.Allocate")
    await boss.call("PUT", f"{ACCESS}/acl", path="/pool/lab", roles="Allocator", users=userid)
    client = await made_token(boss, userid, privsep=0)
    assert (await client.get(POOLS)).data == []

    await boss.call("PUT", f"{ACCESS}/acl", path="/pool/lab", roles="PVEPoolUser", users=userid)

    assert [pool["poolid"] for pool in (await client.get(POOLS)).data] == ["lab", "lab/inner"]


@pytest.mark.parametrize("storage", ["\n", ",", " ", ""])
async def test_a_list_of_no_storage_is_no_error(boss: As, storage: str) -> None:
    assert (await boss.call("PUT", POOLS, poolid="lab/inner", storage=storage)).data is None


async def test_somebody_who_does_not_exist_has_no_permissions(server: Serving, boss: As) -> None:
    for userid in ("nosuch@pve", "nosuch@pve!t1", "boss@pve!nosuch"):
        assert (await boss.call("GET", f"{ACCESS}/permissions", userid=userid)).data == {}
        one = await boss.call("GET", f"{ACCESS}/permissions", userid=userid, path="/vms/100")
        assert one.data == {"/vms/100": {}}
    assert (await As(server, "nobody@pve").call("GET", f"{ACCESS}/permissions", userid="nosuch@pve")).status == 403


async def test_a_role_without_privileges_is_not_given_by_who_only_has_a_vm(server: Serving) -> None:
    given: dict[str, object] = {"path": "/vms/100", "roles": "NoAccess", "users": "nobody@pve"}

    refused = await As(server, "owner@pve").call("PUT", f"{ACCESS}/acl", **given)

    assert (refused.status, refused.json["errors"]) == (
        400, {"role": "Cannot add role 'NoAccess' - requires 'Permissions.Modify'"},
    )  # fmt: skip


@pytest.mark.parametrize(
    "path",
    ["/sdn/controllers", "/sdn/controllers/c", "/sdn/prefix-lists/x", "/sdn/route-maps/x", "/sdn/ipams/pve", "/sdn/dns", "/sdn/fabrics/f"],
)  # fmt: skip
async def test_access_paths_of_the_current_release_are_taken(boss: As, path: str) -> None:
    given: dict[str, object] = {"path": path, "roles": "Small", "users": "nobody@pve"}

    assert (await boss.call("PUT", f"{ACCESS}/acl", **given)).data is None
    assert (await boss.call("PUT", f"{ACCESS}/acl", **given, delete=1)).data is None
    assert (await boss.call("PUT", f"{ACCESS}/acl", **(given | {"path": f"{path}/x/y/z"}))).status == 400


async def test_the_acl_of_a_path_is_shown_to_auditors_and_to_those_who_may_change_it(server: Serving, boss: As) -> None:
    userid = await made_user(boss, "acl-of-access")
    await boss.call("POST", f"{ACCESS}/roles", roleid="Giver", privs="Permissions.Modify")
    await boss.call("PUT", f"{ACCESS}/acl", path="/access", roles="Giver", users=userid)
    giver = await made_token(boss, userid, privsep=0)

    assert all(entry["path"].startswith("/access") for entry in (await giver.get(f"{ACCESS}/acl")).data)
    paths = {entry["path"] for entry in (await As(server, "auditor@pve").get(f"{ACCESS}/acl")).data}
    assert paths >= {"/", "/access", "/vms/100"}


async def test_entries_of_a_path_that_means_nothing_can_be_removed(boss: As) -> None:
    given: dict[str, object] = {"path": "/nowhere", "roles": "Small", "users": "nobody@pve"}

    assert (await boss.call("PUT", f"{ACCESS}/acl", **given)).status == 400
    assert (await boss.call("PUT", f"{ACCESS}/acl", **given, delete=1)).data is None


async def test_what_there_is_not_is_answered_where_clients_look(server: Serving, boss: As) -> None:
    assert (await boss.get(f"{ACCESS}/tfa")).data == []
    assert (await boss.get(f"{ACCESS}/openid")).data == [{"subdir": "auth-url"}, {"subdir": "login"}]
    assert (await boss.get(f"{ACCESS}/domains/pve")).data == {
        "type": "pve", "comment": "guestwire authentication server",
    }  # fmt: skip
    refused = await As(server, "nobody@pve").get(f"{ACCESS}/domains/pve")
    assert refused.reason == "Permission check failed (/access/realm, Realm.Allocate|Sys.Audit)"
    names = [each["subdir"] for each in (await boss.get(ACCESS)).data]
    assert names == ["users", "groups", "roles", "acl", "domains", "openid", "tfa", "ticket", "password"]


# Logins

NO_TOKEN = "URI '/access/ticket' not available with API token, need proper ticket."


@pytest.mark.parametrize("secret", ["", "Authorization: PVEAPIToken=x@pve!t=wrong"])
async def test_a_token_makes_no_ticket(server: Serving, secret: str) -> None:
    client = As(server, "boss@pve", secret)
    answer = await client.post(f"{ACCESS}/ticket", username="boss@pve", password=PASSWORD)

    assert (answer.status, NO_TOKEN in answer.reason) == (403, True)
    assert (await client.get(f"{ACCESS}/ticket")).status == 200
    assert (await client.get(f"{ACCESS}/domains")).status == 200


@pytest.mark.slow
@pytest.mark.parametrize("factor", [{"otp": "123456"}, {"tfa-challenge": "x"}])
async def test_a_login_with_a_second_factor_fails_where_there_is_none(boss: As, factor: dict[str, str]) -> None:
    userid = await made_user(boss, f"u{len(factor['otp']) if 'otp' in factor else 0}", password=PASSWORD)

    refused = await stranger(boss.server).post(f"{ACCESS}/ticket", username=userid, password=PASSWORD, **factor)
    empty = await stranger(boss.server).post(f"{ACCESS}/ticket", username=userid, password=PASSWORD, otp="")

    assert (refused.status, refused.reason) == (401, "authentication failure")
    assert empty.status == 200


def with_ticket(server: Serving, ticket: str) -> As:
    """A client with a ticket."""
    return As(server, secret=f"Authorization: PVEAuthCookie={quote(ticket)}")


async def test_a_ticket_ends_with_its_user(boss: As) -> None:
    userid = await made_user(boss, "una", password=PASSWORD)
    ticket, _ = await logged_in(boss.server, userid, PASSWORD)
    una = with_ticket(boss.server, ticket)
    assert (await una.get("/api2/json/version")).status == 200

    await boss.call("DELETE", f"{ACCESS}/users/{userid}")
    assert (await una.get("/api2/json/version")).status == 401
    await made_user(boss, "una", password=PASSWORD)

    assert (await una.get("/api2/json/version")).reason == "Authentication failed!"


@pytest.mark.slow
async def test_a_ticket_ends_with_its_password_and_renews_itself_no_more(boss: As) -> None:
    userid = await made_user(boss, "vera", password=PASSWORD)
    guest = stranger(boss.server)
    ticket, csrf = await logged_in(boss.server, userid, PASSWORD)
    renewed, _ = await logged_in(boss.server, userid, ticket)
    vera = As(boss.server, secret=f"Cookie: PVEAuthCookie={quote(ticket)}\r\nCSRFPreventionToken: {csrf}")
    await vera.call("PUT", f"{ACCESS}/password", userid=userid, password=PASSWORD)  # the same one is a new one, too

    for old in (ticket, renewed):
        assert (await with_ticket(boss.server, old).get("/api2/json/version")).status == 401
        assert (await guest.post(f"{ACCESS}/ticket", username=userid, password=old)).status == 401
    fresh, _ = await logged_in(boss.server, userid, PASSWORD)
    assert (await with_ticket(boss.server, fresh).get("/api2/json/version")).status == 200


# Nodes


async def test_a_node_that_answers_is_online_and_shows_its_figures_to_auditors(server: Serving) -> None:
    [plain] = (await As(server, "nobody@pve").get("/api2/json/nodes")).data
    [full] = (await As(server, "auditor@pve").get("/api2/json/nodes")).data

    assert (plain["status"], plain["level"]) == ("online", "")
    assert plain.keys() == {"node", "id", "type", "status", "level", "ssl_fingerprint"}
    figures = {name: full[name] for name in full.keys() - plain.keys()}
    assert figures.keys() == {"cpu", "maxcpu", "mem", "maxmem", "disk", "maxdisk", "uptime"}
    assert 0 <= figures["cpu"] <= 1
    assert 0 < figures["mem"] < figures["maxmem"]
    assert 0 < figures["disk"] <= figures["maxdisk"]
    assert all(isinstance(figures[name], int) for name in figures if name != "cpu")
