"""The server's own machine without the server: its store, opened beside it, and the contract's endpoints called in this process.

So the command line checks, changes and words everything as the API does. The server may run or not; it sees a change by itself.
"""

import asyncio
import contextlib
import os
import pwd
import secrets
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NoReturn

import msgspec

from guestwire import stores
from guestwire.access import Subject, engine
from guestwire.access.administration import acl_path
from guestwire.access.control import Access
from guestwire.access.engine import SUPERUSER
from guestwire.app.state import STORE
from guestwire.contract import Effect, Endpoint, VmSummary, rules, validate
from guestwire.contract.registry import ENDPOINTS
from guestwire.errors import StoreError, VmNotFound
from guestwire.inventory import ServerConfig, read_config
from guestwire.stores import AuditRecord, KeptStore, SqliteStore, View

DEFAULT_CONFIG: Final = Path("/etc/guestwire/guestwire.toml")

LOCAL: Final = "local"
"""What audit records have in place of a client's address."""

_endpoints: Final = {(endpoint.method, endpoint.path): endpoint for endpoint in ENDPOINTS}

Object = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Place:
    """Where a server keeps its state, and the name of its node."""

    state_dir: Path
    node: str

    @property
    def store(self) -> Path:
        """The store's file."""
        return self.state_dir / STORE


def place(config: Path | None = None, state_dir: Path | None = None) -> Place:
    """The place that is meant by a configuration file or a state directory; by default that of `DEFAULT_CONFIG`, if it is there.

    Raises:
        ConfigurationError: the file can't be used.
    """
    if config is None and state_dir is None and _is_there(DEFAULT_CONFIG):
        config = DEFAULT_CONFIG
    server = read_config(config).server if config else ServerConfig()
    return Place(state_dir or Path(server.state_dir), server.node)


@dataclass(frozen=True, slots=True)
class Local:
    """The store of a place, and what may be asked of it; made by `opened`. It is the `Context` of the endpoints that it calls."""

    place: Place
    store: KeptStore
    access: Access
    operator: str
    address: str = LOCAL
    fingerprint: str | None = None

    @property
    def subject(self) -> Subject:
        """See `Context.subject`: whoever can write to the store may do everything anyway."""
        return Subject(SUPERUSER)

    @property
    def node(self) -> str:
        """See `Context.node`."""
        return self.place.node

    async def agent(self, vmid: int) -> NoReturn:
        """See `Context.agent`: no guest is reached from here."""
        raise VmNotFound(vmid, self.node)

    async def vms(self) -> list[VmSummary]:
        """See `Context.vms`: which VMs run is the server's to know."""
        return []

    async def call(self, method: str, path: str, given: Mapping[str, Any] | None = None) -> Any:
        """Calls an endpoint as `root@pam`; the parameters that are None are not given.

        Returns:
            What the API answers as `data`.

        Raises:
            InvalidParameters, AccessRefused, BuiltInRole: as in the API.
            StoreError: the store can't be read or written.
        """
        endpoint = _endpoints[method, path]
        given = {name: value for name, value in (given or {}).items() if value is not None}
        parameters = validate(endpoint.parameters, given)
        began = time.time()
        result = await endpoint.function(self, parameters)
        if endpoint.effect is not Effect.READS:
            await self._record(endpoint, given, began)
        return msgspec.to_builtins(result)

    async def _record(self, endpoint: Endpoint, given: Mapping[str, Any], began: float) -> None:
        secret = {name for name, rule in rules(endpoint.parameters).items() if rule.secret}
        record = AuditRecord(
            time=began,
            request_id=f"{LOCAL}-{secrets.token_hex(4)}",
            subject=self.operator,
            address=self.address,
            vmid=None,
            endpoint=f"{endpoint.method} {endpoint.path}",
            parameters={name: value for name, value in given.items() if name not in secret},
            status=200,
            result="OK",
            duration_ms=(time.time() - began) * 1000,
        )
        await self.store.append_audit([record])

    def acl_path(self, path: str) -> str:
        """The path as ACL entries have it; see `administration.acl_path`."""
        return acl_path(path)

    async def explain(self, subject: str, path: str | None) -> tuple[list[Object], str]:
        """What a user or token may do, and where each privilege comes from; and why it may do nothing, when it can't even log in.

        Args:
            subject: userid or `USERID!TOKENID`.
            path: None means every path that an ACL entry or a pool makes different from others.

        Returns:
            First: `path`, `privilege`, `propagate` and `grants`: ACL entries as the API lists them, with `pool` where one reaches the
            path by way of a pool; a token with privilege separation has its own entries first, then its user's.

        Raises:
            AccessRefused: there is no such user or token.
            InvalidParameters: there can be no such path.
        """
        subject = self.access.visible_subject(self.subject, subject)
        view, now = self.access.view, time.time()
        paths = [acl_path(path)] if path is not None else sorted(engine.all_permissions(view, subject, now))
        found = [
            {"path": path, "privilege": name, "propagate": int(held.propagates), "grants": [*map(_grant, held.grants)]}
            for path in paths
            for name, held in engine.privileges(view, subject, path, now).items()
        ]
        return found, _why_out(view, subject, now)


def _why_out(view: View, subject: str, now: float) -> str:
    """Why a user or token is kept out, in words; empty when it is not."""
    userid, _ = engine.split(subject)
    user, token = view.users.get(userid), view.tokens.get(subject)
    if user and not user.enable:
        return f"{userid} is disabled"
    late = [record.key for record in (user, token) if record and record.expire and record.expire < now]
    return f"{late[0]} is expired" if late else ""


def _grant(grant: engine.Grant) -> Object:
    entry = grant.entry
    told = {
        "path": entry.path,
        "type": entry.kind,
        "ugid": entry.subject,
        "roleid": entry.roleid,
        "propagate": int(entry.propagate),
    }
    return told | ({"pool": grant.pool} if grant.pool else {})


@contextlib.asynccontextmanager
async def opened(where: Place) -> AsyncIterator[Local]:
    """The store of a place, closed at the end.

    Raises:
        StoreError: there is none yet, it belongs to somebody else, or it can't be read.
    """
    _check_there(where.store)
    _check_ours(where.store)
    store = await SqliteStore.open(where.store)
    try:
        yield Local(where, store, Access(store), _operator())
    finally:
        await store.close()


async def restore(where: Place, backup: Path) -> None:
    """Puts a backup in the place of the store; see `stores.restore`. The server must not run.

    Raises:
        StoreError: the server runs, or a file can't be read or written.
    """
    _check_ours(where.store)
    await asyncio.to_thread(stores.restore, backup, where.store)
    _give_to_owner(where.state_dir)


def _check_there(store: Path) -> None:
    """Only the server makes a store: with a wrong folder, one would be made that no server uses."""
    if not _is_there(store):
        raise StoreError(
            f"{store}: there is no store yet; start the server once, it makes one: guestwire serve --config FILE"
        )


def _is_there(path: Path) -> bool:
    """Also when it can't be seen: whoever opens it says why not."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True
    return True


def _check_ours(store: Path) -> None:
    """SQLite writes beside the file even to read it."""
    if not _may_write(store.parent, os.X_OK) or (_is_there(store) and not _may_write(store)):
        raise StoreError(f"{store}: {_who()} can't use it{_who_can(store)}")


def _may_write(path: Path, more: int = 0) -> bool:
    """As the user that the process acts as, which is the one that opens files."""
    return os.access(path, os.R_OK | os.W_OK | more, effective_ids=os.access in os.supports_effective_ids)


def _who() -> str:
    return f"user '{_name(os.geteuid())}'"


def _who_can(store: Path) -> str:
    for path in (store, store.parent):
        with contextlib.suppress(OSError):
            owner = path.stat().st_uid
            name = _name(owner)
            return f"; user '{name}' can: sudo -u {name} guestwire …" if owner != os.geteuid() else ""
    return ""


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _give_to_owner(state_dir: Path) -> None:
    """What root put there belongs to whoever the folder belongs to: the server may run as another user."""
    if os.geteuid() != 0:
        return
    owner = state_dir.stat()
    for path in state_dir.glob(f"{STORE}*"):
        os.chown(path, owner.st_uid, owner.st_gid)


def _operator() -> str:
    """Who works here, as audit records name a user of this machine; behind sudo, the one who called it."""
    caller = os.environ.get("SUDO_USER") if os.geteuid() == 0 else None
    return f"{caller or _name(os.geteuid())}@pam"
