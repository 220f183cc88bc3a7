"""Where each privilege of a user or token comes from, and why a subject has none; for people."""

from typing import Any

from guestwire.access import engine
from guestwire.access.administration import acl_path
from guestwire.access.subject import split
from guestwire.stores.snapshot import Snapshot


def explain(snapshot: Snapshot, subject: str, path: str | None, now: float) -> tuple[list[dict[str, Any]], str]:
    """The privileges of a user or token with their grants; and the reason why it has none, when it can't even log in.

    Args:
        snapshot: the store's.
        subject: userid or `USERID!TOKENID`.
        path: None means every path that an ACL entry or a pool makes different from others.
        now: seconds since the epoch.

    Returns:
        First: `path`, `privilege`, `propagate` and `grants`: ACL entries as the API lists them, with `pool` where one
            reaches the path by
        way of a pool; a token with privilege separation has its own entries first, then its user's.

    Raises:
        InvalidParameters: there can be no such path.
    """
    paths = [acl_path(path)] if path is not None else sorted(engine.all_permissions(snapshot, subject, now))
    rows = [
        {"path": path, "privilege": name, "propagate": int(held.propagates), "grants": [*map(_as_row, held.grants)]}
        for path in paths
        for name, held in engine.privileges(snapshot, subject, path, now).items()
    ]
    return rows, _obstacle(snapshot, subject, now)


def _obstacle(snapshot: Snapshot, subject: str, now: float) -> str:
    """The reason why a user or token is kept out; empty when it is not."""
    userid, _ = split(subject)
    user, token = snapshot.users.get(userid), snapshot.tokens.get(subject)
    if user and not user.enable:
        return f"{userid} is disabled"
    expired = [record.key for record in (user, token) if record and record.expire and record.expire < now]
    return f"{expired[0]} is expired" if expired else ""


def _as_row(grant: engine.Grant) -> dict[str, Any]:
    entry = grant.entry
    row = {
        "path": entry.path,
        "type": entry.kind,
        "ugid": entry.subject,
        "roleid": entry.roleid,
        "propagate": int(entry.propagate),
    }
    return row | ({"pool": grant.pool} if grant.pool else {})
