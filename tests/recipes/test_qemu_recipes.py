"""docs/recipes.md, copies that QEMU makes: of the moment of the freeze and whole, or none; and a guest that is never left frozen."""

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from calling import site
from recording import (
    FROZEN,
    PAGE,
    RECIPES,
    Recorder,
    begun,
    blocks,
    by_server,
    by_socket,
    done,
    environment,
    is_consistent,
    records_in,
    tool,
)  # fmt: skip
from serving import Serving

from devtools.guests import Machine

pytestmark = pytest.mark.guest


@pytest.fixture
async def recorder(machine: Machine) -> AsyncIterator[Recorder]:
    async with Recorder(machine.shell) as recorder:
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
    here = {"/run/vm/100.backup": machine.own_qmp_socket, "drive0": "data", "drive1": "swap", "/backup": folder}
    backup, restore = blocks("QEMU", here)
    async with begun(folder, by_socket(machine), "sh", "-ec", backup) as recipe:
        async with another_client_of_its_monitor(machine, folder / "web-0.qcow2.partial"):
            await recipe.says(FROZEN)
            written = await recorder.written()
        assert await recipe.ends() == 0, recipe.errors
    assert "the freeze held to its end" in recipe.errors
    await recorder.goes_on()
    await done(folder, environment(), "sh", "-ec", restore)

    # The last one may have come to the disk, but not into the note.
    assert await records_in(folder / "web-0.raw") - written in (0, 1)
    swap = folder_of(machine) / f"{machine.vmid}.swap"
    assert (await tool("qemu-img", "compare", folder / "web-1.qcow2", swap))[0] == 0
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
    (folder / "password").write_text("secret")
    repository = {"/srv/restic": folder / "repository", "/root/restic.password": folder / "password"}
    disk = {"/run/vm/100.backup": machine.own_qmp_socket, "drive0": "data", "/backup": folder}
    backup, restore = blocks("restic", repository | disk)
    env = by_socket(machine) | {"HOME": str(folder)}
    init = f"{backup.splitlines()[0]}\nrestic init"
    await done(folder, env, "sh", "-ec", init)
    written = await recorder.written()
    await done(folder, env, "sh", "-ec", f"{backup}{restore}")

    assert await records_in(folder / "web.raw") >= written
    assert not (folder / "web-data.raw").exists()
    await recorder.goes_on()


def test_the_page_names_all_recipes() -> None:
    assert set(re.findall(r"\b\w+_\w+\.(?:sh|py)\b", PAGE.read_text())) == {path.name for path in RECIPES.glob("*_*.*")}


async def test_recipes_are_good_shell() -> None:
    code, output = await tool("shellcheck", *RECIPES.glob("*.sh"))
    assert code == 0, output
