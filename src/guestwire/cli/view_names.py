"""The commands that show an endpoint's result: heading and help. Made by `./dev docs` from the endpoints' records."""

from typing import Final

VIEWS: Final = {
    "cpustats": ("Look at guests", "Show what a guest's processors have done."),
    "df": ("Look at guests", "Show how full a guest's file systems are."),
    "disks": ("Look at guests", "Show a guest's disks, partitions and volumes."),
    "diskstats": ("Look at guests", "Show what a guest's disks have read and written."),
    "drivers": ("Look at guests", "Show a Windows guest's devices and their drivers."),
    "freeze-status": ("Change a guest", "Show if file systems are frozen or thawed."),
    "hostname": ("Look at guests", "Show a guest's host name."),
    "info": ("Look at guests", "Show the agent's version and commands."),
    "ip": ("Look at guests", "Show a guest's network interfaces and addresses."),
    "osinfo": ("Look at guests", "Show a guest's operating system."),
    "ping": ("Look at guests", "Check that a guest's agent answers."),
    "time": ("Look at guests", "Show a guest's clock. JSON: nanoseconds since the epoch."),
    "timezone": ("Look at guests", "Show a guest's time zone."),
    "users": ("Look at guests", "Show who is logged in to a guest."),
    "vcpus": ("Look at guests", "Show a guest's processors."),
    "vm": ("Look at guests", "Show the VM itself: its state, load and memory."),
}
