"""The compose file is valid, and every command it starts exists in the command line."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from support.commands import parse, quiet_root
from support.operations import tool

__all__ = ["quiet_root"]  # a fixture

ROOT = Path(__file__).parents[2]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = sorted(name for name, service in SERVICES.items() if "command" in service)


def test_the_compose_file_fits_its_published_schema() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec",
         str(ROOT / "docker-compose.yml")],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.usefixtures("quiet_root")
@pytest.mark.parametrize("name", OURS)
def test_every_command_started_exists_with_its_options(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable, value in SERVICES[name]["environment"].items():
        monkeypatch.setenv(variable, value)
    words = [str(word) for word in SERVICES[name]["command"]]
    assert parse(name, words).command.name in words


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_images_are_pinned_by_version(name: str) -> None:
    assert re.search(r":v?\d+\.\d+", SERVICES[name]["image"]), SERVICES[name]["image"]


@pytest.mark.parametrize(
    "name",
    [
        "kafka",
        "clickhouse",
        "grafana",
        "prometheus",
        "collector",
        "worker",
        "watch",
        "sink",
        "doctor",
        "dashboard",
    ],
)
def test_servers_have_health_checks(name: str) -> None:
    assert SERVICES[name]["healthcheck"]["test"]


def test_the_image_runs_as_a_user_without_rights() -> None:
    text = (ROOT / "Dockerfile").read_text()
    assert re.search(r"^USER 10001$", text, re.MULTILINE)


def test_mounted_files_exist() -> None:
    for service in SERVICES.values():
        for volume in service.get("volumes", []):
            source = str(volume).split(":")[0]
            # notify.toml is its user's own; without it that profile does not start.
            if source.startswith("./") and source != "./notify.toml":
                assert (ROOT / source).exists(), source


def test_prometheus_scrapes_services_that_there_are() -> None:
    config = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yml").read_text())
    for job in config["scrape_configs"]:
        for found in job.get("dns_sd_configs", []):
            (name,) = found["names"]
            assert f"0.0.0.0:{found['port']}" in SERVICES[name]["command"], name
        for static in job.get("static_configs", []):
            for target in static["targets"]:
                name, _, port = target.partition(":")
                assert any(port in str(word) for word in SERVICES[name]["command"]), target


def test_promtool_takes_the_configuration_and_the_rules(tmp_path: Path) -> None:
    folder = ROOT / "deploy" / "prometheus"
    text = (folder / "prometheus.yml").read_text()
    (tmp_path / "prometheus.yml").write_text(text.replace("/etc/prometheus/", f"{folder}/"))
    done = subprocess.run(
        [tool("promtool"), "check", "config", str(tmp_path / "prometheus.yml")],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "rules found" in done.stdout
