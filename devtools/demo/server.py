"""The demo's own server: the command `guestwire serve` in a process of its own, and calls to it over HTTPS."""

import asyncio
import contextlib
import json
import socket
import ssl
import sys
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import aiohttp

from devtools.guests import Machine
from guestwire.errors import GuestwireError

NODE: Final = "demo"
PORT: Final = 8006
WITH_SSH: Final = 101
"""The id of the guest that has an SSH server."""

START_TIMEOUT: Final = 20.0


class DemoError(GuestwireError):
    """The demo can't go on, or a route did not do what it should."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back: status, reason phrase, decoded body, and seconds it took."""

    status: int
    reason: str
    body: Any
    seconds: float

    @property
    def data(self) -> Any:
        """What the API answered.

        Raises:
            DemoError: it was an error.
        """
        if self.status != 200:  # noqa: PLR2004  # OK
            raise DemoError(f"{self.status} {self.reason}")
        return self.body["data"]

    @property
    def result(self) -> Any:
        """What the guest agent answered.

        Raises:
            DemoError: it was an error.
        """
        result = self.data["result"]
        if isinstance(result, dict) and "error" in result:
            raise DemoError(result["error"]["desc"])
        return result


class Server:
    """`async with` starts it and stops it.

    Args:
        folder: for its configuration, state and log.
        machine: the VM to serve. Another is served when it is there, `WITH_SSH`.
    """

    def __init__(self, folder: Path, machine: Machine) -> None:
        self.state_dir = folder / "state"
        self.log = folder / "server.log"
        self.port = _free_port()
        self._folder = folder
        self._config = folder / "guestwire.toml"
        self._machine = machine
        self._process: asyncio.subprocess.Process | None = None
        self._session: aiohttp.ClientSession | None = None

    @property
    def url(self) -> str:
        """Of the VM's agent."""
        return self.url_of(self._machine.vmid)

    def url_of(self, vmid: int) -> str:
        """Of a VM's agent."""
        return f"https://127.0.0.1:{self.port}/api2/json/nodes/{NODE}/qemu/{vmid}/agent"

    @property
    def token(self) -> str:
        """The administrator's."""
        return (self.state_dir / "admin-token").read_text().strip()

    async def __aenter__(self) -> Self:
        self._write_config()
        with self.log.open("wb") as log:
            # Where the demo is killed, its server ends too.
            self._process = await asyncio.create_subprocess_exec(
                "setpriv",
                "--pdeathsig",
                "TERM",
                sys.executable,
                "-m",
                "guestwire",
                "serve",
                "--config",
                str(self._config),
                stdout=log,
                stderr=log,
            )
        await self._wait()
        context = ssl.create_default_context(cafile=str(self.state_dir / "server.pem"))
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=context), headers={"Authorization": f"PVEAPIToken={self.token}"}
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session:
            await self._session.close()
        if self._process and self._process.returncode is None:
            self._process.terminate()
            try:
                async with asyncio.timeout(10):
                    await self._process.wait()
            except TimeoutError:
                self._process.kill()

    async def call(self, method: str, name: str, parameters: dict[str, Any], *, url: str = "") -> Answer:
        """Calls the endpoint `name` below the VM's agent, or another's ("" for the agent itself)."""
        assert self._session  # noqa: S101  # entered
        loop = asyncio.get_running_loop()
        began = loop.time()
        reads = method == "GET"
        async with self._session.request(
            method,
            f"{url or self.url}/{name}".rstrip("/"),
            params=parameters if reads else None,
            json=None if reads else parameters or None,
            timeout=aiohttp.ClientTimeout(total=60),
        ) as response:
            text = await response.text()
        return Answer(response.status, response.reason or "", json.loads(text) if text else None, loop.time() - began)

    def _write_config(self) -> None:
        self._config.write_text(
            f'[server]\nlisten = "127.0.0.1:{self.port}"\nnode = "{NODE}"\nstate_dir = "{self.state_dir}"\n\n'
            f'[[vm]]\nvmid = {self._machine.vmid}\nname = "small-guest"\n'
            f'agent = "unix:{self._machine.agent_socket}"\nqmp = "unix:{self._machine.qmp_socket}"\n\n'
            f'[[vm]]\nvmid = {WITH_SSH}\nname = "debian"\n'
            f'agent = "unix:{self._folder}/{WITH_SSH}.qga"\nqmp = "unix:{self._folder}/{WITH_SSH}.qmp"\n'
        )

    async def _wait(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(START_TIMEOUT):
                while self._process and self._process.returncode is None:
                    if await self._listens():
                        return
                    await asyncio.sleep(0.05)
        raise DemoError(f"the server did not start: {self.log.read_text()[-800:].strip()}")

    async def _listens(self) -> bool:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", self.port)
        except OSError:
            return False
        writer.close()
        return True


def _free_port() -> int:
    """Proxmox VE's own port, or another when that is taken."""
    for port in (PORT, 0):
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            return int(probe.getsockname()[1])
    raise DemoError("no port is free on 127.0.0.1")
