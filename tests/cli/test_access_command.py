"""`guestwire access` on a real store: what each command changes, says and refuses."""

import json
import os
import sqlite3
import stat
import time
from pathlib import Path
from typing import Annotated, Any

import click
import msgspec
import pytest
from calling import Ended
from commands import Site, command

from guestwire import errors
from guestwire.app.state import user_name
from guestwire.cli.program import guestwire as guestwire_group
from guestwire.stores import SqliteStore

Names = tuple[str, ...]

OPERATOR = f"{user_name(os.geteuid())}@pam"
HOSTILE = "\x1b[31mred\x9b2J\u202e[bold]x[/bold]"


@pytest.fixture
async def site(tmp_path: Path) -> Site:
    return await Site.made(tmp_path)


# Users


async def test_a_new_user_is_in_the_list_with_all_that_was_said_of_it(site: Site) -> None:
    await site.done("group", "add", "ops")
    added = await site.json(
        "user", "add", "anna@pve", "--groups", "ops", "--expire", "1900000000", "--comment", "c", "--email", "a@b.example",
        "--firstname", "Anna", "--lastname", "B",
    )  # fmt: skip

    assert added == {
        "userid": "anna@pve", "realm-type": "pve", "enable": 1, "expire": 1900000000, "firstname": "Anna", "lastname": "B",
        "email": "a@b.example", "comment": "c", "groups": "ops", "tokens": [],
    }  # fmt: skip
    assert added in await site.json("user", "list")


async def test_success_is_told_on_standard_error_and_leaves_standard_output_empty(site: Site) -> None:
    assert await site.access("user", "add", "anna@pve") == Ended(0, "", "user anna@pve: added\n")
    assert await site.access("user", "change", "anna@pve", "--comment", "x") == Ended(0, "", "user anna@pve: changed\n")


async def test_a_user_can_be_added_disabled_and_enabled_later(site: Site) -> None:
    assert (await site.json("user", "add", "anna@pve", "--disabled"))["enable"] == 0
    assert (await site.json("user", "change", "anna@pve", "--enable"))["enable"] == 1
    assert (await site.json("user", "change", "anna@pve", "--disable"))["enable"] == 0


async def test_groups_of_a_user_are_replaced_or_appended(site: Site) -> None:
    for name in ("one", "two"):
        await site.done("group", "add", name)
    await site.done("user", "add", "anna@pve", "--groups", "one")

    assert (await site.json("user", "change", "anna@pve", "--groups", "two", "--append"))["groups"] == "one,two"
    assert (await site.json("user", "change", "anna@pve", "--groups", "two"))["groups"] == "two"
    assert (await site.json("user", "change", "anna@pve", "--groups", ""))["groups"] == ""


async def test_what_is_not_named_stays_as_it_is(site: Site) -> None:
    await site.done("user", "add", "anna@pve", "--comment", "c", "--expire", "1900000000", "--disabled")

    changed = await site.json("user", "change", "anna@pve", "--email", "a@b.example")

    assert (changed["comment"], changed["expire"], changed["enable"]) == ("c", 1900000000, 0)


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("never", 0),
        ("0", 0),
        ("1900000000", 1900000000),
        ("2030-06-01", int(time.mktime((2030, 6, 1, 0, 0, 0, 0, 0, -1)))),
        ("2030-06-01T12:30", int(time.mktime((2030, 6, 1, 12, 30, 0, 0, 0, -1)))),
        ("2030-06-01T12:30:05Z", 1906547405),
    ],
)
async def test_an_expiry_is_a_date_or_seconds_or_never(site: Site, given: str, kept: int) -> None:
    assert (await site.json("user", "add", "anna@pve", "--expire", given))["expire"] == kept


@pytest.mark.parametrize("given", ["tomorrow", "2030-02-31", "30-01-01", "-1", "1e9", "", "2030-06-01 ", "٣"])
async def test_another_expiry_is_refused_with_what_is_allowed(site: Site, given: str) -> None:
    text = await site.refused("user", "add", "anna@pve", f"--expire={given}")

    assert text == (f"expire: '{given}' is not YYYY-MM-DD, YYYY-MM-DDTHH:MM, seconds since the epoch, or 'never'")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("user", "add", "anna"), "userid: invalid format - value 'anna' does not look like a valid user name; for example anna@pve"),
        (("user", "add", "anna@none"), "create user failed: domain 'none' does not exist"),
        (("user", "add", "root@pam"), "create user failed: user 'root@pam' already exists"),
        (("user", "add", "a@pve", "--groups", "none"), "create user failed: no such group 'none'"),
        (("user", "add", "a@pve", "--email", "x"), "email: invalid format - value does not look like a valid email address"),
        (("user", "change", "none@pve"), "update user failed: no such user ('none@pve')"),
        (("user", "change", "root@pam", "--append"), "groups: missing property required by 'append'"),
        (("user", "remove", "none@pve", "--yes"), "delete user failed: no such user ('none@pve')"),
        (("user", "remove", "root@pam", "--yes"), "delete user failed: 'root@pam' can't be removed"),
        (("token", "list", "none@pve"), "no such user ('none@pve')"),
        (("token", "add", "none@pve", "job"), "no such user ('none@pve')"),
        (("token", "add", "root@pam", "admin"), "tokenid: Token already exists."),
        (("token", "add", "root@pam", "1"), "tokenid: value does not match the regex pattern; for example backup"),
        (("token", "remove", "root@pam", "none", "--yes"), "no such token 'none' for user 'root@pam'"),
        (("group", "change", "none", "--comment", "x"), "update group failed: group 'none' does not exist"),
        (("group", "remove", "none", "--yes"), "delete group failed: group 'none' does not exist"),
        (("role", "add", "NoAccess"), "create role failed: role 'NoAccess' already exists"),
        (("role", "add", "pveX"), "roleid: cannot use role ID starting with the (case-insensitive) 'PVE' namespace"),
        (("role", "add", "r", "--privs", "VM.None"), "privs: invalid format - invalid privilege 'VM.None'; for example VM.GuestAgent.Audit,VM.GuestAgent.FileRead"),
        (("role", "change", "PVEAdmin", "--privs", "VM.Audit"), "auto-generated role 'PVEAdmin' cannot be modified"),
        (("role", "remove", "PVEAdmin", "--yes"), "auto-generated role 'PVEAdmin' cannot be deleted"),
        (("acl", "add", "/vm/100", "PVEAdmin", "--user", "root@pam"), "path: invalid ACL path '/vm/100'"),
        (("acl", "add", "/", "None", "--user", "root@pam"), "ACL update failed: role 'None' does not exist"),
        (("acl", "add", "/", "PVEAdmin"), "users, groups, tokens: either 'users', 'groups' or 'tokens' is required."),
        (("acl", "remove", "/", "PVEAdmin", "--user", "root@pam", "--yes"),
         "there is no such ACL entry; guestwire access acl list shows all there are"),
        (("pool", "change", "none", "--vms", "100"), "update pools failed: pool 'none' does not exist"),
        (("pool", "remove", "none", "--yes"), "delete pool failed: pool 'none' does not exist"),
        (("permissions", "--user", "none@pve"), "no such user ('none@pve')"),
        (("permissions", "--user", "root@pam", "--path", "vm 1"), "path: invalid ACL path 'vm 1'"),
        (("user", "none"), "No such command 'none'. See 'guestwire access user --help'."),
        (("user", "add"), "Missing argument 'USER'. See 'guestwire access user add --help'."),
    ],
)  # fmt: skip
async def test_a_mistake_is_one_line_in_the_words_of_the_api(site: Site, arguments: tuple[str, ...], says: str) -> None:
    before = await site.kept()

    assert await site.refused(*arguments) == says
    assert await site.kept() == before

    is_usage_or_unsent = says.endswith("--help'.") or says.startswith("there is no such ACL entry")
    is_change = arguments[1] in {"add", "change", "remove"} and not is_usage_or_unsent
    records = await site.audit_json()
    assert len(records) == int(is_change)
    for record in records:
        assert record["status"] >= 400
        assert record["result"] == (says if record["status"] != 400 else "Parameter verification failed.")
        assert (record["address"], record["subject"]) == ("local", OPERATOR)


async def test_a_refused_removal_leaves_a_record_with_status_words_and_operator(site: Site) -> None:
    await site.refused("user", "remove", "nobody@pve", "--yes")

    [record] = await site.audit_json()
    assert (record["endpoint"], record["status"]) == ("DELETE /access/users/{userid}", 500)
    assert (record["result"], record["subject"]) == ("delete user failed: no such user ('nobody@pve')", OPERATOR)
    assert record["parameters"] == {"userid": "nobody@pve"}
    assert "no such user ('nobody@pve')" in (await site.audit()).output


async def test_a_password_from_standard_input_is_kept_as_a_hash_alone(site: Site) -> None:
    await site.done("user", "add", "anna@pve")

    ended = await site.access("user", "password", "anna@pve", "--stdin", stdin=b"Tr0ub4dor&3 \xc3\xa4\nmore\n")

    assert ended == Ended(0, "", "user anna@pve: changed\n")
    store = await SqliteStore.open(site.store)
    hashed = store.snapshot.users["anna@pve"].password_hash
    await store.close()
    assert hashed
    assert hashed.startswith("$argon2id$")


@pytest.mark.parametrize(
    ("stdin", "says"),
    [
        (b"", "there is no password on standard input"),
        (b"\n", "there is no password on standard input"),
        (b"short\n", "password: value must be at least 8 characters long"),
        (b"x" * 65 + b"\n", "password: value may only be 64 characters long"),
        (b"x" * 100_000, "password: value may only be 64 characters long"),
        (b"\xff\xfe12345678\n", "the password on standard input is not UTF-8 text"),
    ],
)
async def test_a_password_that_cannot_be_is_refused_without_being_shown(site: Site, stdin: bytes, says: str) -> None:
    await site.done("user", "add", "anna@pve")

    assert await site.refused("user", "password", "anna@pve", "--stdin", stdin=stdin) == says


async def test_a_password_without_a_terminal_needs_stdin(site: Site) -> None:
    await site.done("user", "add", "anna@pve")

    assert "--stdin" in await site.refused("user", "password", "anna@pve", stdin=b"Tr0ub4dor&3\nTr0ub4dor&3\n")


async def test_passwords_of_realm_pam_are_not_kept_here(site: Site) -> None:
    text = await site.refused("user", "password", "root@pam", "--stdin", stdin=b"Tr0ub4dor&3\n")

    assert text == "realm 'pam' keeps its passwords elsewhere: change it on the host, with passwd"


# Tokens


async def test_a_new_tokens_secret_is_alone_on_standard_output_in_the_form_that_clients_send(site: Site) -> None:
    ended = await site.access("token", "add", "root@pam", "job", "--comment", "c")

    name, _, secret = ended.output.rstrip("\n").partition("=")
    assert (ended.code, name, len(secret), ended.output.count("\n")) == (0, "root@pam!job", 36, 1)
    assert ended.errors == "token root@pam!job: added; this is the only time that it is shown\n"


async def test_a_new_tokens_secret_in_a_file_is_shown_nowhere_and_its_file_is_named(site: Site, tmp_path: Path) -> None:
    out = tmp_path / "secret"

    ended = await site.access("token", "add", "root@pam", "job", "--out", str(out))

    assert (ended.output, ended.errors) == ("", f"token root@pam!job: added; it is in {out}\n")
    assert out.read_text().startswith("root@pam!job=")


async def test_a_token_has_what_was_said_of_it_and_can_be_changed(site: Site) -> None:
    made = await site.json(
        "token", "add", "root@pam", "job", "--no-privsep", "--expire", "1900000000", "--comment", "c"
    )
    assert made["full-tokenid"] == "root@pam!job"
    assert made["info"] == {"privsep": 0, "expire": 1900000000, "comment": "c"}

    changed = await site.json("token", "change", "root@pam", "job", "--privsep", "--expire", "never", "--comment", "")

    assert changed == {"tokenid": "job", "privsep": 1, "expire": 0}
    assert changed in await site.json("token", "list", "root@pam")


async def test_a_token_gets_a_new_secret_that_is_shown_once(site: Site) -> None:
    before = (await site.done("token", "add", "root@pam", "job")).strip()

    ended = await site.access("token", "change", "root@pam", "job", "--regenerate")

    name, _, secret = ended.output.rstrip("\n").partition("=")
    assert (ended.code, name, len(secret)) == (0, "root@pam!job", 36)
    assert ended.output.strip() != before
    assert ended.errors == "token root@pam!job: changed; this is the only time that it is shown\n"
    made = await site.json("token", "change", "root@pam", "job", "--regenerate", "--comment", "c")
    assert made == {"full-tokenid": name, "value": made["value"], "privsep": 1, "expire": 0, "comment": "c"}


async def test_a_secret_is_shown_once_and_kept_nowhere(site: Site) -> None:
    secret = (await site.done("token", "add", "root@pam", "job")).strip().partition("=")[2]
    other = (await site.json("token", "add", "root@pam", "other"))["value"]
    await site.done("user", "add", "anna@pve")
    await site.done("user", "password", "anna@pve", "--stdin", stdin=b"Tr0ub4dor&3\n")

    shown = [
        await site.done(*words, *more)
        for words in (("user", "list"), ("token", "list", "root@pam"), ("permissions", "--user", "root@pam!job"))
        for more in ((), ("--json",))
    ]
    shown += [(await site.audit()).output, (await site.audit("--json")).output]
    await site.done("backup", str(site.state_dir / "backup"))

    everything = "".join(shown).encode() + b"".join(path.read_bytes() for path in site.state_dir.iterdir())
    for planted in (secret, other, "Tr0ub4dor&3"):
        assert planted.encode() not in everything
    assert b"argon2" not in "".join(shown).encode()


# Groups, roles, ACL, pools


async def test_a_group_is_listed_with_its_members_until_it_is_removed(site: Site) -> None:
    await site.done("group", "add", "ops", "--comment", "c")
    await site.done("user", "change", "root@pam", "--groups", "ops")

    assert await site.json("group", "list") == [{"groupid": "ops", "users": "root@pam", "comment": "c"}]
    assert await site.json("group", "change", "ops", "--comment", "") == {"groupid": "ops", "users": "root@pam"}
    assert await site.json("group", "remove", "ops", "--yes") == {"groupid": "ops", "users": "root@pam"}
    assert await site.json("group", "list") == []


async def test_a_role_is_made_changed_and_removed(site: Site) -> None:
    role = {"roleid": "Freeze", "privs": "VM.GuestAgent.FileSystemMgmt", "special": 0}
    assert await site.json("role", "add", "Freeze", "--privs", "VM.GuestAgent.FileSystemMgmt") == role

    more = await site.json("role", "change", "Freeze", "--privs", "VM.Audit", "--append")
    assert more["privs"] == "VM.Audit,VM.GuestAgent.FileSystemMgmt"
    assert (await site.json("role", "change", "Freeze", "--privs", "VM.Audit"))["privs"] == "VM.Audit"
    await site.done("role", "remove", "Freeze", "--yes")
    assert "Freeze" not in [role["roleid"] for role in await site.json("role", "list")]


async def test_an_acl_entry_is_added_changed_and_removed(site: Site) -> None:
    await site.done("group", "add", "ops")
    subjects = ("--group", "ops", "--user", "root@pam", "--token", "root@pam!admin")
    entries = [
        {"path": "/vms/100", "type": kind, "ugid": who, "roleid": "PVEVMUser", "propagate": 1}
        for kind, who in (("group", "ops"), ("token", "root@pam!admin"), ("user", "root@pam"))
    ]

    assert await site.json("acl", "add", "//vms/100/", "PVEVMUser", *subjects) == entries
    assert await site.json("acl", "list") == entries
    changed = await site.json("acl", "add", "/vms/100", "PVEVMUser", "--group", "ops", "--no-propagate")
    assert changed == [entries[0] | {"propagate": 0}]
    assert await site.json("acl", "remove", "/vms/100/", "PVEVMUser", "--group", "ops", "--yes") == changed
    assert await site.json("acl", "list") == entries[1:]


async def test_a_pool_is_listed_with_its_vms_and_removed_when_it_is_empty(site: Site) -> None:
    await site.done("pool", "add", "nightly", "--comment", "c")
    changed = await site.json("pool", "change", "nightly", "--vms", "101,100")
    assert (changed["poolid"], changed["comment"]) == ("nightly", "c")
    assert [member["vmid"] for member in changed["members"]] == [100, 101]

    await site.done("pool", "add", "other")
    assert "allow-move is not set" in await site.refused("pool", "change", "other", "--vms", "100")
    await site.done("pool", "change", "other", "--vms", "100", "--allow-move")
    text = await site.refused("pool", "remove", "other", "--yes")
    assert text == "delete pool failed: pool 'other' is not empty (contains VM 100)"
    await site.done("pool", "change", "other", "--vms", "100", "--delete")
    await site.done("pool", "remove", "other", "--yes")

    [left] = await site.json("pool", "list")
    assert [member["vmid"] for member in left["members"]] == [101]


# What JSON looks like


class Strict(msgspec.Struct, forbid_unknown_fields=True, rename={"realm_type": "realm-type"}, kw_only=True):
    """A schema: what is not named here may not be there."""


Flag = Annotated[int, msgspec.Meta(ge=0, le=1)]


class JsonToken(Strict, kw_only=True):
    tokenid: str
    privsep: Flag
    expire: int
    comment: str | msgspec.UnsetType = msgspec.UNSET


class JsonUser(Strict, kw_only=True):
    userid: str
    realm_type: str
    enable: Flag
    expire: int
    groups: str
    tokens: list[JsonToken]
    firstname: str | msgspec.UnsetType = msgspec.UNSET
    lastname: str | msgspec.UnsetType = msgspec.UNSET
    email: str | msgspec.UnsetType = msgspec.UNSET
    comment: str | msgspec.UnsetType = msgspec.UNSET


class JsonGroup(Strict, kw_only=True):
    groupid: str
    users: str
    comment: str | msgspec.UnsetType = msgspec.UNSET


class JsonRole(Strict, kw_only=True):
    roleid: str
    privs: str
    special: Flag


class JsonAcl(Strict, kw_only=True):
    path: str
    type: str
    ugid: str
    roleid: str
    propagate: Flag


class JsonGrant(JsonAcl, kw_only=True):
    pool: str | msgspec.UnsetType = msgspec.UNSET


class JsonMember(Strict, kw_only=True):
    id: str
    node: str
    type: str
    vmid: int


class JsonPool(Strict, kw_only=True):
    poolid: str
    members: list[JsonMember]
    comment: str | msgspec.UnsetType = msgspec.UNSET


class JsonPermission(Strict, kw_only=True):
    path: str
    privilege: str
    propagate: Flag
    grants: list[JsonGrant]


LISTS: list[tuple[tuple[str, ...], type[Any]]] = [
    (("user", "list"), JsonUser),
    (("token", "list", "anna@pve"), JsonToken),
    (("group", "list"), JsonGroup),
    (("role", "list"), JsonRole),
    (("acl", "list"), JsonAcl),
    (("pool", "list"), JsonPool),
    (("permissions", "--user", "anna@pve!job"), JsonPermission),
]


@pytest.fixture
async def full(site: Site) -> Site:
    """A store with something of everything, and texts that would steer a terminal."""
    await site.done("group", "add", "ops", "--comment", HOSTILE)
    await site.done("user", "add", "anna@pve", "--groups", "ops", "--comment", HOSTILE)
    await site.done("token", "add", "anna@pve", "job", "--comment", HOSTILE)
    await site.done("role", "add", "Freeze", "--privs", "VM.GuestAgent.FileSystemMgmt")
    await site.done("pool", "add", "nightly", "--comment", HOSTILE)
    await site.done("pool", "change", "nightly", "--vms", "100")
    await site.done("acl", "add", "/pool/nightly", "Freeze", "--group", "ops", "--token", "anna@pve!job")
    return site


@pytest.mark.parametrize(("words", "schema"), LISTS, ids=lambda value: value[0] if isinstance(value, tuple) else "")
async def test_json_of_a_list_has_the_fields_that_are_documented_and_no_others(
    full: Site, words: tuple[str, ...], schema: type[Any]
) -> None:
    output = await full.done(*words, "--json")

    assert msgspec.json.decode(output, type=list[schema])  # type: ignore[valid-type]  # of the table
    page = (Path(__file__).parents[2] / "docs" / "access.md").read_text()
    assert [name for name in _field_names(schema) if f"`{name}`" not in page] == []


def _field_names(schema: type[Any]) -> list[str]:
    return [each.encode_name for each in msgspec.structs.fields(schema)]


@pytest.mark.parametrize(("words", "schema"), LISTS, ids=lambda value: value[0] if isinstance(value, tuple) else "")
async def test_nothing_that_is_shown_steers_a_terminal(full: Site, words: tuple[str, ...], schema: type[Any]) -> None:
    for output in (await full.done(*words), await full.done(*words, "--json")):
        assert [character for character in output if not character.isprintable() and character != "\n"] == []
    if schema in (JsonUser, JsonToken, JsonGroup, JsonPool):
        assert r"\x1b[31mred\x9b2J\u202e[bold]x[/bold]" in await full.done(*words)
        assert HOSTILE in [row.get("comment") for row in await full.json(*words)]


async def test_a_name_that_no_path_can_hold_is_said_to_be_wrong_and_nothing_of_permissions(site: Site) -> None:
    assert await site.refused("pool", "add", "a b") == (
        "poolid: invalid format - pool name 'a b' contains invalid characters; for example web"
    )
    (record,) = await site.audit_json()
    assert record["status"] == 403


async def test_a_mistake_with_control_characters_stays_one_line(site: Site) -> None:
    assert await site.refused("user", "remove", "a\nb\x1b@pve", "--yes") == (
        r"userid: invalid format - value 'a\nb\x1b@pve' does not look like a valid user name; for example anna@pve"
    )


ASKS = {"remove", "restore", "freeze", "shutdown", "suspend", "power", "raw", "edit", "reboot", "halt"}


def leaves(found: Any = None, *names: str) -> list[tuple[tuple[str, ...], Any]]:
    """Every command with the words that lead to it."""
    here = found or guestwire_group
    if isinstance(here, click.Group):
        context = click.Context(here)
        below = ((name, here.get_command(context, name)) for name in here.list_commands(context))
        return [leaf for name, found in below for leaf in leaves(found, *names, name)]
    return [(names, here)]


@pytest.mark.parametrize(
    ("names", "found"), leaves(), ids=lambda value: " ".join(value) if isinstance(value, tuple) else ""
)
def test_every_command_has_json_and_takes_no_secret_and_asks_before_it_removes(
    names: tuple[str, ...], found: Any
) -> None:
    options = {option for parameter in found.get_params(click.Context(found)) for option in parameter.opts}

    assert names[-1] in {"serve", "completion", "edit", "metrics", "proxy", "ssh"} or "--json" in options
    assert not options & {"--password", "--secret", "--value"}
    # A key that was taken away can be given again.
    assert ("--yes" in options) == (names[-1] in ASKS and names != ("ssh-key", "remove"))


@pytest.mark.parametrize(
    ("names", "found"), leaves(), ids=lambda value: " ".join(value) if isinstance(value, tuple) else ""
)
def test_every_command_says_what_it_does(names: tuple[str, ...], found: Any) -> None:
    assert found.help, names


# Removing


@pytest.mark.parametrize(
    "words",
    [
        ("user", "remove", "anna@pve"),
        ("token", "remove", "anna@pve", "job"),
        ("group", "remove", "ops"),
        ("role", "remove", "Freeze"),
        ("acl", "remove", "/pool/nightly", "Freeze", "--group", "ops"),
        ("restore", "backup"),
    ],
)
async def test_without_a_terminal_removing_needs_yes_and_changes_nothing_before(
    full: Site, words: tuple[str, ...]
) -> None:
    before = await full.json("user", "list"), await full.json("acl", "list"), await full.json("role", "list")

    assert "There is no terminal to ask on: give --yes if you mean it" in await full.refused(*words, stdin=b"y\n")
    assert before == (await full.json("user", "list"), await full.json("acl", "list"), await full.json("role", "list"))


async def test_what_goes_with_a_removed_user_is_told(full: Site) -> None:
    ended = await full.access("user", "remove", "anna@pve", "--yes")

    assert ended.errors == "user anna@pve: removed with 1 token and 1 ACL entry\n"
    assert await full.json("group", "list") == [{"groupid": "ops", "users": "", "comment": HOSTILE}]
    assert [entry["type"] for entry in await full.json("acl", "list")] == ["group"]


# Permissions


async def test_permissions_say_where_each_privilege_comes_from(full: Site) -> None:
    entry = {"path": "/pool/nightly", "roleid": "Freeze", "propagate": 1}
    group, token = entry | {"type": "group", "ugid": "ops"}, entry | {"type": "token", "ugid": "anna@pve!job"}

    assert await full.json("permissions", "--user", "anna@pve", "--path", "/vms/100") == [
        {
            "path": "/vms/100",
            "privilege": "VM.GuestAgent.FileSystemMgmt",
            "propagate": 0,
            "grants": [group | {"pool": "nightly"}],
        }
    ]
    [held] = await full.json("permissions", "--user", "anna@pve!job", "--path", "/pool/nightly")
    assert held["grants"] == [token, group]
    assert [held["path"] for held in await full.json("permissions", "--user", "anna@pve")] == [
        "/pool/nightly",
        "/vms/100",
    ]
    assert "Freeze of group ops on /pool/nightly, by way of pool nightly" in await full.done(
        "permissions", "--user", "anna@pve"
    )


async def test_who_may_nothing_is_told_why(full: Site) -> None:
    ended = await full.access("permissions", "--user", "anna@pve", "--path", "/vms/101")
    assert ended == Ended(0, "", "anna@pve may do nothing on /vms/101\n")

    await full.done("token", "change", "anna@pve", "job", "--expire", "1")
    assert (await full.access("permissions", "--user", "anna@pve!job")).errors == (
        "anna@pve!job may do nothing: anna@pve!job is expired\n"
    )
    await full.done("user", "change", "anna@pve", "--disable")
    assert (await full.access("permissions", "--user", "anna@pve")).errors == (
        "anna@pve may do nothing: anna@pve is disabled\n"
    )
    assert await full.json("permissions", "--user", "anna@pve") == []


async def test_root_may_everything_everywhere(site: Site) -> None:
    found = await site.json("permissions", "--user", "root@pam", "--path", "/vms/100")

    assert {grant["roleid"] for held in found for grant in held["grants"]} == {"Administrator"}
    assert "VM.GuestAgent.Unrestricted" in [held["privilege"] for held in found]


# Which store


async def test_the_configuration_says_where_the_store_is(site: Site, tmp_path: Path) -> None:
    (tmp_path / "guestwire.toml").write_text(f'[server]\nstate_dir = "{site.state_dir}"\nnode = "pve7"\n')

    ended = await command("access", "--config", str(tmp_path / "guestwire.toml"), "user", "list", "--json")

    assert [user["userid"] for user in json.loads(ended.output)] == ["root@pam"]


def configuration(site: Site, folder: Path, vms: str = "") -> str:
    """The path of a configuration whose state is the site's."""
    path = folder / "guestwire.toml"
    path.write_text(f'[server]\nstate_dir = "{site.state_dir}"\nnode = "pve7"\n{vms}')
    return str(path)


@pytest.mark.parametrize(
    ("before", "words", "behind"),
    [
        (("access", "--config", "FILE"), ("role", "list"), ()),
        (("access",), ("role", "list"), ("--config", "FILE")),
        (("access",), ("user", "add", "anna@pve"), ("--config", "FILE")),
        (("access",), ("user", "list"), ("--state-dir", "FOLDER")),
        (("access",), ("acl", "list"), ("--config", "FILE")),
        (("access",), ("permissions", "--user", "root@pam"), ("--config", "FILE")),
        (("access", "--config", "/none"), ("role", "list"), ("--config", "FILE")),
        (("audit",), (), ("--config", "FILE")),
        (("audit",), (), ("--state-dir", "FOLDER")),
        (("serve",), ("--check",), ("--config", "FILE")),
        (("access",), ("role", "list"), ()),
        (("audit",), (), ()),
        (("serve",), ("--check",), ()),
    ],
)
async def test_the_configuration_is_named_in_the_same_way_everywhere(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: Names, words: Names, behind: Names
) -> None:
    given = {"FILE": configuration(site, tmp_path), "FOLDER": str(site.state_dir)}
    if not behind and "--config" not in before:
        monkeypatch.setenv("GUESTWIRE_CONFIG", given["FILE"])

    ended = await command(*(given.get(word, word) for word in (*before, *words, *behind)))

    assert ended.code == 0, ended


@pytest.mark.parametrize(
    "words",
    [
        ("--config", "FILE", "user", "list", "--state-dir", "x"),
        ("user", "list", "--state-dir", "x", "--config", "FILE"),
    ],
)
async def test_they_are_not_given_together_behind_a_command_either(site: Site, tmp_path: Path, words: Names) -> None:
    file = configuration(site, tmp_path)

    ended = await command("access", *(file if word == "FILE" else word for word in words))

    assert ended == Ended(2, "", "guestwire: give --config or --state-dir, not both\n")


async def test_a_role_on_a_vm_that_is_not_there_is_given_with_a_warning(site: Site, tmp_path: Path) -> None:
    file = configuration(site, tmp_path, '[[vm]]\nvmid = 100\nname = "web"\n')

    async def add(path: str, *where: str) -> Ended:
        return await command("access", "acl", "add", path, "PVEAuditor", "--user", "root@pam", *where)

    missing = await add("/vms/555", "--config", file)
    there, all_vms, unknown = [
        await add("/vms/100", "--config", file), await add("/vms", "--config", file),
        await add("/vms/555", "--state-dir", str(site.state_dir)),
    ]  # fmt: skip

    added = "PVEAuditor of user root@pam on /vms/555: added\n"
    assert missing == Ended(
        0, "", f"{added}guestwire: warning: the configuration has no VM 555; the entry holds as soon as there is one\n"
    )
    assert (there.code, all_vms.code, unknown) == (0, 0, Ended(0, "", added))
    assert "warning" not in there.errors + all_vms.errors


async def test_configuration_and_state_directory_are_not_given_together(tmp_path: Path) -> None:
    ended = await command("access", "--config", "x", "--state-dir", str(tmp_path), "user", "list")

    assert ended == Ended(2, "", "guestwire: give --config or --state-dir, not both\n")


async def test_without_a_store_it_says_to_start_the_server_and_makes_none(tmp_path: Path) -> None:
    text = await Site(tmp_path / "none").refused("user", "list", code=errors.StoreError.exit_code)

    assert "there is no store yet; start the server once, it makes one: guestwire serve --config FILE" in text
    assert text.endswith("name the server's configuration here too: --config FILE, or GUESTWIRE_CONFIG")
    assert os.listdir(tmp_path) == []  # noqa: PTH208  # a name is enough


async def test_a_damaged_store_is_reported_with_what_to_do(site: Site) -> None:
    site.store.write_bytes(b"no database at all" * 100)

    text = await site.refused("user", "list", code=errors.StoreDamaged.exit_code)

    assert text.startswith(f"{site.store}: ")
    assert text.endswith("guestwire access restore BACKUP")


async def test_a_store_of_a_newer_guestwire_is_refused(site: Site) -> None:
    with sqlite3.connect(site.store) as connection:
        connection.execute("PRAGMA user_version = 99")

    assert "store format 99" in await site.refused("user", "list", code=errors.StoreTooNew.exit_code)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
async def test_who_may_not_use_the_store_is_told_who_can(site: Site) -> None:
    nobody = 65534
    for path in (site.state_dir, *site.state_dir.parents):
        if path.stat().st_uid == 0 and path.name.startswith(("pytest", "popen")):
            path.chmod(0o711)
    os.seteuid(nobody)
    try:
        text = await site.refused("user", "list", code=errors.StoreError.exit_code)
    finally:
        os.seteuid(0)

    assert text == f"{site.store}: user 'nobody' can't use it; user 'root' can: sudo -u root guestwire …"


# Backups


async def test_a_backup_put_back_has_everything_again(full: Site, tmp_path: Path) -> None:
    file = tmp_path / "backup"
    before = await full.json("user", "list"), await full.json("acl", "list")
    assert await full.access("backup", str(file)) == Ended(0, "", f"{file}: written\n")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    await full.done("user", "remove", "anna@pve", "--yes")

    assert await full.json("restore", str(file), "--yes") == {"store": str(full.store), "backup": str(file)}

    assert (await full.json("user", "list"), await full.json("acl", "list")) == before


async def test_a_backup_is_put_back_where_there_is_no_store_any_more(full: Site, tmp_path: Path) -> None:
    await full.done("backup", str(tmp_path / "backup"))
    full.store.unlink()

    await full.done("restore", str(tmp_path / "backup"), "--yes")

    assert "anna@pve" in await full.done("user", "list")


async def test_what_is_no_backup_is_not_put_in_the_place_of_the_store(full: Site, tmp_path: Path) -> None:
    (tmp_path / "other").write_text("no backup, whatever it is " * 100)

    await full.refused("restore", str(tmp_path / "other"), "--yes", code=errors.StoreDamaged.exit_code)
    await full.refused("restore", str(tmp_path / "none"), "--yes", code=errors.StoreError.exit_code)

    assert "anna@pve" in await full.done("user", "list")


async def test_a_store_in_use_is_not_replaced(full: Site, tmp_path: Path) -> None:
    await full.done("backup", str(tmp_path / "backup"))
    store = await SqliteStore.open(full.store)
    try:
        text = await full.refused("restore", str(tmp_path / "backup"), "--yes", code=errors.StoreError.exit_code)
    finally:
        await store.close()

    assert text == f"{full.store}: it is in use; stop the server first"
