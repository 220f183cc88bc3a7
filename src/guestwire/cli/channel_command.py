"""`guestwire channel`: the channel that a guest agent needs, of a VM that has none."""

import click

from guestwire.cli.connecting import guest_argument, on_guest
from guestwire.cli.output import Group, examples, json_option, report


@click.group("channel", cls=Group, epilog=examples("guestwire channel add web"))
def channel() -> None:
    """Give a running VM the channel that its agent needs."""


@channel.command("add", epilog=examples("guestwire channel add web && guestwire wait web"))
@guest_argument
@json_option
@click.pass_context
def add(context: click.Context, guest: str, *, json: bool) -> None:
    """Plug the channel of a guest agent into a running VM.

    It stays until the VM is stopped. Its guest needs qemu-guest-agent, which most systems start when the channel is there.
    """
    found = on_guest(context, guest, lambda one: one.agent_channel())
    words = f"{guest}: the agent's channel is {found.agent}; for its next start, give the VM one of its own"
    report({"agent": found.agent}, words, as_json=json)
