"""The REST server: the contract over HTTPS, with Proxmox VE's status codes, reason phrases and order of checks."""

from guestwire.server.certificate import Certificate
from guestwire.server.gateway import Gateway
from guestwire.server.listener import Listener

__all__ = ["Certificate", "Gateway", "Listener"]
