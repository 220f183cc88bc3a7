-- The ids of VMs that have none where they are defined, by what tells one from all others: a UUID, or a socket's path.

CREATE TABLE vmids (
    key TEXT PRIMARY KEY,
    vmid INTEGER NOT NULL
);
