"""The client: one way to work inside any guest, through Proxmox VE, through guestwire, or on an agent's own socket."""

from guestwire.client.connecting import SyncGuest, SyncHost, connect, connect_sync
from guestwire.client.errors import CallFailed
from guestwire.client.guests import Guest
from guestwire.client.hosts import Host
from guestwire.client.parts import GuestInfo
from guestwire.client.processes import Ended

__all__ = ["CallFailed", "Ended", "Guest", "GuestInfo", "Host", "SyncGuest", "SyncHost", "connect", "connect_sync"]
