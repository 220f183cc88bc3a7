"""Nodes and VMs: what the configuration says, and what is known of it now."""

from guestwire.inventory.config import Config, ServerConfig, VmConfig, read_config
from guestwire.inventory.vms import Inventory, Lease

__all__ = ["Config", "Inventory", "Lease", "ServerConfig", "VmConfig", "read_config"]
