"""Metadata on metrics, flushes by hand, and a run that does not fit one ``with`` block.

CALLMETER_URL=http://127.0.0.1:4248 python examples/syvain_lifecycle.py
"""

from callmeter.compat.syvain import Collector

collector = Collector(
    "ak_org_...",
    timeout=10.0,
    ingest_timeout=60.0,
    flush_delay_seconds=0.25,
    max_queue_items=100_000,
    max_batch_items=500,
    max_retries=None,
)

experiment = collector.experiment(
    "mamba-run-002",
    meta={
        "model": "mamba",
        "git_sha": "abc123",
        "config": {"batch_size": 32, "learning_rate": 0.0003},
    },
)

experiment.start()

for step in range(1_000):
    experiment.metric("loss", 1.0 / (step + 1), step=step)

experiment.metric("validation_loss", 0.182, step=500)
experiment.metric("gpu_utilization", 78.0, step=999, metadata={"device": "gpu:0"})
experiment.metric("gpu_utilization", 74.0, step=999, metadata={"device": "gpu:1"})
experiment.annotation("evaluation started", metadata={"split": "validation"})

experiment.done()
experiment.flush_or_raise()

evaluation = collector.experiment("mamba-run-002-eval")

with evaluation.run(install_hooks=False):
    evaluation.metric("loss", 0.5, step=0)

result = evaluation.flush()
if not result.ok:
    print(result.pending_metrics, result.retryable_failures)
evaluation.flush_or_raise(retries=5)
