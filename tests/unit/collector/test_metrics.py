"""The exposition is what Prometheus reads."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from callmeter.collector.metrics import APPEND_SECONDS, ENVELOPES, REFUSED, REQUESTS, Metrics


def test_parses_with_prometheus_own_parser() -> None:
    metrics = Metrics()
    metrics.add(ENVELOPES, 3)
    metrics.add(REQUESTS, route="/v1/envelopes", status="200")
    metrics.add(REFUSED, reason='a "quoted"\\ one\nline')
    metrics.observe_append(0.003)
    metrics.observe_append(99.0)
    metrics.add_source(lambda: ["# TYPE mine gauge", "mine 1.5"])
    samples = {
        (s.name, *sorted(s.labels.items())): s.value
        for family in text_string_to_metric_families(metrics.text())
        for s in family.samples
    }
    assert samples[ENVELOPES,] == 3
    assert samples[REQUESTS, ("route", "/v1/envelopes"), ("status", "200")] == 1
    assert samples[REFUSED, ("reason", 'a "quoted"\\ one\nline')] == 1
    assert samples[f"{APPEND_SECONDS}_bucket", ("le", "0.0025")] == 0
    assert samples[f"{APPEND_SECONDS}_bucket", ("le", "0.005")] == 1
    assert samples[f"{APPEND_SECONDS}_bucket", ("le", "+Inf")] == 2
    assert samples[f"{APPEND_SECONDS}_count",] == 2
    assert samples["mine",] == 1.5
    assert metrics.value(ENVELOPES) == 3
