"""A client that starts a program in a guest by a port, and is killed."""

import asyncio
import sys

PROGRAM = """
import asyncio, sys
from guestwire import connect
async def main():
    target, connection, ends_input, *argv = sys.argv[1:]
    async with await connect(target) as host:
        async with (await host.guest("112")).start(argv, connection=bool(connection)) as process:
            while process.way != "port":
                await asyncio.sleep(0.02)
            if ends_input:
                await process.stdin.close()
            print("by port", flush=True)
            await asyncio.sleep(1000)
asyncio.run(main())
"""


async def start_and_be_killed(target: str, *argv: str, connection: bool = False, ends_input: bool = False) -> None:
    """Returns when it is gone; in the guest nobody knows yet."""
    flags = ["1" * connection, "1" * ends_input]
    client = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PROGRAM, target, *flags, *argv,
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        assert client.stdout
        assert await client.stdout.readline() == b"by port\n"
    finally:
        client.kill()
        await client.wait()
