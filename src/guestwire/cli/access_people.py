"""`guestwire access user`, `token` and `group`."""

from typing import Any, Final

import click

from guestwire.cli import asking
from guestwire.cli.access_store import Kind, change, comment_option, expire_option, remove, run, show_all
from guestwire.cli.options import json_option, yes_option
from guestwire.cli.output import Column, examples, note, show, yes_or_no
from guestwire.cli.times import expires, expiry

user = click.Group(
    "user",
    epilog=examples("guestwire access user list"),
    no_args_is_help=True,
    help="Users, NAME@REALM: realm pve keeps their passwords here, pam is this host's.",
)
token = click.Group(
    "token", epilog=examples("guestwire access token list anna@pve"), no_args_is_help=True, help="API tokens of a user."
)
group = click.Group(
    "group",
    epilog=examples("guestwire access group list"),
    no_args_is_help=True,
    help="Groups of users; `user change --groups` says who is in them.",
)

user_argument = click.argument("userid", metavar="USER", help="NAME@REALM")
name_argument = click.argument("name", metavar="NAME", help="The token's name.")
group_argument = click.argument("groupid", metavar="GROUP")
groups_option = click.option("--groups", metavar="GROUP,…", help="The groups the user is in.")
email_option = click.option("--email", metavar="ADDRESS")
firstname_option = click.option("--firstname", metavar="NAME")
lastname_option = click.option("--lastname", metavar="NAME")

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
@json_option
@click.pass_context
def list_users(context: click.Context, *, json: bool) -> None:
    """List all users with their groups and tokens."""
    show_all(context.obj, USERS, as_json=json)


@user.command("add", epilog=examples("guestwire access user add anna@pve --groups ops"))
@user_argument
@groups_option
@expire_option
@comment_option
@email_option
@firstname_option
@lastname_option
@click.option("--disabled", help="May not log in yet.", is_flag=True)
@json_option
@click.pass_context
def add_user(
    context: click.Context,
    userid: str,
    *,
    groups: str | None,
    expire: str | None,
    comment: str | None,
    email: str | None,
    firstname: str | None,
    lastname: str | None,
    disabled: bool,
    json: bool,
) -> None:
    """Add a user; `user password` gives it a password."""
    given = _user_fields(expire, comment, email, firstname, lastname) | {"groups": groups, "enable": not disabled}
    change(context.obj, USERS, ("POST", USERS.collection), {"userid": userid}, given, as_json=json)


@user.command("change", epilog=examples("guestwire access user change anna@pve --disable"))
@user_argument
@groups_option
@click.option("--append", help="Keep the groups the user is in already.", is_flag=True)
@expire_option
@comment_option
@email_option
@firstname_option
@lastname_option
@click.option("--enable/--disable", help="May log in and use tokens, or not.", default=None)
@json_option
@click.pass_context
def change_user(
    context: click.Context,
    userid: str,
    *,
    groups: str | None,
    append: bool,
    expire: str | None,
    comment: str | None,
    email: str | None,
    firstname: str | None,
    lastname: str | None,
    enable: bool | None,
    json: bool,
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
@user_argument
@yes_option
@json_option
@click.pass_context
def remove_user(context: click.Context, userid: str, *, yes: bool, json: bool) -> None:
    """Remove a user with its tokens, memberships and ACL entries."""
    remove(context.obj, USERS, {"userid": userid}, yes=yes, as_json=json)


@user.command("password", epilog=examples("guestwire access user password anna@pve"))
@user_argument
@click.option("--stdin", help="Read it from standard input, one line.", is_flag=True)
@json_option
@click.pass_context
def password(context: click.Context, userid: str, *, stdin: bool, json: bool) -> None:
    """Set a user's password: asked for on the terminal, twice, or read from standard input."""
    ident = {"userid": userid}
    run(context.obj, lambda admin: USERS.row(admin, ident))
    given = {"password": asking.new_password(userid, from_stdin=stdin)}
    change(context.obj, USERS, ("PUT", "/access/password"), ident, given, as_json=json)


@token.command("list", epilog=examples("guestwire access token list anna@pve"))
@user_argument
@json_option
@click.pass_context
def list_tokens(context: click.Context, userid: str, *, json: bool) -> None:
    """List a user's tokens."""
    show_all(context.obj, TOKENS, {"userid": userid}, as_json=json)


@token.command("add", epilog=examples("guestwire access token add anna@pve backup --expire 2027-01-01"))
@user_argument
@name_argument
@click.option(
    "--privsep/--no-privsep",
    help="It has only what its own ACL entries give it, or all that its user has.",
    default=True,
)
@expire_option
@comment_option
@json_option
@click.pass_context
def add_token(
    context: click.Context,
    userid: str,
    name: str,
    *,
    privsep: bool,
    expire: str | None,
    comment: str | None,
    json: bool,
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
@user_argument
@name_argument
@click.option(
    "--privsep/--no-privsep",
    help="It has only what its own ACL entries give it, or all that its user has.",
    default=None,
)
@expire_option
@comment_option
@json_option
@click.pass_context
def change_token(
    context: click.Context,
    userid: str,
    name: str,
    *,
    privsep: bool | None,
    expire: str | None,
    comment: str | None,
    json: bool,
) -> None:
    """Change a token; its secret stays."""
    given = {"privsep": privsep, "expire": expiry(expire), "comment": comment}
    change(context.obj, TOKENS, ("PUT", TOKENS.page), {"userid": userid, "tokenid": name}, given, as_json=json)


@token.command("remove", epilog=examples("guestwire access token remove anna@pve backup"))
@user_argument
@name_argument
@yes_option
@json_option
@click.pass_context
def remove_token(context: click.Context, userid: str, name: str, *, yes: bool, json: bool) -> None:
    """Remove a token with its ACL entries; a running server refuses it within a second."""
    remove(context.obj, TOKENS, {"userid": userid, "tokenid": name}, yes=yes, as_json=json)


@group.command("list", epilog=examples("guestwire access group list"))
@json_option
@click.pass_context
def list_groups(context: click.Context, *, json: bool) -> None:
    """List all groups with their members."""
    show_all(context.obj, GROUPS, as_json=json)


@group.command("add", epilog=examples("guestwire access group add ops --comment Operators"))
@group_argument
@comment_option
@json_option
@click.pass_context
def add_group(context: click.Context, groupid: str, *, comment: str | None, json: bool) -> None:
    """Add a group."""
    change(context.obj, GROUPS, ("POST", GROUPS.collection), {"groupid": groupid}, {"comment": comment}, as_json=json)


@group.command("change", epilog=examples("guestwire access group change ops --comment Operators"))
@group_argument
@comment_option
@json_option
@click.pass_context
def change_group(context: click.Context, groupid: str, *, comment: str | None, json: bool) -> None:
    """Change a group's comment."""
    change(context.obj, GROUPS, ("PUT", GROUPS.page), {"groupid": groupid}, {"comment": comment}, as_json=json)


@group.command("remove", epilog=examples("guestwire access group remove ops"))
@group_argument
@yes_option
@json_option
@click.pass_context
def remove_group(context: click.Context, groupid: str, *, yes: bool, json: bool) -> None:
    """Remove a group with its ACL entries; its members stay."""
    remove(context.obj, GROUPS, {"groupid": groupid}, yes=yes, as_json=json)
