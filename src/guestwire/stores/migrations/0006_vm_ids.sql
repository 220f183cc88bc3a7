-- The ids of VMs that have none where they are defined, as in libvirt: once given, an id stays with its VM.

CREATE TABLE vm_ids (
    uuid TEXT PRIMARY KEY,
    vmid INTEGER NOT NULL UNIQUE
);
