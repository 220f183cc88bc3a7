"""Who did what: the audit trail, under a name of our own."""

from typing import Annotated, Any, Final

import msgspec

from guestwire.access.checks import Privileges
from guestwire.contract.context import AccessContext
from guestwire.contract.endpoint import Registry
from guestwire.contract.parameters import NodeParameters, Role, parameter
from guestwire.stores import AuditFilter

endpoints = Registry()

MOST: Final = 10_000


class ListAudit(NodeParameters, frozen=True, kw_only=True):
    """Parameters of the audit trail: which records."""

    since: Annotated[int, parameter("Seconds since the epoch.", ge=0)] | None = None
    until: Annotated[int, parameter("Seconds since the epoch; not included.", ge=0)] | None = None
    user: Annotated[str, parameter("This user, by itself or by a token.", Role.TEXT)] | None = None
    subject: Annotated[str, parameter("Exactly this user or USERID!TOKENID.", Role.TEXT)] | None = None
    address: Annotated[str, parameter("From this address.", Role.TEXT)] | None = None
    vmid: Annotated[int, parameter("About this VM.", ge=1)] | None = None
    endpoint: Annotated[str, parameter("This method and path, as a record has them.", Role.TEXT)] | None = None
    status: Annotated[int, parameter("With this HTTP status.", ge=100, le=599)] | None = None
    request_id: Annotated[str, parameter("This request.", Role.TEXT)] | None = None
    after: Annotated[int, parameter("With a greater number, the oldest first: to follow.", ge=0)] | None = None
    limit: Annotated[int, parameter("At most so many.", ge=1, le=MOST)] = 1000


class Record(msgspec.Struct, frozen=True, rename="kebab", omit_defaults=True):
    """One call that changed something, or was refused; `time` in seconds since the epoch, `duration-ms` in milliseconds.

    A `status` of 102 says that it has begun: its end has a record in the place of this one, unless the server was killed.
    """

    number: int
    time: float
    request_id: str
    subject: str
    address: str
    endpoint: str
    parameters: dict[str, Any]
    status: int
    result: str
    duration_ms: float
    vmid: int | None = None


@endpoints.endpoint(
    "GET", "/nodes/{node}/guestwire/audit", ListAudit, check=Privileges("/nodes/{node}", ("Sys.Audit",))
)
async def audit(context: AccessContext, parameters: ListAudit) -> list[Record]:
    """Lists who changed what in guests and access, and what was refused; the last records, unless `after` is given."""
    names = AuditFilter.__struct_fields__
    wanted = AuditFilter(**{name: getattr(parameters, name) for name in names})
    records = await context.access.audit(wanted, after=parameters.after, limit=parameters.limit)
    return [Record(**{name: getattr(record, name) for name in Record.__struct_fields__}) for record in records]
