"""`guestwire access`: users and what they may do, on the server's own machine; the server may run or not."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from guestwire.cli.access_acl import acl
from guestwire.cli.access_resources import GROUPS, POOLS, ROLES, TOKENS, USERS, password, resource_group
from guestwire.cli.access_store import Where, config_option, run, state_option, take_where
from guestwire.cli.asking import confirm, yes_option
from guestwire.cli.output import Column, Group, Row, examples, json_option, note, print_table, report, show, yes_or_no

if TYPE_CHECKING:
    from guestwire.app.offline import OfflineAdmin

GRANTS: Final = (
    Column("PATH", "path"),
    Column("PRIVILEGES", "privileges", list),
    Column("PROPAGATES", "propagate", yes_or_no),
    Column("COMES FROM", "grants", lambda grants: [_words(grant) for grant in grants]),
)


@click.group(
    "access",
    cls=Group,
    no_args_is_help=True,
    epilog=examples("guestwire access user add anna@pve", "guestwire access --help"),
)
@config_option
@state_option
@click.pass_context
def access(context: click.Context, *, config: Path | None, state_dir: Path | None) -> None:
    """Manage users, tokens, groups, roles, ACLs and pools.

    These commands work on the server's own store: on its machine, as root or as the user that the server runs as. The
    server may run meanwhile; it heeds a change within a second. There is no store before its first start.
    """
    context.obj = Where.given(context, config, state_dir)


user = resource_group(USERS)
user.add_command(password)
for group in (user, resource_group(TOKENS), resource_group(GROUPS), resource_group(ROLES), acl, resource_group(POOLS)):
    access.add_command(group)


@access.command("permissions", epilog=examples("guestwire access permissions --user anna@pve --path /vms/100"))
@click.option("--user", metavar="USER", help="A user, NAME@REALM, or a token, NAME@REALM!NAME.", required=True)
@click.option(
    "--path", metavar="PATH", help="A path, for example /vms/100; without it, all paths where the privileges differ."
)
@json_option
@click.pass_context
def permissions(context: click.Context, user: str, *, path: str | None, json: bool) -> None:
    """Show what a user or token may do, and why.

    Each privilege comes with the ACL entries that give it.
    """

    async def job(admin: "OfflineAdmin") -> tuple[list[Row], str]:
        found, why = admin.explain(user, path)
        return list(found), why

    found, why = run(context.obj, job)
    if json:
        show(found, (), as_json=True)
    elif found:
        print_table(_together(found), GRANTS)
    else:
        note(f"{user} may do nothing{f' on {path}' if path else ''}{f': {why}' if why else ''}")


def _together(found: Sequence[Row]) -> Iterator[Row]:
    """Privileges of one path that come from the same entries are one row."""
    rows: dict[str, dict[str, Any]] = {}
    for each in found:
        key = repr((each["path"], each["propagate"], each["grants"]))
        rows.setdefault(key, {**each, "privileges": []})["privileges"].append(each["privilege"])
    yield from rows.values()


def _words(grant: Row) -> str:
    pool = f", by way of pool {grant['pool']}" if "pool" in grant else ""
    return f"{grant['roleid']} of {grant['type']} {grant['ugid']} on {grant['path']}{pool}"


backup_argument = click.argument(
    "backup", metavar="FILE", help="A backup of the store.", type=click.Path(path_type=Path)
)


@access.command("backup", epilog=examples("guestwire access backup /var/backups/guestwire.db"))
@backup_argument
@json_option
@click.pass_context
def write_backup(context: click.Context, backup: Path, *, json: bool) -> None:
    """Write a copy of the store to a file.

    The server may run meanwhile. The file holds password hashes and tokens' hashes: keep it secret.
    """
    run(context.obj, lambda admin: admin.store.backup(backup))
    report({"backup": str(backup)}, f"{backup}: written", as_json=json)


@access.command("restore", epilog=examples("guestwire access restore /var/backups/guestwire.db"))
@backup_argument
@yes_option
@json_option
@click.pass_context
def restore(context: click.Context, backup: Path, *, yes: bool, json: bool) -> None:
    """Replace the store by a backup.

    Stop the server first. The old store is kept beside the new one.
    """
    # `serve` and `--help` must not wait for what only this command needs.
    import asyncio  # noqa: PLC0415

    from guestwire.app.offline import restore as put_back  # noqa: PLC0415

    place = context.obj.location()
    confirm(f"Put {backup} in the place of {place.store}?", yes=yes)
    asyncio.run(put_back(place, backup))
    report({"store": str(place.store), "backup": str(backup)}, f"{place.store}: restored from {backup}", as_json=json)


take_where(access)
