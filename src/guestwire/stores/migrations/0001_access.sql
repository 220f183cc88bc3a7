-- Users and what they may do. Every reference is deferred: a change is one transaction, in any order.

CREATE TABLE state (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    version INTEGER NOT NULL
);

INSERT INTO state VALUES (1, 0);

CREATE TABLE users (
    userid TEXT PRIMARY KEY,
    enable INTEGER NOT NULL,
    expire INTEGER NOT NULL,
    firstname TEXT NOT NULL,
    lastname TEXT NOT NULL,
    email TEXT NOT NULL,
    comment TEXT NOT NULL,
    keys TEXT NOT NULL,
    password_hash TEXT
) WITHOUT ROWID;

CREATE TABLE groups (
    groupid TEXT PRIMARY KEY,
    comment TEXT NOT NULL
) WITHOUT ROWID;

CREATE TABLE group_members (
    groupid TEXT NOT NULL REFERENCES groups ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED,
    userid TEXT NOT NULL REFERENCES users ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED,
    PRIMARY KEY (groupid, userid)
) WITHOUT ROWID;

CREATE INDEX group_members_by_user ON group_members (userid);

CREATE TABLE tokens (
    key TEXT PRIMARY KEY,
    userid TEXT NOT NULL REFERENCES users ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED,
    tokenid TEXT NOT NULL,
    secret_hash BLOB NOT NULL,
    privsep INTEGER NOT NULL,
    expire INTEGER NOT NULL,
    comment TEXT NOT NULL,
    CHECK (key = userid || '!' || tokenid)
) WITHOUT ROWID;

CREATE INDEX tokens_by_user ON tokens (userid);

CREATE TABLE roles (
    roleid TEXT PRIMARY KEY
) WITHOUT ROWID;

CREATE TABLE role_privileges (
    roleid TEXT NOT NULL REFERENCES roles ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED,
    privilege TEXT NOT NULL,
    PRIMARY KEY (roleid, privilege)
) WITHOUT ROWID;

-- roleid refers to no table: built-in roles are not stored.
CREATE TABLE acl (
    path TEXT NOT NULL,
    kind TEXT NOT NULL CHECK (kind IN ('user', 'group', 'token')),
    subject TEXT NOT NULL,
    roleid TEXT NOT NULL,
    propagate INTEGER NOT NULL,
    userid TEXT GENERATED ALWAYS AS (iif(kind = 'user', subject, NULL)) STORED
        REFERENCES users ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED,
    groupid TEXT GENERATED ALWAYS AS (iif(kind = 'group', subject, NULL)) STORED
        REFERENCES groups ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED,
    token TEXT GENERATED ALWAYS AS (iif(kind = 'token', subject, NULL)) STORED
        REFERENCES tokens ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED,
    PRIMARY KEY (path, kind, subject, roleid)
) WITHOUT ROWID;

CREATE INDEX acl_by_user ON acl (userid) WHERE userid IS NOT NULL;
CREATE INDEX acl_by_group ON acl (groupid) WHERE groupid IS NOT NULL;
CREATE INDEX acl_by_token ON acl (token) WHERE token IS NOT NULL;

CREATE TABLE pools (
    poolid TEXT PRIMARY KEY,
    comment TEXT NOT NULL
) WITHOUT ROWID;

CREATE TABLE pool_vms (
    vmid INTEGER PRIMARY KEY,
    poolid TEXT NOT NULL REFERENCES pools ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED
);

CREATE INDEX pool_vms_by_pool ON pool_vms (poolid);

CREATE TABLE signing_keys (
    id TEXT PRIMARY KEY,
    kind TEXT NOT NULL CHECK (kind IN ('ticket', 'csrf')),
    created REAL NOT NULL,
    private BLOB NOT NULL
) WITHOUT ROWID;
