"""Nodes and VMs: what the configuration says, and what is known of it now."""

from guestwire.inventory.config import AuditConfig, Config, ServerConfig, SourceConfig, VmConfig, read_config
from guestwire.inventory.lease import Lease
from guestwire.inventory.vms import Inventory

__all__ = ["AuditConfig", "Config", "Inventory", "Lease", "ServerConfig", "SourceConfig", "VmConfig", "read_config"]
