"""`guestwire watch`: what happens to guests, a line for each event."""

from typing import TYPE_CHECKING

import click

from guestwire.cli.connecting import guest_names, on_host, plain
from guestwire.cli.output import examples, json_option, note, to_json, visible
from guestwire.cli.times import day_and_time

if TYPE_CHECKING:
    from guestwire.client import Host


@click.command("watch", epilog=examples("guestwire watch", "guestwire watch --json web db"))
@click.argument(
    "guests", metavar="[GUEST]...", nargs=-1, help="Only these VMs, by name or id.", shell_complete=guest_names
)
@json_option
@click.pass_context
def watch(context: click.Context, guests: tuple[str, ...], *, json: bool) -> None:
    """Tell what happens to guests, until Ctrl-C.

    They come, go, start, stop, are reset, paused and suspended; agents fall silent and answer again; file systems are
    frozen, thawed, and nearly full; host names, systems, addresses and users change. With --json each event is an object
    on one line.
    """

    async def follow(host: "Host") -> None:
        wanted = {(await host.guest(guest)).vmid for guest in guests}

        def say() -> None:
            note(f"watching {host.name}; Ctrl-C ends it")

        async for event in host.events(on_ready=say):
            if wanted and event.vmid not in (0, *wanted):
                continue
            if json:
                print(to_json(plain(event)), flush=True)
            else:
                who = f"{event.name} ({event.vmid})" if event.vmid else event.node
                print(
                    f"{day_and_time(event.time)}  {visible(event.kind)}  {visible(who)}: {visible(event.words)}",
                    flush=True,
                )

    on_host(context, follow)
