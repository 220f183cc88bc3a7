"""`guestwire access user`, `token` and `group`."""

from typing import Annotated, Any, Final

import typer

from guestwire.cli import asking
from guestwire.cli.output import Column, examples, note, show, yes_or_no
from guestwire.cli.site import Comment, Expire, Json, Kind, Yes, change, remove, run, show_all
from guestwire.cli.times import expires, expiry

user = typer.Typer(
    epilog=examples("guestwire access user list"),
    no_args_is_help=True,
    help="Users, NAME@REALM: realm pve keeps their passwords here, pam is this host's.",
)
token = typer.Typer(
    epilog=examples("guestwire access token list anna@pve"), no_args_is_help=True, help="API tokens of a user."
)
group = typer.Typer(
    epilog=examples("guestwire access group list"),
    no_args_is_help=True,
    help="Groups of users; `user change --groups` says who is in them.",
)

UserArgument = Annotated[str, typer.Argument(metavar="USER", help="NAME@REALM", show_default=False)]
NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="The token's name.", show_default=False)]
GroupArgument = Annotated[str, typer.Argument(metavar="GROUP", show_default=False)]
Groups = Annotated[str | None, typer.Option("--groups", metavar="GROUP,…", help="The groups the user is in.")]
Email = Annotated[str | None, typer.Option("--email", metavar="ADDRESS")]
Firstname = Annotated[str | None, typer.Option("--firstname", metavar="NAME")]
Lastname = Annotated[str | None, typer.Option("--lastname", metavar="NAME")]

USERS: Final = Kind(
    "user",
    "userid",
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
    listed={"full": True},
)

TOKENS: Final = Kind(
    "token",
    "tokenid",
    "/access/users/{userid}/token",
    "/access/users/{userid}/token/{tokenid}",
    (
        Column("TOKEN", "tokenid"),
        Column("OWN PRIVILEGES", "privsep", yes_or_no),
        Column("EXPIRES", "expire", expires),
        Column("COMMENT", "comment"),
    ),
)

GROUPS: Final = Kind(
    "group",
    "groupid",
    "/access/groups",
    "/access/groups/{groupid}",
    (Column("GROUP", "groupid"), Column("MEMBERS", "users"), Column("COMMENT", "comment")),
)


@user.command("list", epilog=examples("guestwire access user list"))
def list_users(context: typer.Context, *, json: Json = False) -> None:
    """List all users with their groups and tokens."""
    show_all(context.obj, USERS, as_json=json)


@user.command("add", epilog=examples("guestwire access user add anna@pve --groups ops"))
def add_user(
    context: typer.Context,
    userid: UserArgument,
    *,
    groups: Groups = None,
    expire: Expire = None,
    comment: Comment = None,
    email: Email = None,
    firstname: Firstname = None,
    lastname: Lastname = None,
    disabled: Annotated[bool, typer.Option("--disabled", help="May not log in yet.")] = False,
    json: Json = False,
) -> None:
    """Add a user; `user password` gives it a password."""
    given = _user_fields(expire, comment, email, firstname, lastname) | {"groups": groups, "enable": not disabled}
    change(context.obj, USERS, ("POST", USERS.collection), {"userid": userid}, given, as_json=json)


@user.command("change", epilog=examples("guestwire access user change anna@pve --disable"))
def change_user(
    context: typer.Context,
    userid: UserArgument,
    *,
    groups: Groups = None,
    append: Annotated[bool, typer.Option("--append", help="Keep the groups the user is in already.")] = False,
    expire: Expire = None,
    comment: Comment = None,
    email: Email = None,
    firstname: Firstname = None,
    lastname: Lastname = None,
    enable: Annotated[
        bool | None, typer.Option("--enable/--disable", help="May log in and use tokens, or not.")
    ] = None,
    json: Json = False,
) -> None:
    """Change a user; a running server heeds it within a second."""
    given = _user_fields(expire, comment, email, firstname, lastname)
    given |= {"groups": groups, "append": append or None, "enable": enable}
    change(context.obj, USERS, ("PUT", USERS.page), {"userid": userid}, given, as_json=json)


def _user_fields(
    expire: str | None, comment: str | None, email: str | None, firstname: str | None, lastname: str | None
) -> dict[str, Any]:
    names = {"comment": comment, "email": email, "firstname": firstname, "lastname": lastname}
    return {"expire": expiry(expire), **names}


@user.command("remove", epilog=examples("guestwire access user remove anna@pve"))
def remove_user(context: typer.Context, userid: UserArgument, *, yes: Yes = False, json: Json = False) -> None:
    """Remove a user with its tokens, memberships and ACL entries."""
    remove(context.obj, USERS, {"userid": userid}, yes=yes, as_json=json)


@user.command("password", epilog=examples("guestwire access user password anna@pve"))
def password(
    context: typer.Context,
    userid: UserArgument,
    *,
    stdin: Annotated[bool, typer.Option("--stdin", help="Read it from standard input, one line.")] = False,
    json: Json = False,
) -> None:
    """Set a user's password: asked for on the terminal, twice, or read from standard input."""
    ident = {"userid": userid}
    run(context.obj, lambda admin: USERS.row(admin, ident))
    given = {"password": asking.new_password(userid, from_stdin=stdin)}
    change(context.obj, USERS, ("PUT", "/access/password"), ident, given, as_json=json)


@token.command("list", epilog=examples("guestwire access token list anna@pve"))
def list_tokens(context: typer.Context, userid: UserArgument, *, json: Json = False) -> None:
    """List a user's tokens."""
    show_all(context.obj, TOKENS, {"userid": userid}, as_json=json)


@token.command("add", epilog=examples("guestwire access token add anna@pve backup --expire 2027-01-01"))
def add_token(
    context: typer.Context,
    userid: UserArgument,
    name: NameArgument,
    *,
    privsep: Annotated[
        bool,
        typer.Option(
            "--privsep/--no-privsep", help="It has only what its own ACL entries give it, or all that its user has."
        ),
    ] = True,
    expire: Expire = None,
    comment: Comment = None,
    json: Json = False,
) -> None:
    """Add a token. It is shown this once: standard output gets one line, USER!NAME=SECRET."""
    given = {"userid": userid, "tokenid": name, "privsep": privsep, "expire": expiry(expire), "comment": comment}
    made = run(context.obj, lambda admin: admin.call("POST", TOKENS.page, given))
    if json:
        show(made, (), as_json=True)
        return
    note(f"token {made['full-tokenid']}: added; this is the only time that it is shown")
    print(f"{made['full-tokenid']}={made['value']}")


@token.command("change", epilog=examples("guestwire access token change anna@pve backup --expire never"))
def change_token(
    context: typer.Context,
    userid: UserArgument,
    name: NameArgument,
    *,
    privsep: Annotated[
        bool | None,
        typer.Option(
            "--privsep/--no-privsep", help="It has only what its own ACL entries give it, or all that its user has."
        ),
    ] = None,
    expire: Expire = None,
    comment: Comment = None,
    json: Json = False,
) -> None:
    """Change a token; its secret stays."""
    given = {"privsep": privsep, "expire": expiry(expire), "comment": comment}
    change(context.obj, TOKENS, ("PUT", TOKENS.page), {"userid": userid, "tokenid": name}, given, as_json=json)


@token.command("remove", epilog=examples("guestwire access token remove anna@pve backup"))
def remove_token(
    context: typer.Context, userid: UserArgument, name: NameArgument, *, yes: Yes = False, json: Json = False
) -> None:
    """Remove a token with its ACL entries; a running server refuses it within a second."""
    remove(context.obj, TOKENS, {"userid": userid, "tokenid": name}, yes=yes, as_json=json)


@group.command("list", epilog=examples("guestwire access group list"))
def list_groups(context: typer.Context, *, json: Json = False) -> None:
    """List all groups with their members."""
    show_all(context.obj, GROUPS, as_json=json)


@group.command("add", epilog=examples("guestwire access group add ops --comment Operators"))
def add_group(context: typer.Context, groupid: GroupArgument, *, comment: Comment = None, json: Json = False) -> None:
    """Add a group."""
    change(context.obj, GROUPS, ("POST", GROUPS.collection), {"groupid": groupid}, {"comment": comment}, as_json=json)


@group.command("change", epilog=examples("guestwire access group change ops --comment Operators"))
def change_group(
    context: typer.Context, groupid: GroupArgument, *, comment: Comment = None, json: Json = False
) -> None:
    """Change a group's comment."""
    change(context.obj, GROUPS, ("PUT", GROUPS.page), {"groupid": groupid}, {"comment": comment}, as_json=json)


@group.command("remove", epilog=examples("guestwire access group remove ops"))
def remove_group(context: typer.Context, groupid: GroupArgument, *, yes: Yes = False, json: Json = False) -> None:
    """Remove a group with its ACL entries; its members stay."""
    remove(context.obj, GROUPS, {"groupid": groupid}, yes=yes, as_json=json)
