"""`guestwire serve`: the server."""

import gc
from pathlib import Path

import click

from guestwire.cli.main import USUAL
from guestwire.cli.output import examples


@click.command("serve", epilog=examples("guestwire serve --config guestwire.toml"))
@click.option(
    "--config", help="The configuration file.", metavar="FILE", type=click.Path(path_type=Path), required=True
)
def serve(config: Path) -> None:
    """Serve the guest agent API of Proxmox VE."""
    # Loading the server takes 0.3 s, which `--help` doesn't need to wait for.
    from guestwire.app import prepare  # noqa: PLC0415

    gc.set_threshold(*USUAL)  # a server lives long
    prepare.serve(config)
