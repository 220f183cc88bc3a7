"""`guestwire access acl`: who has which role on which path."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from guestwire.cli.access_store import Where, run
from guestwire.cli.asking import confirm, yes_option
from guestwire.cli.output import Column, Group, Row, examples, json_option, note, show, yes_or_no
from guestwire.errors import RequestError

if TYPE_CHECKING:
    from guestwire.app.offline import OfflineAdmin

Names = tuple[str, ...]
Decorated = TypeVar("Decorated", bound=Callable[..., Any])

acl = Group(
    "acl",
    epilog=examples("guestwire access acl list"),
    no_args_is_help=True,
    help="Give users, groups and tokens roles on paths, or take them away.",
)

ACL_PATH: Final = "/access/acl"
ACL_COLUMNS: Final = (
    Column("PATH", "path"),
    Column("ROLE", "roleid"),
    Column("TYPE", "type"),
    Column("WHO", "ugid"),
    Column("PROPAGATES", "propagate", yes_or_no),
)


@acl.command("list", epilog=examples("guestwire access acl list"))
@json_option
@click.pass_context
def list_acl(context: click.Context, *, json: bool) -> None:
    """List all ACL entries."""
    show(run(context.obj, _acl), ACL_COLUMNS, as_json=json)


def entry_options(command: Decorated) -> Decorated:
    """Adds the arguments and options that name ACL entries: a path, roles, and those who have them."""
    several = "Can be given several times."
    for option in (
        click.option("--token", "tokens", metavar="USER!NAME", help=f"An API token. {several}", multiple=True),
        click.option("--group", "groups", metavar="GROUP", help=f"A group of users. {several}", multiple=True),
        click.option("--user", "users", metavar="USER", help=f"A user, NAME@REALM. {several}", multiple=True),
        click.argument("roles", metavar="ROLE[,…]", help="Roles, separated by commas."),
        click.argument("path", metavar="PATH", help="/, /vms/100, /pool/NAME, /nodes/NAME or /access."),
    ):
        command = option(command)
    return command


@acl.command("add", epilog=examples("guestwire access acl add /vms/100 Look --user anna@pve"))
@entry_options
@click.option("--propagate/--no-propagate", help="The role applies below the path too.", default=True)
@json_option
@click.pass_context
def add_acl(context: click.Context, /, path: str, roles: str, *, propagate: bool, json: bool, **names: Names) -> None:
    """Give users, groups or tokens roles on a path."""
    given = _parameters(path, roles, names) | {"propagate": propagate}

    async def job(admin: "OfflineAdmin") -> list[Row]:
        await admin.call("PUT", ACL_PATH, given)
        return _select(await _acl(admin), given)

    _report(run(context.obj, job), "added", as_json=json)
    _warn_of_path(context.obj, path)


def _warn_of_path(where: Where, path: str) -> None:
    """Says when a path names a VM that is not there: an entry may come before its VM, but more often the id is wrong."""
    from guestwire.access.administration import acl_path  # noqa: PLC0415  # `--help` must not wait for it

    _, kind, name, *_ = [*acl_path(path).split("/"), "", ""]
    vms = where.vms() if kind == "vms" and name else None
    if vms is not None and name not in map(str, vms):
        note(f"guestwire: warning: the configuration has no VM {name}; the entry holds as soon as there is one")


@acl.command("remove", epilog=examples("guestwire access acl remove /vms/100 Look --user anna@pve"))
@entry_options
@yes_option
@json_option
@click.pass_context
def remove_acl(context: click.Context, /, path: str, roles: str, *, yes: bool, json: bool, **names: Names) -> None:
    """Take roles on a path away from users, groups or tokens."""
    where: Where = context.obj
    given = _parameters(path, roles, names)

    async def find(admin: "OfflineAdmin") -> list[Row]:
        if found := _select(await _acl(admin), given):
            return found
        raise RequestError("there is no such ACL entry; guestwire access acl list shows all there are")

    entries = run(where, find)
    confirm(f"Remove {', '.join(map(_entry_words, entries))}?", yes=yes)
    run(where, lambda admin: admin.call("PUT", ACL_PATH, {**given, "delete": True}))
    _report(entries, "removed", as_json=json)


async def _acl(admin: "OfflineAdmin") -> list[Row]:
    found: list[Row] = await admin.call("GET", ACL_PATH)
    return found


def _parameters(path: str, roles: str, names: Mapping[str, Names]) -> dict[str, Any]:
    return {"path": path, "roles": roles} | {kind: ",".join(each) for kind, each in names.items() if each}


def _select(entries: Sequence[Row], given: Mapping[str, Any]) -> list[Row]:
    """The entries that a change is about."""
    from guestwire.access.administration import acl_path  # noqa: PLC0415  # `--help` must not wait for it
    from guestwire.access.values import split_list  # noqa: PLC0415  # as above

    path, roles = acl_path(given["path"]), split_list(given["roles"])
    named = {"user": "users", "group": "groups", "token": "tokens"}
    subjects = {(kind, name) for kind, field in named.items() for name in split_list(given.get(field, ""))}
    return [
        entry
        for entry in entries
        if entry["path"] == path and entry["roleid"] in roles and (entry["type"], entry["ugid"]) in subjects
    ]


def _entry_words(entry: Row) -> str:
    return f"{entry['roleid']} of {entry['type']} {entry['ugid']} on {entry['path']}"


def _report(entries: Sequence[Row], done: str, *, as_json: bool) -> None:
    if as_json:
        show(entries, ACL_COLUMNS, as_json=True)
        return
    for entry in entries:
        note(f"{_entry_words(entry)}: {done}")
