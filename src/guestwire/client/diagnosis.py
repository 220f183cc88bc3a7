"""Finds out step by step why a guest does not answer: address, TLS, credentials, VM, agent, privilege, commands."""

from collections.abc import Awaitable
from dataclasses import dataclass, field
from typing import Any, Final

from guestwire.client import errors
from guestwire.client.errors import FROZEN, NO_AGENT_SOCKET, AgentTookTooLong, AgentUnavailable, CallFailed
from guestwire.client.guests import Guest
from guestwire.client.hosts import Host

DISABLED: Final = (
    "in the guest, take them out of qemu-ga's --block-rpcs, or add them to its --allow-rpcs"
    " (/etc/sysconfig/qemu-ga, /etc/qemu/qemu-ga.conf or the service's unit), and start it again"
)
NOT_CONFIGURED: Final = "give the VM an agent channel (Proxmox VE: qm set VMID --agent 1; guestwire: agent = … in its [[vm]]), stop it and start it"
NOT_RUNNING: Final = "in the guest: install qemu-guest-agent, and systemctl enable --now qemu-guest-agent"
SILENT: Final = "its file systems may be frozen (guestwire freeze-status), its agent busy or stopped; in the guest: systemctl restart qemu-guest-agent"


@dataclass
class Diagnosis:
    """The steps, with what was found in each; `code` is the exit code of the one that failed."""

    steps: list[dict[str, Any]] = field(default_factory=list)
    code: int = 0

    def add(self, step: str, found: str, *, result: str = "ok", hint: str | None = None) -> None:
        """One more step."""
        self.steps.append({"step": step, "result": result, "found": found, "next": hint})


async def examine(host: Host, name: str) -> Diagnosis:
    """Examines one guest, by its VM's name or id; what fails is a step, not an exception."""
    diagnosis = Diagnosis()
    try:
        # An agent's own socket has nothing of a server.
        if on_server := not host.name.startswith("unix:"):
            await _check_server(host, diagnosis)
        guest = await host.guest(name)
        await _check_agent(guest, diagnosis, on_server=on_server)
    except CallFailed as error:
        await _add_failure(host, diagnosis, error)
    return diagnosis


async def _check_server(host: Host, diagnosis: Diagnosis) -> None:
    version = await host.version()
    _answers(host, diagnosis)
    diagnosis.add("tls", _tls(host))
    diagnosis.add("credentials", "they are good")
    diagnosis.add("server", f"{'guestwire' if 'guestwire' in version else 'Proxmox VE'} {version.get('version', '')}")


def _answers(host: Host, diagnosis: Diagnosis) -> None:
    diagnosis.add("address", f"{host.name} answers")


def _tls(host: Host) -> str:
    return "the certificate is taken" if host.name.startswith("https:") else "none: the target is http"


async def _check_agent(guest: Guest, diagnosis: Diagnosis, *, on_server: bool) -> None:
    failed = await _error_of(guest.ping())
    # A server looks whether the VM runs before it looks for its agent.
    if on_server and (failed is None or isinstance(failed, AgentUnavailable | AgentTookTooLong)):
        diagnosis.add("vm", f"VM {guest.vmid} on node {guest.node} is running")
    if failed:
        raise failed
    diagnosis.add("agent", "it answers")
    info = await guest.info()
    diagnosis.add("privilege", "you may ask it")
    disabled = sorted(command.name for command in info.supported_commands if not command.enabled)
    if disabled and await _is_frozen(guest):
        diagnosis.add("commands", "only those for thawing are enabled", result="warning", hint=FROZEN)
    elif disabled:
        diagnosis.add("commands", f"disabled in the guest: {', '.join(disabled)}", result="warning", hint=DISABLED)
    else:
        diagnosis.add("commands", f"all {len(info.supported_commands)} of version {info.version} are enabled")


async def _is_frozen(guest: Guest) -> bool:
    try:
        return await guest.fsfreeze_status() == "frozen"
    except CallFailed:
        return False


async def _error_of(call: Awaitable[object]) -> CallFailed | None:
    try:
        await call
    except CallFailed as error:
        return error
    return None


async def _add_failure(host: Host, diagnosis: Diagnosis, error: CallFailed) -> None:
    """The step that failed, and what stood before it and must have been well."""
    step, hint = _step(error), error.hint
    if not diagnosis.steps and step in ("tls", "credentials", "privilege"):
        _answers(host, diagnosis)
        if step != "tls":
            diagnosis.add("tls", _tls(host))
    if step == "tls":
        hint = f"{error.hint}; {await _certificate_fingerprint(host)}"
    elif step == "agent":
        hint = _hint_about_agent(host, error)
    elif step == "command" and hint != FROZEN:
        hint = DISABLED
    diagnosis.add(step, error.message, result="failed", hint=hint)
    diagnosis.code = error.exit_code


def _step(error: CallFailed) -> str:
    steps = (
        (errors.CertificateNotTrusted, "tls"),
        (errors.Unreachable, "address"),
        (errors.LoginFailed, "credentials"),
        (errors.PrivilegeMissing, "privilege"),
        ((errors.NoSuchGuest, errors.GuestStopped), "vm"),
        ((errors.AgentUnavailable, errors.AgentTookTooLong), "agent"),
        (errors.AgentRefused, "command"),
    )
    return next((step for kinds, step in steps if isinstance(error, kinds)), "server")


def _hint_about_agent(host: Host, error: CallFailed) -> str:
    if isinstance(error, AgentTookTooLong):
        return SILENT
    if "configured" in error.message:
        return NOT_CONFIGURED
    return NO_AGENT_SOCKET if host.name.startswith("unix:") else NOT_RUNNING


async def _certificate_fingerprint(host: Host) -> str:
    from guestwire.client.carriers.https import fingerprint_of  # noqa: PLC0415  # an agent's socket has no need of it
    from guestwire.client.settings import Https, parse_target  # noqa: PLC0415

    target = parse_target(host.name)
    assert isinstance(target, Https)  # noqa: S101  # nothing else has certificates
    try:
        return f"it shows {await fingerprint_of(target)}"
    except OSError as error:
        return f"its certificate can't be read: {error}"
