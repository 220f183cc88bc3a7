"""`python -m devtools.guests [trixie | debian]`: boots the small guest, or the Debian one, says where its sockets are, and stays until Ctrl-C."""

import asyncio
import sys
import tempfile
from pathlib import Path

from devtools.guests import Machine, accelerator, build, build_debian, default_cache
from guestwire.errors import GuestImageError


async def _stay() -> None:
    if "debian" in sys.argv[1:]:
        image = await asyncio.to_thread(build_debian, default_cache())
    else:
        image = await asyncio.to_thread(build, default_cache(), agent="trixie" if "trixie" in sys.argv[1:] else "host")
    with tempfile.TemporaryDirectory(prefix="gw-") as folder:
        async with Machine(image, Path(folder), accel=await accelerator(image)) as machine:
            print(
                f"agent {image.agent_version} at {machine.agent_socket}, QMP at {machine.qmp_socket}, log {machine.serial_log}"
            )
            await machine.wait_exit(within=7 * 86400)


try:
    asyncio.run(_stay())
except KeyboardInterrupt:
    print("stopped")
except GuestImageError as error:
    print(f"guestwire: {error}", file=sys.stderr)
    sys.exit(error.exit_code)
