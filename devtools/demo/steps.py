"""What the demo does: a request for every route, and how its effect is checked inside the guest.

The guest is looked into over its serial console, not through the agent that is being shown.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Final

from devtools.demo.server import Answer, DemoError, Server
from devtools.guests import Machine

PASSWORD: Final = "correct horse 42"  # noqa: S105  # of a guest that ends with the demo
TEXT: Final = "written by guestwire: caf\u00e9\n"
CLOCK_TOLERANCE: Final = 30
BOOT_TIMEOUT: Final = 90.0


@dataclass(slots=True)
class Scene:
    """What a check may use; `notes` carries facts from one step to the next."""

    machine: Machine
    server: Server
    notes: dict[str, Any] = field(default_factory=dict)

    async def equal(self, what: str, command: str, expected: object) -> str:
        """The shell command's output in the guest must be `expected`; `what` names its source."""
        seen = (await self.machine.shell(command)).strip()
        expect(seen == str(expected), f"`{command}` in the guest says {seen!r}, the answer {expected!r}")
        return f"{what} says the same"

    async def usable(self) -> None:
        """Waits until the guest answers through the server.

        Raises:
            DemoError: it does not in time.
        """
        await until_usable(self.server, self.server.url)


async def until_usable(server: Server, url: str) -> None:
    """Waits until a guest answers through the server; `url` is its agent's.

    Raises:
        DemoError: it does not in time.
    """
    try:
        async with asyncio.timeout(BOOT_TIMEOUT):
            while (await server.call("POST", "ping", {}, url=url)).status != 200:  # noqa: ASYNC110, PLR2004  # only asking tells
                await asyncio.sleep(0.05)
    except TimeoutError:
        raise DemoError(f"the guest did not answer again in {BOOT_TIMEOUT:g} seconds") from None


Check = Callable[[Scene, Answer], Awaitable[str]]


@dataclass(frozen=True, slots=True)
class Step:
    """One request; `check` returns in a few words what was found in the guest, or raises."""

    method: str
    name: str
    check: Check
    parameters: dict[str, Any] = field(default_factory=dict)


def expect(holds: object, problem: str) -> None:
    """Ends the step when something does not hold.

    Raises:
        DemoError: with the problem.
    """
    if not holds:
        raise DemoError(problem)


async def names_all(_: Scene, answer: Answer) -> str:
    """The index names 25 endpoints."""
    expect(len(answer.data) == 25, f"{len(answer.data)} names")  # noqa: PLR2004  # as Proxmox VE
    return "25 names"


async def pings(scene: Scene, answer: Answer) -> str:
    """An agent runs in the guest."""
    expect(answer.result == {}, "not an empty object")
    return f"qemu-ga runs as process {(await scene.machine.shell('pidof qemu-ga')).strip()}"


async def host_name(scene: Scene, answer: Answer) -> str:
    """The guest's host name."""
    return await scene.equal("hostname", "hostname", answer.result["host-name"])


async def osinfo(scene: Scene, answer: Answer) -> str:
    """The guest's kernel."""
    return await scene.equal("uname -r", "uname -r", answer.result["kernel-release"])


async def clock(scene: Scene, answer: Answer) -> str:
    """The guest's clock."""
    seconds = int((await scene.machine.shell("date +%s")).strip())
    expect(abs(seconds - answer.result / 1e9) < CLOCK_TOLERANCE, f"the guest's clock says {seconds}")
    return "date says the same"


async def timezone(scene: Scene, answer: Answer) -> str:
    """The guest's time zone."""
    hours, minutes = divmod(abs(answer.result["offset"]) // 60, 60)
    return await scene.equal(
        "date +%z", "date +%z", f"{'-' if answer.result['offset'] < 0 else '+'}{hours:02d}{minutes:02d}"
    )


async def users(scene: Scene, answer: Answer) -> str:
    """Who is logged in to the guest."""
    return await scene.equal(
        "who", "who | awk '{print $1}' | sort -u", "\n".join(sorted({user["user"] for user in answer.result}))
    )


async def vcpus(scene: Scene, answer: Answer) -> str:
    """The guest's processors."""
    return await scene.equal("nproc", "nproc", len(answer.result))


async def file_systems(scene: Scene, answer: Answer) -> str:
    """The guest's data disk."""
    mounted = {system["mountpoint"]: system for system in answer.result}
    return await scene.equal(
        "/proc/mounts", "awk '$2 == \"/mnt/data\" {print $3}' /proc/mounts", mounted["/mnt/data"]["type"]
    )


async def memory_blocks(scene: Scene, answer: Answer) -> str:
    """The guest's memory blocks."""
    return await scene.equal(
        "/sys/devices/system/memory", "ls -d /sys/devices/system/memory/memory[0-9]* | wc -l", len(answer.result)
    )


async def memory_block_info(scene: Scene, answer: Answer) -> str:
    """Their size."""
    return await scene.equal(
        "block_size_bytes", "cat /sys/devices/system/memory/block_size_bytes", f"{answer.result['size']:x}"
    )


async def agent_info(scene: Scene, answer: Answer) -> str:
    """The agent's version."""
    return await scene.equal(
        "qemu-ga --version", "qemu-ga --version | grep -o '[0-9][0-9.]*' | head -n 1", answer.result["version"]
    )


async def interfaces(scene: Scene, answer: Answer) -> str:
    """The guest's network card."""
    cards = {card["name"]: card for card in answer.result}
    return await scene.equal(
        "/sys/class/net/eth0", "cat /sys/class/net/eth0/address", cards["eth0"]["hardware-address"]
    )


async def written(scene: Scene, answer: Answer) -> str:
    """The file has the bytes."""
    expect(answer.data is None, "an answer where none is expected")
    return await scene.equal("od", "od -An -tx1 -v /mnt/data/demo.txt | tr -d ' \\n'", TEXT.encode("latin-1").hex())


async def read_back(_: Scene, answer: Answer) -> str:
    """The content is the file's."""
    expect(answer.data["content"] == TEXT, f"the content is {answer.data['content']!r}")
    return f"{answer.data['bytes-read']} bytes, the same"


async def started(scene: Scene, answer: Answer) -> str:
    """The process has left its mark in the guest."""
    scene.notes["pid"] = answer.data["pid"]
    await scene.machine.shell("until grep -q ran /tmp/ran; do sleep 0.1; done 2>/dev/null")
    return "its file is there"


async def ended(_: Scene, answer: Answer) -> str:
    """It ended as it was told to."""
    expect(answer.data["exitcode"] == 3, f"exit code {answer.data.get('exitcode')}")  # noqa: PLR2004  # see STEPS
    expect(
        answer.data["out-data"] == "caf\u00e9\n".encode().decode("latin-1"), f"output {answer.data.get('out-data')!r}"
    )
    return "exit code and output are right"


async def password_opens(scene: Scene, answer: Answer) -> str:
    """The password opens, another does not."""
    expect(answer.result == {}, "not an empty object")
    await scene.machine.shell(f"check-password labuser '{PASSWORD}'")
    await scene.machine.shell("! check-password labuser wrong")
    return "the password opens"


async def frozen(scene: Scene, answer: Answer) -> str:
    """A write to the file system waits."""
    expect(answer.result > 0, "nothing was frozen")
    await scene.machine.shell("(touch /mnt/data/waits &) ; sleep 0.5; [ -n \"$(ps -o stat,args | grep '^D.*touch')\" ]")
    return "a write waits"


async def is_frozen(_: Scene, answer: Answer) -> str:
    """The agent says so, too."""
    expect(answer.result == "frozen", f"the answer is {answer.result}")
    return "frozen, as the waiting write shows"


async def thawed(scene: Scene, answer: Answer) -> str:
    """The write that waited is done."""
    expect(answer.result > 0, "nothing was thawed")
    await scene.machine.shell(
        "for n in 1 2 3 4 5 6 7 8 9; do [ -e /mnt/data/waits ] && break; sleep 0.2; done; rm /mnt/data/waits"
    )
    return "the write is done"


async def trimmed(_: Scene, answer: Answer) -> str:
    """Blocks were given back."""
    paths = {path["path"]: path for path in answer.result["paths"]}
    expect(paths["/mnt/data"].get("trimmed", 0) > 0, f"nothing was trimmed: {paths}")
    return f"{paths['/mnt/data']['trimmed']} bytes given back"


async def woken(scene: Scene, answer: Answer) -> str:
    """The guest slept, and wakes."""
    expect(answer.result is None, "an answer where none is expected")
    await scene.machine.wake()
    await scene.usable()
    return "slept, woken by QEMU, answers"


async def hybrid(scene: Scene, answer: Answer) -> str:
    """It slept, or the guest's kernel offers no such sleep and the agent says so."""
    if "suspend" in await _sleep_modes(scene, answer):
        return await woken(scene, answer)
    expect("error" in answer.data["result"], "no error, and the kernel offers no such sleep")
    return "the kernel offers no such sleep"


async def _sleep_modes(scene: Scene, answer: Answer) -> str:
    if answer.data["result"] is None:
        return "suspend"
    return await scene.machine.shell("cat /sys/power/disk")


async def resumed(scene: Scene, answer: Answer) -> str:
    """QEMU ended; a second one goes on where the first stopped."""
    expect(answer.result is None, "an answer where none is expected")
    await scene.machine.wait_exit()
    await scene.machine.start()
    await scene.usable()
    await scene.machine.shell("cat /tmp/ran")
    return "QEMU ended; resumed, /tmp is still there"


async def booted_again(scene: Scene, answer: Answer) -> str:
    """QEMU ended; a fresh boot has forgotten /tmp."""
    expect(answer.result is None, "an answer where none is expected")
    await scene.machine.wait_exit()
    await scene.machine.start()
    await scene.usable()
    await scene.machine.shell("[ ! -e /tmp/ran ] && [ -s /mnt/data/demo.txt ]")
    return "powered off; booted again, disk intact"


STEPS: Final = (
    Step("GET", "", names_all),
    Step("POST", "ping", pings),
    Step("GET", "info", agent_info),
    Step("GET", "get-osinfo", osinfo),
    Step("GET", "get-host-name", host_name),
    Step("GET", "get-time", clock),
    Step("GET", "get-timezone", timezone),
    Step("GET", "get-users", users),
    Step("GET", "get-vcpus", vcpus),
    Step("GET", "get-fsinfo", file_systems),
    Step("GET", "get-memory-blocks", memory_blocks),
    Step("GET", "get-memory-block-info", memory_block_info),
    Step("GET", "network-get-interfaces", interfaces),
    Step("POST", "file-write", written, {"file": "/mnt/data/demo.txt", "content": TEXT}),
    Step("GET", "file-read", read_back, {"file": "/mnt/data/demo.txt"}),
    Step("POST", "exec", started, {"command": ["/bin/sh", "-c", "echo café; echo ran > /tmp/ran; exit 3"]}),
    Step("GET", "exec-status", ended, {"pid": "{pid}"}),
    Step("POST", "set-user-password", password_opens, {"username": "labuser", "password": PASSWORD}),
    Step("POST", "fsfreeze-freeze", frozen),
    Step("POST", "fsfreeze-status", is_frozen),
    Step("POST", "fsfreeze-thaw", thawed),
    Step("POST", "fstrim", trimmed),
    Step("POST", "", host_name, {"command": "get-host-name"}),
    Step("POST", "suspend-ram", woken),
    Step("POST", "suspend-hybrid", hybrid),
    Step("POST", "suspend-disk", resumed),
    Step("POST", "shutdown", booted_again),
)
