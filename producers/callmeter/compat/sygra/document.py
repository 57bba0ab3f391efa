"""From records to the metadata document: one function, for the process and for the store."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from callmeter.compat.sygra.totals import Totals

METADATA_VERSION = "1.0.0"


def document(
    execution: Mapping[str, Any],
    dataset: Mapping[str, Any],
    totals: Totals,
    generated_at: datetime,
) -> dict[str, Any]:
    """The document, key for key, of a run whose records were folded into ``totals``.

    ``execution`` and ``dataset`` are the blocks as ``ExecutionContext`` and ``Dataset`` make them.
    Pure: the same records in any order give the same figures.
    """
    return {
        "metadata_version": METADATA_VERSION,
        "generated_at": generated_at.isoformat(),
        "execution": dict(execution),
        "dataset": dict(dataset),
        "aggregate_statistics": totals.aggregate(),
        "models": totals.models_json(),
        "nodes": totals.nodes_json(),
    }
