"""Connects to a host: `connect` for code in an event loop. For any other: `connecting_sync.py`."""

from guestwire.client.hosts import Host
from guestwire.client.settings import Settings, settings_for
from guestwire.client.targets import Unix, parse_target
from guestwire.errors import ConfigurationError


async def connect(target: str | None = None, *, profile: str | None = None, **given: str | bool | None) -> Host:
    """Makes a host, which `async with` closes. Nothing is sent before the first call.

    Args:
        target: `https://host:8006` (Proxmox VE or guestwire) or `unix:/path/to.qga`; default: GUESTWIRE_HOST, or the profile's.
        profile: a table in `~/.config/guestwire/config.toml`.
        given: `token`, `token_file`, `user`, `password`, `ca`, `fingerprint`, `verify`; see `client.settings`.

    Raises:
        ConfigurationError: what is given can't be used.
    """
    return open_host(settings_for({"host": target, **given}, profile=profile))


def open_host(settings: Settings) -> Host:
    """The host that the settings name; to be called where an event loop runs.

    Raises:
        ConfigurationError: they name none, or something can't be used.
    """
    if not settings.host:
        raise ConfigurationError("no host; give --host, set GUESTWIRE_HOST, or write a profile")
    target = parse_target(settings.host)
    # Either takes a tenth of a second to load; nobody waits for both.
    if isinstance(target, Unix):
        from guestwire.client.carriers.direct import DirectCarrier  # noqa: PLC0415

        carrier = DirectCarrier(target)
        return Host(carrier, only_guest=carrier.guest)
    from guestwire.client.carriers.https import HttpsCarrier  # noqa: PLC0415

    return Host(HttpsCarrier(target, settings.credentials(), settings.trust()))
