"""Calls of endpoints on their way: resolve, validate, authorise, limit, run, record; one pipeline for every face.

`pipeline.py` begins with the seam, and runs calls in this process; the client's carriers take them to a server.
"""

from guestwire.dispatch.pipeline import (
    NOBODY,
    Call,
    Dispatcher,
    Pipeline,
    Recorder,
    Route,
    Router,
    new_id,
    parameters_given,
)

__all__ = ["NOBODY", "Call", "Dispatcher", "Pipeline", "Recorder", "Route", "Router", "new_id", "parameters_given"]
