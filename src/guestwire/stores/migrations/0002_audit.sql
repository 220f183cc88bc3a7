-- Who did what. A number is never used twice, so that a reader who follows the log misses nothing.

CREATE TABLE audit (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    time REAL NOT NULL,
    request_id TEXT NOT NULL,
    subject TEXT NOT NULL,
    address TEXT NOT NULL,
    vmid INTEGER,
    endpoint TEXT NOT NULL,
    parameters TEXT NOT NULL,
    status INTEGER NOT NULL,
    result TEXT NOT NULL,
    duration_ms REAL NOT NULL
);

CREATE INDEX audit_by_time ON audit (time);
CREATE INDEX audit_by_vm ON audit (vmid, number);
CREATE INDEX audit_by_subject ON audit (subject, number);

-- Written once, thrown away when old, never changed.
CREATE TRIGGER audit_is_never_changed BEFORE UPDATE ON audit
BEGIN
    SELECT RAISE(ABORT, 'audit records are never changed');
END;
