"""`guestwire doctor`: why a guest does not answer, found out step by step, and what to do next."""

import typer

from guestwire.cli.connecting import on_host
from guestwire.cli.names import GuestArgument
from guestwire.cli.output import to_json, visible
from guestwire.cli.quick import add
from guestwire.cli.site import Json


def register(app: typer.Typer) -> None:
    """Adds this command."""
    add(app, "doctor", doctor, "guestwire doctor web")


def doctor(context: typer.Context, guest: GuestArgument, *, json: Json = False) -> None:
    """Find out, step by step, why a guest does not answer, and what to do next: address, TLS, credentials, VM, agent, privilege, commands.

    Ends with 0 when the guest answers, else with the exit code of what is wrong.
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
    raise typer.Exit(examined.code)
