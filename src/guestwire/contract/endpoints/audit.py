"""Who did what: the audit trail, under a name of our own."""

from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

from guestwire.access.checks import Privileges
from guestwire.contract.context import Context
from guestwire.contract.endpoint import Registry
from guestwire.contract.parameters import OfNode
from guestwire.stores import AuditFilter, AuditRecord

endpoints = Registry()

MOST: Final = 10_000


class ListAudit(OfNode, frozen=True, kw_only=True):
    """Parameters of the audit trail: which records."""

    since: Annotated[int, Meta(description="Seconds since the epoch.", ge=0)] | None = None
    until: Annotated[int, Meta(description="Seconds since the epoch; not included.", ge=0)] | None = None
    user: Annotated[str, Meta(description="This user, by itself or by a token.")] | None = None
    subject: Annotated[str, Meta(description="Exactly this user or USERID!TOKENID.")] | None = None
    address: Annotated[str, Meta(description="From this address.")] | None = None
    vmid: Annotated[int, Meta(description="About this VM.", ge=1)] | None = None
    endpoint: Annotated[str, Meta(description="This method and path, as a record has them.")] | None = None
    status: Annotated[int, Meta(description="With this HTTP status.", ge=100, le=599)] | None = None
    request_id: Annotated[str, Meta(description="This request.")] | None = None
    after: Annotated[int, Meta(description="With a greater number, the oldest first: to follow.", ge=0)] | None = None
    limit: Annotated[int, Meta(description="At most so many.", ge=1, le=MOST)] = 1000


class Record(msgspec.Struct, frozen=True, rename="kebab", omit_defaults=True):
    """One call that changed something, or was refused; `time` in seconds since the epoch, `duration-ms` in milliseconds."""

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
async def audit(context: Context, parameters: ListAudit) -> list[Record]:
    """Lists who changed what in guests and access, and what was refused; the last records, unless `after` is given."""
    names = AuditFilter.__struct_fields__
    wanted = AuditFilter(**{name: getattr(parameters, name) for name in names})
    records = await context.access.audit(wanted, after=parameters.after, limit=parameters.limit)
    return [_shown(record) for record in records]


def _shown(record: AuditRecord) -> Record:
    return Record(**{name: getattr(record, name) for name in Record.__struct_fields__})
