"""``deploy/helm``: the chart, rendered by Helm itself, and what it promises."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from gateway import __version__
from gateway.config import JwtSettings
from gateway.config.sections import ServerSettings, StoreSettings
from gateway.security import keys
from gateway.telemetry.families import FAMILIES
from tests.packaging.deployed import DEPLOY, DEPLOYING, IMAGE, USER, check, may_take
from tests.support.certificates import certificate

PLACES = [str(Path(sys.executable).parent), *os.get_exec_path()]
HELM = shutil.which("helm", path=os.pathsep.join(PLACES)) or "helm"
"""PyPI has it for one kind of machine; on others it is to be installed."""

CHART = DEPLOY / "helm" / "session-gateway"
MINIMAL, FULL = "minimal", "full"
NEWEST = "newest"
VERSIONS = ("1.27", NEWEST)
"""Of Kubernetes: the oldest that the chart allows, and the newest that there are schemas for."""

FILES = "/run/session-gateway"

Manifest = dict[str, Any]


def validate(manifest: Manifest, version: str) -> None:
    """What Kubernetes of that version would not take fails."""
    # It compiles grammars when it is imported, for a second in every process that collects tests.
    import kubernetes_validate  # type: ignore[import-untyped]  # noqa: PLC0415

    known = kubernetes_validate.latest_version() if version is NEWEST else version
    kubernetes_validate.validate(manifest, known, strict=True)


def helm(command: str, values: str | Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Run it on the chart, with a file of values: the path, or the name of one that lies beside."""
    file = CHART / "ci" / f"{values}-values.yaml" if isinstance(values, str) else values
    arguments = [HELM, *command.split(), str(CHART), "--values", str(file), *options]
    return subprocess.run(arguments, capture_output=True, text=True, check=False)


def rendered(values: str | Path, *options: str) -> dict[str, Manifest]:
    """The manifests by kind."""
    done = helm("template gw", values, *options)
    assert done.returncode == 0, done.stderr
    manifests = [each for each in yaml.safe_load_all(done.stdout) if each]
    by_kind = {each["kind"]: each for each in manifests}
    assert len(by_kind) == len(manifests)
    return by_kind


@pytest.fixture(scope="module", params=[MINIMAL, FULL])
def manifests(request: pytest.FixtureRequest) -> dict[str, Manifest]:
    """What becomes of each file of values."""
    return rendered(request.param)


@pytest.fixture(scope="module")
def full() -> dict[str, Manifest]:
    return rendered(FULL)


def pod(manifests: dict[str, Manifest]) -> Manifest:
    """The gateways' own."""
    spec: Manifest = manifests["Deployment"]["spec"]["template"]["spec"]
    return spec


def container(manifests: dict[str, Manifest]) -> Manifest:
    (only,) = pod(manifests)["containers"]
    return dict(only)


@pytest.mark.parametrize("values", [MINIMAL, FULL])
def test_helm_finds_nothing_wrong(values: str) -> None:
    done = helm("lint --strict", values)
    assert done.returncode == 0, done.stdout
    assert "[WARNING]" not in done.stdout


@pytest.mark.parametrize("version", VERSIONS)
def test_kubernetes_would_take_it(manifests: dict[str, Manifest], version: str) -> None:
    for manifest in manifests.values():
        validate(manifest, version)


def test_it_is_of_this_version(manifests: dict[str, Manifest]) -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert chart["version"] == chart["appVersion"] == __version__
    assert container(manifests)["image"].rpartition("/")[2] == IMAGE
    assert chart["kubeVersion"] == f">={VERSIONS[0]}.0-0"


def test_its_configuration_is_one(
    manifests: dict[str, Manifest], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = manifests["ConfigMap"]["data"]["gateway.toml"]
    keys.add(tmp_path / "keys.toml", "ada", None)
    changes = {f"{FILES}/keys/": f"{tmp_path}/"}
    if "[tls]" in text:
        certificate().write(tmp_path)
        (tmp_path / "encryption.keys").write_text("A" * 43 + "=\n")
        changes |= {
            f"{FILES}/ca/ca.crt": str(tmp_path / "cert.pem"),
            f"{FILES}/encryption/": f"{tmp_path}/",
            f"{FILES}/tls/tls.crt": str(tmp_path / "cert.pem"),
            f"{FILES}/tls/tls.key": str(tmp_path / "key.pem"),
        }
        monkeypatch.setenv("GATEWAY_STORE__PASSWORD", "of the store")
    settings = check(text, tmp_path, changes)
    assert settings.store.kind == "valkey"
    assert settings.auth.required
    before = float(container(manifests)["lifecycle"]["preStop"]["exec"]["command"][1])
    assert before > 0
    assert pod(manifests)["terminationGracePeriodSeconds"] > before + may_take(settings)
    port, scraped = container(manifests)["ports"]
    assert port["containerPort"] == settings.server.port
    assert scraped == {"name": "metrics", "containerPort": settings.metrics.port}
    assert settings.metrics.host == settings.server.host
    limit = int(container(manifests)["resources"]["limits"]["memory"].removesuffix("Gi"))
    assert limit * 2**30 > settings.server.workers * settings.server.buffer_bytes


def test_the_settings_that_it_takes_are_those_that_there_are() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())["properties"]
    of_its_own = {"host", "port", "replica", "local_operator"}
    assert names(schema["server"]) == ServerSettings.model_fields.keys() - of_its_own
    of_its_own = {"kind", "ca_file", "encryption_key_file"}
    given = {"ca", "encryptionKeys"}
    assert names(schema["store"]) - given == StoreSettings.model_fields.keys() - of_its_own
    assert names(schema["auth"]["properties"]["jwt"]) == JwtSettings.model_fields.keys()


def test_the_values_of_the_document_are_ones(tmp_path: Path) -> None:
    example, *_ = re.findall(r"```yaml\n(.*?)```", DEPLOYING, re.DOTALL)
    file = tmp_path / "values.yaml"
    file.write_text(example)
    full, documented = rendered(FULL), rendered(file)
    assert documented.keys() == full.keys() - {"HorizontalPodAutoscaler"}
    secrets = [each["secret"]["secretName"] for each in pod(documented)["volumes"][2:]]
    secrets.append(yaml.safe_load(example)["store"]["password"]["secret"])
    assert all(f"create secret generic {name} " in DEPLOYING for name in secrets)


def names(schema: dict[str, Any]) -> set[str]:
    """Those that a table may have."""
    return set(schema["propertyNames"]["enum"])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("store.url=", "store.url: replicas share their sessions"),
        ("auth.keys.secret=", "auth: name a Secret with keys"),
        ("config=", "config: give the gateway a route"),
        ("server.drain=3", "server"),
        ("servers.drain_seconds=3", "servers"),
        ("serviceAccount.roleArn=gateway", "roleArn"),
    ],
)
def test_what_is_wrong_is_told(change: str, said: str) -> None:
    done = helm("template gw", MINIMAL, "--set", change)
    assert done.returncode != 0
    assert said in done.stderr


def test_probes(manifests: dict[str, Manifest]) -> None:
    probes = container(manifests)
    paths = {kind: probes[f"{kind}Probe"]["httpGet"]["path"] for kind in ("startup", "liveness")}
    assert set(paths.values()) == {"/healthz"}
    ready = probes["readinessProbe"]
    assert ready["httpGet"]["path"] == "/readyz"
    scheme = "HTTPS" if "[tls]" in manifests["ConfigMap"]["data"]["gateway.toml"] else "HTTP"
    assert {probes[f"{kind}Probe"]["httpGet"]["scheme"] for kind in ("liveness", "readiness")} == {
        scheme
    }


@pytest.mark.parametrize("kind", ["Deployment", "Pod"])
def test_a_pod_may_do_as_little_as_it_can(manifests: dict[str, Manifest], kind: str) -> None:
    spec = pod(manifests) if kind == "Deployment" else manifests["Pod"]["spec"]
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["runAsUser"] == USER
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert spec["automountServiceAccountToken"] is False
    for each in spec["containers"]:
        assert each["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert each["resources"]["limits"]["memory"]


def test_secrets_are_referred_to(full: dict[str, Manifest]) -> None:
    assert "Secret" not in full
    environment = {each["name"]: each for each in container(full)["env"]}
    password = environment["GATEWAY_STORE__PASSWORD"]["valueFrom"]["secretKeyRef"]
    assert password == {"name": "session-gateway-store", "key": "password"}
    volumes = {each["name"]: each for each in pod(full)["volumes"]}
    for name in ("keys", "ca", "encryption", "tls"):
        assert volumes[name]["secret"]["secretName"] == f"session-gateway-{name}"
    mounts = {each["name"]: each for each in container(full)["volumeMounts"]}
    assert {name for name, each in mounts.items() if not each.get("readOnly")} == {"tmp"}
    given = yaml.safe_load((CHART / "values.yaml").read_text())
    assert given["store"]["password"]["secret"] == given["auth"]["keys"]["secret"] == ""


def test_pods_go_one_at_a_time(manifests: dict[str, Manifest]) -> None:
    budget, deployment = manifests["PodDisruptionBudget"]["spec"], manifests["Deployment"]["spec"]
    assert budget["maxUnavailable"] == 1
    selected = deployment["selector"]["matchLabels"]
    policy = manifests["NetworkPolicy"]["spec"]
    spread = pod(manifests)["topologySpreadConstraints"]
    for selector in (
        budget["selector"],
        policy["podSelector"],
        *(s["labelSelector"] for s in spread),
    ):
        assert selector["matchLabels"] == selected
    assert selected.items() <= deployment["template"]["metadata"]["labels"].items()
    assert not selected.items() <= manifests["Pod"]["metadata"]["labels"].items()
    assert {each["topologyKey"] for each in spread} == {
        "topology.kubernetes.io/zone",
        "kubernetes.io/hostname",
    }
    assert deployment["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}


def test_the_network_lets_through_what_is_needed(full: dict[str, Manifest]) -> None:
    policy = full["NetworkPolicy"]["spec"]
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    way_in, scraping = policy["ingress"]
    assert scraping["ports"] == [{"port": "metrics", "protocol": "TCP"}]
    assert scraping["from"] == [{"namespaceSelector": {}}], "not from outside"
    assert way_in["ports"] == [{"port": "http", "protocol": "TCP"}]
    _, tester = way_in["from"]
    labels = full["Pod"]["metadata"]["labels"]
    assert tester["podSelector"]["matchLabels"].items() <= labels.items()
    ports = [[port["port"] for port in rule["ports"]] for rule in policy["egress"]]
    assert ports == [[53, 53], [6379], [443]]
    assert all(
        "169.254.0.0/16" in rule["to"][0]["ipBlock"]["except"] for rule in policy["egress"][2:]
    )


def test_more_of_them_by_cpu_or_by_connections(full: dict[str, Manifest]) -> None:
    assert "HorizontalPodAutoscaler" not in rendered(MINIMAL)
    assert rendered(MINIMAL)["Deployment"]["spec"]["replicas"] == 3
    assert "replicas" not in full["Deployment"]["spec"]
    scaler = rendered(MINIMAL, "--set", "autoscaling.enabled=true")["HorizontalPodAutoscaler"]
    (cpu,) = scaler["spec"]["metrics"]
    assert cpu["resource"]["name"] == "cpu"
    assert full["HorizontalPodAutoscaler"]["spec"]["metrics"][1]["pods"]["metric"] == {
        "name": "session_gateway_connections"
    }
    connections = "autoscaling.connections"
    options = [
        "autoscaling.enabled=true",
        "autoscaling.cpuPercent=0",
        f"{connections}.enabled=true",
    ]
    options += [f"{connections}.type=External", f"{connections}.selector.matchLabels.app=gw"]
    scaler = rendered(MINIMAL, "--set", ",".join(options))["HorizontalPodAutoscaler"]
    for version in VERSIONS:
        validate(scaler, version)
    (external,) = scaler["spec"]["metrics"]
    assert external["external"]["metric"]["selector"] == {"matchLabels": {"app": "gw"}}


def test_the_autoscaler_goes_by_a_metric_that_there_is() -> None:
    given = yaml.safe_load((CHART / "values.yaml").read_text())
    name = given["autoscaling"]["connections"]["metric"]
    assert name in {family.full_name for family in FAMILIES}
    (rule,) = re.findall(r"```yaml\n(rules:.*?)```", DEPLOYING, re.DOTALL)
    (custom,) = yaml.safe_load(rule)["rules"]["custom"]
    assert custom["seriesQuery"].startswith(f"{name}{{")


def test_metrics_are_scraped_where_they_are() -> None:
    annotations = rendered(MINIMAL)["Deployment"]["spec"]["template"]["metadata"]["annotations"]
    assert annotations["prometheus.io/port"] == "9090"
    options = "metrics.podMonitor.enabled=true,metrics.podMonitor.labels.release=prometheus"
    manifests = rendered(MINIMAL, "--set", options)
    monitor = manifests["PodMonitor"]
    assert monitor["metadata"]["labels"]["release"] == "prometheus"
    assert monitor["spec"]["podMetricsEndpoints"] == [{"port": "metrics", "interval": "30s"}]
    selected = monitor["spec"]["selector"]["matchLabels"]
    assert selected == manifests["Deployment"]["spec"]["selector"]["matchLabels"]
    without = rendered(MINIMAL, "--set", "metrics.port=0")
    assert len(container(without)["ports"]) == 1
    assert "[metrics]" not in without["ConfigMap"]["data"]["gateway.toml"]
    assert len(without["NetworkPolicy"]["spec"]["ingress"]) == 1
    annotations = without["Deployment"]["spec"]["template"]["metadata"]["annotations"]
    assert annotations.keys() == {"checksum/config"}
    done = helm("template gw", MINIMAL, "--set", f"{options},metrics.port=0")
    assert "metrics.podMonitor: there is nothing" in done.stderr


@pytest.mark.parametrize("by", ["nginx", "alb"])
def test_an_ingress_waits_for_longer_than_the_gateway(by: str) -> None:
    options = f"ingress.enabled=true,ingress.className={by},ingress.host=chat.example.com"
    ingress = rendered(MINIMAL, "--set", f"{options},server.heartbeat_seconds=45")["Ingress"]
    for version in VERSIONS:
        validate(ingress, version)
    annotations = ingress["metadata"]["annotations"]
    idle = {
        "nginx": "nginx.ingress.kubernetes.io/proxy-read-timeout",
        "alb": "alb.ingress.kubernetes.io/load-balancer-attributes",
    }
    (seconds,) = re.findall(r"\d+", annotations[idle[by]])
    assert int(seconds) > 2 * 45


def test_pods_are_replaced_where_the_configuration_changes(full: dict[str, Manifest]) -> None:
    def checksum(manifests: dict[str, Manifest]) -> str:
        annotations = manifests["Deployment"]["spec"]["template"]["metadata"]["annotations"]
        return str(annotations["checksum/config"])

    assert checksum(full) == checksum(rendered(FULL))
    assert checksum(full) != checksum(rendered(FULL, "--set", "server.drain_seconds=61"))


def test_the_role_is_the_accounts(full: dict[str, Manifest]) -> None:
    account = full["ServiceAccount"]
    role = account["metadata"]["annotations"]["eks.amazonaws.com/role-arn"]
    assert role == "arn:aws:iam::111122223333:role/session-gateway"
    assert pod(full)["serviceAccountName"] == account["metadata"]["name"]
