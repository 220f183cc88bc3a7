"""SSH into a Debian guest: OpenSSH over QEMU's own network, against the same OpenSSH by a proxy command of guestwire's."""

import asyncio
import os
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from bench import streams
from bench.errors import BenchError
from bench.results import LIVE, Row
from bench.service import Vm, free_port, serve
from bench.timing import Samples, timed_async
from devtools.guests import GuestImage, Machine
from guestwire.client import connect

USER: Final = "root"
LOGINS: Final = 7
LOGIN_TIMES: Final = 1.5
"""How many times the network's login one by a proxy command may take."""

COPIED: Final = 64 * 1024 * 1024
"""Bytes each way."""

COPY_SHARE: Final = 0.5
"""Of the network's rate."""

SSH_STARTS_WITHIN: Final = 60.0
ENDS_WITHIN: Final = 300.0
"""Seconds for one command."""

WAYS: Final[Mapping[str, str]] = {
    "a port of our own": "--host 'unix:{agent}?qmp={qmp}'",
    "agent commands": "--host unix:{agent}",
}
"""Options of guestwire's by the name of their way; `{agent}` and `{qmp}` in them are the VM's sockets."""


@dataclass(frozen=True, slots=True)
class Ssh:
    """OpenSSH's client with a key of its own and the guest's host keys, by one way.

    Attributes:
        folder: has `key` and `known_hosts`.
        way: options that lead there.
    """

    folder: Path
    way: tuple[str, ...]

    async def run(self, command: str, data: Path | None = None) -> bytes:
        """What a command in the guest writes; its standard input is a file.

        Raises:
            BenchError: it failed, or did not end in time.
        """
        with (data or Path(os.devnull)).open("rb") as stdin:
            process = await asyncio.create_subprocess_exec(
                "ssh", "-F", "none", "-i", str(self.folder / "key"), "-o", "BatchMode=yes",
                "-o", f"UserKnownHostsFile={self.folder / 'known_hosts'}", "-o", "HostKeyAlias=guest", "-o", "LogLevel=ERROR",
                *self.way, f"{USER}@guest", command,
                stdin=stdin, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
            )  # fmt: skip
            try:
                async with asyncio.timeout(ENDS_WITHIN):
                    output, errors = await process.communicate()
            except TimeoutError as error:
                raise BenchError(f"ssh: `{command}` did not end in {ENDS_WITHIN:g} seconds") from error
            finally:
                if process.returncode is None:
                    process.kill()
                    await process.wait()
        if process.returncode:
            raise BenchError(
                f"ssh: `{command}` ended with {process.returncode}: {errors.decode(errors='replace')[-400:]}"
            )
        return output

    async def login_time(self) -> float:
        """Milliseconds of a login with one command, the median."""
        return Samples(await timed_async(LOGINS, lambda: self.run("true"))).median

    async def rate_to_guest(self, data: Path) -> float:
        """MB a second into the guest."""
        began = time.perf_counter()
        count = await self.run("wc -c", data)
        return _rate(int(count), time.perf_counter() - began)

    async def rate_from_guest(self) -> float:
        """MB a second out of the guest."""
        began = time.perf_counter()
        output = await self.run(f"head -c {COPIED} /dev/zero")
        return _rate(len(output), time.perf_counter() - began)


@dataclass(frozen=True, slots=True)
class Figures:
    """Milliseconds of a login with one command, and MB a second each way."""

    login: float
    to_guest: float
    from_guest: float


async def measure(image: GuestImage, accelerator: str) -> list[Row]:
    """Boots the Debian guest with a forwarded port, measures every way, and leaves nothing behind."""
    with TemporaryDirectory(prefix="gw-bench-") as name:
        folder, port = Path(name), free_port()
        (folder / "data").write_bytes(os.urandom(COPIED))
        async with Machine(image, folder, accel=accelerator, forward={port: 22}) as machine:
            await machine.wait_for_agent()
            found = await streams.measure(machine, folder)
            await _prepare(machine, folder)
            network = Ssh(folder, ("-o", "HostName=127.0.0.1", "-p", str(port)))
            await _until_ready(network)
            raw = await _figures(network)
            rows = _rows("QEMU's network", raw, None)
            for way, options in WAYS.items():
                target = options.format(agent=machine.agent_socket, qmp=machine.qmp_socket)
                rows += _rows(way, raw, await _figures(_by_proxy(machine, folder, target)))
            # Last: it keeps both sockets.
            async with serve(folder, [Vm(machine.vmid, machine.agent_socket, machine.qmp_socket)]) as service:
                token, ca = folder / "state" / "admin-token", service.address.certificate
                target = f"--host https://127.0.0.1:{service.address.port} --token-file {token} --ca {ca}"
                rows += _rows("guestwire's server", raw, await _figures(_by_proxy(machine, folder, target)))
            return found + rows


def _by_proxy(machine: Machine, folder: Path, options: str) -> Ssh:
    proxy = f"{sys.executable} -m guestwire {options} proxy --sshd {machine.vmid}"
    return Ssh(folder, ("-o", f"ProxyCommand={proxy}"))


async def _prepare(machine: Machine, folder: Path) -> None:
    """A key of ours that logs in, and the guest's host keys, both by the agent."""
    process = await asyncio.create_subprocess_exec(
        "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / "key")
    )
    if await process.wait():
        raise BenchError("ssh-keygen made no key")
    async with await connect(f"unix:{machine.agent_socket}") as host:
        guest = await host.guest(str(machine.vmid))
        await guest.ssh_add_authorized_keys(USER, [(folder / "key.pub").read_text().strip()])
        host_key = await guest.read_file("/etc/ssh/ssh_host_ed25519_key.pub")
        (folder / "known_hosts").write_text(f"guest {host_key.decode()}")


async def _until_ready(ssh: Ssh) -> None:
    try:
        async with asyncio.timeout(SSH_STARTS_WITHIN):
            while True:
                try:
                    await ssh.run("true")
                except BenchError:  # sshd starts a little later than the agent
                    await asyncio.sleep(0.2)
                else:
                    return
    except TimeoutError as error:
        raise BenchError(f"nobody can log in to the guest in {SSH_STARTS_WITHIN:g} seconds") from error


async def _figures(ssh: Ssh) -> Figures:
    login = await ssh.login_time()
    return Figures(login, await ssh.rate_to_guest(ssh.folder / "data"), await ssh.rate_from_guest())


def _rows(way: str, raw: Figures, own: Figures | None) -> list[Row]:
    """The network's figures alone, or those of a way beside them."""
    login, rate = f"at most {LOGIN_TIMES:g} x", f"at least {COPY_SHARE:g} x"
    login_time, to_guest, from_guest = (own.login, own.to_guest, own.from_guest) if own else (None, None, None)
    found = [
        ("login and one command", "ms", raw.login, login_time, login),
        ("64 MiB to the guest", "MB/s", raw.to_guest, to_guest, rate),
        ("64 MiB from the guest", "MB/s", raw.from_guest, from_guest, rate),
    ]
    rows = []
    for name, unit, before, after, target in found:
        good = (
            None if after is None else after <= LOGIN_TIMES * before if unit == "ms" else after >= COPY_SHARE * before
        )
        rows.append(Row(LIVE, f"{way}: {name}", unit, before, after, target if own else "", good))
    return rows


def _rate(count: int, seconds: float) -> float:
    if count != COPIED:
        raise BenchError(f"ssh: {count} of {COPIED} bytes came")
    return count / seconds / 1e6
