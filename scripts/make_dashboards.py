#!/usr/bin/env python3
"""Write the Grafana dashboards described in deploy/grafana/*.yaml into its folder dashboards/.

    scripts/make_dashboards.py            write them
    scripts/make_dashboards.py --check    say whether they are as this program would write them

The dashboard over ClickHouse, overview.json, is kept by hand. Every query over Prometheus is
run by a real one that scrapes real processes (tests/integration/test_monitoring.py), every query
over ClickHouse on a real pipeline's data (test_grafana.py).
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import yaml

TOLD = Path(__file__).resolve().parents[1] / "deploy" / "grafana"
FOLDER = TOLD / "dashboards"
PROMETHEUS = {"type": "prometheus", "uid": "callmeter-prometheus"}
CLICKHOUSE = {"type": "grafana-clickhouse-datasource", "uid": "callmeter-clickhouse"}
_WIDTH = 24


#: Columns and lines of a panel by its kind.
_SIZES = {"timeseries": (8, 7), "stat": (4, 4), "table": (24, 9)}


def board(told: dict[str, Any]) -> dict[str, Any]:
    """A dashboard's JSON from its description."""
    panels: list[dict[str, Any]] = []
    y = 0
    for heading, content in told["rows"].items():
        place = {"x": 0, "y": y, "w": _WIDTH, "h": 1}
        row = {"id": len(panels) + 1, "title": heading, "type": "row", "collapsed": False}
        panels.append({**row, "gridPos": place, "panels": []})
        y, x, height = y + 1, 0, 0
        for panel in content:
            width, new_height = _SIZES[panel.get("kind", "timeseries")]
            if x + width > _WIDTH:
                x, y = 0, y + height
            height = new_height
            place = {"x": x, "y": y, "w": width, "h": height}
            panels.append(_panel(len(panels) + 1, panel, place))
            x += width
        y += height
    return {
        "uid": told["uid"],
        "title": told["title"],
        "tags": ["callmeter"],
        "schemaVersion": 41,
        "version": 1,
        "editable": True,
        "timezone": "utc",
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "templating": {"list": [_PROJECTS] if told.get("projects") else []},
        "annotations": {"list": []},
        "panels": panels,
    }


#: The choice of projects, as overview.json has it.
_PROJECTS = {
    "name": "project",
    "label": "Project",
    "type": "query",
    "datasource": CLICKHOUSE,
    "query": "SELECT DISTINCT project FROM rollup_1d ORDER BY project",
    "refresh": 2,
    "multi": True,
    "includeAll": True,
    "current": {"text": ["All"], "value": ["$__all"]},
}


def _panel(number: int, panel: dict[str, Any], place: dict[str, int]) -> dict[str, Any]:
    return {
        "id": number,
        "title": panel["title"],
        "description": panel.get("says", ""),
        "type": panel.get("kind", "timeseries"),
        "datasource": CLICKHOUSE if "sql" in panel else PROMETHEUS,
        "gridPos": place,
        "fieldConfig": {"defaults": {"unit": panel.get("unit", "short")}, "overrides": []},
        "targets": _targets(panel),
    }


def _targets(panel: dict[str, Any]) -> list[dict[str, Any]]:
    if "sql" in panel:
        table = panel.get("kind") in ("table", "stat")
        kind = (
            {"queryType": "table", "format": 1}
            if table
            else {"queryType": "timeseries", "format": 0}
        )
        target = {"refId": "A", "datasource": CLICKHOUSE, "editorType": "sql", **kind}
        return [{**target, "rawSql": panel["sql"]}]
    return [
        {"refId": chr(65 + i), "datasource": PROMETHEUS, "expr": expr, "legendFormat": legend}
        for i, (legend, expr) in enumerate(panel["queries"].items())
    ]


def main() -> int:
    wrong = []
    for source in TOLD.glob("*.yaml"):
        text = json.dumps(board(yaml.safe_load(source.read_text())), indent=2) + "\n"
        path = FOLDER / f"{source.stem}.json"
        if "--check" not in sys.argv:
            path.write_text(text)
        elif not path.is_file() or path.read_text() != text:
            wrong.append(path.name)
    for name in wrong:
        print(f"deploy/grafana/dashboards/{name} is out of date: scripts/make_dashboards.py")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
