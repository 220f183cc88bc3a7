"""The service: configuration, inventory, access and server, and the signals that reload and stop it."""

import asyncio
import errno
import gc
import logging
import os
import signal
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from guestwire import __version__
from guestwire.access.control import Access
from guestwire.access.realms import PAM, REALMS, Realm, pam_problem
from guestwire.app.audit_lines import sink_of
from guestwire.app.descriptors import share_out
from guestwire.app.frozen_guests import FrozenGuests
from guestwire.app.guest_polls import GuestPolls
from guestwire.app.housekeeping import keep_house
from guestwire.app.logs import log_to_stderr
from guestwire.app.notify import notify
from guestwire.app.state import STORE
from guestwire.channels.budget import shared_budget
from guestwire.counting import counted
from guestwire.dispatch.audit import AuditRecorder, AuditWriter
from guestwire.errors import ConfigurationError
from guestwire.inventory import Config, Inventory, read_config
from guestwire.inventory.discovery import Discovery
from guestwire.inventory.sources import Libvirts, sources_of
from guestwire.server import Certificate, Gateway, Listener
from guestwire.stores import BEGUN, AuditFilter, SqliteStore

log = logging.getLogger("guestwire")


MakeGateway = Callable[[Inventory, Access, AuditRecorder], Gateway]


def run(path: Path | None, make_gateway: MakeGateway = Gateway) -> None:
    """Serves what the configuration file says (None: what is found), until SIGTERM or SIGINT.

    `make_gateway` makes what answers requests.

    Raises:
        ConfigurationError: the file, the state directory or the address can't be used.
    """
    config = read_config(path)
    log_to_stderr()
    _run(_serve(path, config, make_gateway))


def _run(main: Coroutine[Any, Any, None]) -> None:
    try:
        import uvloop  # noqa: PLC0415  # optional: faster where it can be had
    except ImportError:
        asyncio.run(main)
    else:
        uvloop.run(main)


async def _serve(path: Path | None, config: Config, make_gateway: MakeGateway) -> None:
    shares = share_out(config)
    shared_budget().connections.most = shares.guests
    state_dir = Path(config.server.state_dir)
    host, port = config.server.address
    cert = Certificate.in_folder(state_dir) if config.server.tls else None
    store = await SqliteStore.open(state_dir / STORE)
    access = Access(store, usable_realms=await asyncio.to_thread(_usable_realms))
    audit = AuditWriter(store, sink=sink_of(config.audit))
    recorder = AuditRecorder(audit, commands=config.audit.commands)
    if begun := len(await store.audit(AuditFilter(status=BEGUN))):
        log.warning(
            "%s when the server was last ended, and what became of %s is not known: guestwire audit --status %d",
            counted(begun, "call had begun", "calls had begun"), "it" if begun == 1 else "them", BEGUN,
        )  # fmt: skip
    house = asyncio.create_task(keep_house(access, store, config.audit), name="housekeeping")
    inventory = Inventory(config.server.node, cert.fingerprint if cert else None, store)
    inventory.freeze_lease = config.server.freeze_lease
    frozen = FrozenGuests(inventory, access, recorder)
    discovery = Discovery(inventory, sources_of(config.source), store, config.vm, Libvirts(config.source))
    reloads: set[asyncio.Task[None]] = set()
    stop = _heed_signals(path, config, discovery, reloads)
    listener = Listener(
        make_gateway(inventory, access, recorder), host, port, cert.context() if cert else None,
        most=shares.clients, proxies=config.server.proxies,
    )  # fmt: skip
    _collect_rarely()
    try:
        await _bind(listener, config)
        await discovery.look()
        for source in inventory.sources.values():
            if source.problem:
                log.warning("libvirt %s: %s; it is tried again", source.uri, source.problem)
        keeping = asyncio.create_task(frozen.end_leases(), name="leases")
        await inventory.tasks.settle()
        port = listener.start()
        log.info(
            "guestwire %s serves %s of node %s on %s port %d",
            __version__,
            counted(len(inventory.vms), "VM"),
            inventory.node,
            host,
            port,
        )
        notify("READY=1")
        reporting = asyncio.create_task(frozen.report(), name="frozen guests")
        following = asyncio.create_task(discovery.follow(), name="discovery")
        background = [reporting, following, keeping]
        if config.metrics:
            polls = GuestPolls(inventory, access, config.metrics.every)
            background.append(asyncio.create_task(polls.run(), name="polls"))
        await stop.wait()
        notify("STOPPING=1")
        log.info("stopping: calls in flight come to their end")
        await listener.stop()
        background += reloads
        for task in background:
            task.cancel()
        await asyncio.gather(*background, frozen.thaw(), return_exceptions=True)
    finally:
        house.cancel()
        await asyncio.gather(house, return_exceptions=True)
        await inventory.close()
        await audit.close()
        await store.close()


def _usable_realms() -> tuple[Realm, ...]:
    """All realms, without pam where it can't be used."""
    if problem := pam_problem():
        log.warning("realm %s is off: %s", PAM, problem)
        return tuple(realm for realm in REALMS if realm.realm != PAM)
    return REALMS


def _heed_signals(
    path: Path | None, config: Config, discovery: Discovery, reloads: set[asyncio.Task[None]]
) -> asyncio.Event:
    """SIGHUP reloads, which is in `reloads` meanwhile; SIGTERM and SIGINT set the event."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signum, stop.set)

    def reload() -> None:
        if stop.is_set():
            return
        task = loop.create_task(_reload(path, config, discovery, turn), name="reload")
        reloads.add(task)
        task.add_done_callback(reloads.discard)

    turn = asyncio.Lock()
    loop.add_signal_handler(signal.SIGHUP, reload)
    return stop


def _collect_rarely() -> None:
    """What is there now stays, so collections need not look at it; calls leave next to no circles, so they can be far between."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


async def _bind(listener: Listener, config: Config) -> None:
    """Before anything is told of guests: who starts a second server wants to know that, and no more."""
    try:
        await listener.bind()
    except OSError as error:
        hint = (
            "another server uses it; end that one, or" if error.errno == errno.EADDRINUSE else "to use another address,"
        )
        raise ConfigurationError(
            f"can't listen on {config.server.listen}: {os.strerror(error.errno or 0).lower()}; {hint} change listen under"
            " [server]"
        ) from error


async def _reload(path: Path | None, config: Config, discovery: Discovery, turn: asyncio.Lock) -> None:
    """Reads the VMs again, one reload after the other; a file with mistakes changes nothing."""
    async with turn:
        notify("RELOADING=1")
        try:
            new = await asyncio.to_thread(read_config, path)
        except ConfigurationError as error:
            log.error("not reloaded: %s", error)  # noqa: TRY400  # the text says it all
        else:
            discovery.named, discovery.sources, discovery.libvirts = (
                new.vm,
                sources_of(new.source),
                Libvirts(new.source),
            )
            await discovery.look()
            note = "" if new.server == config.server else "; changes under [server] need a restart"
            log.info("reloaded: %s%s", counted(discovery.served, "VM"), note)
        notify("READY=1")
