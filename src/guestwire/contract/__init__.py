"""The contract: every endpoint of the API as a record, from which everything else follows; all of them together are `registry.ENDPOINTS`."""

from guestwire.contract.context import Context, VmSummary
from guestwire.contract.endpoint import Effect, Endpoint, Registry
from guestwire.contract.openapi import openapi
from guestwire.contract.parameters import Audited, Parameters, rules, validate
from guestwire.contract.text import ByteText, to_bytes

__all__ = [
    "Audited",
    "ByteText",
    "Context",
    "Effect",
    "Endpoint",
    "Parameters",
    "Registry",
    "VmSummary",
    "openapi",
    "rules",
    "to_bytes",
    "validate",
]
