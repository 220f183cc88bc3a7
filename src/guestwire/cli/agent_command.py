"""`guestwire agent`: help with a guest's agent, which may be old, switched off in part, or missing."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

import click

from guestwire.cli.connecting import guest_argument, on_host, plain
from guestwire.cli.output import Column, examples, json_option, print_table, to_json, visible

if TYPE_CHECKING:
    from guestwire.agent.packages import Family, Installation
    from guestwire.agent.policies import PolicyLine
    from guestwire.client.agent_help import AgentHelp, ChannelHelp
    from guestwire.client.diagnosis import Diagnosis
    from guestwire.client.hosts import Host

FAMILIES: Final = ("debian", "rhel", "suse", "alpine", "windows")

COMMANDS: Final = (Column("COMMAND", "name"), Column("NOT DONE", "why"), Column("NEEDED BY", "needed_by", ", ".join))


@click.command("agent", epilog=examples("guestwire agent web", "guestwire agent --allow exec web"))
@guest_argument
@click.option(
    "--allow", metavar="NAME", multiple=True, help="Allow this alone, as exec or guest-exec; may be repeated."
)
@click.option(
    "--system",
    metavar="NAME",
    type=click.Choice(FAMILIES),
    help=f"{', '.join(FAMILIES[:-1])} or {FAMILIES[-1]}: how it gets an agent, at length; and the guest's, where its agent does not say.",
)
@json_option
@click.pass_context
def agent(context: click.Context, guest: str, *, allow: tuple[str, ...], system: "Family | None", json: bool) -> None:
    """Help with an agent: version, policy, installation, channel.

    Of an agent that answers: whether it is the newest that its system carries, which commands it does not do and why,
    and the line of a file in the guest that allows those that its policy switches off. Of one that does not answer: how
    it is installed, and the lines for QEMU and libvirt where the VM has no channel. The exit code is that of doctor.
    """
    from guestwire.client.agent_help import commands_of  # noqa: PLC0415  # `--help` must not wait for the client
    from guestwire.client.diagnosis import examine  # noqa: PLC0415

    for word in allow:
        if not commands_of(word):
            raise click.BadParameter(
                f"no agent has a command '{visible(word)}', and none of ours needs it.", param_hint="--allow"
            )
    wanted = list(dict.fromkeys(name for word in allow for name in commands_of(word)))

    async def ask(host: "Host") -> "tuple[Diagnosis, AgentHelp]":
        found = await examine(host, guest, wanted, system)
        if found.help is None:
            assert found.error  # noqa: S101  # what else would end it before the agent is reached
            raise found.error
        return found, found.help

    examined, found = on_host(context, ask)
    install = [one for one in _installations() if system in (None, one.system)] if system or not found.answers else []
    if json:
        print(to_json(_as_json(guest, examined, found, install), indent=2))
    else:
        for line in _lines(guest, examined, found):
            print(visible(line))
        _print_commands(found)
        for line in _more_lines(found, wanted, install, guest, at_length=system is not None):
            print(visible(line))
    raise click.exceptions.Exit(examined.code)


def _installations() -> "list[Installation]":
    from guestwire.agent.packages import INSTALLATIONS  # noqa: PLC0415  # as above

    return list(INSTALLATIONS.values())


def _as_json(guest: str, examined: "Diagnosis", found: "AgentHelp", install: "list[Installation]") -> dict[str, Any]:
    return {
        "guest": guest,
        "answers": found.answers,
        "problem": examined.error.message if examined.error else None,
        "system": plain(found.system),
        "version": plain(found.version),
        "frozen": found.is_frozen,
        "commands": _rows(found),
        "policy": plain(found.policy),
        "install": plain(install),
        "channel": plain(found.channel),
    }


def _rows(found: "AgentHelp") -> list[dict[str, Any]]:
    from guestwire.client.agent_help import NEEDED_BY  # noqa: PLC0415  # as above

    return [{**plain(one), "needed_by": list(NEEDED_BY.get(one.name, ()))} for one in found.commands]


def _print_commands(found: "AgentHelp") -> None:
    if found.commands:
        print()
        rows = [
            {**row, "why": f"{row['why']}: since QEMU {row['since']}" if row["why"] == "too old" else row["why"]}
            for row in _rows(found)
        ]
        print_table(rows, COMMANDS)


def _lines(guest: str, examined: "Diagnosis", found: "AgentHelp") -> Iterator[str]:
    from guestwire.client.agent_help import version_words  # noqa: PLC0415  # as above

    if not found.answers:
        last = examined.steps[-1]
        yield f"{guest}: {last['found']}"
        yield f"next: {last['next']}"
        return
    yield f"{guest}: agent {version_words(found)}"
    if found.version and found.version.update:
        yield f"next: in the guest: {found.version.update}"
    if found.is_frozen:
        yield f"its file systems are frozen: what its policy switches off shows when they are thawed (guestwire thaw {guest})"
    elif not found.lists_commands:
        yield "it does not list its commands"
    elif not found.commands:
        yield "it does all commands that agents of this system have"


def _more_lines(
    found: "AgentHelp", wanted: list[str], install: "list[Installation]", guest: str, *, at_length: bool
) -> Iterator[str]:
    if found.policy:
        yield from _policy_lines(found.policy, wanted)
    elif wanted and found.answers and not found.is_frozen:
        yield from ("", "Its policy switches none of these off.")
    if found.channel:
        yield from _channel_lines(found.channel)
    for one in install:
        needs = f" (it needs {one.needs})" if one.needs else ""
        yield from ("", f"To install it in {one.systems}{needs}:", *(f"  {line}" for line in one.install))
        if at_length:
            yield from ("", "With cloud-init:", "", *one.cloud_init.splitlines())
            yield from ("", "In the disk of a VM that is off:", f"  {one.virt_customize}")
    if install and not at_length:
        yield from ("", f"For cloud-init and virt-customize: guestwire agent --system {'|'.join(FAMILIES)} {guest}")


def _policy_lines(policy: "PolicyLine", wanted: list[str]) -> Iterator[str]:
    yield ""
    what = ", ".join(wanted) or "all that is switched off"
    if policy.file:
        section = f", below {policy.section}" if policy.section else ""
        yield f"To allow {what}, put this line into {policy.file} of the guest{section}, in place of {', '.join(f'{name}=' for name in policy.replaces)}:"
    else:
        yield f"To allow {what}, run this in the guest:"
    yield from ("", policy.line, "", f"and then: {policy.restart}", *(f"({note})" for note in policy.notes))


def _channel_lines(channel: "ChannelHelp") -> Iterator[str]:
    if channel.command:
        yield from ("", "To give the VM a channel:", f"  {channel.command}")
    if channel.qemu:
        yield from ("", "QEMU's options for a channel:", *(f"  {option}" for option in channel.qemu))
    if channel.libvirt:
        yield from ("", "A channel in a domain of libvirt's, below <devices>:", f"  {channel.libvirt}")
