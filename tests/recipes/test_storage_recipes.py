"""docs/recipes.md, snapshots of LVM and ZFS: real ones, in a second machine that has the volumes and serves them to the guest's."""

import asyncio
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from recording import Recorder, begun, blocks, by_socket, done, records_in, tool
from serving import free_port

from devtools.guests import STORAGE, GuestImage, Machine, accelerator, build, default_cache

pytestmark = pytest.mark.guest

SIZE = 8 * 1024 * 1024
SSH = """
mkdir -p /etc/dropbear /root/.ssh; chmod 700 /root /root/.ssh; echo '{key}' >/root/.ssh/authorized_keys; dropbear -R -s
"""
VOLUMES = """
swapoff /dev/vdb; umount /mnt/data; mkdir -p /etc/lvm /run/lock/lvm /run/zfs /etc/zfs /var/lock
printf 'activation {\\n udev_sync=0\\n udev_rules=0\\n monitoring=0\\n}\\n' >/etc/lvm/lvm.conf
for name in vgcreate lvcreate lvremove lvs; do ln -s lvm /usr/sbin/$name; done
vgcreate --quiet --yes images /dev/vdb && lvcreate --quiet --yes --name web --size 8M images && qemu-nbd --fork -t -p 10809 -f raw /dev/images/web
"""
POOL = """
lvcreate --quiet --yes --name tank --size 128M images && zfs-fuse && zpool create tank /dev/images/tank && zfs create tank/web &&
truncate -s 8M /tank/web/web.raw && qemu-nbd --fork -t -p 10810 -f raw /tank/web/web.raw
"""
NO_SNAPSHOTS = "the kernel for virtual machines of this distribution has no module dm-snapshot"
NO_ZFS = "this suite of the distribution has no package zfs-fuse"


@dataclass
class Site:
    """The guest's machine, and the one that has its disks."""

    guest: Machine
    storage: Machine
    has_zfs: bool
    ssh: str

    @property
    def env(self) -> dict[str, str]:
        return by_socket(self.guest) | {"STORAGE": self.ssh}


@pytest.fixture(scope="module")
async def site(image: GuestImage, machine: Machine) -> AsyncIterator[Site]:
    with_storage = await asyncio.to_thread(build, default_cache(), recipe=STORAGE)
    lvm, zfs, ssh = free_port(), free_port(), free_port()
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="gw-")))
        forward = {lvm: 10809, zfs: 10810, ssh: 22}
        storage = Machine(with_storage, folder, vmid=900, accel=await accelerator(image), forward=forward)
        await stack.enter_async_context(storage)
        await storage.wait_for_agent()
        if await storage.shell("[ -d /sys/module/dm_snapshot ] || echo none") == "none":
            pytest.skip(NO_SNAPSHOTS)
        await tool("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / "key")
        await storage.shell(SSH.strip().format(key=(folder / "key.pub").read_text().strip()))
        await storage.shell(VOLUMES.strip().replace("\n", "; "))
        await stack.enter_async_context(mounted(machine, "lvm", lvm, folder))
        has_zfs = await storage.shell("command -v zpool || echo none") != "none"
        if has_zfs:
            await storage.shell(POOL.strip().replace("\n", " "))
            await stack.enter_async_context(mounted(machine, "zfs", zfs, folder))
        yield Site(machine, storage, has_zfs, await ssh_to(ssh, folder, stack))


@asynccontextmanager
async def mounted(machine: Machine, name: str, port: int, folder: Path) -> AsyncIterator[None]:
    """Puts an empty file system on a disk, which is mounted in the guest below `/mnt`."""
    empty, disk = folder / "empty", f"nbd://127.0.0.1:{port}"
    with empty.open("wb") as file:
        file.truncate(SIZE)
    for command in (
        ("mkfs.ext4", "-q", "-F", empty),
        ("qemu-img", "convert", "-n", "-f", "raw", "-O", "raw", empty, disk),
    ):
        code, output = await tool(*command)
        assert code == 0, output
    async with machine.with_disk(name, port):
        find = f"until disk=$(grep -lx {name} /sys/block/*/serial); do usleep 50000; done"
        await machine.shell(f"{find}; mkdir /mnt/{name}; mount -t ext4 /dev/$(basename $(dirname $disk)) /mnt/{name}")
        yield
        await machine.shell(f"umount /mnt/{name}; rmdir /mnt/{name}")


async def ssh_to(port: int, folder: Path, stack: AsyncExitStack) -> str:
    """The command that runs others in the machine with the volumes; one connection carries all."""
    options = f"-F none -i {folder}/key -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR"
    command = f"ssh {options} -S {folder}/ssh -p {port} root@127.0.0.1"
    code, output = await tool(*command.split(), "-M", "-N", "-f")
    assert code == 0, output
    stack.push_async_callback(tool, *command.split(), "-O", "exit")
    return command


async def test_a_snapshot_of_lvm_holds_all_that_was_written_before(site: Site, folder: Path) -> None:
    [backup] = blocks("LVM", {"SIZE=2G": "SIZE=8M", "/backup": folder})
    async with Recorder(site.guest.shell, "/mnt/lvm") as recorder:
        written = await recorder.written()
        await done(folder, site.env, "sh", "-ec", backup)
        await recorder.goes_on()

    assert (folder / "web.raw").stat().st_size == SIZE
    assert await records_in(folder / "web.raw") >= written
    assert "web-" not in await site.storage.shell("lvs --noheadings -o lv_name images")


async def test_a_snapshot_of_lvm_that_overflows_is_an_error(site: Site, folder: Path) -> None:
    fill = "dd if=/dev/urandom of=/mnt/lvm/more bs=1M count=5 conv=fsync 2>/dev/null; rm /mnt/lvm/more"
    # More than a pipe holds is still to be read when the guest has overwritten what the snapshot has room for.
    wait = f"until [ -e {folder}/go ]; do sleep 0.1; done; cat >/dev/null"
    async with begun(
        folder, site.env | {"SIZE": "4M"}, "lvm_backup.sh", "web", "images/web", "sh", "-c", f"echo reads >&2; {wait}"
    ) as recipe:
        await recipe.says("reads")
        await site.guest.shell(fill)
        (folder / "go").touch()
        assert await recipe.ends() == 1

    assert "could not be read to its end" in recipe.errors


async def test_a_thin_volume_needs_no_room_for_its_snapshot(site: Site, folder: Path) -> None:
    await site.storage.shell(
        "lvcreate --quiet --yes --type thin --thinpool pool --size 16M --virtualsize 8M --name thin images"
    )
    recipe = await done(folder, site.env | {"SIZE": ""}, "lvm_backup.sh", "web", "images/thin", "wc", "-c")

    assert recipe.output.split() == [str(SIZE)]
    assert "thin-" not in await site.storage.shell("lvs --noheadings -o lv_name images")


async def test_a_snapshot_of_zfs_holds_all_that_was_written_before(site: Site, folder: Path) -> None:
    if not site.has_zfs:
        pytest.skip(NO_ZFS)
    backup, restore = blocks("ZFS", {"ssh root@storage1": site.ssh, "/backup": folder})
    async with Recorder(site.guest.shell, "/mnt/zfs") as recorder:
        written = await recorder.written()
        await done(folder, site.env, "sh", "-ec", f"{backup}{restore}")
        await recorder.goes_on()
    image = folder / "web.raw"
    code, output = await tool("sh", "-c", f"$STORAGE cat /tank/web-restored/web.raw >{image}", env=site.env)

    assert code == 0, output
    assert await records_in(image) >= written


async def test_there_is_no_snapshot_of_zfs_when_the_guest_can_not_be_frozen(site: Site, folder: Path) -> None:
    if not site.has_zfs:
        pytest.skip(NO_ZFS)
    before = await site.storage.shell("zfs list -t snapshot -H -o name")
    env = site.env | {"GUESTWIRE_HOST": f"unix:{folder}/none.qga"}
    async with begun(folder, env, "zfs_snapshot.sh", "web", "tank/web") as recipe:
        assert await recipe.ends() != 0

    assert recipe.output == ""
    assert await site.storage.shell("zfs list -t snapshot -H -o name") == before
