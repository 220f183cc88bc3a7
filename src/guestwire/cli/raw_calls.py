"""`guestwire raw` and `guestwire api`: any call, and which there are."""

from collections.abc import Sequence
from typing import Any, Final

import click

from guestwire.cli.asking import confirm, yes_option
from guestwire.cli.connecting import on_host
from guestwire.cli.output import Column, examples, json_option, show, to_json

PREFIX: Final = "/api2/json"
METHODS: Final = ("GET", "POST", "PUT", "DELETE")

COLUMNS: Final = (
    Column("METHOD", "method"),
    Column("PATH", "path"),
    Column("EFFECT", "effect"),
    Column("PRIVILEGES", "privileges"),
)


@click.command(
    "raw",
    epilog=examples(
        "guestwire raw GET /nodes/pve1/qemu/100/agent/get-osinfo",
        "guestwire raw POST /nodes/pve1/qemu/100/agent/exec command=ls command=-l",
    ),
)
@click.argument("method", metavar="GET|POST|PUT|DELETE")
@click.argument("path", metavar="PATH", help="Below /api2/json.")
@click.argument("parameters", metavar="[K=V]...", help="Parameters; one that is given twice is a list.", nargs=-1)
@yes_option
@json_option
@click.pass_context
def raw(context: click.Context, method: str, path: str, *, parameters: tuple[str, ...], yes: bool, json: bool) -> None:  # noqa: ARG001  # the answer is JSON in any case
    """Make any call of the API, and show its answer as JSON.

    The answer is what the API has under `data`. You are asked first when the call may disrupt a guest.
    """
    method, path = method.upper(), "/" + path.removeprefix(PREFIX).lstrip("/")
    if method not in METHODS:
        raise click.BadParameter(f"'{method}' is none of {', '.join(METHODS)}.")
    from guestwire.client.endpoint_lookup import disrupts  # noqa: PLC0415  # `--help` must not wait for the contract

    given = _given(parameters)
    if not yes and disrupts(method, path):
        confirm(f"{method} {path} may disrupt a guest. Call it?", yes=False)
    found = on_host(context, lambda host: host.raw(method, path, given))
    print(to_json(found, indent=2))


def _given(pairs: Sequence[str]) -> dict[str, Any]:
    given: dict[str, Any] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not name or not equals:
            raise click.BadParameter(f"'{pair}' is not K=V.")
        if name not in given:
            given[name] = value
        else:
            given[name] = [*(given[name] if isinstance(given[name], list) else [given[name]]), value]
    return given


@click.command(
    "api", epilog=examples("guestwire api", "guestwire api --json | jq '.[] | select(.effect == \"disrupts\").path'")
)
@json_option
def api(*, json: bool) -> None:
    """List every endpoint, with its privileges and its effect.

    Any one of the privileges suffices. Proxmox VE has the endpoints below /nodes/{node}/qemu/{vmid}/agent too.
    """
    from guestwire.client.endpoint_lookup import every  # noqa: PLC0415  # as above

    show(every(), COLUMNS, as_json=json)
