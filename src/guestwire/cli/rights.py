"""`guestwire access role`, `acl` and `pool`."""

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from guestwire.cli.asking import confirm
from guestwire.cli.output import Column, Row, examples, note, show, yes_or_no
from guestwire.cli.site import Comment, Json, Kind, Where, Yes, change, remove, run, show_all
from guestwire.errors import RequestError

if TYPE_CHECKING:
    from guestwire.app.offline import OfflineAdmin

role = typer.Typer(
    epilog=examples("guestwire access role list"),
    no_args_is_help=True,
    help="Roles: privileges that are given together.",
)
acl = typer.Typer(
    epilog=examples("guestwire access acl list"),
    no_args_is_help=True,
    help="Who has which role on which path: /, /vms/100, /pool/NAME, /nodes/NAME, /access.",
)
pool = typer.Typer(
    epilog=examples("guestwire access pool list"),
    no_args_is_help=True,
    help="Pools: VMs that are meant together by the path /pool/NAME.",
)

RoleArgument = Annotated[str, typer.Argument(metavar="ROLE", show_default=False)]
PathArgument = Annotated[str, typer.Argument(metavar="PATH", help="As /vms/100 or /pool/NAME.", show_default=False)]
RolesArgument = Annotated[str, typer.Argument(metavar="ROLE[,…]", show_default=False)]
PoolArgument = Annotated[str, typer.Argument(metavar="POOL", show_default=False)]
Privileges = Annotated[
    str | None, typer.Option("--privs", metavar="PRIVILEGE,…", help="Privileges, as VM.GuestAgent.FileSystemMgmt.")
]
OfUsers = Annotated[list[str] | None, typer.Option("--user", metavar="NAME@REALM", help="Can be given several times.")]
OfGroups = Annotated[list[str] | None, typer.Option("--group", metavar="GROUP", help="Can be given several times.")]
OfTokens = Annotated[
    list[str] | None, typer.Option("--token", metavar="NAME@REALM!NAME", help="Can be given several times.")
]

ROLES: Final = Kind(
    "role",
    "roleid",
    "/access/roles",
    "/access/roles/{roleid}",
    (
        Column("ROLE", "roleid"),
        Column("BUILT IN", "special", yes_or_no),
        Column("PRIVILEGES", "privs", lambda privs: privs.replace(",", " ")),
    ),
)

ACL_PATH: Final = "/access/acl"
ACL_COLUMNS: Final = (
    Column("PATH", "path"),
    Column("ROLE", "roleid"),
    Column("TYPE", "type"),
    Column("WHO", "ugid"),
    Column("PROPAGATES", "propagate", yes_or_no),
)


async def _with_members(admin: "OfflineAdmin", row: Row) -> Row:
    found: list[Row] = await admin.call("GET", POOLS.collection, {"poolid": row["poolid"]})
    return found[0]


POOLS: Final = Kind(
    "pool",
    "poolid",
    "/pools",
    "/pools/{poolid}",
    (
        Column("POOL", "poolid"),
        Column("VMS", "members", lambda members: ",".join(str(each["vmid"]) for each in members)),
        Column("COMMENT", "comment"),
    ),
    complete=_with_members,
)


@role.command("list", epilog=examples("guestwire access role list"))
def list_roles(context: typer.Context, *, json: Json = False) -> None:
    """List all roles with their privileges."""
    show_all(context.obj, ROLES, as_json=json)


@role.command("add", epilog=examples("guestwire access role add Look --privs VM.Audit,VM.GuestAgent.Audit"))
def add_role(context: typer.Context, roleid: RoleArgument, *, privs: Privileges = None, json: Json = False) -> None:
    """Add a role."""
    change(context.obj, ROLES, ("POST", ROLES.collection), {"roleid": roleid}, {"privs": privs}, as_json=json)


@role.command("change", epilog=examples("guestwire access role change Look --privs VM.GuestAgent.FileRead --append"))
def change_role(
    context: typer.Context,
    roleid: RoleArgument,
    *,
    privs: Annotated[str, typer.Option("--privs", metavar="PRIVILEGE,…", help="All that it has from now on.")],
    append: Annotated[bool, typer.Option("--append", help="Keep the privileges it has already.")] = False,
    json: Json = False,
) -> None:
    """Change the privileges of a role that is not built in."""
    given = {"privs": privs, "append": append or None}
    change(context.obj, ROLES, ("PUT", ROLES.page), {"roleid": roleid}, given, as_json=json)


@role.command("remove", epilog=examples("guestwire access role remove Look"))
def remove_role(context: typer.Context, roleid: RoleArgument, *, yes: Yes = False, json: Json = False) -> None:
    """Remove a role that is not built in, and the ACL entries that name it."""
    remove(context.obj, ROLES, {"roleid": roleid}, yes=yes, as_json=json)


@acl.command("list", epilog=examples("guestwire access acl list"))
def list_acl(context: typer.Context, *, json: Json = False) -> None:
    """List all ACL entries."""
    show(run(context.obj, _acl), ACL_COLUMNS, as_json=json)


@acl.command("add", epilog=examples("guestwire access acl add /vms/100 Look --user anna@pve"))
def add_acl(
    context: typer.Context,
    path: PathArgument,
    roles: RolesArgument,
    *,
    users: OfUsers = None,
    groups: OfGroups = None,
    tokens: OfTokens = None,
    propagate: Annotated[
        bool, typer.Option("--propagate/--no-propagate", help="It holds below the path too, or only on it.")
    ] = True,
    json: Json = False,
) -> None:
    """Give users, groups or tokens a role on a path."""
    given = _acl_given(path, roles, users, groups, tokens) | {"propagate": propagate}

    async def job(admin: "OfflineAdmin") -> list[Row]:
        await admin.call("PUT", ACL_PATH, given)
        return _meant(await _acl(admin), given)

    _tell_acl(run(context.obj, job), "added", as_json=json)


@acl.command("remove", epilog=examples("guestwire access acl remove /vms/100 Look --user anna@pve"))
def remove_acl(
    context: typer.Context,
    path: PathArgument,
    roles: RolesArgument,
    *,
    users: OfUsers = None,
    groups: OfGroups = None,
    tokens: OfTokens = None,
    yes: Yes = False,
    json: Json = False,
) -> None:
    """Take a role on a path away from users, groups or tokens."""
    where: Where = context.obj
    given = _acl_given(path, roles, users, groups, tokens)
    entries = run(where, lambda admin: _entries_to_go(admin, given))
    confirm(f"Remove {', '.join(map(_entry_words, entries))}?", yes=yes)
    run(where, lambda admin: admin.call("PUT", ACL_PATH, {**given, "delete": True}))
    _tell_acl(entries, "removed", as_json=json)


async def _acl(admin: "OfflineAdmin") -> list[Row]:
    found: list[Row] = await admin.call("GET", ACL_PATH)
    return found


def _acl_given(
    path: str, roles: str, users: list[str] | None, groups: list[str] | None, tokens: list[str] | None
) -> dict[str, Any]:
    named = {"users": users, "groups": groups, "tokens": tokens}
    return {"path": path, "roles": roles} | {name: ",".join(each) for name, each in named.items() if each}


def _meant(entries: Sequence[Row], given: Mapping[str, Any]) -> list[Row]:
    """The entries that a change is about."""
    from guestwire.access.administration import acl_path  # noqa: PLC0415  # `--help` must not wait for it

    path, roles = acl_path(given["path"]), _items(given["roles"])
    named = {"user": "users", "group": "groups", "token": "tokens"}
    subjects = {(kind, name) for kind, field in named.items() for name in _items(given.get(field, ""))}
    return [
        entry
        for entry in entries
        if entry["path"] == path and entry["roleid"] in roles and (entry["type"], entry["ugid"]) in subjects
    ]


def _items(text: str) -> list[str]:
    return re.split(r"[,;\s]+", text)


async def _entries_to_go(admin: "OfflineAdmin", given: Mapping[str, Any]) -> list[Row]:
    entries = _meant(await _acl(admin), given)
    if not entries:
        raise RequestError("there is no such ACL entry; guestwire access acl list shows all there are")
    return entries


def _entry_words(entry: Row) -> str:
    return f"{entry['roleid']} of {entry['type']} {entry['ugid']} on {entry['path']}"


def _tell_acl(entries: Sequence[Row], done: str, *, as_json: bool) -> None:
    if as_json:
        show(entries, ACL_COLUMNS, as_json=True)
        return
    for entry in entries:
        note(f"{_entry_words(entry)}: {done}")


@pool.command("list", epilog=examples("guestwire access pool list"))
def list_pools(context: typer.Context, *, json: Json = False) -> None:
    """List all pools with their VMs."""
    show_all(context.obj, POOLS, as_json=json)


@pool.command("add", epilog=examples("guestwire access pool add nightly --comment Backups"))
def add_pool(context: typer.Context, poolid: PoolArgument, *, comment: Comment = None, json: Json = False) -> None:
    """Add a pool; `pool change --vms` puts VMs in it."""
    change(context.obj, POOLS, ("POST", POOLS.collection), {"poolid": poolid}, {"comment": comment}, as_json=json)


@pool.command("change", epilog=examples("guestwire access pool change nightly --vms 100,101"))
def change_pool(
    context: typer.Context,
    poolid: PoolArgument,
    *,
    vms: Annotated[
        str | None, typer.Option("--vms", metavar="VMID,…", help="VMs that come to those in the pool.")
    ] = None,
    delete: Annotated[bool, typer.Option("--delete", help="Take these VMs out instead.")] = False,
    allow_move: Annotated[bool, typer.Option("--allow-move", help="Take VMs from other pools.")] = False,
    comment: Comment = None,
    json: Json = False,
) -> None:
    """Put VMs in a pool or take them out; change its comment."""
    given = {"vms": vms, "delete": delete, "allow-move": allow_move, "comment": comment}
    change(context.obj, POOLS, ("PUT", POOLS.collection), {"poolid": poolid}, given, as_json=json)


@pool.command("remove", epilog=examples("guestwire access pool remove nightly"))
def remove_pool(context: typer.Context, poolid: PoolArgument, *, yes: Yes = False, json: Json = False) -> None:
    """Remove an empty pool and the ACL entries on its path."""
    remove(context.obj, POOLS, {"poolid": poolid}, yes=yes, as_json=json)
