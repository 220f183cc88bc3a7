"""docs/recipes.md, copies that QEMU makes: of the moment of the freeze and whole, or none; and a guest that is never left frozen."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from calling import site
from recording import FROZEN, Recorder, begun, by_server, by_socket, done, environment, is_consistent, records_in, tool
from serving import Serving

from devtools.guests import Machine

pytestmark = pytest.mark.guest


@pytest.fixture
async def recorder(machine: Machine) -> AsyncIterator[Recorder]:
    async with Recorder(machine) as recorder:
        yield recorder


@contextlib.asynccontextmanager
async def another_client_of_its_monitor(machine: Machine, partial: Path) -> AsyncIterator[None]:
    """Begins when images are there, with which the recipe is done with the monitor until the guest is frozen; it has to wait then."""
    async with asyncio.timeout(20):
        while not partial.exists():
            await asyncio.sleep(0.01)
    _, writer = await asyncio.open_unix_connection(machine.own_qmp_socket)
    try:
        yield
    finally:
        writer.close()


async def raw(image: Path) -> Path:
    """Restored, as a file that tools for file systems can read."""
    target = image.with_suffix(".raw")
    code, output = await tool("qemu-img", "convert", "-O", "raw", image, target)
    assert code == 0, output
    return target


async def test_a_copy_holds_all_that_was_written_before_the_freeze_and_nothing_after(
    machine: Machine, recorder: Recorder, folder: Path
) -> None:
    data, swap = folder / "data.qcow2", folder / "swap.qcow2"
    async with begun(
        folder, by_socket(machine), "qemu_backup.py", "web", machine.own_qmp_socket, f"data={data}", f"swap={swap}"
    ) as recipe:
        async with another_client_of_its_monitor(machine, folder / "data.qcow2.partial"):
            await recipe.says(FROZEN)
            written = await recorder.written()
        assert await recipe.ends() == 0, recipe.errors
    await recorder.goes_on()

    assert "the freeze held to its end" in recipe.errors
    # The last one may have come to the disk, but not into the note.
    assert await records_in(await raw(data)) - written in (0, 1)
    assert (await tool("qemu-img", "check", data))[0] == 0
    assert (await tool("qemu-img", "compare", swap, folder_of(machine) / f"{machine.vmid}.swap"))[0] == 0
    assert list(folder.glob("*.partial")) == []


def folder_of(machine: Machine) -> Path:
    return machine.agent_socket.parent


async def test_a_copy_without_a_freeze_is_not_consistent(machine: Machine, recorder: Recorder, folder: Path) -> None:
    """The tests here would find it."""
    await recorder.goes_on()
    image = folder / "data.raw"
    image.write_bytes((folder_of(machine) / f"{machine.vmid}.data").read_bytes())

    assert not await is_consistent(image)


async def test_a_recipe_that_is_killed_leaves_the_guest_frozen_until_its_lease_ends_and_no_copy(
    machine: Machine, recorder: Recorder, folder: Path
) -> None:
    data = folder / "data.qcow2"
    command = ("qemu_backup.py", "--lease", "3", "web", str(machine.own_qmp_socket), f"data={data}")
    async with (
        begun(folder, by_socket(machine), *command) as recipe,
        another_client_of_its_monitor(machine, folder / "data.qcow2.partial"),
    ):
        await recipe.says(FROZEN)
        recipe.kill()
        await recorder.goes_on()
    assert not data.exists()

    # The process in the guest can't tell the agent that it thawed.
    assert (await tool("guestwire", "thaw", "web", env=by_socket(machine)))[0] == 7
    await done(folder, by_socket(machine), *command)
    assert await records_in(await raw(data)) > 0


async def test_a_server_thaws_at_once_when_a_recipe_is_killed(
    machine: Machine, recorder: Recorder, folder: Path
) -> None:
    config = site(
        f'[[vm]]\nvmid = 100\nname = "web"\nagent = "unix:{machine.agent_socket}"\nqmp = "unix:{machine.qmp_socket}"\n'
    )
    data = f"data={folder / 'data.qcow2'}"
    async with (
        Serving.of(config) as server,
        begun(
            folder, by_server(server), "qemu_backup.py", "--lease", "3600", "web", machine.own_qmp_socket, data
        ) as recipe,
        another_client_of_its_monitor(machine, folder / "data.qcow2.partial"),
    ):
        await recipe.says(FROZEN)
        recipe.kill()
        await recorder.goes_on()


async def test_there_is_no_copy_when_the_freeze_was_lost(machine: Machine, recorder: Recorder, folder: Path) -> None:
    data = folder / "data.qcow2"
    async with begun(
        folder, by_socket(machine), "qemu_backup.py", "--lease", "1", "web", machine.own_qmp_socket, f"data={data}"
    ) as recipe:
        async with another_client_of_its_monitor(machine, folder / "data.qcow2.partial"):
            await recipe.says(FROZEN)
            await recorder.goes_on()
        assert await recipe.ends() == 7, recipe.errors

    assert list(folder.glob("data*")) == []


async def test_what_restic_gives_back_is_consistent(machine: Machine, recorder: Recorder, folder: Path) -> None:
    own = {"RESTIC_REPOSITORY": str(folder / "repository"), "RESTIC_PASSWORD": "secret", "HOME": str(folder)}
    env = by_socket(machine) | own
    restored = folder / "restored.raw"
    assert (await tool("restic", "init", env=env))[0] == 0
    written = await recorder.written()
    await done(folder, env, "restic_backup.sh", "web", machine.own_qmp_socket, "data", folder)
    code, output = await tool("sh", "-c", f"restic dump latest web-data.raw >{restored}", env=environment(**own))

    assert code == 0, output
    assert await records_in(restored) >= written
    assert not (folder / "web-data.raw").exists()
    await recorder.goes_on()
