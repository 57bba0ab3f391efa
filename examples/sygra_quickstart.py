"""Metadata of a run: recorded by itself, read while it goes on, written when it ends."""

from callmeter.compat.sygra import get_metadata_collector, run, track_model_request, track_node


class Summarizer:
    """Stands for a model of your own; a real one would ask a server."""

    model_config = {"type": "OpenAI", "parameters": {"max_tokens": 500}}  # noqa: RUF012

    def name(self):
        return "gpt-4o-mini"

    @track_model_request
    def generate(self, text):
        usage = {"prompt_tokens": 44, "completion_tokens": 92, "total_tokens": 136}
        return {"text": f"{text[:5]}…", "usage": usage}, 200


@track_node("summarizer", "llm", model="gpt-4o-mini")
def summarize(record):
    return Summarizer().generate(record["text"])[0]["text"]


collector = get_metadata_collector()

with run(task="my_task", output_with_ts=True) as graph:
    records = [{"text": "Hello, world"}] * 10
    collector.set_dataset_metadata("memory", num_records=len(records))
    results = []
    for record in records:
        results.append({"summary": summarize(record)})
        graph.record(success=True)
    graph.write_output(results)

    # Get full metadata summary
    metadata = collector.get_metadata_summary()

    # Check aggregate metrics
    stats = metadata["aggregate_statistics"]
    print(f"Total cost: ${stats['cost']['total_cost_usd']:.4f}")
    print(f"Total requests: {stats['requests']['total_requests']}")
    print(f"Models used: {list(metadata['models'].keys())}")
    print(f"Nodes executed: {list(metadata['nodes'].keys())}")

print(f"Output: {graph.output_path}")
print(f"Metadata: {graph.metadata_path}")

collector.set_enabled(False)  # Disable
collector.set_enabled(True)  # Re-enable

# Check status
if collector.is_enabled():
    print("Metadata collection is active")
