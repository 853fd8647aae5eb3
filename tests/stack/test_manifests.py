# SPDX-License-Identifier: GPL-2.0-or-later
"""What deploy/ and docker-compose.yml say is valid and true: manifests, flags of services, names of metrics."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from splitvisor.observe.metrics import METRICS, Kind
from splitvisor.service.main import main as service_main
from tests.guests.harness import ROOT, STEP_SECONDS

DEPLOY = ROOT / "deploy"
MANIFESTS = sorted(path for path in (DEPLOY / "kubernetes").glob("*.yaml") if path.name != "kustomization.yaml")
COMPOSE = ROOT / "docker-compose.yml"
ROLES = {"hcall", "vio", "of-client", "gateway", "vm-guest"}
IN_HISTOGRAM = ("_bucket", "_count", "_sum")


def documents() -> list[dict[str, Any]]:
    return [document for path in MANIFESTS for document in yaml.safe_load_all(path.read_text())]


def of_kind(kind: str) -> dict[str, dict[str, Any]]:
    return {document["metadata"]["name"]: document for document in documents() if document["kind"] == kind}


def containers() -> Iterator[tuple[str, dict[str, Any]]]:
    for name, workload in of_kind("StatefulSet").items():
        for container in workload["spec"]["template"]["spec"]["containers"]:
            yield f"{name}/{container['name']}", container


def test_manifests_are_valid() -> None:
    """Against the API's own schemas; unknown fields are errors."""
    program = Path(sys.executable).with_name("kubernetes-validate")
    done = subprocess.run(
        [str(program), "--strict", *map(str, MANIFESTS)], capture_output=True, text=True, timeout=STEP_SECONDS, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_kustomization_has_every_manifest() -> None:
    kustomization = yaml.safe_load((DEPLOY / "kubernetes" / "kustomization.yaml").read_text())
    assert sorted(kustomization["resources"]) == [path.name for path in MANIFESTS]


def test_each_role_is_a_stateful_set_with_probes_limits_and_a_disruption_budget() -> None:
    assert set(of_kind("StatefulSet")) == set(of_kind("PodDisruptionBudget")) == set(of_kind("Service")) == ROLES
    for name, container in containers():
        security = container["securityContext"]
        assert security["readOnlyRootFilesystem"], name
        assert security["capabilities"] == {"drop": ["ALL"]}, name
        assert not security["allowPrivilegeEscalation"], name
        assert set(container["resources"]) == {"requests", "limits"}, name
        if "service" in container["args"]:
            assert all(container[probe]["grpc"]["port"] == 7001 for probe in ("startupProbe", "readinessProbe", "livenessProbe"))
    for name, workload in of_kind("StatefulSet").items():
        pod = workload["spec"]["template"]["spec"]
        assert pod["securityContext"]["runAsNonRoot"], name
        mounted = {mount["name"] for container in pod["containers"] for mount in container["volumeMounts"]}
        claims = {claim["metadata"]["name"] for claim in workload["spec"].get("volumeClaimTemplates", ())}
        assert mounted == {volume["name"] for volume in pod["volumes"]} | claims, name


def test_every_selector_selects_something() -> None:
    labels = [workload["spec"]["template"]["metadata"]["labels"] for workload in of_kind("StatefulSet").values()]
    for kind in ("Service", "PodDisruptionBudget", "StatefulSet", "NetworkPolicy"):
        for name, document in of_kind(kind).items():
            spec = document["spec"]
            selector = spec.get("podSelector") or spec["selector"]
            wanted = selector.get("matchLabels", selector)
            assert any(wanted.items() <= each.items() for each in labels), f"{kind} {name}"


def test_services_take_the_flags_that_they_are_given(capsys: pytest.CaptureFixture[str]) -> None:
    services = yaml.safe_load(COMPOSE.read_text())["services"]
    commands = [service.get("command") or [] for service in services.values()]
    commands += [container["args"] for _, container in containers()]
    started = [command for command in commands if command[:1] == ["service"]]
    assert len(started) == 6 + 5
    for _, name, *arguments in started:
        with pytest.raises(SystemExit) as ended:
            service_main([name, "--help"])
        assert ended.value.code == 0
        known = set(re.findall(r"--[a-z-]+", capsys.readouterr().out))
        assert {argument.partition("=")[0] for argument in arguments if argument.startswith("--")} <= known, name


@pytest.mark.skipif(shutil.which("docker-compose") is None, reason="there is no docker-compose; apt-get install docker-compose")
def test_the_compose_file_is_valid_with_every_profile() -> None:
    profiles = ["--profile", "postgres", "--profile", "monitoring", "--profile", "second-vm", "--profile", "console"]
    done = subprocess.run(
        ["docker-compose", *profiles, "config", "--services"], cwd=ROOT, capture_output=True, text=True, timeout=STEP_SECONDS,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert set(done.stdout.split()) == set(yaml.safe_load(COMPOSE.read_text())["services"])


def exported() -> set[str]:
    """The names that Prometheus has after a scrape; a histogram has three."""
    names = set()
    for metric in METRICS:
        names |= {metric.name + suffix for suffix in IN_HISTOGRAM} if metric.kind is Kind.HISTOGRAM else {metric.name}
    return names


def used() -> dict[str, str]:
    """Metrics in the dashboard, its variables and the alerts, and where."""
    dashboard = json.loads((DEPLOY / "grafana" / "dashboards" / "splitvisor.json").read_text())
    texts = {panel["title"]: [target["expr"] for target in panel.get("targets", ())] for panel in dashboard["panels"]}
    texts["variables"] = [variable["query"]["query"] for variable in dashboard["templating"]["list"]]
    alerts = yaml.safe_load((DEPLOY / "prometheus" / "alerts.yml").read_text())
    texts |= {rule["alert"]: [rule["expr"]] for group in alerts["groups"] for rule in group["rules"]}
    return {name: where for where, exprs in texts.items() for expr in exprs for name in re.findall(r"\bsplitvisor_\w+", expr)}


def test_the_dashboard_and_the_alerts_use_metrics_that_are_exported() -> None:
    found = used()
    assert {name: where for name, where in found.items() if name not in exported()} == {}
    assert len(found) > 20


def test_prometheus_scrapes_what_the_stack_serves() -> None:
    scraped = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())["scrape_configs"]
    targets = [target for job in scraped for config in job.get("static_configs", ()) for target in config["targets"]]
    found = [config for job in scraped for config in job.get("dns_sd_configs", ())]
    targets += [f"{name}:{config['port']}" for config in found for name in config["names"]]
    services = yaml.safe_load(COMPOSE.read_text())["services"]
    for target in targets:
        name, _, port = target.partition(":")
        command = services[name]["command"]
        assert command[command.index("--metrics") + 1] == f"0.0.0.0:{port}"
        assert "metrics" in services[name]["networks"]
    assert len(targets) == 5
