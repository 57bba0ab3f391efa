#!/usr/bin/env python3
"""Write the Grafana dashboards described in deploy/grafana/*.yaml into its folder dashboards/.

    scripts/make_dashboards.py            write them
    scripts/make_dashboards.py --check    say whether they are as this program would write them

The dashboard over ClickHouse, overview.json, is kept by hand. Every query is run against a real
Prometheus that scrapes real processes by tests/integration/test_monitoring.py.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import yaml

TOLD = Path(__file__).resolve().parents[1] / "deploy" / "grafana"
FOLDER = TOLD / "dashboards"
SOURCE = {"type": "prometheus", "uid": "callmeter-prometheus"}
_WIDTH = 24


#: Columns and lines of a panel by its kind.
_SIZES = {"timeseries": (8, 7), "stat": (4, 4)}


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
        "templating": {"list": []},
        "annotations": {"list": []},
        "panels": panels,
    }


def _panel(number: int, panel: dict[str, Any], place: dict[str, int]) -> dict[str, Any]:
    return {
        "id": number,
        "title": panel["title"],
        "description": panel.get("says", ""),
        "type": panel.get("kind", "timeseries"),
        "datasource": SOURCE,
        "gridPos": place,
        "fieldConfig": {"defaults": {"unit": panel.get("unit", "short")}, "overrides": []},
        "targets": [
            {"refId": chr(65 + i), "datasource": SOURCE, "expr": expr, "legendFormat": legend}
            for i, (legend, expr) in enumerate(panel["queries"].items())
        ],
    }


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
