"""`guestwire serve`: the server."""

import gc
from pathlib import Path

import click

from guestwire.cli.access_store import config_option
from guestwire.cli.main import USUAL
from guestwire.cli.output import examples, note


@click.command("serve", epilog=examples("guestwire serve --config guestwire.toml", "guestwire serve --check"))
@config_option
@click.option("--check", is_flag=True, help="Read the configuration, say what it means, and end.")
def serve(config: Path | None, *, check: bool) -> None:
    """Serve the guest agent API of Proxmox VE.

    Without a configuration it serves the VMs that are found on this machine: libvirt's, and QEMU's processes.
    """
    # Loading the server takes 0.3 s, which `--help` doesn't need to wait for.
    from guestwire.app import prepare  # noqa: PLC0415
    from guestwire.app.state import DEFAULT_CONFIG  # noqa: PLC0415

    path = config or (DEFAULT_CONFIG if DEFAULT_CONFIG.exists() else None)
    if check:
        note(prepare.describe(path))
        return
    gc.set_threshold(*USUAL)  # a server lives long
    prepare.serve(path)
