"""The parts that commands on the store share: finding the store, opening it, and showing results."""

import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click
from click.core import ParameterSource

from guestwire.cli.asking import confirm
from guestwire.cli.output import Column, Row, note, show
from guestwire.errors import GuestwireError, RequestError

if TYPE_CHECKING:
    from guestwire.app.offline import OfflineAdmin
    from guestwire.app.state import StateLocation

T = TypeVar("T")

CONFIG: Final = (
    "The server's configuration file; else GUESTWIRE_CONFIG, or /etc/guestwire/guestwire.toml if that exists."
)
STATE_DIR: Final = "The server's state directory, instead of a configuration file."

config_option = click.option(
    "--config", metavar="FILE", envvar="GUESTWIRE_CONFIG", type=click.Path(path_type=Path), help=CONFIG
)
state_option = click.option("--state-dir", metavar="FOLDER", type=click.Path(path_type=Path), help=STATE_DIR)


@dataclass(frozen=True, slots=True)
class Where:
    """Which server's store is meant; None for what was not given.

    A configuration file that the environment names (`is_usual`) gives way to a state directory.
    """

    config: Path | None
    state_dir: Path | None
    is_usual: bool = False

    def __post_init__(self) -> None:
        if self.config and self.state_dir and not self.is_usual:
            raise RequestError("give --config or --state-dir, not both")

    @classmethod
    def given(cls, context: click.Context, config: Path | None, state_dir: Path | None) -> "Where":
        """The values of the options of a command.

        Raises:
            RequestError: both were given.
        """
        is_usual = context.get_parameter_source("config") is not ParameterSource.COMMANDLINE
        return cls(config, state_dir, is_usual)

    def or_rather(self, **given: Path) -> "Where":
        """The same, where one of the options is given again, behind another command.

        Raises:
            RequestError: both were given.
        """
        return replace(self, **given, is_usual=self.is_usual and "config" not in given)

    def location(self) -> "StateLocation":
        """The place of the store.

        Raises:
            ConfigurationError: the file can't be used.
        """
        from guestwire.app.state import state_location  # noqa: PLC0415  # `--help` must not wait for it

        return state_location(None if self.state_dir else self.config, self.state_dir)

    def vms(self) -> dict[int, str] | None:
        """The names of the VMs of the configuration file by their ids; None: only a state directory is known, which does not name them.

        Raises:
            ConfigurationError: the file can't be used.
        """
        from guestwire.app.state import configured_vms  # noqa: PLC0415  # as above

        return None if self.state_dir else configured_vms(self.config)


def take_where(group: click.Group) -> None:
    """Gives --config and --state-dir to all commands of a group, which has them itself: they may stand before and behind."""
    for command in group.commands.values():
        if isinstance(command, click.Group):
            take_where(command)
        else:
            command.params += [_again("--config", "FILE", CONFIG), _again("--state-dir", "FOLDER", STATE_DIR)]


def _again(flag: str, metavar: str, text: str) -> click.Option:
    def take(context: click.Context, option: click.Parameter, value: Path | None) -> None:
        if value is not None:
            context.obj = context.obj.or_rather(**{str(option.name): value})

    kind = click.Path(path_type=Path)
    return click.Option([flag], metavar=metavar, type=kind, help=text, expose_value=False, callback=take)


def run(where: Where, job: Callable[["OfflineAdmin"], Awaitable[T]]) -> T:
    """Does one job on the store."""
    # `serve` and `--help` must not wait for what only these commands need.
    import asyncio  # noqa: PLC0415

    from guestwire.app.offline import open_offline  # noqa: PLC0415

    async def on_store() -> T:
        async with open_offline(where.location()) as admin:
            return await job(admin)

    return asyncio.run(on_store())


@dataclass(frozen=True, slots=True)
class Resource:
    """A kind of record that can be listed, added, changed and removed.

    Attributes:
        word: what people call it.
        help: of the group of its commands.
        keys: the parameters that name one, the last one being its own, with the words of the usage line.
        collection: the API's path of all of them.
        page: the API's path of one.
        columns: of the table.
        actions: help and example of each command.
        paths: of actions whose path is neither the collection's (list, add) nor the page's (change, remove).
        listed: parameters of the list.
        complete: gives a row what the list leaves out.
    """

    word: str
    help: str
    keys: Mapping[str, str]
    collection: str
    page: str
    columns: Sequence[Column]
    actions: Mapping[str, tuple[str, str]]
    paths: Mapping[str, str] = field(default_factory=dict)
    listed: Mapping[str, Any] = field(default_factory=dict)
    complete: Callable[["OfflineAdmin", Row], Awaitable[Row]] | None = None

    @property
    def key(self) -> str:
        """The field that names one."""
        return list(self.keys)[-1]

    def path(self, action: str) -> str:
        """The API's path of an action."""
        return self.paths.get(action, self.collection if action in {"list", "add"} else self.page)

    async def rows(self, admin: "OfflineAdmin", given: Mapping[str, Any]) -> list[Row]:
        """All of them; `given` is what the path needs."""
        rows: list[Row] = await admin.call("GET", self.collection, {**self.listed, **given})
        return [await self.complete(admin, row) for row in rows] if self.complete else rows

    async def row(self, admin: "OfflineAdmin", ident: Mapping[str, str]) -> Row:
        """One of them. `ident` names it.

        Raises:
            AccessRefused: there is none.
        """
        await admin.call("GET", self.page, ident)
        given = {name: value for name, value in ident.items() if name != self.key}
        return next(row for row in await self.rows(admin, given) if row[self.key] == ident[self.key])


def show_all(where: Where, resource: Resource, given: Mapping[str, Any] | None = None, *, as_json: bool) -> None:
    """Lists all of them."""
    show(run(where, lambda admin: resource.rows(admin, given or {})), resource.columns, as_json=as_json)


def add_or_change(
    where: Where,
    resource: Resource,
    call: tuple[str, str],
    ident: Mapping[str, str],
    given: Mapping[str, Any],
    *,
    as_json: bool,
    out: Path | None = None,
) -> None:
    """Makes one or changes it; tells so, or shows it as the list has it. The secret of a token goes to the file `out`."""
    if out and (out.exists() or not out.parent.is_dir()):
        raise click.UsageError(
            f"--out {out}: {'the file is there already' if out.exists() else 'there is no such folder'}."
        )

    async def job(admin: "OfflineAdmin") -> tuple[Any, Row]:
        return await admin.call(*call, {**ident, **given}), await resource.row(admin, ident)

    made, found = run(where, job)
    if isinstance(made, dict) and "value" in made:  # a token's secret, which is shown this once
        if as_json:
            show(made, (), as_json=True)
        else:
            done = "changed" if call[0] == "PUT" else "added"
            where_it_is = f"it is in {out}" if out else "this is the only time that it is shown"
            note(f"token {made['full-tokenid']}: {done}; {where_it_is}")
            secret = f"{made['full-tokenid']}={made['value']}\n"
            if out:
                with os.fdopen(os.open(out, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
                    file.write(secret)
            else:
                print(secret, end="")
    elif as_json:
        show(found, resource.columns, as_json=True)
    else:
        note(f"{resource.word} {_named(ident)}: {'changed' if call[0] == 'PUT' else 'added'}")


def remove(where: Where, resource: Resource, ident: Mapping[str, str], *, yes: bool, as_json: bool) -> None:
    """Removes one, when it is meant; tells so, or shows it as it was."""

    async def look(admin: "OfflineAdmin") -> tuple[Row, str]:
        try:
            row = await resource.row(admin, ident)
        except GuestwireError:
            # Without a question the removal was meant: it is tried, refused and recorded as in the API.
            if yes:
                await admin.call("DELETE", resource.page, ident)
            raise
        return row, _what_goes(await admin.call("GET", "/access/acl"), ident, row)

    row, more = run(where, look)
    confirm(f"Remove {resource.word} {_named(ident)}{more}?", yes=yes)
    run(where, lambda admin: admin.call("DELETE", resource.page, ident))
    if as_json:
        show(row, resource.columns, as_json=True)
    else:
        note(f"{resource.word} {_named(ident)}: removed{more}")


def _named(ident: Mapping[str, str]) -> str:
    return "!".join(ident.values())


def _what_goes(acl: Sequence[Row], ident: Mapping[str, str], row: Row) -> str:
    """Describes the tokens and ACL entries that are removed with a record."""
    name = _named(ident)
    entries = [entry for entry in acl if name in (entry["ugid"], entry["ugid"].partition("!")[0], entry["roleid"])]
    entries += [entry for entry in acl if "poolid" in ident and entry["path"] == f"/pool/{name}"]
    tokens = len(row.get("tokens", ())) if "tokenid" not in ident else 0
    parts = [_count(tokens, "token", "tokens"), _count(len(entries), "ACL entry", "ACL entries")]
    return "".join(f"{word} {part}" for word, part in zip((" with", " and"), filter(None, parts), strict=False))


def _count(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}" if number else ""
