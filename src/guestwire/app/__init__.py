"""Where the parts are put together: `prepare.py` first, then `service.py` in a process of its own."""
