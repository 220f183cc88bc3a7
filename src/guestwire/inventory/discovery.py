"""VMs that come and go by themselves: the sources are looked at again and again, and the inventory follows."""

import asyncio
import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from guestwire.inventory.config import VmConfig
from guestwire.inventory.found import FoundVm, Source
from guestwire.inventory.vmids import Vmids
from guestwire.inventory.vms import Inventory

log = logging.getLogger("guestwire.discovery")

EVERY: Final = 1.0
"""Seconds from one look to the next."""


class Discovery:
    """Finds VMs for an inventory.

    Args:
        inventory: gets those that can be used, beside the ones that the configuration names.
        sources: what is asked, in this order: of a VM that two find, the first counts.
        vmids: gives ids.

    Attributes:
        named: what the configuration names; it counts before what is found.
        sources: as above; another list counts from the next look on.
        unusable: what was found and can't be used, at the last look.
    """

    def __init__(
        self, inventory: Inventory, sources: Sequence[Source], vmids: Vmids, named: Iterable[VmConfig] = ()
    ) -> None:
        self.named = list(named)
        self.unusable: list[FoundVm] = []
        self._inventory = inventory
        self.sources = sources
        self._vmids = vmids
        self._applied: list[VmConfig] | None = None
        self._troubles: Mapping[str, str] = {}
        self._turn = asyncio.Lock()

    @property
    def served(self) -> int:
        """How many VMs the inventory got at the last look."""
        return len(self._applied or ())

    async def look(self) -> None:
        """Asks all sources, and makes the inventory what they say."""
        async with self._turn:
            found, troubles = await asyncio.to_thread(self._ask)
            for name in troubles.keys() - self._troubles.keys():
                log.warning("VMs of %s are not known: %s", name, troubles[name])
            self._troubles = troubles
            named_sockets = {vm.agent for vm in self.named if vm.agent}
            usable = [vm for vm in found if (vm.agent or vm.qmp) and vm.agent not in named_sockets]
            known = {vm.key for vm in self.unusable}
            self.unusable = [vm for vm in found if vm.problem]
            for vm in self.unusable:
                if vm.key not in known:
                    log.info("%s (%s) can't be used: %s; %s", ascii(vm.name), vm.source, ascii(vm.problem), vm.hint)
            vmids = await self._vmids.give(usable, {vm.vmid for vm in self.named})
            configs = [*self.named, *(vm.config(vmids[vm.key]) for vm in usable)]
            if configs != self._applied:
                await self._inventory.apply(configs)
                self._log_changes(configs)
                self._applied = configs

    async def follow(self) -> None:
        """Looks again and again, until it is cancelled."""
        while True:
            await asyncio.sleep(EVERY)
            if not self.sources:
                continue
            try:
                await self.look()
            except Exception:  # a source's own fault must not end the others
                log.exception("unexpected error while VMs are looked for")

    def _ask(self) -> tuple[list[FoundVm], dict[str, str]]:
        found: dict[str, FoundVm] = {}
        troubles = {}
        for source in self.sources:
            try:
                for vm in source.find():
                    if vm.key not in found:
                        found[vm.key] = vm
            except OSError as error:
                troubles[source.name] = str(error.strerror or error)
        return list(found.values()), troubles

    def _log_changes(self, configs: Iterable[VmConfig]) -> None:
        before = {vm.vmid: vm.name for vm in self._applied or ()}
        after = {vm.vmid: vm.name for vm in configs}
        for vmid in sorted(after.keys() - before.keys()):
            log.info("VM %d (%s) is there", vmid, ascii(after[vmid]))
        for vmid in sorted(before.keys() - after.keys()):
            log.info("VM %d (%s) is gone", vmid, ascii(before[vmid]))
