"""A Debian guest with systemd and OpenSSH: its disk, and what configures it."""

from devtools.guests.debian.disk import build_debian

__all__ = ["build_debian"]
