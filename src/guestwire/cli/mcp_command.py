"""`guestwire mcp`: guests for AI assistants."""

import gc
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from guestwire.cli.connecting import find_settings, on_host
from guestwire.cli.main import USUAL
from guestwire.cli.output import examples, json_option, note, to_json, visible
from guestwire.counting import counted
from guestwire.errors import ConfigurationError

if TYPE_CHECKING:
    from guestwire.client import GuestInfo, Host
    from guestwire.mcp.policy import Policy, Rule
    from guestwire.mcp.tool import Tool

NAME: Final = "mcp"


@click.command(
    NAME,
    epilog=examples(
        "guestwire --host https://pve1:8006 --token-file token mcp",
        "guestwire --host unix:/run/vm/100.qga mcp --allow files,exec --ask exec",
        "guestwire mcp --policy policy.toml --check",
    ),
)
@click.option(
    "--allow", metavar="LEVELS", help="read (default), files, exec, manage, power or all; with commas between."
)
@click.option("--ask", metavar="WHAT", help="Levels and tools for which a person must say yes first.")
@click.option("--tools", metavar="few|every", help="List what most work needs (default), or every tool.")
@click.option("--policy", metavar="F", help="A policy in TOML instead of the options above; see docs/mcp.md.")
@click.option("--copy-folder", metavar="DIR", help="Files may be copied to and from this folder of this machine.")
@click.option("--dry-run", help="Change nothing; show what would be done.", is_flag=True)
@click.option(
    "--records",
    metavar="F",
    help="A file that gets a line for each call; by default among the state files of your account.",
)
@click.option("--http", metavar="[HOST:]PORT", help="Streamable HTTP at /mcp instead of standard input and output.")
@click.option("--bearer-file", metavar="F", help="The token that HTTP callers need; made when it is not there.")
@click.option("--allow-host", metavar="NAMES", help="More names that HTTP callers reach this server by.")
@click.option("--check", help="Show what the policy allows in each guest, and why.", is_flag=True)
@json_option
@click.pass_context
def mcp(
    context: click.Context, /, *, policy: str | None, records: str | None, http: str | None, bearer_file: str | None,
    allow_host: str | None, check: bool, json: bool, **rules: Any,
) -> None:  # fmt: skip
    """Serve tools for AI assistants (Model Context Protocol).

    A policy says what an assistant may do; without options it reads the guests' state and changes nothing.
    """
    chosen = _policy_of(Path(policy), rules) if policy else _policy(**rules)
    if check:
        _show(chosen, _guests(context, chosen), json=json)
        return
    if json:
        raise click.BadParameter("--json goes with --check.")
    import asyncio  # noqa: PLC0415  # `--help` must not wait for it, nor for the server

    if http is None:
        from guestwire.mcp.sdk_imports import load_lean  # noqa: PLC0415

        load_lean()
    from guestwire.client.settings import expand_home  # noqa: PLC0415
    from guestwire.mcp.call_log import default_path  # noqa: PLC0415
    from guestwire.mcp.serve import listen, serve_http, serve_stdio  # noqa: PLC0415

    gc.set_threshold(*USUAL)  # a server lives long
    settings = find_settings(context)
    if not settings.host:
        raise ConfigurationError("no host; give --host, set GUESTWIRE_HOST, or write a profile")
    to = expand_home(records) if records else default_path()
    if http is None:
        asyncio.run(serve_stdio(settings, chosen, to))
        return
    bearer = expand_home(bearer_file) if bearer_file else to.with_name("mcp-bearer")
    listening = listen(_address(http), bearer, _words(allow_host))
    note(f"listening on {listening.url}; the bearer token is in {bearer}")
    asyncio.run(serve_http(settings, chosen, to, listening))


def _words(text: str | None) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()] if text else []


def _policy(
    *, allow: str | None, ask: str | None, tools: str | None, copy_folder: str | None, dry_run: bool
) -> "Policy":
    from guestwire.client.settings import expand_home  # noqa: PLC0415  # as above
    from guestwire.mcp.policy import simple_policy  # noqa: PLC0415  # as above

    if tools not in (None, "few", "every"):
        raise click.BadParameter("--tools is few or every.")
    folder = expand_home(copy_folder).resolve() if copy_folder else None
    if folder and not folder.is_dir():
        raise ConfigurationError(f"{folder}: no such folder")
    try:
        return simple_policy(
            _words(allow) or ["read"], ask=_known(_words(ask)), every=tools == "every", dry_run=dry_run,
            copy_folders=(folder,) if folder else (),
        )  # fmt: skip
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


def _known(words: list[str]) -> list[str]:
    """Levels and tools; another word would be a question that is never asked."""
    from guestwire.contract.faces import Level  # noqa: PLC0415  # as above
    from guestwire.mcp.all_tools import TOOLS  # noqa: PLC0415

    known = {level.value for level in Level} | TOOLS.levels().keys()
    for word in words:
        if word not in known:
            raise click.BadParameter(f"--ask: '{word}' is neither a level nor a tool.")
    return words


def _policy_of(path: Path, rules: Mapping[str, Any]) -> "Policy":
    from guestwire.mcp.all_tools import TOOLS  # noqa: PLC0415
    from guestwire.mcp.policy_file import read_policy  # noqa: PLC0415  # as above

    if any(rules.values()):
        raise click.BadParameter("With --policy, the file says what is allowed; the other options stay away.")
    return read_policy(path, TOOLS.levels())


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not port.isascii() or not port.isdigit() or not 0 < int(port[:6]) <= 65535:  # noqa: PLR2004  # the largest port
        raise click.BadParameter(f"--http: '{text}' is not PORT or HOST:PORT.")
    return host.strip("[]") or "127.0.0.1", int(port)


def _guests(context: click.Context, policy: "Policy") -> "list[tuple[GuestInfo, Rule]]":
    from guestwire.mcp.caller import rule_for  # noqa: PLC0415  # as above

    async def listed(host: "Host") -> "list[tuple[GuestInfo, Rule]]":
        return [(guest, rule_for(policy, host, guest)) for guest in await host.guests()]

    return on_host(context, listed)


def _show(policy: "Policy", guests: "list[tuple[GuestInfo, Rule]]", *, json: bool) -> None:
    from guestwire.mcp.all_tools import TOOLS  # noqa: PLC0415  # as above
    from guestwire.mcp.gate import offered  # noqa: PLC0415  # as above
    from guestwire.mcp.policy_file import NEEDS  # noqa: PLC0415  # as above

    tools = offered(TOOLS, policy)
    rows = [_row(guest, rule, tools) for guest, rule in guests]
    if json:
        print(to_json(rows, indent=2))
        return
    for line in _for_every_guest(policy):
        print(visible(line))
    for row in rows:
        print(visible(f"{row['guest']} ({row['vmid']}): {', '.join(row['allow']) or 'nothing'}, by {row['source']}"))
        for key in ("tools", "without", "ask"):
            if row[key]:
                print(visible(f"    {key + ':':<9}{', '.join(row[key])}"))
        for key, level in NEEDS.items():
            if level.value in row["allow"]:
                shown = "anything" if row[key] is None else ", ".join(row[key]) or "nothing"
                print(visible(f"    {key + ':':<9}{shown}"))
        for said in row["notes"]:
            print(visible(f"    note:    {said}"))
    sys.stdout.flush()


def _for_every_guest(policy: "Policy") -> list[str]:
    limits = policy.limits
    each = f"{counted(limits.seconds, 'second')} a call, {limits.characters} characters an answer, {counted(limits.bytes, 'byte')} a file"
    return [
        f"limits: {each}, {counted(limits.calls_per_minute, 'call')} a minute",
        *(["dry run: nothing is changed"] if policy.dry_run else []),
        *([f"folders on this side: {', '.join(map(str, policy.copy_folders))}"] if policy.copy_folders else []),
    ]


def _row(guest: "GuestInfo", rule: "Rule", tools: "list[Tool]") -> dict[str, Any]:
    from guestwire.mcp.policy import unenforced  # noqa: PLC0415  # as above

    return {
        "guest": guest.name,
        "vmid": guest.vmid,
        "allow": sorted(level.value for level in rule.levels),
        "source": rule.source,
        "tools": sorted(tool.name for tool in tools if rule.allows(tool.name, tool.level)),
        "without": sorted(rule.without),
        "ask": sorted(rule.ask),
        "read": None if rule.read is None else [pattern.text for pattern in rule.read],
        "write": None if rule.write is None else [pattern.text for pattern in rule.write],
        "run": None if rule.run is None else [str(pattern) for pattern in rule.run],
        "notes": list(unenforced(rule)),
    }
