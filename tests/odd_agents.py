"""Agents of many ages and systems, by what they answer: rebuilt from the schemas of their versions and from replies that were recorded."""

from typing import Any, Final

LINUX: Final[dict[str, Any]] = {
    "guest-get-time": 1_795_491_583_444_513_000,
    "guest-network-get-interfaces": [
        {"name": "lo", "hardware-address": "00:00:00:00:00:00",
         "ip-addresses": [{"ip-address": "127.0.0.1", "ip-address-type": "ipv4", "prefix": 8}]},
        {"name": "eth0", "hardware-address": "52:54:00:12:34:56",
         "ip-addresses": [{"ip-address": "10.0.2.15", "ip-address-type": "ipv4", "prefix": 24}]},
        {"name": "sit0"},
    ],
    "guest-fsfreeze-status": "thawed",
    "guest-fsfreeze-freeze": 1,
    "guest-fsfreeze-thaw": 1,
    "guest-fstrim": {},
}  # fmt: skip

VCPUS: Final = [{"logical-id": 0, "online": True}, {"logical-id": 1, "online": True, "can-offline": True}]


def commands(*names: str, **more: Any) -> list[dict[str, Any]]:
    """What guest-info lists."""
    return [{"name": f"guest-{name}", "enabled": True, **more} for name in names]


AGENTS: Final[dict[str, dict[str, Any]]] = {
    # RHEL 6: no list of commands, no time, no interfaces.
    "0.12": {
        "guest-info": {"version": "0.12.1"},
        "guest-fsfreeze-status": "thawed",
        "guest-fsfreeze-freeze": 2,
        "guest-fsfreeze-thaw": 2,
    },
    # Debian 7: the list has neither success-response; fstrim answers {}.
    "1.1": {"guest-info": {"version": "1.1.2", "supported_commands": commands("ping", "info", "fsfreeze-status")}, **LINUX},
    # CentOS 7 and Ubuntu 14.04: file systems without sizes.
    "2.2": {
        "guest-info": {"version": "2.2.0", "supported_commands": commands("ping", "get-vcpus", **{"success-response": True})},
        **LINUX,
        "guest-get-vcpus": VCPUS,
        "guest-get-fsinfo": [{"name": "vda1", "mountpoint": "/", "type": "xfs", "disk": []}],
    },
    # Ubuntu 18.04.
    "2.11": {
        "guest-info": {"version": "2.11.1", "supported_commands": commands("exec", **{"success-response": True})},
        **LINUX,
        "guest-get-vcpus": VCPUS,
        "guest-get-fsinfo": [{"name": "vda1", "mountpoint": "/", "type": "ext4", "disk": [
            {"bus-type": "virtio", "bus": 0, "target": 0, "unit": 0,
             "pci-controller": {"domain": 0, "bus": 0, "slot": 7, "function": 0}}]}],
        "guest-fstrim": {"paths": [{"path": "/", "minimum": 0, "trimmed": 4096}, {"path": "/boot", "error": "not supported"}]},
        "guest-get-osinfo": {"id": "ubuntu", "name": "Ubuntu"},
        "guest-get-timezone": {"offset": 0},
        "guest-get-users": [],
        "guest-get-memory-blocks": [{"phys-index": 0, "online": True}],
        "guest-get-memory-block-info": {"size": 134217728},
    },
    # virtio-win: names in the system's language, disks without serials, no blocks of memory.
    "windows": {
        "guest-info": {"version": "107.0.1", "supported_commands": commands("exec", **{"success-response": True})},
        "guest-get-time": 1_795_491_583_444_513_000,
        "guest-network-get-interfaces": [
            {"name": "Ethernet-Verbindung öäü", "hardware-address": "52:54:00:12:34:57", "ip-addresses": [
                {"ip-address": "fe80::1%5", "ip-address-type": "ipv6", "prefix": 64},
                {"ip-address": "10.0.2.16", "ip-address-type": "ipv4", "prefix": 24}],
             "statistics": {"tx-packets": 1, "tx-errs": 0, "rx-bytes": 1, "rx-dropped": 0, "rx-packets": 1, "rx-errs": 0,
                            "tx-bytes": 1, "tx-dropped": 0}},
            {"name": "Loopback Pseudo-Interface 1",
             "ip-addresses": [{"ip-address": "::1", "ip-address-type": "ipv6", "prefix": 128}]},
        ],
        "guest-get-vcpus": [{"logical-id": 0, "online": True, "can-offline": False}],
        "guest-get-fsinfo": [
            {"name": "\\\\?\\Volume{f4a3}\\", "mountpoint": "C:\\", "type": "NTFS", "used-bytes": 20 * 2**30,
             "total-bytes": 40 * 2**30, "disk": [{"bus-type": "scsi", "bus": 0, "target": 0, "unit": 0, "dev": "\\\\.\\PhysicalDrive0",
             "pci-controller": {"domain": -1, "bus": -1, "slot": -1, "function": -1}}]},
            {"name": "\\\\?\\Volume{e1}\\", "mountpoint": "System Reserved", "type": "NTFS", "disk": []},
            {"name": "\\\\?\\Volume{c7}\\", "mountpoint": "D:\\", "type": "CDFS", "disk": []},
        ],
        "guest-get-osinfo": {"id": "mswindows", "name": "Microsoft Windows", "pretty-name": "Windows Server 2022 Standard",
                             "version": "Microsoft Windows Server 2022", "version-id": "2022", "variant": "server",
                             "variant-id": "server", "machine": "x86_64", "kernel-release": "20348", "kernel-version": "10.0"},
        "guest-get-timezone": {"offset": 3600, "zone": "Mitteleuropäische Zeit"},
        "guest-get-users": [{"user": "Administrator", "domain": "LAB", "login-time": 1_795_491_000.123}],
        "guest-fsfreeze-status": "thawed",
        "guest-fsfreeze-freeze": 2,
        "guest-fsfreeze-thaw": 2,
        "guest-fstrim": {"paths": [{"path": "C:\\", "error": "Unknown Volume"}, {"path": "D:\\"}]},
        # A drive without media has no address; drivers without a date, a version or an id are those of no manufacturer.
        "guest-get-disks": [
            {"name": "\\\\.\\PhysicalDrive0", "partition": False, "address": {
                "bus-type": "sata", "bus": 0, "target": 0, "unit": 0, "serial": "QM00001", "dev": "\\\\.\\PhysicalDrive0",
                "pci-controller": {"domain": 0, "bus": 0, "slot": 31, "function": 2}}},
            {"name": "\\\\.\\PhysicalDrive1", "partition": False, "smart": {"type": "nvme", "temperature": 310, "percentage-used": 3,
                "critical-warning": 0, "data-units-read-lo": 12}},
        ],
        "guest-get-devices": [
            {"driver-name": "Red Hat VirtIO Ethernet Adapter", "driver-date": 1_697_500_800_000_000_000, "driver-version": "100.94.104.24000",
             "id": {"type": "pci", "vendor-id": 0x1AF4, "device-id": 0x1041}},
            {"driver-name": "VirtIO Balloon Driver", "driver-version": "100.94.104.24000", "id": {"type": "pci", "vendor-id": 0x1AF4, "device-id": 0x1045}},
            {"driver-name": "Gerät von morgen", "id": {"type": "usb"}},
        ],
        "guest-get-load": {"load1m": 0.25, "load5m": 0.5, "load15m": 0},
    },
    # FreeBSD 14: interfaces without statistics, no file systems, no processors.
    "freebsd": {
        "guest-info": {"version": "8.2.2", "supported_commands": commands("exec", **{"success-response": True})},
        **{name: reply for name, reply in LINUX.items() if name != "guest-fstrim"},
        "guest-network-get-interfaces": [
            {"name": "vtnet0", "hardware-address": "52:54:00:12:34:58",
             "ip-addresses": [{"ip-address": "10.0.2.17", "ip-address-type": "ipv4", "prefix": 24}]},
            {"name": "lo0", "hardware-address": "",
             "ip-addresses": [{"ip-address": "fe80::1%lo0", "ip-address-type": "ipv6", "prefix": 64}]},
        ],
        "guest-get-osinfo": {"kernel-version": "FreeBSD 14.1-RELEASE", "kernel-release": "14.1-RELEASE", "machine": "amd64",
                             "id": "freebsd", "name": "FreeBSD", "pretty-name": "FreeBSD 14.1-RELEASE"},
        "guest-get-timezone": {"offset": -18000, "zone": "EST"},
        "guest-get-users": [{"user": "root", "login-time": 1_795_491_000}],
    },
    # 11: fields that no type here has.
    "11.0": {
        "guest-info": {"version": "11.0.0", "supported_commands": commands("exec", **{"success-response": True, "features": ["x"]}),
                       "new": {"a": [1]}},
        **LINUX,
        "guest-get-vcpus": [*VCPUS, {"logical-id": 2, "online": False, "can-offline": True, "socket": 1}],
        "guest-get-fsinfo": [{"name": "vda1", "mountpoint": "/", "type": "ext4", "used-bytes": 1, "total-bytes": 2,
                              "total-bytes-privileged": 3, "fs-uuid": "x", "disk": [
            {"bus-type": "nvme", "bus": 0, "target": 0, "unit": 0, "has-media": True, "dev": "/dev/nvme0n1",
             "pci-controller": {"domain": 0, "bus": 0, "slot": 0, "function": 0}, "ccw-address": {"cssid": 0}}]}],
        "guest-get-osinfo": {"id": "debian", "new": 1},
        "guest-get-timezone": {"offset": 7200, "zone": "CEST", "new": None},
        "guest-get-users": [{"user": "root", "login-time": 1.5, "seat": "seat0"}],
        "guest-get-memory-blocks": [{"phys-index": 0, "online": True, "can-offline": False, "node": 0}],
        "guest-get-memory-block-info": {"size": 134217728, "new": 1},
        "guest-get-disks": [
            {"name": "/dev/nvme0n1", "partition": False, "dependencies": [], "address": {"bus-type": "nvme", "bus": 0, "target": 0, "unit": 0},
             "smart": {"type": "nvme", "temperature": 310, "new": [1]}},
            {"name": "/dev/nvme0n1p1", "partition": True, "dependencies": ["/dev/nvme0n1"], "new": 1},
            {"name": "/dev/dm-0", "partition": False, "dependencies": ["/dev/nvme0n1p1"], "alias": "vg-root"},
        ],
        "guest-get-diskstats": [{"name": "nvme0n1", "major": 259, "minor": 0, "stats": {"read-sectors": 2048, "read-ios": 7, "new": 1}}],
        "guest-get-cpustats": [{"type": "linux", "cpu": 0, "user": 1, "nice": 0, "system": 2, "idle": 90_061_000, "new": 1}],
        "guest-get-load": {"load1m": 1.5, "load5m": 0, "load15m": 0.25, "new": 1},
        "guest-network-get-route": [
            {"iface": "eth0", "destination": "0.0.0.0", "metric": 100, "gateway": "10.0.2.2", "mask": "0.0.0.0", "version": 4, "new": 1},
            {"iface": "eth0", "destination": "10.0.2.0", "metric": 100, "gateway": "0.0.0.0", "mask": "255.255.255.0", "version": 4},
            {"iface": "eth0", "destination": "fe80::", "metric": 256, "desprefixlen": "64", "nexthop": "::", "version": 6},
        ],
        "guest-ssh-get-authorized-keys": {"keys": [], "new": 1},
        "guest-fstrim": {"paths": [{"path": "/", "minimum": 0, "trimmed": 0, "new": 1}]},
    },
}  # fmt: skip
"""What each agent answers; it has no other command, but ping and host name."""
