"""Administration without the server: its store, opened beside it, and the endpoints of `/access` run here by the same pipeline.

So the command line checks, changes, words and records everything as the API does. The server may run or not; it sees a
change by itself.
"""

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator, Iterable, Mapping
from pathlib import Path
from typing import Any, Final, NoReturn

import msgspec

from guestwire import stores
from guestwire.access import Subject
from guestwire.access.administration import existing_token, existing_user
from guestwire.access.control import Access
from guestwire.access.engine import SUPERUSER
from guestwire.access.explanation import explain
from guestwire.access.subject import split
from guestwire.app.state import StateLocation, user_name
from guestwire.contract import Endpoint, HostFigures, VmState, rules, validate
from guestwire.contract.parameters import Rule
from guestwire.contract.registry import ENDPOINTS
from guestwire.dispatch import Call, Pipeline, Recorder, Route, Router, new_id, parameters_given
from guestwire.dispatch.audit import AuditRecorder, AuditWriter
from guestwire.errors import Forbidden, InvalidParameters, VmNotFound
from guestwire.stores import KeptStore, SqliteStore

LOCAL: Final = "local"
"""In audit records, in place of a client's address."""

ROOT: Final = Subject(SUPERUSER)
"""The caller of everything here: who can write to the store may do everything anyway."""


class _StoreContext:
    """The contexts of endpoints, with users and without guests."""

    fingerprint = None
    subject = ROOT
    address = LOCAL

    def __init__(self, access: Access, node: str) -> None:
        self.access = access
        self.node = node

    async def agent(self, vmid: int) -> NoReturn:
        """See `GuestContext.agent`: no guest is reached from here."""
        raise VmNotFound(vmid, self.node)

    async def vms(self) -> list[VmState]:
        """See `NodeContext.vms`: the store knows those in pools, and not whether they run."""
        return await self.details(sorted(self.access.snapshot.pool_of))

    async def details(self, vmids: Iterable[int]) -> list[VmState]:
        """See `NodeContext.details`: as above."""
        return [VmState(vmid=vmid, name="", status="") for vmid in vmids]

    async def figures(self) -> HostFigures:
        """See `NodeContext.figures`."""
        return HostFigures()

    def may(self, path: str, any_of: Iterable[str]) -> bool:
        """See `NodeContext.may`."""
        return self.access.may(ROOT, path, any_of)

    def release(self) -> None:
        """Nothing is held for one call."""


class OfflineAdmin:
    """A server's store, and calls of the API on it; made by `open_offline`."""

    def __init__(
        self, node: str, store: KeptStore, recorder: Recorder, endpoints: Iterable[Endpoint] = ENDPOINTS
    ) -> None:
        self.node = node
        self._endpoints = {(endpoint.method, endpoint.path): endpoint for endpoint in endpoints}
        self.store = store
        self._access = Access(store)
        context = _StoreContext(self._access, node)
        self._pipeline = Pipeline(
            Router(endpoints), lambda _: context, recorder=recorder, node=node,
            authorise=lambda call, endpoint: self._access.require(call.subject, endpoint.check, call.parameters),
        )  # fmt: skip
        # Behind sudo, the person who called it.
        caller = os.environ.get("SUDO_USER") if os.geteuid() == 0 else None
        self._operator = f"{caller or user_name(os.geteuid())}@pam"

    async def call(self, method: str, path: str, given: Mapping[str, Any] | None = None) -> Any:
        """Calls an endpoint as `root@pam`; parameters that are None are left out. Refusals are recorded, too.

        Args:
            method: GET, POST, PUT or DELETE.
            path: as the endpoint's record has it, with its parameters in braces.
            given: all parameters, those of the path too.

        Returns:
            What the API answers as `data`.

        Raises:
            RequestError: as in the API.
            StoreError: the store can't be read or written.
        """
        call = Call(
            method, path, parameters_given(given or {}), ROOT, LOCAL, actor=self._operator, id=f"{LOCAL}-{new_id()}"
        )  # fmt: skip
        endpoint = self._endpoints[method, path]
        call.route = Route(endpoint, {})
        try:
            return msgspec.to_builtins(await self._pipeline.call(call), enc_hook=str)
        except (Forbidden, InvalidParameters):
            # Root lacks no privilege: where a call is forbidden, no path can hold such a name.
            try:
                validate(endpoint.parameters, call.parameters)
            except InvalidParameters as error:
                known = rules(endpoint.parameters)
                raise InvalidParameters(
                    {name: _with_example(text, known.get(name)) for name, text in error.errors.items()}
                ) from error
            raise

    def explain(self, subject: str, path: str | None) -> tuple[list[dict[str, Any]], str]:
        """The privileges of a user or token with their grants; see `access.explanation.explain`.

        Raises:
            AccessRefused: there is no such user or token.
            InvalidParameters: there can be no such path.
        """
        snapshot = self._access.snapshot
        userid, tokenid = split(subject)
        existing_user(snapshot, userid) if tokenid is None else existing_token(snapshot, userid, tokenid)
        return explain(snapshot, subject, path, time.time())


def _with_example(text: str, rule: Rule | None) -> str:
    """Proxmox VE's words for a wrong value, and a right one."""
    return f"{text.rstrip()}; for example {rule.examples[0]}" if rule and rule.examples else text


@contextlib.asynccontextmanager
async def open_offline(location: StateLocation) -> AsyncIterator[OfflineAdmin]:
    """The store of a server, closed at the end.

    Raises:
        StoreError: there is none yet, it belongs to another user, or it can't be read.
    """
    location.require_store()
    location.require_access()
    store = await SqliteStore.open(location.store)
    try:
        writer = AuditWriter(store)
        try:
            yield OfflineAdmin(location.node, store, AuditRecorder(writer))
        finally:
            await writer.close()
    finally:
        await store.close()


async def restore(location: StateLocation, backup: Path) -> None:
    """Puts a backup in the place of the store; see `stores.restore`. The server must not run.

    Raises:
        StoreError: the server runs, or a file can't be read or written.
    """
    location.require_access()
    await asyncio.to_thread(stores.restore, backup, location.store)
    location.give_to_owner()
