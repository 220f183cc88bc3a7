-- Which guests were frozen through this server, by whom and since when; no longer than until they are thawed.

CREATE TABLE frozen (
    vmid INTEGER PRIMARY KEY,
    subject TEXT NOT NULL,
    since REAL NOT NULL,
    count INTEGER
);
