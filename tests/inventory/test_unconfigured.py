"""A server and a client that nothing is said to, on a machine of its own, whose libvirt is a real one at its usual place."""

import asyncio
import os
import sys
from pathlib import Path

import pytest

from devtools.libvirt_host import LibvirtHost

pytestmark = [pytest.mark.agent, pytest.mark.guest, pytest.mark.slow]

STATE = "/var/lib/guestwire"
SERVE = f"""
cd {STATE}; export PYTHONPATH="$1"
"$0" -m guestwire serve 2>log & server=$!
until grep -q ' serves ' log; do kill -0 $server || exit 1; sleep 0.1; done
served() {{ "$0" -m guestwire --host https://127.0.0.1:8006 --token-file admin-token --ca server.pem ls; }}
"""
END = "kill $server; wait $server"


async def on_machine(folder: Path, script: str, *, libvirt: Path | None = None, has_binding: bool = True) -> str:
    """What a shell prints there, and the server's log behind that; `libvirt`: the folder of its sockets."""
    (folder / "state").mkdir()
    (folder / "run").mkdir()
    (folder / "sitecustomize.py").write_text("" if has_binding else "import sys; sys.modules['libvirt'] = None\n")
    bound = ["--bind", str(libvirt), "/run/libvirt"] if libvirt else []
    words = ["bwrap", "--dev-bind", "/", "/", "--bind", str(folder / "run"), "/run", *bound]
    words += ["--tmpfs", "/var/lib", "--bind", str(folder / "state"), STATE, "--unshare-net", "--unshare-pid"]
    words += [
        "--proc",
        "/proc",
        "--die-with-parent",
        "sh",
        "-c",
        f"{SERVE}{script}\n{END}",
        sys.executable,
        str(folder),
    ]
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("GUESTWIRE_", "XDG_"))}
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*words, stdout=pipe, stderr=asyncio.subprocess.STDOUT, env=kept)
    try:
        async with asyncio.timeout(90):
            output, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    log = (folder / "state" / "log").read_text()
    assert process.returncode == 0, output.decode() + log
    return output.decode() + log


@pytest.mark.usefixtures("libvirt_web")
async def test_server_and_client_find_the_vms_of_this_machines_libvirt(folder: Path, libvirt_host: LibvirtHost) -> None:
    listed = 'served; "$0" -m guestwire ls; "$0" -m guestwire ping web'

    said = await on_machine(folder, listed, libvirt=libvirt_host.sockets)

    assert sum({"web", "running"} <= set(line.split()) for line in said.splitlines()) == 2, said
    assert "serves 1 VM " in said


@pytest.mark.usefixtures("libvirt_web")
async def test_a_libvirt_that_starts_later_is_found_then(folder: Path, libvirt_host: LibvirtHost) -> None:
    starts = f"mkdir /run/libvirt; ln -s {libvirt_host.sockets}/libvirt-sock /run/libvirt/"
    later = f"{starts}; until served | grep web; do sleep 0.1; done"

    said = await on_machine(folder, later)

    assert "serves 0 VMs" in said
    assert said.count("no libvirt runs here") == 1


async def test_without_its_binding_the_server_starts_and_says_so_once(folder: Path, libvirt_host: LibvirtHost) -> None:
    said = await on_machine(folder, "served; sleep 2.5; served", libvirt=libvirt_host.sockets, has_binding=False)

    assert "serves 0 VMs" in said
    assert said.count("libvirt's Python binding is not installed") == 1
