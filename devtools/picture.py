"""`python -m devtools.picture` draws docs/session.svg: commands that are run on a real guest, and what they print."""

import asyncio
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.text import Text

from devtools.demo.server import Server
from devtools.guests import Machine, accelerator, build, default_cache

TARGET: Final = Path(__file__).parent.parent / "docs" / "session.svg"
WIDTH: Final = 100

SESSION: Final = (
    "guestwire ls",
    "guestwire exec {vm} -- uname -sr",
    "guestwire df {vm}",
    "guestwire cp backup.tar {vm}:/tmp/ && guestwire exec {vm} -- sha256sum /tmp/backup.tar",
    "guestwire freeze-status {vm}",
    "echo hello | guestwire cp - {vm}:/tmp/hello && guestwire cat {vm}:/tmp/hello",
)
"""Commands as a reader would type them; `{vm}` is the guest's name."""


def draw(environment: dict[str, str], folder: Path, name: str) -> str:
    """Runs the session, and gives it as SVG."""
    console = Console(record=True, width=WIDTH, force_terminal=True, file=open(os.devnull, "w"))  # noqa: PTH123, SIM115  # as long as the process
    for line in SESSION:
        command = line.format(vm=name)
        done = subprocess.run(
            ["sh", "-c", f"{command} 2>&1"],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        console.print(Text.assemble(("$ ", "bold green"), (command, "bold")))
        console.print(Text(done.stdout.rstrip("\n")), soft_wrap=True)
    return console.export_svg(title="guestwire, on a real guest", unique_id="session")


async def main() -> None:
    """Boots the guest, serves it, and draws."""
    image = await asyncio.to_thread(build, default_cache())
    with tempfile.TemporaryDirectory(prefix="gw-picture-") as name:
        folder = Path(name)
        (folder / "backup.tar").write_bytes(bytes(range(256)) * 4096)
        machine = Machine(image, folder, accel=await accelerator(image))
        await machine.start()
        try:
            await machine.wait_for_agent()
            async with Server(folder, machine) as server:
                environment = os.environ | {
                    "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
                    "HOME": str(folder),
                    "COLUMNS": str(WIDTH),
                    "GUESTWIRE_HOST": f"https://127.0.0.1:{server.port}",
                    "GUESTWIRE_TOKEN_FILE": str(server.state_dir / "admin-token"),
                    "GUESTWIRE_CA": str(server.state_dir / "server.pem"),
                }
                TARGET.write_text(await asyncio.to_thread(draw, environment, folder, str(machine.vmid)))
        finally:
            await machine.stop()


if __name__ == "__main__":
    asyncio.run(main())
