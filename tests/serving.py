"""The real command `guestwire serve`, in a process of its own."""

import asyncio
import contextlib
import os
import signal
import socket
import ssl
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Self

STARTS_WITHIN = 20.0
PYTHON = "SERVER_PYTHON"
"""Names the Python that runs servers, where that of the tests has the base alone; see `./dev test`."""


@dataclass
class Serving:
    """A server that runs; `log` is what it wrote so far."""

    folder: Path
    port: int
    process: asyncio.subprocess.Process
    limited: bool = False
    strict: bool = False

    @classmethod
    @contextlib.asynccontextmanager
    async def of(
        cls,
        config: Callable[[Path, int], str],
        environment: dict[str, str] | None = None,
        prepare: Callable[[Path], Awaitable[None]] | None = None,
        *,
        killed: bool = False,
        limited: bool = False,
        open_files: str = "",
        strict: bool = False,
    ) -> AsyncIterator[Self]:
        """Serves the configuration that `config` makes for a folder and a port; stops at the end.

        `prepare` may write to the state directory before the server's first start. `killed`: it is not stopped, but killed at the end, if no test has done that.
        `limited`: with what Proxmox VE has and no more; `strict`: in its time, too. `open_files`: shell commands that limit them.
        """
        with tempfile.TemporaryDirectory(prefix="gw-") as name:
            folder, port = Path(name), free_port()
            (folder / "guestwire.toml").write_text(config(folder, port))
            if prepare:
                (folder / "state").mkdir(mode=0o700)
                await prepare(folder / "state")
            process = await start(
                folder, environment or {}, limited=limited or strict, strict=strict, open_files=open_files
            )
            server = cls(folder, port, process, limited or strict, strict)
            try:
                await server.listens()
                yield server
            finally:
                if not killed:
                    await server.stop()
                elif server.process.returncode is None:
                    server.process.kill()
                    await server.process.wait()

    @property
    def log(self) -> str:
        return (self.folder / "server.log").read_text()

    @property
    def token(self) -> str:
        return (self.folder / "state" / "admin-token").read_text().strip()

    @property
    def tls(self) -> ssl.SSLContext:
        """Trusts the server's certificate, and no other."""
        return ssl.create_default_context(cafile=str(self.folder / "state" / "server.pem"))

    async def listens(self) -> None:
        async with asyncio.timeout(STARTS_WITHIN):
            while not (await self._accepts() and " serves " in self.log):
                assert self.process.returncode is None, self.log
                await asyncio.sleep(0.02)

    async def _accepts(self) -> bool:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", self.port)
        except OSError:
            return False
        writer.close()
        return True

    def signal(self, signum: signal.Signals) -> None:
        self.process.send_signal(signum)

    async def restart(self) -> None:
        """Ends it at once, and starts it again."""
        self.process.kill()
        await self.process.wait()
        self.process = await start(self.folder, {}, limited=self.limited)
        await self.listens()

    async def stop(self) -> None:
        """Ends it, as systemd does."""
        if self.process.returncode is None:
            self.process.terminate()
        async with asyncio.timeout(10):
            assert await self.process.wait() == 0, self.log


async def start(
    folder: Path, environment: dict[str, str], *, limited: bool = False, strict: bool = False, open_files: str = ""
) -> asyncio.subprocess.Process:
    config = str(folder / "guestwire.toml")
    command = ["guestwire.testing.limited", config] if limited else ["guestwire", "serve", "--config", config]
    command += ["--strict"] if strict else []
    shell = ["sh", "-c", f'{open_files} && exec "$@"', "sh"] if open_files else []
    with (folder / "server.log").open("wb") as log:
        return await asyncio.create_subprocess_exec(
            *shell, os.environ.get(PYTHON, sys.executable), "-m", *command,
            stdout=log, stderr=log, env=os.environ | environment,
        )  # fmt: skip


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
