"""`guestwire channel`: the channel that a guest agent needs, of a VM that has none."""

import click

from guestwire.cli.connecting import guest_argument, on_guest
from guestwire.cli.output import Group, examples, json_option, report


@click.group("channel", cls=Group, epilog=examples("guestwire channel add web"))
def channel() -> None:
    """Give a VM the channel that its agent needs."""


@channel.command("add", epilog=examples("guestwire channel add web && guestwire wait web"))
@guest_argument
@json_option
@click.pass_context
def add(context: click.Context, guest: str, *, json: bool) -> None:
    """Plug the channel of a guest agent into a running VM, or into a domain of libvirt's.

    It stays until the VM is stopped; libvirt keeps it also for the next start. Its guest needs qemu-guest-agent, which
    most systems start when the channel is there.
    """
    found = on_guest(context, guest, lambda one: one.agent_channel())
    words = f"{guest}: the agent's channel is {found.agent}"
    if not found.now:
        words += "; it is there from its next start on: stop it, and start it"
    elif not found.permanent:
        words += "; for its next start, give the VM one of its own"
    report({"agent": found.agent, "now": found.now, "permanent": found.permanent}, words, as_json=json)
