"""`python -m guestwire.contract` writes the reference of all endpoints."""

import sys

from guestwire.contract.reference import reference
from guestwire.contract.registry import ENDPOINTS

sys.stdout.write(reference(ENDPOINTS))
