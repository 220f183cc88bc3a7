"""`guestwire access user`, `token`, `group`, `role` and `pool`.

The commands are made from one table of resources and the records of their endpoints.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from guestwire.cli.access_store import Resource, add_or_change, remove, run, show_all
from guestwire.cli.asking import new_password, yes_option
from guestwire.cli.output import Column, Group, Row, examples, json_option, yes_or_no
from guestwire.cli.times import expires, expiry

if TYPE_CHECKING:
    from guestwire.app.offline import OfflineAdmin
    from guestwire.contract import Endpoint
    from guestwire.contract.parameters import Rule


async def _with_members(admin: "OfflineAdmin", row: Row) -> Row:
    found: list[Row] = await admin.call("GET", "/pools", {"poolid": row["poolid"]})
    return found[0]


USERS: Final = Resource(
    "user",
    "Manage users. A user is NAME@REALM: the realm pve keeps passwords here, pam has the accounts of this host.",
    {"userid": "USER"},
    "/access/users",
    "/access/users/{userid}",
    (
        Column("USER", "userid"),
        Column("ENABLED", "enable", yes_or_no),
        Column("EXPIRES", "expire", expires),
        Column("GROUPS", "groups"),
        Column("TOKENS", "tokens", lambda tokens: ",".join(each["tokenid"] for each in tokens)),
        Column("E-MAIL", "email"),
        Column("COMMENT", "comment"),
    ),
    {
        "list": ("List all users with their groups and tokens.", ""),
        "add": ("Add a user. `user password` sets the password.", "anna@pve --groups ops"),
        "change": ("Change a user. A running server heeds it within a second.", "anna@pve --disable"),
        "remove": ("Remove a user with its tokens, memberships and ACL entries.", "anna@pve"),
    },
    listed={"full": True},
)
TOKENS: Final = Resource(
    "token",
    "Manage the API tokens of a user.",
    {"userid": "USER", "tokenid": "NAME"},
    "/access/users/{userid}/token",
    "/access/users/{userid}/token/{tokenid}",
    (
        Column("TOKEN", "tokenid"),
        Column("OWN PRIVILEGES", "privsep", yes_or_no),
        Column("EXPIRES", "expire", expires),
        Column("COMMENT", "comment"),
    ),
    {
        "list": ("List a user's tokens.", "anna@pve"),
        "add": (
            "Add a token, and show its secret. It is shown this once: standard output gets one line, USER!NAME=SECRET.",
            "anna@pve backup --expire 2027-01-01",
        ),
        "change": ("Change a token. Its secret stays the same.", "anna@pve backup --expire never"),
        "remove": (
            "Remove a token with its ACL entries. A running server refuses it within a second.",
            "anna@pve backup",
        ),
    },
    paths={"add": "/access/users/{userid}/token/{tokenid}"},
)
GROUPS: Final = Resource(
    "group",
    "Manage groups of users. `user change --groups` puts a user into groups.",
    {"groupid": "GROUP"},
    "/access/groups",
    "/access/groups/{groupid}",
    (Column("GROUP", "groupid"), Column("MEMBERS", "users"), Column("COMMENT", "comment")),
    {
        "list": ("List all groups with their members.", ""),
        "add": ("Add a group.", "ops --comment Operators"),
        "change": ("Change a group's comment.", "ops --comment Operators"),
        "remove": ("Remove a group with its ACL entries. Its members stay.", "ops"),
    },
)
ROLES: Final = Resource(
    "role",
    "Manage roles: named sets of privileges.",
    {"roleid": "ROLE"},
    "/access/roles",
    "/access/roles/{roleid}",
    (
        Column("ROLE", "roleid"),
        Column("BUILT IN", "special", yes_or_no),
        Column("PRIVILEGES", "privs", lambda privs: privs.replace(",", " ")),
    ),
    {
        "list": ("List all roles with their privileges.", ""),
        "add": ("Add a role.", "Look --privs VM.Audit,VM.GuestAgent.Audit"),
        "change": (
            "Change the privileges of a role that is not built in.",
            "Look --privs VM.GuestAgent.FileRead --append",
        ),
        "remove": ("Remove a role that is not built in, and the ACL entries that name it.", "Look"),
    },
)
POOLS: Final = Resource(
    "pool",
    "Manage pools: sets of VMs with the path /pool/NAME.",
    {"poolid": "POOL"},
    "/pools",
    "/pools/{poolid}",
    (
        Column("POOL", "poolid"),
        Column("VMS", "members", lambda members: ",".join(str(each["vmid"]) for each in members)),
        Column("COMMENT", "comment"),
    ),
    {
        "list": ("List all pools with their VMs.", ""),
        "add": ("Add a pool. `pool change --vms` puts VMs in it.", "nightly --comment Backups"),
        "change": ("Put VMs in a pool or take them out, or change its comment.", "nightly --vms 100,101"),
        "remove": ("Remove an empty pool and the ACL entries on its path.", "nightly"),
    },
    paths={"change": "/pools"},
    complete=_with_members,
)

METHODS: Final = {"list": "GET", "add": "POST", "change": "PUT", "remove": "DELETE"}
HIDDEN: Final = frozenset({"keys", "password", "storage"})
"""Parameters that are no options: the first and last do nothing, and a secret is no argument; see `password`."""
out_option = click.option(
    "--out",
    metavar="FILE",
    help="Write the secret to a new file that its owner alone can read.",
    type=click.Path(path_type=Path),
)

METAVARS: Final = {
    "email": "ADDRESS",
    "firstname": "NAME",
    "groups": "GROUP,…",
    "lastname": "NAME",
    "privs": "PRIVILEGE,…",
    "vms": "VMID,…",
}


class ResourceCommand(click.Command):
    """One action on one resource.

    Its options are the endpoint's parameters. They are read from the record when the command is used.
    """

    def __init__(self, resource: Resource, action: str) -> None:
        text, words = resource.actions[action]
        example = examples(f"guestwire access {resource.word} {action} {words}".rstrip())
        super().__init__(action, help=text, epilog=example, callback=self._run)
        self._resource = resource
        self._action = action
        self._is_made = False

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """The keys, the other parameters of the endpoint, and what all commands have."""
        if not self._is_made:
            self._is_made = True
            where, self.params = self.params, list(self._made())
            has_secret = self._resource is TOKENS and self._action in ("add", "change")
            for option in (*[yes_option] * (self._action == "remove"), *[out_option] * has_secret, json_option):
                option(self)
            self.params += where
        return super().get_params(ctx)

    def _endpoint(self) -> "Endpoint":
        from guestwire.contract.registry import ENDPOINTS  # noqa: PLC0415  # help of all commands must not wait for it

        wanted = METHODS[self._action], self._resource.path(self._action)
        return next(endpoint for endpoint in ENDPOINTS if (endpoint.method, endpoint.path) == wanted)

    def _made(self) -> Iterator[click.Parameter]:
        from guestwire.contract import rules  # noqa: PLC0415  # as above

        known = rules(self._endpoint().parameters)
        for key, metavar in self._resource.keys.items():
            if key in known and not (self._action == "list" and key == self._resource.key):
                yield click.Argument([key], metavar=metavar, help=known[key].description)
        if self._action in {"add", "change"}:
            yield from (self._option(rule) for name, rule in known.items() if self._is_option(name))

    def _is_option(self, name: str) -> bool:
        # A token's `delete` names settings to remove, for which the command line has empty values.
        return not (name in self._resource.keys or name in HIDDEN or (name == "delete" and self._resource is TOKENS))

    def _option(self, rule: "Rule") -> click.Option:
        """An option for a parameter. Those that people write in another way than the API come first."""
        flag, about = f"--{rule.name}", rule.description
        match rule.name:
            case "expire":
                about = "A date (2027-01-31, from its first second), a time (2027-01-31T18:00), seconds since the epoch, or 'never'."
                return click.Option([flag], metavar="WHEN", help=about, callback=lambda _c, _p, text: expiry(text))
            case "enable" if self._action == "add":
                return click.Option(
                    ["--disabled", "enable"], is_flag=True, help="The user may not log in yet.",
                    callback=lambda _c, _p, is_disabled: not is_disabled,
                )  # fmt: skip
            case "enable":
                return click.Option(["--enable/--disable"], default=None, help=about)
            case "privsep":
                return click.Option(["--privsep/--no-privsep"], default=rule.default, help=about)
        if rule.kind == "boolean":
            return click.Option([flag], is_flag=True, help=about, callback=lambda _c, _p, is_given: is_given or None)
        is_required = self._resource is ROLES and self._action == "change"
        return click.Option([flag], metavar=METAVARS.get(rule.name, "TEXT"), help=about, required=is_required)

    def _run(self, *, json: bool, yes: bool = False, out: Path | None = None, **values: Any) -> None:
        where, resource, action = click.get_current_context().obj, self._resource, self._action
        given = {name.replace("_", "-"): value for name, value in values.items()}
        ident = {key: given.pop(key) for key in resource.keys if key in given}
        if action == "list":
            show_all(where, resource, ident, as_json=json)
        elif action == "remove":
            remove(where, resource, ident, yes=yes, as_json=json)
        else:
            add_or_change(
                where, resource, (METHODS[action], resource.path(action)), ident, given, as_json=json, out=out
            )


def resource_group(resource: Resource) -> Group:
    """`guestwire access WORD` with its four commands."""
    example = examples(f"guestwire access {resource.word} list {resource.actions['list'][1]}".rstrip())
    commands = [ResourceCommand(resource, action) for action in METHODS]
    return Group(resource.word, help=resource.help, epilog=example, no_args_is_help=True, commands=commands)


@click.command("password", epilog=examples("guestwire access user password anna@pve"))
@click.argument("userid", metavar="USER", help="The user, NAME@REALM.")
@click.option("--stdin", is_flag=True, help="Take the first line of standard input as the password.")
@json_option
@click.pass_context
def password(context: click.Context, userid: str, *, stdin: bool, json: bool) -> None:
    """Set a user's password.

    You are asked for it twice on the terminal, or it is read from standard input.
    """
    ident = {"userid": userid}
    run(context.obj, lambda admin: USERS.row(admin, ident))
    given = {"password": new_password(userid, from_stdin=stdin)}
    add_or_change(context.obj, USERS, ("PUT", "/access/password"), ident, given, as_json=json)
