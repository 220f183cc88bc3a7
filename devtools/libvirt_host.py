"""libvirt for tests and measurements: a daemon of our own with sockets, configuration and domains of its own, apart from the machine's."""

import asyncio
import contextlib
import importlib.util
import os
import shutil
import sys
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self
from xml.sax.saxutils import escape

from guestwire.testing import SandboxedAgent

if TYPE_CHECKING:
    from devtools.guests import GuestImage

STARTING: Final = 30.0
BOOTING: Final = 60.0

DAEMON: Final = """
unix_sock_dir = "{sockets}"
auth_unix_ro = "none"
auth_unix_rw = "none"
"""
DRIVER: Final = """
user = "root"
group = "root"
security_driver = "none"
stdio_handler = "file"
cgroup_controllers = []
namespaces = []
remember_owner = 0
"""
ACCOUNTS: Final = {
    "passwd": "libvirt-qemu:x:64055:64055::/:/bin/false\n",
    "group": "libvirt-qemu:x:64055:\nkvm:x:64056:\n",
}


def why_not() -> str:
    """The reason why there is no libvirt here; "" where there is one."""
    if importlib.util.find_spec("libvirt") is None:
        return "Python's libvirt binding is not installed: `./dev setup` installs it where it can be built"
    if os.geteuid() != 0:
        return "libvirt's system daemon needs root"
    missing = [name for name in ("libvirtd", "qemu-system-x86_64", "bwrap") if not shutil.which(name, path=_path())]
    return f"these programs are missing: {', '.join(missing)}" if missing else ""


def _path() -> str:
    return f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"


class LibvirtHost:
    """`async with` starts the daemon, and ends it and all its VMs.

    Args:
        folder: for all that is its own; its name must be short.

    Attributes:
        uri: connects to it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.sockets = folder / "s"
        self.uri = f"qemu:///system?socket={self.sockets}/libvirt-sock"
        self.read_only_uri = f"qemu:///system?socket={self.sockets}/libvirt-sock-ro"
        self._process: asyncio.subprocess.Process | None = None

    async def __aenter__(self) -> Self:
        etc = self.folder / "etc"
        for name in ("etc", "lib", "run/lock", "log", "cache", "s", "agents"):
            (self.folder / name).mkdir(parents=True)
        (etc / "libvirtd.conf").write_text(DAEMON.format(sockets=self.sockets))
        (etc / "qemu.conf").write_text(DRIVER)
        for name, lines in ACCOUNTS.items():
            (self.folder / name).write_text((Path("/etc") / name).read_text() + lines)
        emulator = self.folder / "qemu"
        bridge = Path(__file__).with_name("qemu_bridge.py")
        emulator.write_text(f'#!/bin/sh\nexec {sys.executable} -S -E {bridge} {self.folder}/agents "$@"\n')
        emulator.chmod(0o755)
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.kill()

    async def start(self) -> None:
        """Starts the daemon."""
        folder = self.folder
        log = (folder / "log" / "libvirtd.log").open("ab")
        self._process = await asyncio.create_subprocess_exec(
            "bwrap", "--unshare-pid", "--die-with-parent", "--dev-bind", "/", "/", "--proc", "/proc",
            "--bind", str(folder / "etc"), "/etc/libvirt", "--bind", str(folder / "lib"), "/var/lib/libvirt",
            "--bind", str(folder / "run"), "/run", "--bind", str(folder / "log"), "/var/log/libvirt",
            "--bind", str(folder / "cache"), "/var/cache/libvirt",
            "--ro-bind", str(folder / "passwd"), "/etc/passwd", "--ro-bind", str(folder / "group"), "/etc/group",
            "libvirtd", "--config", "/etc/libvirt/libvirtd.conf", "--pid-file", "/run/libvirtd.pid",
            stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log, env=os.environ | {"PATH": _path()},
        )  # fmt: skip
        log.close()
        async with asyncio.timeout(STARTING):
            while not (self.sockets / "libvirt-sock").is_socket():  # noqa: ASYNC110  # only looking tells
                await asyncio.sleep(0.01)

    async def kill(self) -> None:
        """Ends the daemon at once, and with it every VM."""
        if self._process and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()
        shutil.rmtree(self.sockets, ignore_errors=True)
        self.sockets.mkdir(exist_ok=True)

    def uuid(self, name: str) -> str:
        """Of a domain of `xml`."""
        return str(uuid.uuid5(uuid.NAMESPACE_DNS, name))

    def connect(self) -> Any:
        """A connection of the binding's own, beside guestwire's."""
        import libvirt  # noqa: PLC0415  # not everywhere

        return libvirt.open(self.uri)

    def bridge(self, name: str) -> Path:
        """The socket that will be behind a domain's channel, instead of its guest's agent; whoever listens there is that."""
        (self.folder / "agents" / f"{name}.bridged").touch()
        return self.folder / "agents" / f"{name}.qga"

    @contextlib.asynccontextmanager
    async def bridged(self, name: str, image: "GuestImage") -> AsyncIterator[SandboxedAgent]:
        """A domain that runs, with an agent in a sandbox behind its channel (see `qemu_bridge.py`); both are gone then."""
        async with SandboxedAgent(self.bridge(name), name=name) as agent, self.domain(name, image):
            yield agent

    @contextlib.asynccontextmanager
    async def domain(self, name: str, image: "GuestImage", **options: Any) -> AsyncIterator[Any]:
        """A domain that runs, and whose agent libvirt knows to be there; it is gone then."""
        connection = await asyncio.to_thread(self.connect)
        domain = await asyncio.to_thread(connection.defineXML, self.xml(name, image.kernel, image.initramfs, **options))
        try:
            await asyncio.to_thread(domain.create)
            async with asyncio.timeout(BOOTING):
                while "state='connected'" not in await asyncio.to_thread(domain.XMLDesc):  # noqa: ASYNC110  # as above
                    await asyncio.sleep(0.05)
            yield domain
        finally:
            with contextlib.suppress(Exception):  # the daemon may be gone
                await asyncio.to_thread(domain.destroy)
            with contextlib.suppress(Exception):
                await asyncio.to_thread(domain.undefine)

    def xml(
        self,
        name: str,
        kernel: Path,
        initramfs: Path,
        *,
        channel: bool = True,
        more: str = "",
        disk: Path | None = None,
    ) -> str:
        """A small domain that boots the micro guest; `disk` is an ext4, which it mounts."""
        drive = f"<disk type='file'><source file='{disk}'/><target dev='vda' bus='virtio'/></disk>" if disk else ""
        agent = (
            "<channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>" if channel else ""
        )
        return f"""
<domain type='qemu'>
  <name>{escape(name)}</name><uuid>{self.uuid(name)}</uuid>
  <memory unit='MiB'>256</memory><vcpu>1</vcpu>{more}
  <os><type arch='x86_64' machine='pc'>hvm</type><kernel>{kernel}</kernel><initrd>{initramfs}</initrd>
    <cmdline>console=ttyS0 quiet panic=-1</cmdline></os>
  <features><acpi/></features>
  <on_poweroff>destroy</on_poweroff><on_reboot>restart</on_reboot>
  <pm><suspend-to-mem enabled='yes'/></pm>
  <devices><emulator>{self.folder}/qemu</emulator>
    <controller type='usb' model='none'/>
    <serial type='file'><source path='{self.folder}/log/{escape(name)}.log'/></serial>
    <serial type='unix'><source mode='bind' path='{self.folder}/{escape(name)}.tty'/></serial>
    <rng model='virtio'><backend model='random'>/dev/urandom</backend></rng>
    {agent}{drive}
  </devices>
</domain>"""
