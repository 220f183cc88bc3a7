"""`./dev demo [--once | --serve]`."""

import argparse
import asyncio
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from devtools.demo.folder import own_folder
from devtools.demo.server import WITH_SSH, Answer, DemoError, Server
from devtools.demo.steps import STEPS, Scene, Step, until_usable
from devtools.guests import Machine, accelerator, build, build_debian, default_cache
from guestwire.errors import GuestwireError

LONGEST: Final = 42
LONGEST_STAY: Final = 30 * 86400.0
"""Seconds."""

BUILD_DEBIAN: Final = """
import sys
from devtools.guests import build_debian, default_cache
from guestwire.errors import GuestImageError
try:
    build_debian(default_cache())
except GuestImageError as error:
    sys.exit(str(error))
"""
"""In a process of its own, which can be ended."""

SECRET: Final = "password"  # noqa: S105  # a parameter's name


def main() -> None:
    """Runs the demo; exit status 0 only when every route did what it should in the guest."""
    parser = argparse.ArgumentParser(
        prog="./dev demo", description="Boots a real guest, serves it, and drives every route over HTTPS."
    )
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--once", action="store_true", help="end after the table")
    length.add_argument("--serve", action="store_true", help="leave out the table, and stay at once")
    parser.add_argument(
        "--agent", choices=("host", "trixie"), default="host", help="whose guest agent: the host's, or Debian 13's"
    )
    options = parser.parse_args()
    console = Console(width=None if sys.stdout.isatty() else 140)
    # Every end is an end by Ctrl-C, which ends guest and server, and removes what they leave.
    # What a script starts with `&` has Ctrl-C ignored, and the others would be nothing either.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for signum in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, lambda *_: signal.raise_signal(signal.SIGINT))
    try:
        failed = asyncio.run(_demo(console, options))
    except KeyboardInterrupt:
        console.print("stopped")
        failed = 0
    except GuestwireError as error:
        console.print(f"demo: {error}", style="red", markup=False)
        sys.exit(error.exit_code)
    sys.exit(1 if failed else 0)


async def _demo(console: Console, options: argparse.Namespace) -> int:
    began = time.monotonic()
    with console.status("building the guest from packages (once; it is cached)"):
        image = await asyncio.to_thread(build, default_cache(), agent=options.agent)
    with console.status("finding out whether KVM works here (once)"):
        accel = await accelerator(image)
    with own_folder() as folder:
        machine = Machine(image, folder, accel=accel)
        with console.status(f"booting the guest with {accel}"):
            await machine.start()
        try:
            async with Server(folder, machine) as server:
                scene = Scene(machine, server)
                await scene.usable()
                console.print(
                    f"guest agent {image.agent_version} up after {time.monotonic() - began:.1f} s ({accel})\n"
                )
                failed = 0 if options.serve else await _drive(console, scene)
                if not options.once:
                    await _stay(console, server, machine, folder, accel)
        finally:
            await machine.stop()
    return failed


async def _drive(console: Console, scene: Scene) -> int:
    """Every step, shown as it is done; returns how many failed."""
    table = Table(title="Every route, over HTTPS, in a real guest", title_justify="left")
    table.add_column("request", style="bold", no_wrap=True)
    table.add_column("answer", no_wrap=True)
    table.add_column("ms", justify="right", style="cyan", no_wrap=True)
    table.add_column("checked in the guest")
    failed = 0
    with Live(table, console=console, auto_refresh=False, vertical_overflow="visible") as live:
        for step in STEPS:
            answer, verdict, good = await _do(scene, step)
            failed += not good
            milliseconds = f"{answer.seconds * 1000:.1f}" if answer else "-"
            table.add_row(
                Text(_request(step, _parameters(scene, step))),
                Text(_short(answer)),
                milliseconds,
                Text(verdict, style="green" if good else "red"),
            )
            if console.is_terminal:
                live.refresh()
    console.print()
    console.print(f"{len(STEPS) - failed} of {len(STEPS)} routes did what they should.")
    return failed


async def _do(scene: Scene, step: Step) -> tuple[Answer | None, str, bool]:
    answer = None
    try:
        answer = await scene.server.call(step.method, step.name, _parameters(scene, step))
        return answer, await step.check(scene, answer), True
    except (GuestwireError, TimeoutError, OSError, KeyError, TypeError) as error:
        return answer, f"{type(error).__name__}: {error}" if not isinstance(error, DemoError) else str(error), False


def _parameters(scene: Scene, step: Step) -> dict[str, Any]:
    """The step's parameters; `{pid}` stands for the process that an earlier step started."""
    return {name: scene.notes.get("pid", 0) if value == "{pid}" else value for name, value in step.parameters.items()}


def _request(step: Step, parameters: dict[str, Any]) -> str:
    shown = {name: "…" if name == SECRET else value for name, value in parameters.items()}
    values = " ".join(
        f"{name}={value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)}"
        for name, value in shown.items()
    )
    return _cut(f"{step.method} agent/{step.name}".rstrip("/") + (f" {values}" if values else ""))


def _short(answer: Answer | None) -> str:
    if answer is None:
        return "-"
    return _cut(f"{answer.status} {json.dumps(answer.body, ensure_ascii=False)}")


def _cut(text: str) -> str:
    text = text.encode("unicode_escape").decode() if not text.isprintable() else text
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"


async def _stay(console: Console, server: Server, machine: Machine, folder: Path, accel: str) -> None:
    _say(console, *_to_copy(server, machine.vmid))
    more = asyncio.create_task(_guest_with_ssh(console, server, folder, accel), name="a guest with an SSH server")
    try:
        await machine.wait_exit(within=LONGEST_STAY)
    finally:
        more.cancel()
        await asyncio.gather(more, return_exceptions=True)
    console.print("The guest was stopped: so the demo ends, and what it made is gone.", highlight=False)


async def _guest_with_ssh(console: Console, server: Server, folder: Path, accel: str) -> None:
    """Boots a larger guest beside the first, for which nobody has to wait: it takes seconds, and a minute where it must be built."""
    key = folder / "key"
    try:
        await _run(sys.executable, "-c", BUILD_DEBIAN)
        image = await asyncio.to_thread(build_debian, default_cache())
        async with Machine(image, folder, vmid=WITH_SSH, accel=accel) as debian:
            await _run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "demo", "-f", str(key))
            await until_usable(server, server.url_of(debian.vmid))
            _say(
                console,
                "",
                "A Debian guest without a network runs now, too:",
                "",
                f"{_command(server)} ssh --push-key root@debian -i {key}",
                f"{_command(server)} logs -f debian",
                f"{_command(server)} exec -t debian -- top",
            )
            await debian.wait_exit(within=LONGEST_STAY)
    except GuestwireError as error:
        console.print(f"There is no guest with an SSH server: {error}", markup=False, highlight=False)


async def _run(*command: str) -> None:
    """Runs a program to its end; what ends the demo ends that, with all that it started.

    Raises:
        DemoError: it failed.
    """
    process = await asyncio.create_subprocess_exec(
        "setpriv", "--pdeathsig", "TERM", *command, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        start_new_session=True,
    )  # fmt: skip
    try:
        output, _ = await process.communicate()
    finally:
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
    if process.returncode:
        raise DemoError(output.decode("utf-8", "replace")[-400:].strip() or f"{command[0]} failed")


def _say(console: Console, *lines: str) -> None:
    for line in lines:
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def _command(server: Server) -> str:
    program = f"{Path(sys.executable).with_name('guestwire')} --host https://127.0.0.1:{server.port}"
    return f"{program} --token-file {server.state_dir}/admin-token --ca {server.state_dir}/server.pem"


def _to_copy(server: Server, vmid: int) -> tuple[str, ...]:
    curl = f"curl --cacert {server.state_dir}/server.pem -H 'Authorization: PVEAPIToken={server.token}'"
    command = _command(server)
    return (
        f"address  https://127.0.0.1:{server.port}",
        f"token    {server.token}",
        "",
        f"{curl} -X POST {server.url}/ping",
        f"{curl} {server.url}/get-osinfo",
        f"{curl} -X POST {server.url}/exec -d command=uname -d command=-a",
        "",
        f"{command} exec {vmid} -- uname -a",
        f"{command} shell {vmid}",
        f"claude mcp add guests -- {command} mcp",
        "",
        "Ctrl-C ends it, and so does stopping the guest.",
    )


main()
