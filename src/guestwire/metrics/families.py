"""The names of all metrics, with their kinds and meanings: the one list, from which headers, pages and tests follow.

node_exporter's words with a prefix of our own, and the labels of Proxmox VE's exporters (`id="qemu/100"`, `name`, `node`).
"""

from typing import Final, NamedTuple


class Family(NamedTuple):
    """One metric; `kind` is `gauge` or `counter`, and the name of a counter ends with `_total`."""

    name: str
    kind: str
    help: str


PREFIX: Final = "guestwire_guest_"

FAMILIES: Final = tuple(
    Family(PREFIX + name, "counter" if name.endswith("_total") else "gauge", text)
    for name, text in (
        ("agent_up", "1 if the guest's agent answered the last poll."),
        ("frozen", "1 while the guest's file systems are frozen, as far as that came through this server."),
        ("last_poll_timestamp_seconds", "When the guest was polled last, in seconds since the epoch."),
        ("poll_duration_seconds", "How long the last poll took."),
        ("filesystem_size_bytes", "Size of a file system."),
        ("filesystem_avail_bytes", "Bytes of a file system that are free."),
        ("filesystem_used_bytes", "Bytes of a file system that are used."),
        ("load1", "Processes that run or wait, on average of a minute."),
        ("load5", "Processes that run or wait, on average of five minutes."),
        ("load15", "Processes that run or wait, on average of 15 minutes."),
        ("os_info", "The guest's system; always 1."),
        ("agent_info", "The agent's version; always 1."),
        ("users", "Users who are logged in."),
        ("time_offset_seconds", "How far the guest's clock is ahead of this host's."),
        ("vcpus_online", "Processors in use."),
        ("device_driver_date_seconds", "Date of a Windows driver, in seconds since the epoch."),
        ("cpu_seconds_total", "Time that a processor spent in each mode."),
        ("disk_read_bytes_total", "Bytes read from a disk."),
        ("disk_written_bytes_total", "Bytes written to a disk."),
        ("disk_reads_completed_total", "Reads from a disk."),
        ("disk_writes_completed_total", "Writes to a disk."),
        ("network_receive_bytes_total", "Bytes received."),
        ("network_receive_packets_total", "Packets received."),
        ("network_receive_errs_total", "Errors while receiving."),
        ("network_receive_drop_total", "Received packets that were dropped."),
        ("network_transmit_bytes_total", "Bytes sent."),
        ("network_transmit_packets_total", "Packets sent."),
        ("network_transmit_errs_total", "Errors while sending."),
        ("network_transmit_drop_total", "Packets to be sent that were dropped."),
    )
)

POSITIONS: Final = {family.name.removeprefix(PREFIX): position for position, family in enumerate(FAMILIES)}
