"""Freezes come to their end: at that of their lease, or of their caller's connection, and when the server stops.

Guests that are frozen when the server starts are named in the log; what should have ended by then ends first of all.
"""

import asyncio
import contextlib
import logging
from functools import partial
from typing import Any, Final

from guestwire.access import Subject
from guestwire.access.control import Access
from guestwire.access.engine import SUPERUSER
from guestwire.contract import Endpoint
from guestwire.contract.endpoints.agent import fsfreeze_status, fsfreeze_thaw
from guestwire.dispatch import Call, Pipeline, Recorder, Route, Router, parameters_given
from guestwire.errors import GuestwireError, VmNotFound, VmNotRunning
from guestwire.inventory import Inventory, Lease
from guestwire.inventory.freezes import THAWED, in_words
from guestwire.pacing import Backoff

log = logging.getLogger("guestwire.freezes")

ANSWER_WITHIN: Final = 10.0
"""Seconds for a guest to say whether it is frozen, after a start, and to thaw, before the end."""

FIRST_PAUSE: Final = 0.2
LONGEST_PAUSE: Final = 2.0
"""Seconds until a guest that could not be thawed is told again."""

SERVER: Final = "server"
"""In audit records, in place of a client's address."""


class FrozenGuests:
    """Calls guests on behalf of the server itself, by the pipeline of all calls: what it does is recorded."""

    def __init__(self, inventory: Inventory, access: Access, recorder: Recorder) -> None:
        self._inventory = inventory
        self._freezes = inventory.freezes
        self._pipeline = Pipeline(
            Router(()), lambda call: Lease(inventory, access, call.subject, call.address), recorder=recorder
        )

    async def report(self) -> None:
        """Says of each guest that was frozen before the server started whether it still is; forgets those that are not."""
        due, _ = self._freezes.due()
        await asyncio.gather(*map(self._report, self._freezes.frozen.keys() - due))

    async def end_leases(self) -> None:
        """Thaws each guest whose freeze should end, until cancelled; again and again, until it says that it is thawed."""
        ending: dict[int, asyncio.Task[None]] = {}
        try:
            while True:
                self._freezes.changed.clear()
                due, pause = self._freezes.due()
                for vmid in set(due) - ending.keys():
                    task = ending[vmid] = asyncio.create_task(
                        self._end_lease(vmid), name=f"end of the freeze of VM {vmid}"
                    )
                    task.add_done_callback(partial(_forget, ending, vmid))
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(pause):
                        await self._freezes.changed.wait()
        finally:
            for task in ending.values():
                task.cancel()
            await asyncio.gather(*ending.values(), return_exceptions=True)

    async def _end_lease(self, vmid: int) -> None:
        backoff, first = Backoff(FIRST_PAUSE, LONGEST_PAUSE), True
        while self._freezes.is_due(vmid):
            note = self._freezes.frozen[vmid]
            try:
                if vmid not in self._inventory.vms:  # a reload, or a libvirt that answers again, may bring it back
                    raise VmNotFound(vmid, self._inventory.node)
                await self._call(fsfreeze_thaw, vmid)
            except VmNotRunning:
                await self._freezes.forget(vmid)
            except (GuestwireError, TimeoutError) as error:
                log.log(
                    logging.ERROR if first else logging.DEBUG,
                    "VM %d should be thawed, for %s, and can't be: %s; it is tried again",
                    vmid, in_words(note), str(error) or "it does not answer",
                )  # fmt: skip
            first = False
            if self._freezes.is_due(vmid):
                await asyncio.sleep(backoff.next())

    async def thaw(self) -> None:
        """Thaws what was frozen through this process, and names what stays frozen."""
        await asyncio.gather(*map(self._thaw, tuple(self._freezes.own)))
        for vmid, note in self._freezes.frozen.items():
            log.warning("VM %d stays frozen: %s; thaw it: guestwire thaw %d", vmid, in_words(note), vmid)

    async def _report(self, vmid: int) -> None:
        note = self._freezes.frozen[vmid]
        try:
            status = await self._call(fsfreeze_status, vmid)
        except (VmNotFound, VmNotRunning) as error:
            if isinstance(error, VmNotFound) and any(source.problem for source in self._inventory.sources.values()):
                log.warning("VM %d may still be frozen, and can't be seen now: %s", vmid, in_words(note))
                return
            await self._freezes.forget(vmid)
            log.warning("%s: %s, and no freeze outlasts that", in_words(note), error)
        except (GuestwireError, TimeoutError) as error:
            log.warning(
                "VM %d may still be frozen, for %s: %s", vmid, str(error) or "it does not answer", in_words(note)
            )
        else:
            if status == THAWED:
                await self._freezes.forget(vmid)
                log.info("VM %d is not frozen any more: %s", vmid, in_words(note))
            else:
                log.warning("VM %d is still frozen: %s; thaw it: guestwire thaw %d", vmid, in_words(note), vmid)

    async def _thaw(self, vmid: int) -> None:
        try:
            await self._call(fsfreeze_thaw, vmid)
        except (GuestwireError, TimeoutError) as error:
            log.error("VM %d can't be thawed: %s", vmid, str(error) or "it does not answer")  # noqa: TRY400  # no trace

    async def _call(self, endpoint: Endpoint, vmid: int) -> Any:
        """An agent's answer; an error of its own is a text that says nothing of a freeze."""
        in_path = {"node": self._inventory.node, "vmid": str(vmid)}
        call = Call(endpoint.method, endpoint.path, parameters_given({}), Subject(SUPERUSER), SERVER, actor="guestwire")
        call.route, call.parameters = Route(endpoint, in_path), in_path
        async with asyncio.timeout(ANSWER_WITHIN):
            return (await self._pipeline.call(call)).result


def _forget(ending: dict[int, asyncio.Task[None]], vmid: int, task: asyncio.Task[None]) -> None:
    del ending[vmid]
    if not task.cancelled() and (error := task.exception()):
        log.error("unexpected error", exc_info=error)
