"""Calls of endpoints on their way: resolve, validate, authorise, limit, run, record; one pipeline for every face.

Read `call.py` first: it is the seam. `pipeline.py` runs calls in this process; the client's carriers take them to a
server.
"""

from guestwire.dispatch.call import NOBODY, Call, Dispatcher, Recorder, Route, new_id, parameters_given
from guestwire.dispatch.pipeline import Pipeline, Router

__all__ = ["NOBODY", "Call", "Dispatcher", "Pipeline", "Recorder", "Route", "Router", "new_id", "parameters_given"]
