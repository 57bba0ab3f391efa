"""The same calls into a local file, and into nothing: no server needed.

python examples/syvain_local.py
"""

from pathlib import Path

from callmeter.compat.syvain import JsonlCollector, NoopCollector

collector = JsonlCollector(path=Path("artifacts/metrics/run-001.jsonl"))
experiment = collector.experiment("run-001", meta={"model": "mamba"})

with experiment.run():
    experiment.metric("loss", 0.42, step=1, metadata={"split": "train"})
    experiment.annotation("local checkpoint written", metadata={"path": "ckpt.pt"})

experiment.flush_or_raise()

nothing = NoopCollector()
dry_run = nothing.experiment("unit-test-run")

with dry_run.run():
    dry_run.metric("loss", 0.42, step=1)
