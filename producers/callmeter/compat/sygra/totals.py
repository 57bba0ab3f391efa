"""Folding records into totals: order does not matter, money is integer pico-USD."""

from __future__ import annotations

from array import array
from collections import Counter
from typing import Any

from callmeter.compat.sygra.latency import latency_statistics, seconds
from callmeter.compat.sygra.records import Execution, Identity, Request, Tokens
from callmeter.money import from_pico


def usd(pico: int, parts: int = 1) -> float:
    """Pico-USD, or that by so many, as USD with 6 decimals; rounded here, at the last step."""
    return float(round(from_pico(pico) / parts, 6)) if parts else 0.0


def share(part: int, whole: int, digits: int = 4) -> float:
    """A rate; 0.0 of nothing."""
    return round(part / whole, digits) if whole else 0.0


class TokenTotals:
    """Sums, and how many had any tokens: averages are over those alone."""

    __slots__ = ("counted", "sum")

    def __init__(self) -> None:
        self.sum = Tokens()
        self.counted = 0

    def add(self, tokens: Tokens) -> None:
        """Take the tokens of one request or execution."""
        if tokens:
            self.sum = self.sum.plus(tokens)
            self.counted += 1

    def to_json(self) -> dict[str, Any]:
        """The document's ``token_statistics``."""
        total, n = self.sum, self.counted
        return {
            **token_sums(total),
            "avg_prompt_tokens": round(total.prompt / n, 3) if n else 0.0,
            "avg_completion_tokens": round(total.completion / n, 3) if n else 0.0,
            "avg_total_tokens": round(total.total / n, 3) if n else 0.0,
        }


def token_sums(tokens: Tokens) -> dict[str, int]:
    """The three sums under the document's names."""
    return {
        "total_prompt_tokens": tokens.prompt,
        "total_completion_tokens": tokens.completion,
        "total_tokens": tokens.total,
    }


class ModelTotals:
    """Everything about one model of a run."""

    def __init__(self, name: str, identity: Identity) -> None:
        self.name = name
        self.identity = identity
        self.tokens = TokenTotals()
        self.latencies_us = array("q")
        self.ok_latency_us = 0
        self.retries = 0
        self.cost_pico = 0
        self.codes: Counter[int] = Counter()

    @property
    def requests(self) -> int:
        """All requests, failed ones and retries included."""
        return len(self.latencies_us)

    @property
    def failures(self) -> int:
        """Requests that were answered with anything but 200."""
        return self.requests - self.codes[200]

    def add(self, request: Request) -> None:
        """Take one request."""
        self.latencies_us.append(request.latency_us)
        self.codes[request.code] += 1
        if request.retry:
            self.retries += 1
        if not request.failed:
            self.ok_latency_us += request.latency_us
        self.tokens.add(request.tokens)
        self.cost_pico += request.cost_pico or 0

    def to_json(self) -> dict[str, Any]:
        """The model's block. Tokens per second are completion tokens by the time of successes."""
        n, total_us = self.requests, sum(self.latencies_us)
        ok_s = self.ok_latency_us / 1_000_000
        return {
            "model_name": self.name,
            "model_type": self.identity.model_type,
            "model_url": self.identity.model_url,
            "token_statistics": self.tokens.to_json(),
            "performance": {
                "total_requests": n,
                "total_retries": self.retries,
                "total_failures": self.failures,
                "failure_rate": share(self.failures, n),
                "total_latency_seconds": seconds(total_us),
                "average_latency_seconds": seconds(total_us / n) if n else 0.0,
                "tokens_per_second": round(self.tokens.sum.completion / ok_s, 2) if ok_s else 0.0,
                "latency_statistics": latency_statistics(self.latencies_us),
            },
            "cost": {
                "total_cost_usd": usd(self.cost_pico),
                "average_cost_per_request": usd(self.cost_pico, n),
            },
            "response_code_distribution": {
                str(code): self.codes[code] for code in sorted(self.codes)
            },
            "parameters": dict(self.identity.parameters),
        }


class NodeTotals:
    """Everything about one node of a run; type and model are those of its first execution."""

    def __init__(self, name: str, node_type: str, model: str | None) -> None:
        self.name = name
        self.node_type = node_type
        self.model = model
        self.tokens = TokenTotals()
        self.latencies_us = array("q")
        self.failures = 0
        self.cost_pico = 0

    def add(self, execution: Execution) -> None:
        """Take one execution."""
        self.latencies_us.append(execution.latency_us)
        self.failures += execution.failed
        self.tokens.add(execution.tokens)
        self.cost_pico += execution.cost_pico

    def to_json(self, request_cost_pico: int) -> dict[str, Any]:
        """The node's block. Cost and tokens are there only if there were any.

        ``request_cost_pico`` is what the node's requests cost beside what executions said.
        """
        n, total_us = len(self.latencies_us), sum(self.latencies_us)
        cost_pico = self.cost_pico + request_cost_pico
        block: dict[str, Any] = {
            "node_name": self.name,
            "node_type": self.node_type,
            "model_name": self.model,
            "total_executions": n,
            "total_failures": self.failures,
            "failure_rate": share(self.failures, n, 3),
            "total_latency_seconds": seconds(total_us),
            "average_latency_seconds": seconds(total_us / n) if n else 0.0,
            "latency_statistics": latency_statistics(self.latencies_us),
        }
        if cost_pico:
            block["cost"] = {
                "total_cost_usd": usd(cost_pico),
                "average_cost_per_execution": usd(cost_pico, n),
            }
        if self.tokens.counted:
            block["token_statistics"] = self.tokens.to_json()
        return block


class Totals:
    """The totals of one run. Not thread-safe: its owner locks."""

    def __init__(self) -> None:
        self.models: dict[str, ModelTotals] = {}
        self.nodes: dict[str, NodeTotals] = {}
        self.processed = 0
        self.failed = 0
        #: Pico-USD of requests by the node they were made in.
        self._node_costs: Counter[str] = Counter()

    def identify(self, model: str, identity: Identity) -> bool:
        """Say what a model is; False if that was said before, and then nothing changes."""
        if model in self.models:
            return False
        self.models[model] = ModelTotals(model, identity)
        return True

    def add_request(self, request: Request) -> None:
        """Take one request; its cost may come later."""
        self.identify(request.model, Identity())
        self.models[request.model].add(request)

    def add_execution(self, execution: Execution) -> None:
        """Take one execution of a node."""
        node = self.nodes.get(execution.node)
        if node is None:
            node = NodeTotals(execution.node, execution.node_type, execution.model)
            self.nodes[execution.node] = node
        node.add(execution)

    def add_cost(self, model: str, pico: int, node: str | None) -> None:
        """What a request has cost, once that is known."""
        self.models[model].cost_pico += pico
        if node is not None:
            self._node_costs[node] += pico

    def add_node_cost(self, node: str, pico: int) -> None:
        """What a request with a cost of its own has cost the node it was made in."""
        self._node_costs[node] += pico

    def add_record(self, success: bool) -> None:
        """One record of the dataset is done."""
        self.processed += 1
        self.failed += not success

    def aggregate(self) -> dict[str, Any]:
        """The document's ``aggregate_statistics``: sums over models, and the records."""
        models = self.models.values()
        tokens = Tokens()
        for model in models:
            tokens = tokens.plus(model.tokens.sum)
        requests = sum(m.requests for m in models)
        retries = sum(m.retries for m in models)
        failures = sum(m.failures for m in models)
        cost_pico = sum(m.cost_pico for m in models)
        return {
            "records": {
                "total_processed": self.processed,
                "total_failed": self.failed,
                "success_rate": share(self.processed - self.failed, self.processed),
            },
            "tokens": token_sums(tokens),
            "requests": {
                "total_requests": requests,
                "total_retries": retries,
                "total_failures": failures,
                "retry_rate": share(retries, requests),
                "failure_rate": share(failures, requests),
            },
            "cost": {
                "total_cost_usd": usd(cost_pico),
                "average_cost_per_record": usd(cost_pico, self.processed),
            },
        }

    def models_json(self) -> dict[str, Any]:
        """The document's ``models``, those with requests."""
        return {name: model.to_json() for name, model in self.models.items() if model.requests}

    def nodes_json(self) -> dict[str, Any]:
        """The document's ``nodes``."""
        return {name: node.to_json(self._node_costs[name]) for name, node in self.nodes.items()}
