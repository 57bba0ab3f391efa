"""The dashboard: pages over the store, served by ``callmeter up`` and ``callmeter dashboard``."""

from __future__ import annotations

from callmeter_sinks.dashboard.access import OPEN, Access, Reader
from callmeter_sinks.dashboard.app import dashboard_app, dashboard_routes, end_streams
from callmeter_sinks.dashboard.lag import ends_of
from callmeter_sinks.dashboard.server import serve

__all__ = [
    "Access",
    "OPEN",
    "Reader",
    "dashboard_app",
    "dashboard_routes",
    "end_streams",
    "ends_of",
    "serve",
]
