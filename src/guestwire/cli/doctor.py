"""`guestwire doctor`: why a guest does not answer, found out step by step, and what to do next."""

import click

from guestwire.cli.connecting import guest_argument, on_host
from guestwire.cli.output import examples, json_option, to_json, visible


@click.command("doctor", epilog=examples("guestwire doctor web"))
@guest_argument
@json_option
@click.pass_context
def doctor(context: click.Context, guest: str, *, json: bool) -> None:
    """Find out why a guest does not answer, and what to do next.

    The steps are address, TLS, credentials, VM, agent, privilege and commands. The exit code is 0 when the guest
    answers, else that of the error found.
    """
    from guestwire.client.diagnosis import examine  # noqa: PLC0415  # `--help` must not wait for the client

    examined = on_host(context, lambda host: examine(host, guest), ask=False)
    if json:
        print(to_json(examined.steps, indent=2))
    else:
        for step in examined.steps:
            print(visible(f"{step['result']:<8} {step['step']:<12} {step['found']}"))
            if step["next"]:
                print(visible(f"{'next:':>14} {step['next']}"))
    raise click.exceptions.Exit(examined.code)
