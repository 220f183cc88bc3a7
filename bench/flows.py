"""The files of guestwire that one call passes through, traced: `python -m bench.flows`. A flow should be readable with few hops."""

import asyncio
import inspect
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from mcp.client.client import Client

import guestwire
import guestwire.cli
from bench.service import Service, Vm, serve
from guestwire.access.authentication import secret_hash
from guestwire.access.control import Access
from guestwire.client.settings import Settings
from guestwire.dispatch.audit import AuditRecorder, AuditWriter
from guestwire.inventory import Inventory, VmConfig
from guestwire.mcp.all_tools import TOOLS
from guestwire.mcp.call_log import CallRecords
from guestwire.mcp.gate import Gate
from guestwire.mcp.handlers import make_server
from guestwire.mcp.policy import simple_policy
from guestwire.mcp.serve import connected
from guestwire.server import Gateway, Listener
from guestwire.stores import MemoryStore, Token, User
from guestwire.testing import SandboxedAgent

ROOT = Path(guestwire.__file__).parent
TOKEN = "root@pam!t=secret"


@contextmanager
def traced(name: str, most: int) -> Iterator[None]:
    """Prints the files in the order in which the call enters them."""
    files: dict[str, int] = {}

    def profile(frame: FrameType, event: str, _: Any) -> None:
        path = frame.f_code.co_filename
        # Code of a module's or a class's own level runs when it is loaded, which is no part of a call.
        if event == "call" and path.startswith(str(ROOT)) and frame.f_code.co_flags & inspect.CO_OPTIMIZED:
            files[path] = files.get(path, 0) + 1

    threading.setprofile(profile)
    sys.setprofile(profile)
    try:
        yield
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
    print(f"{name}: {len(files)} files (at most {most})")
    for path, calls in files.items():
        print(f"    {Path(path).relative_to(ROOT)}  {calls}")


async def ping_over_http(agent: SandboxedAgent) -> None:
    """The server's side of a ping; TLS is not in guestwire's own code."""
    store = MemoryStore([User("root@pam"), Token("root@pam", "t", secret_hash("secret"), privsep=False)])
    inventory, writer = Inventory("pve1"), AuditWriter(store)
    await inventory.apply([VmConfig(vmid=100, name="web", agent=f"unix:{agent.socket}", running=True)])
    listener = Listener(Gateway(inventory, Access(store), AuditRecorder(writer)), "127.0.0.1", 0, None)
    await listener.bind()
    port = listener.start()
    request = f"POST /api2/json/nodes/pve1/qemu/100/agent/ping HTTP/1.1\r\nHost: x\r\nAuthorization: PVEAPIToken={TOKEN}\r\n\r\n"
    reader, sender = await asyncio.open_connection("127.0.0.1", port)
    for turn in range(3):  # what is loaded or remembered by a first call is no part of the others
        with traced("ping over HTTPS", 15) if turn else contextmanager(lambda: iter([None]))():
            sender.write(request.encode())
            answer = await reader.readuntil(b'"result":{}}}')
            assert answer.startswith(b"HTTP/1.1 200"), answer
            await asyncio.sleep(0.05)
        if turn == 1:
            break
    sender.close()
    await listener.stop()
    await writer.close()
    await inventory.close()


def copy_over_pve(service: Service, source: Path) -> None:
    """The command `guestwire cp`, from its start on, beside a server with what Proxmox VE has and no more."""
    sys.argv = [
        *("guestwire", "--host", f"https://127.0.0.1:{service.address.port}", "--ca", str(service.address.certificate)),
        *(
            "--token-file",
            str(service.address.certificate.with_name("admin-token")),
            "cp",
            str(source),
            "100:/root/copied",
        ),
    ]
    with traced("cp over Proxmox VE", 20):
        try:
            guestwire.cli.main()
        except SystemExit as ended:
            if ended.code:
                raise


async def call_of_an_assistant(service: Service, folder: Path) -> None:
    """A tool that an assistant calls, in the process of the MCP server."""
    address = service.address
    settings = Settings(host=f"https://127.0.0.1:{address.port}", token=address.token, ca=str(address.certificate))
    async with connected(settings) as caller:
        server = make_server(Gate(TOOLS, simple_policy(["read"]), CallRecords(folder / "records")), lambda _: caller)
        async with Client(server) as client:
            await client.call_tool("ping", {"guest": "100"})
            with traced("a call of an assistant", 20):
                answer = await client.call_tool("ping", {"guest": "100"})
            assert not answer.is_error, answer


async def main() -> None:
    with tempfile.TemporaryDirectory(prefix="gw-") as name:
        folder = Path(name)
        async with SandboxedAgent(folder / "agent.qga", name="web") as agent:
            await ping_over_http(agent)
            async with serve(folder, [Vm(100, agent.socket)], limited=True) as service:
                await call_of_an_assistant(service, folder)
                (folder / "source").write_bytes(b"source" * 1000)
                await asyncio.to_thread(copy_over_pve, service, folder / "source")


if __name__ == "__main__":
    asyncio.run(main())
