"""Starting and ending VMs: by a command of the configuration, by the agent in the guest, or by QEMU itself."""

import asyncio
import contextlib
import os
import signal
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import IO, Final

from guestwire.agent import commands as qga
from guestwire.errors import GuestError, MonitorError
from guestwire.inventory.config import PowerConfig
from guestwire.inventory.libvirt_source import ACTIONS
from guestwire.inventory.task_runner import Say
from guestwire.inventory.vm import Vm

LOOK_EVERY: Final = 0.2
STOP_WITHIN: Final = 30.0
START_WITHIN: Final = 300.0
SHUTDOWN_WITHIN: Final = 180.0
"""Seconds, where the caller names none. Proxmox VE's is the same."""

AGENT_WITHIN: Final = 5.0
"""Seconds that an agent has to answer a ping, before QEMU is asked instead."""

KILLED_WITHIN: Final = 5.0

MAX_OUTPUT: Final = 64 * 1024

KINDS: Final = {action: f"qm{action}" for action in PowerConfig.__struct_fields__}
"""What Proxmox VE calls the tasks."""

ASK_GUEST: Final = frozenset({"shutdown", "reboot"})
"""The actions that a guest's agent is asked for."""

NEED_RUNNING: Final = frozenset({"reboot", "reset", "suspend", "resume"})


class Power:
    """What can be done to one VM. Each raises `GuestError` with the reason when it can't be done, or was not."""

    def __init__(self, vm: Vm, say: Say) -> None:
        self._vm = vm
        self._say = say
        self._name = f"VM {vm.config.vmid}"

    async def start(self, within: float | None = None) -> None:
        """Starts the VM and waits until it runs."""
        async with self._vm.start_turn:  # two QEMUs on one disk destroy it
            if await self._vm.is_running():
                raise GuestError(f"{self._name} already running")
            if self._vm.libvirt:
                await self._tell("start", "start")
            else:
                await self._run_command("start", within or START_WITHIN)
            await self._wait(self._vm.is_running, within or START_WITHIN, "start")

    async def stop(self, within: float | None = None) -> None:
        """Ends the VM's process at once, as pulling the plug does."""
        if not await self._vm.is_running():
            self._say(f"{self._name} is not running")
            return
        if self._vm.config.power.stop:
            await self._run_command("stop", within or STOP_WITHIN)
        else:
            await self._tell("quit", "stop")
        await self._wait_off(within or STOP_WITHIN, "stop")

    async def shutdown(self, within: float | None = None, *, force: bool = False) -> None:
        """Asks the guest to shut down, and waits until it is off; `force` pulls the plug where it does not."""
        if not await self._vm.is_running():
            self._say(f"{self._name} is not running")
            return
        try:
            if self._vm.config.power.shutdown:
                await self._run_command("shutdown", within or SHUTDOWN_WITHIN)
            elif await self._agent_answers():
                self._say("the guest's agent is asked to shut down")
                await self._agent_shutdown("powerdown")
            else:
                await self._tell("system_powerdown", "shutdown")
            await self._wait_off(within or SHUTDOWN_WITHIN, "shutdown")
        except GuestError as error:
            if not force:
                raise
            self._say(f"{error}; it is stopped now")
            await self.stop()

    async def reboot(self, within: float | None = None) -> None:
        """Asks the guest to start anew, and waits until it does."""
        if self._vm.config.power.reboot:
            await self._run_command("reboot", within or SHUTDOWN_WITHIN)
        elif await self._agent_answers():
            self._say("the guest's agent is asked to reboot")
            resets = self._vm.resets
            await self._agent_shutdown("reboot")
            if resets is not None:
                await self._wait(lambda: _has_reset(self._vm, resets), within or SHUTDOWN_WITHIN, "reboot")
        elif self._vm.config.power.start or self._vm.libvirt:
            await self.shutdown(within)
            await self.start(within)
        else:
            raise GuestError(
                f"{self._name} can't be rebooted: its agent does not answer, and no command is named to start it after a"
                " shutdown; name one as reboot or start under [vm.power]"
            )

    async def reset(self) -> None:
        """Starts the VM anew at once, as its reset button does."""
        await self._by_command_or("reset", "system_reset")

    async def suspend(self) -> None:
        """Halts the VM's processors; its memory stays."""
        await self._by_command_or("suspend", "stop")

    async def resume(self) -> None:
        """Lets its processors go on; wakes a guest that sleeps."""
        if self._vm.monitor and not self._vm.config.power.resume:
            status = await self._vm.monitor.execute("query-status")
            if status.get("status") == "suspended":
                await self._tell("system_wakeup", "resume")
                return
        if (found := self._vm.libvirt) and await found.source.is_asleep(found.domain.uuid):
            await self._tell("system_wakeup", "resume")
            return
        await self._by_command_or("resume", "cont")

    async def _by_command_or(self, action: str, command: str) -> None:
        if getattr(self._vm.config.power, action):
            await self._run_command(action, STOP_WITHIN)
        else:
            await self._tell(command, action)

    async def _tell(self, command: str, action: str) -> None:
        if found := self._vm.libvirt:
            self._say(f"libvirt is told: {ACTIONS[command]}")
            await found.source.act(found.domain.uuid, command)
            return
        if self._vm.monitor is None:
            raise GuestError(
                f"{self._name}: {action} needs QEMU's own socket or a command; name qmp under [[vm]], or {action} under"
                " [vm.power]"
            )
        self._say(f"QEMU is told: {command}")
        try:
            await self._vm.monitor.execute(command)
        except MonitorError:
            if command != "quit" or await self._vm.is_running():
                raise

    async def _agent_answers(self) -> bool:
        if self._vm.agent is None:
            return False
        with contextlib.suppress(GuestError, TimeoutError):
            async with asyncio.timeout(AGENT_WITHIN):
                await self._vm.agent.execute(qga.PING)
                return True
        return False

    async def _agent_shutdown(self, mode: str) -> None:
        if found := self._vm.libvirt:
            await found.source.ask_agent(found.domain.uuid, mode)
        elif self._vm.agent:
            await self._vm.agent.execute(qga.SHUTDOWN, {"mode": mode})

    async def _run_command(self, action: str, within: float) -> None:
        command: Sequence[str] | None = getattr(self._vm.config.power, action)
        if command is None:
            raise GuestError(f"{self._name}: nothing here can {action} it; name a command as {action} under [vm.power]")
        self._say(f"runs {command[0]}")  # its arguments may be secrets
        with tempfile.TemporaryFile() as written:  # not a pipe: what the command leaves running would keep that open
            code = await _run(command, written, within)
            written.seek(0)
            output = written.read(MAX_OUTPUT).decode(errors="replace").strip()
        if output:
            self._say(output)
        if code:
            raise GuestError(f"{command[0]} failed with exit code {code}")

    async def _wait_off(self, within: float, action: str) -> None:
        async def is_off() -> bool:
            return not await self._vm.is_running()

        await self._wait(is_off, within, action)

    async def _wait(self, holds: Callable[[], Awaitable[bool]], within: float, action: str) -> None:
        deadline = time.monotonic() + within
        while not await holds():
            if time.monotonic() >= deadline:
                raise GuestError(f"{self._name}: {action} failed - got timeout")
            await asyncio.sleep(LOOK_EVERY)


async def _has_reset(vm: Vm, before: int) -> bool:
    return (vm.resets or 0) > before


async def _run(command: Sequence[str], output: IO[bytes], within: float) -> int:
    try:
        process = await asyncio.create_subprocess_exec(
            *command, stdin=asyncio.subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
        )
    except OSError as error:
        raise GuestError(f"{command[0]}: {error.strerror}") from error
    try:
        async with asyncio.timeout(within):
            return await process.wait()
    except TimeoutError:
        raise GuestError(f"{command[0]} did not end in {within:g} seconds") from None
    finally:
        if process.returncode is None:
            # One of another user (sudo), or one that waits for a disk, can't be ended, and is not waited for.
            with contextlib.suppress(ProcessLookupError, PermissionError, TimeoutError):
                os.killpg(process.pid, signal.SIGKILL)
                async with asyncio.timeout(KILLED_WITHIN):
                    await process.wait()
