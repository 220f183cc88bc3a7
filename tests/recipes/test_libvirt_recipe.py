"""docs/recipes.md, copies by libvirt's backup job: of a real guest in a libvirt of our own."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from own_libvirt import own_libvirt
from recording import Recorder, begun, blocks, done, environment, records_in, tool

from devtools.guests import GuestImage
from devtools.libvirt_host import LibvirtHost
from guestwire import Guest, connect

pytestmark = pytest.mark.guest


@pytest.fixture(scope="module")
async def libvirt_host() -> AsyncIterator[LibvirtHost]:
    """One for this page alone: its domain is called as another one of the tests."""
    async with own_libvirt() as host:
        yield host


@pytest.fixture
async def guest(libvirt_host: LibvirtHost, image: GuestImage, folder: Path) -> AsyncIterator[Guest]:
    """The domain `web`, whose disk is an ext4."""
    disk = folder / "disk.raw"
    with disk.open("wb") as file:
        file.truncate(64 * 1024 * 1024)
    assert (await tool("mkfs.ext4", "-q", "-F", disk))[0] == 0
    async with libvirt_host.domain("web", image, disk=disk), await connect(libvirt_host.uri) as host:
        yield await host.guest("web")


async def test_a_copy_by_libvirt_holds_all_that_was_written_before_the_freeze(
    guest: Guest, libvirt_host: LibvirtHost, folder: Path
) -> None:
    async def shell(command: str) -> str:
        return (await guest.run(["sh", "-c", command], check=True)).output

    env = environment(LIBVIRT_DEFAULT_URI=libvirt_host.uri, GUESTWIRE_HOST=libvirt_host.uri)
    [backup] = blocks("libvirt", {"qemu:///system": libvirt_host.uri, "/backup": folder})
    copy, restored = folder / "web.qcow2", folder / "web.raw"
    async with Recorder(shell) as recorder:
        written = await recorder.written()
        await done(folder, env, "sh", "-ec", backup)
        await recorder.goes_on()
        code, output = await tool("qemu-img", "convert", "-O", "raw", copy, restored)
        assert code == 0, output
        assert await records_in(restored) >= written

        async with begun(folder, env, "libvirt_backup.sh", "web", "vdz", folder / "none.qcow2") as recipe:
            assert await recipe.ends() != 0
        await recorder.goes_on()
    assert list(folder.glob("none*")) == []


@pytest.mark.usefixtures("guest")
async def test_of_two_runs_at_once_none_spoils_the_other(libvirt_host: LibvirtHost, folder: Path) -> None:
    """And a target may have a name that XML has another use for."""
    env = environment(LIBVIRT_DEFAULT_URI=libvirt_host.uri, GUESTWIRE_HOST=libvirt_host.uri)
    target = folder / "R&D's <web>.qcow2"
    (folder / "other").mkdir()
    command = ("libvirt_backup.sh", "web", "vda", target)
    async with begun(folder, env, *command) as one, begun(folder / "other", env, *command) as other:
        codes = await one.ends(), await other.ends()

    assert 0 in codes, one.errors + other.errors
    assert (await tool("qemu-img", "check", "-q", target))[0] == 0
    assert not target.with_name(f"{target.name}.partial").exists()
