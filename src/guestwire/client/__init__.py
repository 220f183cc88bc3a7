"""The client: one way to work inside any guest, through Proxmox VE, through guestwire, or on an agent's own socket."""

from guestwire.client._exports import __dir__ as __dir__
from guestwire.client._exports import __getattr__ as __getattr__
