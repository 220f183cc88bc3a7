"""Nodes and VMs: what the configuration says, and what is known of it now."""

from guestwire.inventory.config import AuditConfig, Config, ServerConfig, VmConfig, read_config
from guestwire.inventory.freezes import Freezes
from guestwire.inventory.vms import Inventory, Lease

__all__ = ["AuditConfig", "Config", "Freezes", "Inventory", "Lease", "ServerConfig", "VmConfig", "read_config"]
