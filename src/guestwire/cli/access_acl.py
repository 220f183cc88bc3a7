"""`guestwire access acl`: who has which role on which path."""

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import click

from guestwire.cli.access_store import Where, run
from guestwire.cli.asking import confirm
from guestwire.cli.options import json_option, yes_option
from guestwire.cli.output import Column, Row, examples, note, show, yes_or_no
from guestwire.errors import RequestError

if TYPE_CHECKING:
    from guestwire.app.offline import OfflineAdmin

acl = click.Group(
    "acl",
    epilog=examples("guestwire access acl list"),
    no_args_is_help=True,
    help="Who has which role on which path: /, /vms/100, /pool/NAME, /nodes/NAME, /access.",
)
path_argument = click.argument("path", metavar="PATH", help="As /vms/100 or /pool/NAME.")
roles_argument = click.argument("roles", metavar="ROLE[,…]")
of_users_option = click.option(
    "--user", "users", metavar="NAME@REALM", help="Can be given several times.", multiple=True
)
of_groups_option = click.option("--group", "groups", metavar="GROUP", help="Can be given several times.", multiple=True)
of_tokens_option = click.option(
    "--token", "tokens", metavar="NAME@REALM!NAME", help="Can be given several times.", multiple=True
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


@acl.command("add", epilog=examples("guestwire access acl add /vms/100 Look --user anna@pve"))
@path_argument
@roles_argument
@of_users_option
@of_groups_option
@of_tokens_option
@click.option("--propagate/--no-propagate", help="It holds below the path too, or only on it.", default=True)
@json_option
@click.pass_context
def add_acl(
    context: click.Context,
    path: str,
    roles: str,
    *,
    users: tuple[str, ...],
    groups: tuple[str, ...],
    tokens: tuple[str, ...],
    propagate: bool,
    json: bool,
) -> None:
    """Give users, groups or tokens a role on a path."""
    given = _acl_given(path, roles, users, groups, tokens) | {"propagate": propagate}

    async def job(admin: "OfflineAdmin") -> list[Row]:
        await admin.call("PUT", ACL_PATH, given)
        return _meant(await _acl(admin), given)

    _tell_acl(run(context.obj, job), "added", as_json=json)


@acl.command("remove", epilog=examples("guestwire access acl remove /vms/100 Look --user anna@pve"))
@path_argument
@roles_argument
@of_users_option
@of_groups_option
@of_tokens_option
@yes_option
@json_option
@click.pass_context
def remove_acl(
    context: click.Context,
    path: str,
    roles: str,
    *,
    users: tuple[str, ...],
    groups: tuple[str, ...],
    tokens: tuple[str, ...],
    yes: bool,
    json: bool,
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
    path: str, roles: str, users: Sequence[str], groups: Sequence[str], tokens: Sequence[str]
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
