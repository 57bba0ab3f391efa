"""Plugins for every test; fixtures live in ``tests/support``."""

from hypothesis import HealthCheck, settings

# No timing decides a test: not how long an example takes, nor how long it took to make one.
settings.register_profile("callmeter", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("callmeter")

pytest_plugins = [
    "pytester",
    "support.acceptance",
    "support.chaos",
    "support.embedded",
    "support.kafka_server",
    "support.skipped",
]
