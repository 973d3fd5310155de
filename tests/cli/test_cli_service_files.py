"""``resumable doctor --write``: the file starts the server with the given options, as those of the project do."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from resumable.cli.main import main
from resumable.config.options import Options, Settings

ROOT = Path(__file__).parents[2]
KUBERNETES = ROOT / "deploy" / "kubernetes"
SHARED = "postgresql://u:hunter2@h/d"
SECRETS = [
    *("--catalog", SHARED, "--hook", "https://h/hunter2", "--auth-jwt-secret", "hunter2" * 8),
    *("--remote", "s3://bucket/prefix?region=eu", "--hook-secret", "whsec_" + "hunter2A" * 4),
]
SCRATCH = ["--scratch-size", "1024M"]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def written(capsys: pytest.CaptureFixture[str], kind: str, *flags: str, **environ: str) -> str:
    assert main(["doctor", "--write", kind, *flags], environ) == 0
    return capsys.readouterr().out


def refused(capsys: pytest.CaptureFixture[str], *flags: str, status: int = 1) -> str:
    assert main(["doctor", *flags], {}) == status
    out, said = capsys.readouterr()
    assert out == "" and said.startswith("resumable doctor: ") and said.count("\n") == 1
    return said


def unit_lines(text: str) -> list[tuple[str, str]]:
    """Settings of a unit in their order."""
    return [(line.partition("=")[0], line.partition("=")[2]) for line in text.splitlines() if re.match("[A-Z]", line)]


def unit_value(text: str, name: str) -> str | None:
    found = [value for each, value in unit_lines(text) if each == name]
    return found[0] if found else None


def unit_environment(text: str) -> dict[str, str]:
    words = [word for name, value in unit_lines(text) if name == "Environment" for word in shlex.split(value)]
    return dict(word.replace("%%", "%").replace("\\n", "\n").split("=", 1) for word in words)


def objects(text: str) -> dict[tuple[str, str], dict[str, Any]]:
    found = [each for each in yaml.safe_load_all(text) if each]
    return {(each["kind"], each["metadata"]["name"]): each for each in found}


def pod(text: str) -> dict[str, Any]:
    return objects(text)["Deployment", "resumable"]["spec"]["template"]["spec"]


def container(text: str) -> dict[str, Any]:
    (found,) = pod(text)["containers"]
    return found


def settings(environ: dict[str, str], *flags: str) -> Settings:
    options = Options(environ)
    options.parseOptions(list(flags))
    assert not options.unknown_variables
    return options.settings()


# -- all of them


@pytest.mark.parametrize("kind", ["unit", "compose", "kubernetes"])
def test_no_secret_is_written_but_where_to_put_it_is(kind, capsys):
    text = written(capsys, kind, *SECRETS)
    assert "hunter2" not in text and "s3://bucket/prefix?region=eu" in text
    for name in ("RESUMABLE_CATALOG", "RESUMABLE_HOOK", "RESUMABLE_AUTH_JWT_SECRET", "AWS_ACCESS_KEY_ID"):
        assert name in text


@pytest.mark.parametrize("kind", ["unit", "compose", "kubernetes"])
def test_what_a_variable_sets_is_written_as_what_a_flag_sets(kind, capsys):
    given = written(capsys, kind, "--max-size", "10G", "--sidecar", "--place", "{id} 100%")
    assert given == written(
        capsys, kind, RESUMABLE_MAX_SIZE="10G", RESUMABLE_SIDECAR="yes", RESUMABLE_PLACE="{id} 100%"
    )
    assert "10G" in given


def test_output_writes_a_file_once(home, capsys):
    assert main(["doctor", "--write=unit", "--output", "r.service"], {}) == 0
    assert "r.service is written" in capsys.readouterr().out
    text = (home / "r.service").read_text()
    assert text == written(capsys, "unit", "--output", "-")
    assert "is there already" in refused(capsys, "--write", "unit", "--output", "r.service")


@pytest.mark.parametrize(
    ("flags", "status", "said"),
    [
        (["--write", "helm"], 2, "--write 'helm': expected one of unit, compose, kubernetes"),
        (["--write"], 2, "--write requires argument; see resumable doctor --help"),
        (["--write", "unit", "--prot", "1"], 2, "did you mean --port?; see resumable doctor --help"),
        (["--write", "unit", "--user", "a b"], 2, "--user 'a b': expected a name of a user"),
        (["--write", "kubernetes", "--user", "ann"], 2, "--user 'ann': expected a number of a user"),
        (["--write", "unit", "--max-size", "x"], 1, "--max-size 'x': expected a size"),
        (["--write", "compose", "--ack", "remote"], 1, "--ack remote needs a --remote"),
        (["--write", "compose", "--listen", "unix:/run/x"], 1, "--listen unix:... is for a server beside its proxy"),
        (["--write", "kubernetes", "--listen", "ssl:1:privateKey=k:certKey=c"], 1, "give --port and --tls-cert"),
        (["--write", "kubernetes", "--port", "0"], 1, "--port 0 chooses a port that nobody knows"),
        (["--write", "compose", "--place", "{id}", "--place-dir", "/srv/x"], 1, "is not below --upload-dir"),
    ],
)
def test_what_makes_no_sense_is_one_line(flags, status, said, capsys):
    assert said in refused(capsys, *flags, status=status)


# -- the unit


def test_the_unit_of_a_usual_installation_is_that_of_the_examples(monkeypatch, capsys):
    monkeypatch.setattr(sys, "prefix", "/opt/resumable")
    monkeypatch.setattr(sys, "executable", "/opt/resumable/bin/python")
    example = (ROOT / "examples" / "resumable.service").read_text(encoding="utf-8")
    text = written(
        capsys, "unit", "--listen", "tcp:8080:interface=127.0.0.1", "--behind-proxy", "loopback",
        "--upload-dir", "/var/lib/resumable",
    )  # fmt: skip
    ours, theirs = sorted(unit_lines(text)), sorted(unit_lines(example))
    differ = {"TimeoutStopSec", "RequiresMountsFor"}
    assert [each for each in ours if each[0] not in differ] == [each for each in theirs if each[0] not in differ]
    assert unit_value(text, "RequiresMountsFor") == "/var/lib/resumable"
    assert float(unit_value(text, "TimeoutStopSec")) >= float(unit_value(example, "TimeoutStopSec"))


def test_without_an_upload_directory_it_is_below_var_lib(capsys):
    text = written(capsys, "unit", "--dir-mode", "750")
    assert unit_environment(text)["RESUMABLE_UPLOAD_DIR"] == "/var/lib/resumable"
    assert (unit_value(text, "StateDirectory"), unit_value(text, "StateDirectoryMode")) == ("resumable", "0750")
    assert unit_value(text, "DynamicUser") == "yes" and unit_value(text, "User") is None


def test_a_directory_elsewhere_is_writable_mounted_and_its_owners(home, capsys):
    text = written(capsys, "unit", "--upload-dir", "/srv/up loads", "--shutdown-timeout", "60")
    assert unit_value(text, "ReadWritePaths") == unit_value(text, "RequiresMountsFor") == '"/srv/up loads"'
    assert unit_value(text, "User") == "resumable" and "useradd --system" in text
    assert unit_value(text, "DynamicUser") is unit_value(text, "StateDirectory") is None
    assert float(unit_value(text, "TimeoutStopSec")) > 120
    assert unit_value(written(capsys, "unit", "--user", "ann"), "User") == "ann"
    if os.geteuid() == 0:
        (home / "up").mkdir()
        os.chown(home / "up", 1, 1)
        assert unit_value(written(capsys, "unit", "--upload-dir", "up"), "User") == "daemon"


def test_relative_paths_are_written_whole(home, capsys):
    (home / "r.toml").write_text('upload-dir = "up"\nauth-tokens = "tokens.txt"\nmax-size = "10G"\n')
    found = unit_environment(written(capsys, "unit", "--config", "r.toml", "--tls-cert", "c.pem"))
    assert found == {
        "RESUMABLE_UPLOAD_DIR": str(home / "up"),
        "RESUMABLE_CONFIG": str(home / "r.toml"),
        "RESUMABLE_AUTH_TOKENS": str(home / "tokens.txt"),
        "RESUMABLE_TLS_CERT": str(home / "c.pem"),
    }, "what the file says otherwise isn't repeated"


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["--port", "443"], {"AmbientCapabilities": "CAP_NET_BIND_SERVICE"}),
        (["--port", "443"], {"CapabilityBoundingSet": "CAP_NET_BIND_SERVICE"}),
        (["--port", "8443"], {"AmbientCapabilities": None, "CapabilityBoundingSet": ""}),
        (["--upload-dir", "/home/ann/up"], {"ProtectHome": "read-only", "ReadWritePaths": "/home/ann/up"}),
        (["--upload-dir", "/var/tmp/up"], {"PrivateTmp": "no"}),
        (["--remote", "file:///mnt/nas"], {"ReadWritePaths": "/mnt/nas"}),
        (["--place", "{id}", "--place-dir", "/srv/done"], {"ReadWritePaths": "/srv/done"}),
        (["--catalog", "postgresql://u@h/d"], {"RuntimeDirectory": "resumable", "RuntimeDirectoryMode": "0700"}),
        (["--catalog", "postgresql://u@h/d", "--run-dir", "/run/up"], {"RuntimeDirectory": "up"}),
        (["--listen", "unix:/run/up/http.sock:mode=660"], {"RuntimeDirectory": "up", "RuntimeDirectoryMode": "0755"}),
        (["--admin-listen", "unix:/run/ops/a.sock"], {"RuntimeDirectory": "ops", "RuntimeDirectoryMode": "0755"}),
        (["--admin-listen", "unix:/srv/ops/a.sock:mode=660"], {"ReadWritePaths": "/srv/ops"}),
        (["--listen", "systemd:domain=INET:name=web"], {"Requires": "resumable.socket"}),
        (["--spool", "s3://b", "--catalog", "postgresql://u@h/d"], {"StateDirectory": None, "RequiresMountsFor": None}),
        (["--hook-secret", "whsec_" + "A" * 32], {"EnvironmentFile": "/etc/default/resumable"}),
    ],
)
def test_the_unit_allows_what_the_options_need_and_no_more(flags, expected, capsys):
    text = written(capsys, "unit", *flags)
    assert {name: unit_value(text, name) for name in expected} == expected


def test_the_server_takes_the_variables_of_the_unit(capsys):
    flags = ["--place", '{id} "100%"', "--max-size", "10G", "--hook", "a=exec:/bin/a b", "--hook", "c=exec:/bin/d"]
    environ = unit_environment(written(capsys, "unit", "--upload-dir", "/srv/up", *flags))
    assert environ["RESUMABLE_HOOK"] == "a=exec:/bin/a b\nc=exec:/bin/d"
    assert settings(environ) == settings({}, "--upload-dir", "/srv/up", *flags)


def test_prometheus_reaches_the_port_of_a_pod(capsys):
    text = written(capsys, "kubernetes", "--admin-listen", "tcp:9191:interface=127.0.0.1")
    assert {"name": "RESUMABLE_ADMIN_LISTEN", "value": "socket tcp:9191"} in container(text)["env"]


def test_a_composition_has_a_place_for_the_sockets_of_operators(capsys):
    text = written(
        capsys, "compose", *("--admin-listen", "unix:/run/ops/a.sock"), "--admin-listen=unix:/run/resumable/b.sock"
    )
    assert yaml.safe_load(text)["services"]["resumable"]["tmpfs"] == ["/tmp", "/run/resumable", "/run/ops"]


@pytest.mark.process
@pytest.mark.parametrize(
    "flags", [[], ["--upload-dir", "/srv/up", "--port", "80"], ["--listen", "unix:/run/r/s"], SECRETS]
)
def test_systemd_takes_the_unit(flags, home, capsys):
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed here")
    (home / "up.service").write_text(written(capsys, "unit", *flags))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", "up.service"], cwd=home, capture_output=True, text=True, timeout=300
    )
    about = [line for line in done.stderr.splitlines() if "up.service" in line]
    assert about == [], done.stderr


# -- the composition


def server(text: str) -> dict[str, Any]:
    return yaml.safe_load(text)["services"]["resumable"]


def test_the_composition_has_a_volume_or_the_given_directory(home, capsys):
    text = written(capsys, "compose")
    assert server(text)["volumes"] == ["uploads:/app/uploads"]
    assert yaml.safe_load(text)["volumes"] == {"uploads": None}
    assert server(text)["user"] == "10001:10001" and server(text)["ports"] == ["8080:8080"]
    text = written(capsys, "compose", "--upload-dir", "/srv/up", "--remote", "file:///mnt/nas")
    assert server(text)["volumes"] == ["/srv/up:/app/uploads", "/mnt/nas:/mnt/nas"]
    assert "install -d -o 10001 -g 10001 -m 700 /srv/up" in text and "volumes" not in yaml.safe_load(text)
    assert server(written(capsys, "compose", "--user", "1000:1000"))["user"] == "1000:1000"
    shared = ["--spool", "s3://b", "--catalog", SHARED]
    assert "volumes" not in server(written(capsys, "compose", *shared))


def test_the_composition_keeps_to_that_of_the_project(capsys):
    """All that both have is the same."""
    theirs = yaml.safe_load((ROOT / "deploy/compose/docker-compose.yml").read_text(encoding="utf-8"))["services"]["one"]
    ours = server(written(capsys, "compose", "--catalog", SHARED, "--spool", "s3://uploads/incoming"))
    same = {"healthcheck", "read_only", "tmpfs", "cap_drop", "security_opt", "stop_grace_period", "ulimits", "restart"}
    assert {name: ours[name] for name in same} == {name: theirs[name] for name in same}
    assert ours["environment"]["RESUMABLE_RUN_DIR"] == theirs["environment"]["RESUMABLE_RUN_DIR"]


def test_files_that_options_name_are_in_the_container_where_the_variables_say(home, capsys):
    (home / "key").write_text("s" * 40)
    (home / "r.toml").write_text('auth-jwt-secret = { file = "key" }\nmax-size = "1G"\ncatalog = { env = "DB" }\n')
    given = ["--config", "r.toml", "--auth-tokens", "tokens.txt", "--port", "443"]
    text = written(capsys, "compose", *given, "--listen", "tcp:444:interface=127.0.0.1", DB=SHARED)
    found = server(text)
    environ, mounts = found["environment"], [each.split(":") for each in found["volumes"]]
    assert environ["RESUMABLE_AUTH_TOKENS"] == "/etc/resumable/auth-tokens"
    assert [str(home / "tokens.txt"), "/etc/resumable/auth-tokens", "ro"] in mounts
    assert environ["RESUMABLE_CONFIG"] == "/etc/resumable/resumable.toml"
    assert [str(home / "r.toml"), "/etc/resumable/resumable.toml", "ro"] in mounts
    assert [str(home / "key"), str(home / "key"), "ro"] in mounts, "the file names it"
    assert found["env_file"] == ["resumable.env"] and "as NAME=value: DB" in text
    assert found["ports"] == ["443:443", "444:444"] and environ["RESUMABLE_LISTEN"] == "tcp:443 tcp:444"


def test_a_port_for_this_machine_is_published_for_it_only(capsys):
    found = server(written(capsys, "compose", "--listen", "tcp:9000:interface=127.0.0.1"))
    assert found["ports"] == ["127.0.0.1:9000:9000"] and found["environment"]["RESUMABLE_PORT"] == "9000"
    assert settings(found["environment"]).listen == ("tcp:9000",)


def test_the_composition_asks_for_health_over_tls_where_that_is_spoken(capsys):
    test = server(written(capsys, "compose", "--tls-cert", "c.pem"))["healthcheck"]["test"]
    assert "https://127.0.0.1:8080/healthz" in test[-1]
    compile(test[-1], "health", "exec")
    only = ["--tls-cert", "c.pem", "--tls-client-ca", "ca.pem", "--auth-tls", "cn"]
    assert server(written(capsys, "compose", *only))["healthcheck"] == {"disable": True}


# -- Kubernetes


def plain(found: dict[tuple[str, str], dict[str, Any]]) -> dict[tuple[str, str], dict[str, Any]]:
    """With the environment by its names; and without what both sides call differently."""
    (each,) = found["Deployment", "resumable"]["spec"]["template"]["spec"]["containers"]
    each.pop("envFrom", None)
    each["env"] = {one["name"]: one.get("value", "a secret") for one in each["env"]}
    return found


@pytest.mark.parametrize(
    ("name", "flags"),
    [
        ("one.yaml", []),
        ("several.yaml", ["--catalog", SHARED, "--workers", "1"]),
        ("store.yaml", ["--catalog", SHARED, "--workers", "1", "--spool", "s3://bucket/prefix", *SCRATCH]),
    ],
)
def test_the_manifest_of_usual_options_is_that_of_the_project(name, flags, capsys):
    theirs = plain(objects((KUBERNETES / name).read_text(encoding="utf-8")))
    assert plain(objects(written(capsys, "kubernetes", *flags))) == theirs


def test_secrets_and_files_are_references_that_the_head_says_how_to_make(home, capsys):
    (home / "r.toml").write_text('max-size = "1G"\n')
    given = ["--auth-tokens", "tokens.txt", "--config", "r.toml"]
    text = written(capsys, "kubernetes", *SECRETS, *given)
    env = {each["name"]: each for each in container(text)["env"]}
    reference = {"secretKeyRef": {"name": "resumable-secrets", "key": "catalog"}}
    assert env["RESUMABLE_CATALOG"]["valueFrom"] == reference
    assert "--from-literal=catalog=..." in text and "--from-literal=auth-jwt-secret=..." in text
    assert f"--from-file=auth-tokens={home}/tokens.txt --from-file=resumable.toml={home}/r.toml" in text
    mounts = {each["mountPath"]: each for each in container(text)["volumeMounts"]}
    assert mounts[env["RESUMABLE_AUTH_TOKENS"]["value"]]["subPath"] == "auth-tokens"
    assert mounts[env["RESUMABLE_CONFIG"]["value"]]["readOnly"] is True
    assert container(text)["envFrom"] == [{"secretRef": {"name": "resumable-s3", "optional": True}}]


def test_ports_probes_and_users_agree(capsys):
    text = written(capsys, "kubernetes", "--port", "443", "--tls-cert", "c.pem", "--user", "1234")
    assert pod(text)["securityContext"]["fsGroup"] == 1234
    assert pod(text)["securityContext"]["sysctls"][0]["value"] == "0"
    probe = container(text)["readinessProbe"]["httpGet"]
    assert probe == {"path": "/readyz", "port": "http", "scheme": "HTTPS"}
    assert container(text)["ports"][0] == {"name": "http", "containerPort": 443}
    assert objects(text)["Service", "resumable"]["spec"]["ports"][0]["port"] == 443
    only = ["--tls-client-ca", "ca.pem", "--auth-tls", "cn", "--admin-listen", "tcp:9999"]
    text = written(capsys, "kubernetes", "--tls-cert", "c.pem", *only)
    assert container(text)["livenessProbe"]["httpGet"] == {"path": "/healthz", "port": "metrics"}
    assert container(text)["ports"][1] == {"name": "metrics", "containerPort": 9999}


def test_the_server_takes_the_environment_of_the_pod(capsys):
    flags = ["--max-size", "10G", "--base-path", "/up/", "--remote", "file:///mnt/nas", "--shutdown-timeout", "90"]
    text = written(capsys, "kubernetes", *flags)
    found = settings({each["name"]: each["value"] for each in container(text)["env"]})
    assert (found.max_size, found.base_path, found.remotes[0].path) == (10 << 30, "/up/", "/mnt/nas")
    assert pod(text)["terminationGracePeriodSeconds"] > 180
    assert ("PersistentVolumeClaim", "resumable-remote-1") in objects(text)
