"""`guestwire metrics`: what a server's `/metrics` has of a guest, read once, without a server."""

import sys
from typing import TYPE_CHECKING

import click

from guestwire.cli.connecting import guest_argument, on_guest
from guestwire.cli.output import examples, visible

if TYPE_CHECKING:
    from guestwire.client import Guest
    from guestwire.metrics import Page


@click.command(
    "metrics", epilog=examples("guestwire metrics web", "guestwire metrics web >/var/lib/node_exporter/web.prom")
)
@guest_argument
@click.option("--openmetrics", help="In OpenMetrics' form.", is_flag=True)
@click.pass_context
def metrics(context: click.Context, guest: str, *, openmetrics: bool) -> None:
    """Write a guest's metrics as Prometheus reads them.

    A server with [metrics] in its configuration serves those of all guests at /metrics.
    """
    page = on_guest(context, guest, lambda found: _read(found, is_open=openmetrics))
    for line in b"".join(page.parts).decode().removesuffix("\n").split("\n"):
        # Names are the guest's, and not all that a file may have is fit for a terminal.
        print(visible(line) if sys.stdout.isatty() else line)


async def _read(guest: "Guest", *, is_open: bool) -> "Page":
    import time  # noqa: PLC0415  # `--help` must not wait for the client

    from guestwire.client.watching import reader_of  # noqa: PLC0415
    from guestwire.metrics import Exposition, read_guest  # noqa: PLC0415

    began = time.monotonic()
    await guest.ping()
    reading = await read_guest(reader_of(guest))
    reading.add("agent_up", 1)
    reading.add("poll_duration_seconds", time.monotonic() - began)
    reading.add("last_poll_timestamp_seconds", time.time())
    exposition = Exposition()
    exposition.put(guest.vm.vmid, guest.vm.name, guest.vm.node, reading.series)
    return await exposition.page([guest.vm.vmid], is_open=is_open)
