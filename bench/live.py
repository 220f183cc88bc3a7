"""SSH into a Debian guest: OpenSSH over QEMU's own network, against the same OpenSSH by a proxy command of guestwire's."""

import asyncio
import os
import sys
import time
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

MIB: Final = 1024 * 1024
COPIED: Final = 64 * MIB
"""Bytes each way."""

COPIED_SLOWLY: Final = 8 * MIB
"""By agent commands alone, which take minutes for the other."""

COPY_SHARE: Final = 0.5
"""Of the network's rate."""

SETTLES: Final = 2.0
"""Seconds between logins: what one leaves in the guest ends meanwhile."""

SSH_STARTS_WITHIN: Final = 60.0
ENDS_WITHIN: Final = 300.0
"""Seconds for one command."""


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
        """Milliseconds of a login with one command."""
        return (await timed_async(1, lambda: self.run("true")))[0]

    async def rate_to_guest(self, data: Path, copied: int) -> float:
        """MB a second into the guest."""
        began = time.perf_counter()
        count = await self.run("wc -c", data)
        return _rate(int(count), copied, time.perf_counter() - began)

    async def rate_from_guest(self, count: int) -> float:
        """MB a second out of the guest."""
        began = time.perf_counter()
        output = await self.run(f"head -c {count} /dev/zero")
        return _rate(len(output), count, time.perf_counter() - began)


async def measure(image: GuestImage, accelerator: str) -> list[Row]:
    """Boots the Debian guest with a forwarded port, measures every way, and leaves nothing behind."""
    with TemporaryDirectory(prefix="gw-bench-") as name:
        folder, port = Path(name), free_port()
        async with Machine(image, folder, accel=accelerator, forward={port: 22}) as machine:
            await machine.wait_for_agent()
            found = await streams.measure(machine, folder)
            await _prepare(machine, folder)
            network = Ssh(folder, ("-o", "HostName=127.0.0.1", "-p", str(port)))
            await _until_ready(network)
            by_port = _by_proxy(machine, folder, f"--host 'unix:{machine.agent_socket}?qmp={machine.qmp_socket}'")
            rows = await _compare("a port of our own", network, by_port, COPIED)
            by_agent = _by_proxy(machine, folder, f"--host unix:{machine.agent_socket}")
            rows += await _compare("agent commands", network, by_agent, COPIED_SLOWLY)
            # Last: it keeps both sockets.
            async with serve(folder, [Vm(machine.vmid, machine.agent_socket, machine.qmp_socket)]) as service:
                token, ca = folder / "state" / "admin-token", service.address.certificate
                target = f"--host https://127.0.0.1:{service.address.port} --token-file {token} --ca {ca}"
                rows += await _compare("guestwire's server", network, _by_proxy(machine, folder, target), COPIED)
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


async def _compare(way: str, network: Ssh, own: Ssh, copied: int) -> list[Row]:
    """Both by turns: what else this machine does meets both."""
    data = own.folder / "data"
    data.write_bytes(os.urandom(copied))
    logins: dict[Ssh, list[float]] = {network: [], own: []}
    for _ in range(LOGINS):
        for ssh, times in logins.items():
            await asyncio.sleep(SETTLES)
            times.append(await ssh.login_time())
    before, after = (Samples(times).median for times in logins.values())
    to_guest, from_guest = f"{way}: {copied // MIB} MiB to the guest", f"{way}: {copied // MIB} MiB from the guest"
    return [
        Row(
            LIVE,
            f"{way}: login and one command",
            "ms",
            before,
            after,
            f"at most {LOGIN_TIMES:g} x",
            after <= LOGIN_TIMES * before,
        ),
        _rate_row(to_guest, await network.rate_to_guest(data, copied), await own.rate_to_guest(data, copied)),
        _rate_row(from_guest, await network.rate_from_guest(copied), await own.rate_from_guest(copied)),
    ]


def _rate_row(name: str, before: float, after: float) -> Row:
    return Row(LIVE, name, "MB/s", before, after, f"at least {COPY_SHARE:g} x", after >= COPY_SHARE * before)


def _rate(count: int, copied: int, seconds: float) -> float:
    if count != copied:
        raise BenchError(f"ssh: {count} of {copied} bytes came")
    return count / seconds / 1e6
