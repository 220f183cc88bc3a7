-- Which guests were frozen through this server, by whom and since when; no longer than until they are thawed.

CREATE TABLE frozen (
    vmid INTEGER PRIMARY KEY,
    subject TEXT NOT NULL,
    since REAL NOT NULL,
    count INTEGER
);

-- A call that has begun has a record of status 102, which goes when the record of its end comes.

CREATE INDEX audit_begun ON audit (request_id) WHERE status = 102;
