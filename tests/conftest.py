"""Plugins for every test; fixtures live in ``tests/support``."""

pytest_plugins = [
    "pytester",
    "support.acceptance",
    "support.chaos",
    "support.embedded",
    "support.kafka_server",
    "support.skipped",
]
