"""Records of alerts, budgets, statuses and live, made up for the sink's tests."""

from __future__ import annotations

from typing import Any

import orjson

from callmeter.log.record import NewRecord

AT_US = 1_790_000_000_000_000
SOURCE = "0198a1b2-0000-7000-8000-000000000009"
CALL = "0198a1b2-0000-7000-8000-000000000008"


def alert(log_id: str, number: int, kind: str = "threshold", **more: Any) -> NewRecord:
    """An alert with the id ``number`` in hex; of a budget unless it says otherwise."""
    rule = more.pop("rule", "team" if kind == "threshold" else kind.removesuffix("_closed"))
    said = {
        "v": 1, "id": f"{number:032x}", "kind": kind, "rule": rule, "severity": "warning",
        "at_us": AT_US + number, "message": f"{kind} {number}", "log": log_id,
    }  # fmt: skip
    return NewRecord("alerts", rule.encode(), orjson.dumps(said | more))


def status(log_id: str, spend_pico: int, entity: str = "", **more: Any) -> NewRecord:
    """A status of the budget ``team``, in the partition of its entity (0)."""
    said = {
        "v": 1, "log": log_id, "budget": "team", "version": 1, "basis": 1, "entity": entity,
        "window": "day", "state": "ok", "action": "stop", "start_us": AT_US - 1_000_000,
        "end_us": AT_US + 3_600_000_000, "spend_pico": str(spend_pico), "tokens": 3, "calls": 1,
        "at_us": AT_US, "included": {"0": spend_pico}, "limit_pico": "5000000000000",
        "burn_long_pico": "2000000000000",
    }  # fmt: skip
    return NewRecord("budget-status", f"team|{entity}".encode(), orjson.dumps(said | more), 0)


def forgotten(entity: str = "") -> NewRecord:
    """The tombstone of a status."""
    return NewRecord("budget-status", f"team|{entity}".encode(), None, 0)


def budget(version: int = 1, **more: Any) -> NewRecord:
    """A definition of the budget ``team``."""
    said = {
        "v": 1, "id": "team", "version": version, "window": "day", "thresholds": ["50%"],
        "limit_pico": "5000000000000", "scope": {"project": ["shop", "web*"]}, "edited_us": 5,
    }  # fmt: skip
    return NewRecord("budgets", b"team", orjson.dumps(said | more), 0)


def live(log_id: str, project: str, **open_by_model: int) -> NewRecord:
    """A project's running windows, of which open calls are stored."""
    calls = [{"provider": "openai", "model": m, "open": n} for m, n in open_by_model.items()]
    said = {"v": 1, "log": log_id, "project": project, "at_us": AT_US, "windows": [], "open": calls}
    return NewRecord("live", project.encode(), orjson.dumps(said), 0)
