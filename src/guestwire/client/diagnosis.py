"""Finds out step by step why a guest does not answer: address, TLS, credentials, VM, agent, privilege, commands."""

import contextlib
import time
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any, Final

from guestwire.agent.packages import Family
from guestwire.channels.agent_port import NO_CHANNEL
from guestwire.client import errors
from guestwire.client.advice import FROZEN
from guestwire.client.agent_help import AgentHelp, help_with, help_without, policy_words, version_words
from guestwire.client.errors import NO_AGENT_SOCKET, AgentTookTooLong, AgentUnavailable, CallFailed
from guestwire.client.guests import Guest
from guestwire.client.hosts import Host

DISABLED: Final = (
    "in the guest, take it out of qemu-ga's --block-rpcs, or add it to its --allow-rpcs (/etc/sysconfig/qemu-ga,"
    " /etc/qemu/qemu-ga.conf or the service's unit), and start it again"
)
NOT_CONFIGURED: Final = (
    "give the VM an agent channel: guestwire channel add GUEST while it runs (Proxmox VE: qm set VMID --agent 1, stop it and"
    " start it; guestwire knows one that is there by agent = … in its [[vm]]); guestwire agent GUEST has the lines for QEMU and libvirt"
)
NOT_RUNNING: Final = (
    "in the guest: install qemu-guest-agent (guestwire agent GUEST says how), or restart it (systemctl restart"
    " qemu-guest-agent): one that answered before may hang, or the guest be too busy for it"
)
SWITCHED_OFF: Final = "the VM's option is off: qm set VMID --agent 1, then stop it and start it"
ANSWERED: Final = (
    "it answered until {when} (this machine's time): in the guest, restart it (systemctl restart qemu-guest-agent), or look"
    " at the guest's load; its file systems may be frozen (guestwire freeze-status)"
)
SILENT: Final = (
    "its file systems may be frozen (guestwire freeze-status), its agent busy or stopped; in the guest: systemctl"
    " restart qemu-guest-agent"
)

NO_AGENT: Final = "configured"
"""In the message about a VM that has no agent channel."""

_STEPS: Final = (
    (errors.CertificateNotTrusted, "tls"),
    (errors.Unreachable, "address"),
    (errors.LoginFailed, "credentials"),
    (errors.PrivilegeMissing, "privilege"),
    ((errors.NoSuchGuest, errors.GuestStopped), "vm"),
    ((errors.AgentUnavailable, errors.AgentTookTooLong), "agent"),
    (errors.AgentRefused, "command"),
)
"""The step that an error belongs to; the first that fits counts."""


@dataclass
class Diagnosis:
    """The steps, with what was found in each.

    Attributes:
        steps: each with `step`, `result`, `found` and `next`.
        code: the exit code of the one that failed; 0: none did.
        help: with the guest's agent; None: it was not come so far.
        error: of the step that failed.
    """

    steps: list[dict[str, Any]] = field(default_factory=list)
    code: int = 0
    help: AgentHelp | None = None
    error: CallFailed | None = None

    def add(self, step: str, found: str, *, result: str = "ok", hint: str | None = None) -> None:
        """Adds a step."""
        self.steps.append({"step": step, "result": result, "found": found, "next": hint})


async def examine(host: Host, name: str, wanted: Collection[str] = (), family: Family | None = None) -> Diagnosis:
    """Examines one guest, by its VM's name or id; what fails is a step, not an exception.

    Args:
        host: of the guest.
        name: of its VM, or its id.
        wanted: commands of the agent that its policy shall allow; empty: all that it switches off.
        family: of its system, where its agent does not say which that is.
    """
    diagnosis = Diagnosis()
    # An agent's own socket has nothing of a server.
    is_server, vmid = not host.is_local, None
    try:
        if is_server:
            version = await host.version()
            server = f"Proxmox VE {version.get('version', '')}"
            if own := version.get("guestwire"):
                server = f"guestwire {own} (API of {server})"
            _add_connection(host, diagnosis)
            diagnosis.add("credentials", "accepted")
            diagnosis.add("server", server)
        guest = await host.guest(name)
        vmid = guest.vmid
        await _examine_agent(guest, diagnosis, wanted, family, is_server=is_server)
    except CallFailed as error:
        await _add_failure(host, diagnosis, error, name, vmid)
    return diagnosis


def _add_connection(host: Host, diagnosis: Diagnosis) -> None:
    diagnosis.add("address", f"{host.name} answers")
    is_https = host.name.startswith("https:")
    diagnosis.add("tls", "the certificate is trusted" if is_https else "none: the target is http")


async def _examine_agent(
    guest: Guest, diagnosis: Diagnosis, wanted: Collection[str], family: Family | None, *, is_server: bool
) -> None:
    failed = None
    try:
        await guest.ping()
    except CallFailed as error:
        failed = error
    # A server looks whether the VM runs before it looks for its agent, and before that into its configuration.
    runs = failed is None or isinstance(failed, AgentTookTooLong)
    if is_server and (runs or (isinstance(failed, AgentUnavailable) and NO_AGENT not in failed.message)):
        diagnosis.add("vm", f"VM {guest.vmid} on node {guest.node} is running")
    if failed and not await guest.host.is_guestwire() and await _is_switched_off(guest):
        failed.hint = SWITCHED_OFF
    if failed:
        raise failed
    diagnosis.add("agent", "it answers")
    info = await guest.info()
    diagnosis.add("privilege", "sufficient")
    found = diagnosis.help = await help_with(guest, info, wanted, family)
    assert found.version  # noqa: S101  # that of an agent that answers
    update = f"in the guest: {found.version.update}" if found.version.update else None
    diagnosis.add("version", version_words(found), result="warning" if update else "ok", hint=update)
    if found.is_frozen:
        diagnosis.add("commands", "only those for thawing are enabled", result="warning", hint=FROZEN)
    elif off := found.switched_off:
        hint = policy_words(found.policy) if found.policy else None
        diagnosis.add("commands", f"disabled in the guest: {', '.join(off)}", result="warning", hint=hint)
    else:
        enabled = sum(command.enabled for command in info.supported_commands)
        diagnosis.add(
            "commands", f"all {enabled} of this system are enabled" if enabled else "its agent does not list them"
        )


async def _is_switched_off(guest: Guest) -> bool:
    """Looks into the VM's configuration on Proxmox VE, where it is an option; False where that may not be seen."""
    try:
        config = await guest.raw("GET", "config", repeatable=True)
    except CallFailed:
        return False
    if not isinstance(config, dict) or "digest" not in config:
        return False
    value = str(config.get("agent", "0")).partition(",")[0].removeprefix("enabled=")
    return value in ("0", "no", "off", "false")


async def _add_failure(host: Host, diagnosis: Diagnosis, error: CallFailed, name: str, vmid: int | None) -> None:
    """Adds the step that failed, and those before it, which must have been well."""
    step = next((step for kinds, step in _STEPS if isinstance(error, kinds)), "server")
    if not diagnosis.steps and step == "tls":
        diagnosis.add("address", f"{host.name} answers")
    elif not diagnosis.steps and step in ("credentials", "privilege"):
        _add_connection(host, diagnosis)
    found, hint = error.message, await _advise(host, error, name, step)
    if isinstance(error, (AgentUnavailable, AgentTookTooLong, errors.GuestStopped)):
        is_missing = hint in (NOT_CONFIGURED, SWITCHED_OFF) or (host.has_one_guest and hint == NO_AGENT_SOCKET)
        diagnosis.help = await help_without(host, name, vmid=vmid, has_channel=not is_missing)
    elif isinstance(error, errors.NoSuchGuest):
        unusable = next((vm for vm in await host.unusable() if vm.name == name), None)
        if unusable:
            found, hint = unusable.problem, unusable.hint
        if found == NO_CHANNEL:
            diagnosis.help = await help_without(host, name, vmid=None, has_channel=False)
    diagnosis.add(step, found, result="failed", hint=hint)
    diagnosis.code, diagnosis.error = error.exit_code, error


async def _advise(host: Host, error: CallFailed, name: str, step: str) -> str:
    """What to do next after the error of a step."""
    hint = error.hint
    if step == "tls":
        return f"{hint}; {await _describe_certificate(host)}"
    if step == "command" and hint != FROZEN:
        return DISABLED
    if step != "agent" or hint == SWITCHED_OFF:  # the VM's configuration says more than the message
        return hint
    if NO_AGENT in error.message:
        return NOT_CONFIGURED
    if host.is_local and not isinstance(error, AgentTookTooLong):
        return NO_AGENT_SOCKET
    since_when = await advice_since_when(host, name)
    return since_when or (SILENT if isinstance(error, AgentTookTooLong) else NOT_RUNNING)


async def advice_since_when(host: Host, name: str) -> str:
    """What to do about an agent that answers no more, with when it last did; "" where the host does not say that."""
    with contextlib.suppress(CallFailed):
        wanted = (await host.guest(name)).vm
        guests = await host.guests() if await host.is_guestwire() and not host.is_local else []
        for guest in guests:
            if (guest.vmid, guest.node) == (wanted.vmid, wanted.node) and guest.last_answer is not None:
                return ANSWERED.format(when=time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(guest.last_answer)))
    return ""


async def _describe_certificate(host: Host) -> str:
    from guestwire.client.carriers.https import fingerprint_of  # noqa: PLC0415  # an agent's socket has no need of it
    from guestwire.client.settings import Https, parse_target  # noqa: PLC0415

    target = parse_target(host.name)
    assert isinstance(target, Https)  # noqa: S101  # nothing else has certificates
    try:
        return f"it shows {await fingerprint_of(target)}"
    except OSError as error:
        return f"its certificate can't be read: {error}"
