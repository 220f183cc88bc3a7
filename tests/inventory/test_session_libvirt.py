"""A user's own libvirt, `qemu:///session`, is found without a line of configuration, and reached by its URI."""

import asyncio
import json
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

import guestwire
from devtools.libvirt_host import why_not

if TYPE_CHECKING:
    from devtools.guests import GuestImage

pytestmark = [pytest.mark.agent, pytest.mark.guest, pytest.mark.slow]

NOBODY: Final = 65534

DOMAIN: Final = """
<domain type='qemu'>
  <name>mine</name><memory unit='MiB'>256</memory><vcpu>1</vcpu>
  <os><type arch='x86_64' machine='pc'>hvm</type><kernel>{folder}/kernel</kernel><initrd>{folder}/initramfs</initrd>
    <cmdline>console=ttyS0 quiet panic=-1</cmdline></os>
  <features><acpi/></features>
  <devices><controller type='usb' model='none'/>
    <rng model='virtio'><backend model='random'>/dev/urandom</backend></rng>
    <channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel></devices>
</domain>"""


class Person:
    """A user without rights, with a home."""

    def __init__(self, home: Path) -> None:
        self.home = home
        runtime = home / "run"
        self.environment = {
            "HOME": str(home), "XDG_RUNTIME_DIR": str(runtime), "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin",
        }  # fmt: skip
        for folder in (home, runtime):
            folder.mkdir(mode=0o700, exist_ok=True)
            os.chown(folder, NOBODY, NOBODY)

    async def can_read_this(self) -> bool:
        """Whether they may run guestwire as it is here."""
        command = (
            "setpriv",
            f"--reuid={NOBODY}",
            f"--regid={NOBODY}",
            "--clear-groups",
            "test",
            "-r",
            guestwire.__file__,
        )
        return await (await asyncio.create_subprocess_exec(*command)).wait() == 0

    async def run(self, *command: str) -> str:
        """What a command of theirs writes; it must go well."""
        process = await asyncio.create_subprocess_exec(
            "setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", *command,
            env=self.environment, cwd=self.home, stdin=asyncio.subprocess.DEVNULL, stdout=-1, stderr=-1,
        )  # fmt: skip
        output, errors = await process.communicate()
        assert process.returncode == 0, errors.decode()
        return output.decode()

    async def guestwire(self, *words: str) -> Any:
        """The JSON that the command writes."""
        return json.loads(await self.run(sys.executable, "-m", "guestwire", *words, "--json"))


@pytest.fixture
async def person(image: "GuestImage") -> AsyncIterator[Person]:
    if reason := why_not():
        pytest.skip(reason)
    with tempfile.TemporaryDirectory(prefix="gw-") as name:
        os.chmod(name, 0o755)  # noqa: PTH101  # the user must reach their home in it
        person = Person(Path(name) / "h")
        if not await person.can_read_this():
            pytest.skip("other users can't read this checkout, so none can run it")
        for source, target in ((image.kernel, "kernel"), (image.initramfs, "initramfs")):
            shutil.copy(source, person.home / target)
            (person.home / target).chmod(0o644)
        (person.home / "mine.xml").write_text(DOMAIN.format(folder=person.home))
        await person.run("virsh", "--connect", "qemu:///session", "create", "mine.xml")
        try:
            yield person
        finally:
            await person.run("virsh", "--connect", "qemu:///session", "destroy", "mine")
            for daemon in (person.home / "run/libvirt").glob("*.pid"):
                os.kill(int(daemon.read_text()), signal.SIGTERM)


async def test_a_users_own_libvirt_is_found_and_its_guests_are_reached(person: Person) -> None:
    found = await person.guestwire("ls")
    assert [(one["name"], one["status"]) for one in found] == [("mine", "running")]

    for host in ([], ["--host", "qemu:///session"]):
        await person.run(sys.executable, "-m", "guestwire", *host, "wait", "--timeout", "60", "mine")
        ran = await person.run(sys.executable, "-m", "guestwire", *host, "exec", "mine", "--", "hostname")
        assert ran.strip() == (await person.guestwire(*host, "hostname", "mine"))["host-name"]
