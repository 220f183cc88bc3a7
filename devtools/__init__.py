"""Programs for people who work on guestwire: the demo, the small real guest, and the generators.

They are not in the wheel.
"""
