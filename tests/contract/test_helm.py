"""The Helm chart: rendered by helm, every manifest valid, hardened, in step with the programs."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from callmeter.collector.config import CollectorConfig
from support.commands import parse, quiet_root
from support.operations import CHART, EXAMPLES, ROOT, Manifest, helm, rendered, tool

__all__ = ["quiet_root"]  # a fixture

#: The oldest Kubernetes that the chart says it runs on, and the newest whose schemas are at hand.
VERSIONS = ("1.27", "1.37")
NAMES = sorted(path.stem for path in EXAMPLES.glob("*.yaml"))
#: KEDA's own kind: its schema is not Kubernetes'.
FOREIGN = {"ScaledObject"}
#: How each program that serves health does it.
WORKLOADS = ("Deployment", "StatefulSet", "Job")


@pytest.fixture(scope="module", params=NAMES)
def manifests(request: pytest.FixtureRequest) -> list[Manifest]:
    return rendered(request.param)


@pytest.fixture(scope="module")
def full() -> list[Manifest]:
    return rendered("full")


def pods(manifests: list[Manifest]) -> Iterator[tuple[str, Manifest]]:
    """(component, pod template's spec) of everything that runs."""
    for each in manifests:
        if each["kind"] in WORKLOADS:
            template = each["spec"]["template"]
            yield template["metadata"]["labels"]["app.kubernetes.io/component"], template["spec"]


def ours(manifests: list[Manifest]) -> Iterator[tuple[str, Manifest]]:
    for name, spec in pods(manifests):
        if name not in ("prometheus", "grafana"):
            yield name, spec


def named(manifests: list[Manifest], kind: str, name: str) -> Manifest:
    (found,) = [m for m in manifests if m["kind"] == kind and m["metadata"]["name"] == name]
    return found


def test_helm_lints_the_chart() -> None:
    done = helm("lint", "--strict", CHART, "-f", EXAMPLES / "full.yaml")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.acceptance(224)
@pytest.mark.parametrize("version", VERSIONS)
def test_the_chart_renders_and_every_manifest_is_valid(
    manifests: list[Manifest], version: str
) -> None:
    kinds = set()
    for each in manifests:
        kinds.add(each["kind"])
        if each["kind"] not in FOREIGN:
            kubernetes_validate.validate(each, version, strict=True)
    assert {"Deployment", "Service", "Job", "PodDisruptionBudget", "NetworkPolicy"} <= kinds


@pytest.mark.acceptance(224)
def test_prometheus_and_grafana_come_with_their_rules_and_dashboards(full: list[Manifest]) -> None:
    prometheus = named(full, "ConfigMap", "meter-callmeter-prometheus")["data"]
    for rules in (ROOT / "deploy/prometheus/rules").glob("*.rules.yml"):
        assert yaml.safe_load(prometheus[rules.name]) == yaml.safe_load(rules.read_text())
    config = yaml.safe_load(prometheus["prometheus.yml"])
    jobs = {job["job_name"].removeprefix("callmeter-") for job in config["scrape_configs"]}
    assert jobs == {"collector", "meter", "watch", "sink", "notify", "doctor", "programs"}
    boards = named(full, "ConfigMap", "meter-callmeter-dashboards")["data"]
    files = sorted((ROOT / "deploy/grafana/dashboards").glob("*.json"))
    assert sorted(boards) == [file.name for file in files]
    for file in files:
        assert json.loads(boards[file.name]) == json.loads(file.read_text())
    sources = yaml.safe_load(
        named(full, "ConfigMap", "meter-callmeter-grafana")["data"]["datasources.yaml"]
    )["datasources"]
    provided = {source["uid"] for source in sources}
    used = {uid for file in files for uid in _uids(json.loads(file.read_text()))}
    assert used <= provided
    # Compose provisions the same ones.
    folder = ROOT / "deploy/grafana/provisioning/datasources"
    compose = [
        s for f in folder.glob("*.yaml") for s in yaml.safe_load(f.read_text())["datasources"]
    ]
    assert {source["uid"] for source in compose} == provided


def _uids(value: Any) -> Iterator[str]:
    """Every data source that a dashboard names."""
    if isinstance(value, dict):
        if isinstance(value.get("datasource"), dict):
            yield value["datasource"]["uid"]
        for each in value.values():
            yield from _uids(each)
    elif isinstance(value, list):
        for each in value:
            yield from _uids(each)


def test_the_rendered_prometheus_configuration_is_one(full: list[Manifest], tmp_path: Path) -> None:
    data = named(full, "ConfigMap", "meter-callmeter-prometheus")["data"]
    for name, text in data.items():
        here = text.replace("/etc/callmeter/read-key/", f"{tmp_path}/")
        (tmp_path / name).write_text(here.replace("/etc/prometheus/", f"{tmp_path}/"))
    (tmp_path / "key").write_text("k")
    done = subprocess.run(
        [tool("promtool"), "check", "config", str(tmp_path / "prometheus.yml")],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def test_nothing_runs_as_root_or_writes_its_root(manifests: list[Manifest]) -> None:
    for name, spec in pods(manifests):
        assert spec["securityContext"]["runAsNonRoot"] is True, name
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert spec["automountServiceAccountToken"] is False, name
        for container in spec["containers"]:
            context = container["securityContext"]
            assert context["readOnlyRootFilesystem"] is True, name
            assert context["allowPrivilegeEscalation"] is False, name
            assert context["capabilities"] == {"drop": ["ALL"]}, name
            assert container["resources"]["requests"]["memory"], name
            assert container["resources"]["limits"]["memory"], name


def test_what_serves_is_probed_where_it_listens(manifests: list[Manifest]) -> None:
    for name, spec in ours(manifests):
        if name in ("topics", "migrate"):
            continue
        (container,) = spec["containers"]
        (port,) = container["ports"]
        if name == "dashboard":
            assert container["readinessProbe"]["tcpSocket"]["port"] == port["name"]
            continue
        for probe, path in (("livenessProbe", "/healthz"), ("readinessProbe", "/readyz"),
                            ("startupProbe", "/healthz")):  # fmt: skip
            assert container[probe]["httpGet"]["path"] == path, name
            assert container[probe]["httpGet"]["port"] == port["name"], name
        assert any(str(port["containerPort"]) in argument for argument in container["args"]), name


@pytest.mark.usefixtures("quiet_root")
def test_every_command_exists_with_its_options(
    manifests: list[Manifest], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, spec in ours(manifests):
        (container,) = spec["containers"]
        for variable in container["env"]:
            if "value" in variable:
                monkeypatch.setenv(variable["name"], variable["value"])
        assert parse(name, container["args"]).command.name in container["args"]


def test_pods_have_the_time_that_their_programs_take_to_stop(manifests: list[Manifest]) -> None:
    config = CollectorConfig()
    for name, spec in ours(manifests):
        grace = spec.get("terminationGracePeriodSeconds", 30)
        (container,) = spec["containers"]
        if name == "collector":
            arguments = container["args"]
            before = int(arguments[arguments.index("--drain-grace") + 1])
            # Unready, the requests in hand, then what the log takes for the last append.
            assert grace > before + config.drain_timeout_s + config.append_timeout_s
        elif name in ("meter", "watch"):
            assert grace >= 30, name
        elif name == "sink":
            assert grace >= 60


def test_secrets_come_from_files(full: list[Manifest]) -> None:
    for name, spec in ours(full):
        (container,) = spec["containers"]
        assert not [v["name"] for v in container["env"] if "valueFrom" in v], name
        mounted = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
        secret = {v["name"] for v in spec["volumes"] if "secret" in v}
        files = [v["value"] for v in container["env"] if v["name"].endswith("_FILE")]
        assert files, name
        for path in files:
            assert any(path.startswith(mounted[each]) for each in secret & mounted.keys()), path
        for volume in spec["volumes"]:
            if "secret" in volume:
                assert volume["secret"]["defaultMode"] == 0o440


def test_selectors_and_names_meet(full: list[Manifest]) -> None:
    labels = [m["spec"]["template"]["metadata"]["labels"] for m in full if m["kind"] in WORKLOADS]
    for each in full:
        if each["kind"] == "Service":
            selector = each["spec"]["selector"]
        elif each["kind"] in ("PodDisruptionBudget", "NetworkPolicy"):
            selector = each["spec"].get("selector", each["spec"].get("podSelector"))["matchLabels"]
        else:
            continue
        assert any(selector.items() <= label.items() for label in labels), each["metadata"]["name"]
    deployments = {m["metadata"]["name"] for m in full if m["kind"] == "Deployment"}
    for each in full:
        if each["kind"] in ("HorizontalPodAutoscaler", "ScaledObject"):
            assert each["spec"]["scaleTargetRef"]["name"] in deployments


@pytest.mark.parametrize("by", ["hpa", "keda"])
def test_workers_are_scaled_by_lag(by: str) -> None:
    manifests = rendered("small", "--set", f"scaling.by={by}")
    for part, topic in (("meter", "events"), ("watch", "spend"), ("sink", "metered")):
        name = f"meter-callmeter-{part}"
        assert "replicas" not in named(manifests, "Deployment", name)["spec"]
        if by == "hpa":
            spec = named(manifests, "HorizontalPodAutoscaler", name)["spec"]
            metric = spec["metrics"][0]["external"]["metric"]
            assert metric["selector"]["matchLabels"] == {"group": part}
        else:
            trigger = named(manifests, "ScaledObject", name)["spec"]["triggers"][0]
            assert trigger["type"] == "kafka"
            assert trigger["metadata"]["bootstrapServers"] == "kafka:9092"
            assert trigger["metadata"]["consumerGroup"] == f"callmeter.{part}"
            assert trigger["metadata"]["topic"] == f"callmeter.{topic}"


@pytest.mark.parametrize(
    ("setting", "complaint"),
    [
        ("meter.grace=5", "/meter/grace"),
        ("meter.replicaz=3", "replicaz"),
        ("kafka.url=kafka://user:secret@kafka:9092", "/kafka/url"),
        ("store.url=clickhouse://u:secret@clickhouse:8123/callmeter", "/store/url"),
        ("kafka.url=", "kafka.url is required"),
        ("collector.keysSecret.name=", "without keys"),
        ("dashboard.keysSecret.name=", "without read keys"),
        ("scaling.by=magic", "/scaling/by"),
    ],
)
def test_wrong_values_are_refused_by_name(setting: str, complaint: str) -> None:
    done = helm("template", CHART, "-f", EXAMPLES / "small.yaml", "--set", setting)
    assert done.returncode != 0
    assert complaint in done.stderr


def test_every_value_is_in_the_schema() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())

    def missing(values: Any, node: Any, path: str) -> Iterator[str]:
        if not isinstance(values, dict) or "properties" not in node:
            return
        for key, value in values.items():
            if key not in node["properties"]:
                yield f"{path}.{key}"
            else:
                yield from missing(value, node["properties"][key], f"{path}.{key}")

    values = yaml.safe_load((CHART / "values.yaml").read_text())
    assert not list(missing(values, schema, ""))
