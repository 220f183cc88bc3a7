"""Finds out step by step why a guest does not answer: address, TLS, credentials, VM, agent, privilege, commands."""

import contextlib
import time
from dataclasses import dataclass, field
from typing import Any, Final

from guestwire.agent.commands import ABSENT, ABSENT_ELSEWHERE
from guestwire.client import errors
from guestwire.client.advice import FROZEN
from guestwire.client.errors import NO_AGENT_SOCKET, AgentTookTooLong, AgentUnavailable, CallFailed
from guestwire.client.guests import Guest
from guestwire.client.hosts import Host

DISABLED: Final = (
    "in the guest, take them out of qemu-ga's --block-rpcs, or add them to its --allow-rpcs"
    " (/etc/sysconfig/qemu-ga, /etc/qemu/qemu-ga.conf or the service's unit), and start it again"
)
NOT_CONFIGURED: Final = (
    "give the VM an agent channel: guestwire channel add GUEST while it runs (Proxmox VE: qm set VMID --agent 1, stop it and"
    " start it; guestwire knows one that is there by agent = … in its [[vm]])"
)
NOT_RUNNING: Final = (
    "in the guest: install qemu-guest-agent, or restart it (systemctl restart qemu-guest-agent): one that answered before"
    " may hang, or the guest be too busy for it"
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
    """The steps, with what was found in each; `code` is the exit code of the one that failed."""

    steps: list[dict[str, Any]] = field(default_factory=list)
    code: int = 0

    def add(self, step: str, found: str, *, result: str = "ok", hint: str | None = None) -> None:
        """Adds a step."""
        self.steps.append({"step": step, "result": result, "found": found, "next": hint})


async def examine(host: Host, name: str) -> Diagnosis:
    """Examines one guest, by its VM's name or id; what fails is a step, not an exception."""
    diagnosis = Diagnosis()
    # An agent's own socket has nothing of a server.
    is_server = not host.is_local
    try:
        if is_server:
            version = await host.version()
            server = f"Proxmox VE {version.get('version', '')}"
            if own := version.get("guestwire"):
                server = f"guestwire {own} (API of {server})"
            _add_connection(host, diagnosis)
            diagnosis.add("credentials", "accepted")
            diagnosis.add("server", server)
        await _examine_agent(await host.guest(name), diagnosis, is_server=is_server)
    except CallFailed as error:
        await _add_failure(host, diagnosis, error, name)
    return diagnosis


def _add_connection(host: Host, diagnosis: Diagnosis) -> None:
    diagnosis.add("address", f"{host.name} answers")
    is_https = host.name.startswith("https:")
    diagnosis.add("tls", "the certificate is trusted" if is_https else "none: the target is http")


async def _examine_agent(guest: Guest, diagnosis: Diagnosis, *, is_server: bool) -> None:
    failed = None
    try:
        await guest.ping()
    except CallFailed as error:
        failed = error
    # A server looks whether the VM runs before it looks for its agent, and before that into its configuration.
    runs = failed is None or isinstance(failed, AgentTookTooLong)
    if is_server and (runs or (isinstance(failed, AgentUnavailable) and NO_AGENT not in failed.message)):
        diagnosis.add("vm", f"VM {guest.vmid} on node {guest.node} is running")
    if failed and is_server and await _is_switched_off(guest):
        failed.hint = SWITCHED_OFF
    if failed:
        raise failed
    diagnosis.add("agent", "it answers")
    info = await guest.info()
    diagnosis.add("privilege", "sufficient")
    disabled = {command.name for command in info.supported_commands if not command.enabled}
    is_frozen = False
    if disabled:
        system = None
        with contextlib.suppress(CallFailed):
            system = (await guest.get_osinfo()).id
        disabled -= ABSENT.get(system or "", ABSENT_ELSEWHERE)
        with contextlib.suppress(CallFailed):
            is_frozen = await guest.fsfreeze_status() == "frozen"
    if is_frozen:
        diagnosis.add("commands", "only those for thawing are enabled", result="warning", hint=FROZEN)
    elif disabled:
        diagnosis.add(
            "commands", f"disabled in the guest: {', '.join(sorted(disabled))}", result="warning", hint=DISABLED
        )
    else:
        enabled = sum(command.enabled for command in info.supported_commands)
        found = f"all {enabled} of this system are enabled" if enabled else "its agent does not list them"
        diagnosis.add("commands", f"{found}; version {info.version}")


async def _is_switched_off(guest: Guest) -> bool:
    """Looks into the VM's configuration on Proxmox VE; False where it may not be seen."""
    try:
        config = await guest.raw("GET", "config", repeatable=True)
    except CallFailed:
        return False
    if not isinstance(config, dict) or "digest" not in config:
        return False
    value = str(config.get("agent", "0")).partition(",")[0].removeprefix("enabled=")
    return value in ("0", "no", "off", "false")


async def _add_failure(host: Host, diagnosis: Diagnosis, error: CallFailed, name: str) -> None:
    """Adds the step that failed, and those before it, which must have been well."""
    step = next((step for kinds, step in _STEPS if isinstance(error, kinds)), "server")
    hint = error.hint
    if not diagnosis.steps and step == "tls":
        diagnosis.add("address", f"{host.name} answers")
    elif not diagnosis.steps and step in ("credentials", "privilege"):
        _add_connection(host, diagnosis)
    if step == "tls":
        hint = f"{hint}; {await _describe_certificate(host)}"
    elif step == "command" and hint != FROZEN:
        hint = DISABLED
    elif step == "agent" and isinstance(error, AgentTookTooLong):
        hint = SILENT
    elif step == "agent" and hint == SWITCHED_OFF:
        pass  # its configuration says more than the message
    elif step == "agent" and NO_AGENT in error.message:
        hint = NOT_CONFIGURED
    elif step == "agent":
        hint = NO_AGENT_SOCKET if host.is_local else NOT_RUNNING
    if step == "agent" and hint in (SILENT, NOT_RUNNING):
        hint = await advice_since_when(host, name) or hint
    diagnosis.add(step, error.message, result="failed", hint=hint)
    diagnosis.code = error.exit_code


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
