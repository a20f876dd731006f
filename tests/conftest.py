"""Settings for the whole suite."""

from __future__ import annotations

from hypothesis import settings

# The same examples on every machine and every run.
settings.register_profile("repeatable", derandomize=True, deadline=None, database=None)
settings.load_profile("repeatable")
