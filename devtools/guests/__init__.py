"""A small real guest: built from the distribution's packages, booted with QEMU; for the demo, the tests and the benchmarks."""

from devtools.guests.accelerator import accelerator
from devtools.guests.debian import build_debian
from devtools.guests.image import STORAGE, GuestImage, build, default_cache
from devtools.guests.machine import Machine

__all__ = ["STORAGE", "GuestImage", "Machine", "accelerator", "build", "build_debian", "default_cache"]
