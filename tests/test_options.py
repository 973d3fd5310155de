"""The command line and the environment: what they accept, what they refuse, and in which words."""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path

import pytest
from twisted.python import usage

from resumable import __version__
from resumable.auth.build import AccessSettings
from resumable.config import MAIN, OPTIONS
from resumable.config.options import Options, Settings
from resumable.hooks.settings import HookSettings
from resumable.http.cors import CrossOrigin
from resumable.remotes.urls import RemoteSpec
from resumable.spool import Modes
from resumable.spool.placed_files import PlaceSettings
from resumable.spool.placing import Collision, Rules
from tests.parsing import SWITCHES, parse, refusal


def test_with_no_flag_at_all_the_defaults_of_the_design_hold(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert parse() == Settings(
        listen=("tcp:8080",),
        upload_dir=tmp_path / "uploads",
        catalog=None,
        spool=None,
        scratch_size=1024**3,
        run_dir=None,
        workers=1,
        modes=Modes(0o600, 0o700),
        base_path="/files/",
        public_url=None,
        max_size=None,
        expire_after=7 * 86400.0,
        keep_partials=3600.0,
        final_timeout=30.0,
        remember=7 * 86400.0,
        network_timeout=60.0,
        min_rate=100,
        shutdown_timeout=10.0,
        trusted_proxies=(),
        reserve=64 * 1024**2,
        cors=CrossOrigin(),
        location="absolute",
        page="auto",
        http2=True,
        h2c=False,
        writers=4,
        direct_from=256 * 1024,
        disabled_extensions=(),
        draft=True,
        interim="auto",
        min_append_size=None,
        max_append_size=None,
        download=True,
        download_inline=False,
        digest="none",
        download_from_remote="proxy",
        download_url_expires=300.0,
        remotes=(),
        part_size=8 * 1024**2,
        ack="spool",
        ack_timeout=60.0,
        local="keep",
        reclaim_after=None,
        max_lag=None,
        max_lag_age=None,
        terminate_remote="delete",
        remote_attempts=None,
        give_up_after=None,
        retry_delay=1.0,
        retry_delay_max=60.0,
        parts_per_upload=4,
        parts_per_remote=16,
        parts=32,
        remote_timeout=60.0,
        sweep="on",
        check=False,
        status_path="status",
        tls_client_ca=None,
        tls_client_optional=False,
        admin_token_file=None,
        admin_on_public=False,
        admin_listen=(f"unix:address={tmp_path}/uploads/.resumable/admin.sock:mode=600:lockfile=0",),
        ready_remotes="none",
        log_format="text",
        log_level="info",
        access_log="off",
        access=AccessSettings(),
        hooks=HookSettings(),
        placing=PlaceSettings(tmp_path / "uploads" / "finished"),
    )


def test_settings_are_frozen():
    with pytest.raises(AttributeError):
        parse().writers = 5


def test_settings_before_parsing_is_a_programming_error():
    with pytest.raises(RuntimeError):
        Options({}).settings()


# A value for each option that differs from its default, and what becomes of it.
EXAMPLES = [
    ("port", "0", "listen", ("tcp:0",)),
    ("host", "::1", "listen", (r"tcp6:8080:interface=\:\:1",)),
    ("listen", "tcp:9000:interface=127.0.0.1", "listen", ("tcp:9000:interface=127.0.0.1",)),
    ("tls-cert", "/tls/x.pem", "listen", ("ssl:8080:privateKey=/tls/x.pem:certKey=/tls/x.pem",)),
    ("upload-dir", "/srv/up", "upload_dir", Path("/srv/up")),
    ("catalog", "postgresql://u@h/d", "catalog", "postgresql://u@h/d"),
    ("file-mode", "640", "modes", Modes(0o640, 0o700)),
    ("dir-mode", "2710", "modes", Modes(0o600, 0o2710)),
    ("base-path", "/a/b", "base_path", "/a/b/"),
    ("public-url", "https://example.org/up", "public_url", "https://example.org/up/"),
    ("behind-proxy", "10.1.2.3", "trusted_proxies", (ipaddress.ip_network("10.1.2.3/32"),)),
    ("max-size", "5G", "max_size", 5 * 1024**3),
    ("expire-after", "24h", "expire_after", 86400.0),
    ("keep-partials", "90s", "keep_partials", 90.0),
    ("keep-partials", "0", "keep_partials", 0.0),
    ("final-timeout", "90s", "final_timeout", 90.0),
    ("remember", "90s", "remember", 90.0),
    ("network-timeout", "5m", "network_timeout", 300.0),
    ("min-rate", "2K", "min_rate", 2048),
    ("shutdown-timeout", "30", "shutdown_timeout", 30.0),
    ("reserve", "1GiB", "reserve", 1024**3),
    ("cors-origin", "https://example.org", "cors", CrossOrigin(("https://example.org",))),
    ("writers", "8", "writers", 8),
    ("direct-from", "1M", "direct_from", 1024**2),
    ("direct-from", "0", "direct_from", None),
    ("remote", "memory://x", "remotes", (RemoteSpec("memory", "memory://x", bucket="x"),)),
    ("part-size", "16M", "part_size", 16 * 1024**2),
    ("ack-timeout", "5m", "ack_timeout", 300.0),
    ("reclaim-after", "30d", "reclaim_after", 30 * 86400.0),
    ("max-lag", "2G", "max_lag", 2 * 1024**3),
    ("max-lag-age", "1h", "max_lag_age", 3600.0),
    ("terminate-remote", "keep", "terminate_remote", "keep"),
    ("remote-attempts", "12", "remote_attempts", 12),
    ("give-up-after", "2d", "give_up_after", 2 * 86400.0),
    ("retry-delay", "500ms", "retry_delay", 0.5),
    ("retry-delay-max", "5m", "retry_delay_max", 300.0),
    ("parts-per-upload", "8", "parts_per_upload", 8),
    ("parts-per-remote", "64", "parts_per_remote", 64),
    ("parts", "128", "parts", 128),
    ("remote-timeout", "2m", "remote_timeout", 120.0),
    ("sweep", "dry-run", "sweep", "dry-run"),
    ("digest", "sha512", "digest", "sha512"),
    ("download-from-remote", "redirect", "download_from_remote", "redirect"),
    ("download-url-expires", "90s", "download_url_expires", 90.0),
    ("status-path", "progress", "status_path", "progress"),
]
# Those whose effect shows only beside a remote.
WITH_A_REMOTE = {"overwrite", "ack", "local"}
WITH_A_CERTIFICATE = {"tls-key"}
WITH_A_SHARED_CATALOG = {"workers", "run-dir", "spool", "scratch-size"}


def test_every_option_has_an_example_below():
    assert {flag for flag, *_ in EXAMPLES} | SWITCHES | WITH_A_REMOTE | WITH_A_CERTIFICATE | WITH_A_SHARED_CATALOG == {
        option.flag for option in MAIN
    }


@pytest.mark.parametrize(("flag", "text", "field", "value"), EXAMPLES)
def test_a_flag_sets_its_field(flag, text, field, value):
    assert getattr(parse(f"--{flag}", text), field) == value


@pytest.mark.parametrize(("flag", "text", "field", "value"), EXAMPLES)
def test_a_variable_sets_the_same_field(flag, text, field, value):
    assert getattr(parse(**{"RESUMABLE_" + flag.upper().replace("-", "_"): text}), field) == value


@pytest.mark.parametrize(("flag", "text", "field", "value"), EXAMPLES)
def test_a_flag_wins_over_a_variable_even_a_wrong_one(flag, text, field, value):
    variable = "RESUMABLE_" + flag.upper().replace("-", "_")
    assert getattr(parse(f"--{flag}", text, **{variable: "\\ nonsense"}), field) == value


@pytest.mark.parametrize("option", OPTIONS, ids=lambda option: option.flag)
def test_an_empty_variable_counts_as_not_set(option):
    assert parse(**{option.variable: ""}) == parse()


def test_disable_download_is_a_flag_and_a_variable():
    assert parse("--disable-download").download is False
    assert parse(RESUMABLE_DISABLE_DOWNLOAD="true").download is False
    assert parse(RESUMABLE_DISABLE_DOWNLOAD="0").download is True
    assert "RESUMABLE_DISABLE_DOWNLOAD 'maybe'" in refusal(RESUMABLE_DISABLE_DOWNLOAD="maybe")


def test_check_is_a_flag_and_a_variable():
    assert parse("--check").check and parse(RESUMABLE_CHECK="yes").check


def names(*flags: str, **environ: str) -> list[str]:
    return [spec.name for spec in parse(*flags, **environ).remotes]


def test_remotes_keep_their_order_and_blanks_separate_them_in_the_variable():
    assert names("--remote", "memory://b", "--remote", "memory://a") == ["memory://b", "memory://a"]
    assert names(RESUMABLE_REMOTE=" memory://b?required=no \t memory://a ") == ["memory://b", "memory://a"]
    assert names("--remote", "memory://c", RESUMABLE_REMOTE="memory://b") == ["memory://c"]


def test_a_bucket_in_the_environment_is_a_remote():
    (spec,) = parse(AWS_S3_BUCKET="uploads", AWS_S3_REGION="eu-west-1", AWS_S3_ENDPOINT="http://127.0.0.1:9000").remotes
    assert (spec.name, spec.bucket, spec.required) == ("s3://uploads", "uploads", True)
    assert dict(spec.options) == {"region": "eu-west-1", "endpoint": "http://127.0.0.1:9000"}


def test_a_bucket_in_the_environment_is_added_to_other_remotes_but_not_twice():
    assert names("--remote", "memory://x", AWS_S3_BUCKET="b-1") == ["memory://x", "s3://b-1"]
    assert names("--remote", "s3://b-1/prefix", AWS_S3_BUCKET="b-1") == ["s3://b-1/prefix"]
    assert names("--remote", "s3://b-2", AWS_S3_BUCKET="b-1") == ["s3://b-2", "s3://b-1"]


def test_the_bucket_of_the_environment_is_no_url():
    assert refusal(AWS_S3_BUCKET="b?overwrite=replace").startswith("AWS_S3_BUCKET: remote s3://b%3Foverwrite")


def test_overwrite_is_the_default_of_all_remotes():
    flags = ["--overwrite", "replace", "--remote", "memory://a", "--remote", "memory://b?overwrite=refuse"]
    assert [spec.replace for spec in parse(*flags).remotes] == [True, False]
    assert [spec.replace for spec in parse("--remote", "memory://a").remotes] == [False]
    assert refusal("--overwrite", "maybe") == "--overwrite 'maybe': expected one of refuse, replace"


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("s4://bucket", ["unknown scheme", 'did you mean "s3"']),
        ("s3://", ["bucket is missing"]),
        ("s3://bucket?regoin=x", ["unknown option", 'did you mean "region"']),
        ("s3://bucket?endpoint=minio:9000", ["http://host:port"]),
        ("s3://bucket?dialect=mineio", ["no S3 dialect"]),
        ("s3://bucket?part-size=1M", ["part-size", "5M to 5G"]),
        ("memory://a?when=x", ["colon"]),
    ],
)
def test_a_wrong_remote_is_refused_in_one_line_under_the_name_it_was_given_by(url, words):
    for source, message in [
        ("--remote", refusal("--remote", url)),
        ("RESUMABLE_REMOTE", refusal(RESUMABLE_REMOTE=url)),
    ]:
        assert message.startswith(f"{source}: remote ")
        assert all(word in message for word in words), message
        assert len(message) < 400


@pytest.mark.parametrize("user", ["ann:hunter2", ":hunter2", "hunter2"])
@pytest.mark.parametrize(
    ("flag", "url"),
    [
        ("auth-forward", "https://{}@h/check"),
        ("auth-jwks", "http://{}@h/keys?a=hunter2"),
        ("public-url", "https://{}@h/files/"),
        ("public-url", "{}@h"),
        ("hook", "https://{}@h/"),
        ("hook", "name=tusd+http://{}@h/?a=hunter2"),
        ("guard", "https://{}@h/hunter2"),
        ("remote", "s3://{}@bucket"),
        ("remote", "s3://bucket?endpoint=http://{}@h"),
        ("remote", "az://bucket?endpoint=http://{}@h"),
        ("remote", "gs://bucket?endpoint=http://{}@h"),
        ("remote", "file://{}@/srv"),
        ("spool", "s3://{}@bucket"),
        ("spool", "s3://bucket?endpoint=http://{}@h"),
    ],
)
def test_a_url_with_a_user_is_refused_without_repeating_it(flag, url, user):
    for said in (
        refusal(f"--{flag}", url.format(user)),
        refusal(**{f"RESUMABLE_{flag.upper().replace('-', '_')}": url.format(user)}),
    ):
        assert "hunter2" not in said
        assert any(word in said for word in ("without", "credentials")), "what to do instead"


@pytest.mark.parametrize(
    ("flag", "url"),
    [("auth-forward", "ftp://h/?key=hunter2"), ("auth-jwks", "hunter2"), ("public-url", "https://h/?key=hunter2")],
)
def test_a_malformed_url_is_refused_without_what_may_be_a_secret(flag, url):
    assert "hunter2" not in refusal(f"--{flag}", url)


def test_settings_show_no_secrets():
    settings = parse(
        *("--auth-forward", "https://h/?a=hunter2", "--hook", "https://h/hunter2"),
        *("--auth-jwks", "https://h/?a=hunter2", "--guard", "https://h/?b=hunter2"),
    )
    assert "hunter2" not in repr(settings)


@pytest.mark.parametrize(
    "url", ["s3://AKIA:hunter2@b", "s3://b?secret=hunter2", "s3://b?endpoint=http://a:hunter2@x", "s3:hunter2@b"]
)
def test_a_secret_in_a_remote_is_not_repeated(url):
    assert "hunter2" not in refusal("--remote", url)


def test_the_example_for_docker_compose_says_what_it_means():
    text = (Path(__file__).parents[1] / "examples" / "docker-compose.yml").read_text(encoding="utf-8")
    environ = dict(re.findall(r"^ +((?:RESUMABLE|AWS)_[A-Z_]+): (.*)$", text, re.MULTILINE))
    settings = parse(**environ)
    (spec,) = settings.remotes
    assert f"command: mb -p store/{spec.bucket}\n" in text
    assert (settings.local, spec.options["endpoint"]) == ("reclaim", "http://minio:9000")
    assert f"MC_HOST_store: http://{environ['AWS_ACCESS_KEY_ID']}:{environ['AWS_SECRET_ACCESS_KEY']}@minio:9000" in text


def test_two_remotes_of_one_name_are_refused():
    assert "two have this name" in refusal("--remote", "memory://a", "--remote", "memory://a?required=no")


@pytest.mark.parametrize("flags", [["--ack", "remote"], ["--local", "drop"], ["--local", "reclaim"]])
def test_what_waits_for_a_remote_needs_one_that_is_required(flags):
    assert f"{flags[0]} {flags[1]} needs a --remote that is required" in refusal(*flags)
    refusal(*flags, "--remote", "memory://a?required=no")
    settings = parse(*flags, "--remote", "memory://a?required=no", "--remote", "memory://b")
    assert getattr(settings, flags[0].removeprefix("--")) == flags[1]


@pytest.mark.parametrize(("text", "number"), [("3", 3), ("auto", None)])
def test_more_than_one_worker_needs_a_catalog_that_they_share(text, number):
    assert "--workers needs --catalog postgresql://" in refusal("--workers", text)
    assert parse("--workers", text, "--catalog", "postgresql://h/d").workers == number


def test_a_run_directory_is_for_servers_with_a_shared_catalog():
    assert "--run-dir needs --catalog postgresql://" in refusal("--run-dir", "/run/up")
    assert parse("--run-dir", "/run/up", "--catalog", "postgresql://h/d").run_dir == Path("/run/up")
    assert parse(RESUMABLE_RUN_DIR="/run/up", RESUMABLE_CATALOG="postgresql://h/d").run_dir == Path("/run/up")


def test_the_first_pause_is_not_longer_than_the_longest():
    assert "--retry-delay-max" in refusal("--retry-delay", "2m")


def test_no_status_has_its_word():
    assert parse("--status-path", "none").status_path is None


@pytest.mark.parametrize(
    ("given", "understood"),
    [
        ("unix:/run/a.sock", "unix:/run/a.sock:mode=600"),
        ("unix:address=/run/a.sock:lockfile=0", "unix:address=/run/a.sock:lockfile=0:mode=600"),
        ("unix:/run/a.sock:mode=660", "unix:/run/a.sock:mode=660"),
        ("unix:/run/a.sock:660", "unix:/run/a.sock:660"),
        ("tcp:9090", "tcp:9090"),
    ],
)
def test_a_socket_for_operators_is_for_the_daemon_s_user_unless_its_mode_is_told(given, understood):
    assert parse("--admin-listen", given).admin_listen == (understood,)


def test_listen_replaces_the_default_port():
    assert parse("--listen", "tcp:1", "--listen", "unix:/tmp/s").listen == ("tcp:1", "unix:/tmp/s")


def test_a_port_that_was_given_is_listened_on_beside_the_endpoints():
    assert parse("--listen", "tcp:1", "--port", "2").listen == ("tcp:2", "tcp:1")
    assert parse("--listen", "tcp:1", RESUMABLE_PORT="2").listen == ("tcp:2", "tcp:1")


def test_a_certificate_makes_the_port_speak_tls():
    files = ("--tls-cert", "/tls/a:b.pem", "--tls-key", "/tls/key.pem")
    expected = r"ssl:8443:privateKey=/tls/key.pem:certKey=/tls/a\:b.pem"
    assert parse("--port", "8443", *files).listen == (expected,)
    assert parse("--port", "8443", "--listen", "tcp:1", *files).listen == (expected, "tcp:1")
    assert "--tls-cert is for --port" in refusal("--listen", "tcp:1", *files)
    assert "--tls-key needs --tls-cert" in refusal("--tls-key", "/tls/key.pem")


def test_clients_are_verified_only_where_there_is_tls():
    assert parse("--tls-cert", "/tls/x.pem", "--tls-client-ca", "/ca").tls_client_ca == Path("/ca")
    assert parse("--listen", "haproxy:ssl:1", "--behind-proxy", "loopback", "--tls-client-ca", "/ca").listen
    assert "--tls-client-ca needs" in refusal("--tls-client-ca", "/ca")


def test_sockets_of_systemd_are_looked_for_at_the_start():
    given = ("systemd:domain=INET:index=0", "haproxy:systemd:domain=UNIX:name=web")
    assert parse("--listen", given[0], "--listen", given[1]).listen == given
    assert "systemd" in refusal("--listen", "systemd:domain=INET")


def test_endpoints_in_the_variable_are_separated_by_blanks():
    assert parse(RESUMABLE_LISTEN=" tcp:1:interface=127.0.0.1  tcp6:2 ").listen == (
        "tcp:1:interface=127.0.0.1",
        "tcp6:2",
    )


def test_the_variable_that_kubernetes_sets_for_a_service_of_this_name_is_ignored():
    assert parse(RESUMABLE_PORT="tcp://10.43.0.17:8080").listen == ("tcp:8080",)


def test_behind_proxy_takes_words_lists_and_repetition():
    networks = parse("--behind-proxy", "loopback, 192.0.2.0/24", "--behind-proxy", "2001:db8::1").trusted_proxies
    assert [str(network) for network in networks] == ["127.0.0.0/8", "::1/128", "192.0.2.0/24", "2001:db8::1/128"]
    assert ipaddress.ip_network("172.16.0.0/12") in parse(RESUMABLE_BEHIND_PROXY="private").trusted_proxies


def test_origins_are_told_apart_by_commas_and_repetition_in_lower_case_without_a_slash():
    flags = ["--cors-origin", "https://A.example/,http://localhost:3000", "--cors-origin", "http://[::1]:8000"]
    assert parse(*flags).cors.origins == ("https://a.example", "http://localhost:3000", "http://[::1]:8000")
    assert parse("--cors-origin", "none").cors.origins == ()


@pytest.mark.parametrize("text", ["0", "none", "None"])
def test_no_limit_has_its_words(text):
    assert parse("--max-size", text).max_size is None
    assert parse("--expire-after", text).expire_after is None


def test_the_upload_directory_is_resolved_when_it_is_parsed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    settings = parse("--upload-dir", "a/../b")
    monkeypatch.chdir("/")
    assert settings.upload_dir == tmp_path / "b"


def test_an_unknown_flag_and_a_stray_argument_are_refused():
    assert "--nonsense" in refusal("--nonsense")
    assert "'uploads'" in refusal("uploads")


def test_under_twistd_a_wrong_value_ends_the_process_with_one_line_and_not_with_the_whole_help():
    options = Options({})
    options.parent = usage.Options()
    with pytest.raises(SystemExit) as caught:
        options.parseOptions(["--port", "no"])
    assert caught.value.code == "resumable: --port 'no': expected a port number from 0 to 65535"


def test_help_names_every_flag_with_its_default_and_its_variable():
    text = " ".join(Options({}).getUsage(width=200).split())
    for option in OPTIONS:
        assert f"--{option.flag}" in text
        assert f"({option.variable})" in text
        if option.default:
            assert f"[{option.default}] ({option.variable})" in text


def test_version_names_the_package(capsys):
    with pytest.raises(SystemExit) as caught:
        parse("--version")
    assert caught.value.code == 0
    assert capsys.readouterr().out.startswith(f"resumable {__version__} (Twisted ")


def test_places_are_set_by_their_options(tmp_path):
    flags = ["--place", "{date}/{metadata[filename]}", "--place-collision", "Refuse", "--place-file-mode", "0640"]
    found = parse("--upload-dir", str(tmp_path), *flags, "--place-dir-mode", "2750", "--sidecar").placing
    assert found.template is not None and found.directory == tmp_path / "finished" and found.sidecar
    assert found.rules == Rules(Collision.REFUSE, 0o640, 0o2750)
    assert parse("--place", "{id}", RESUMABLE_PLACE_DIR="/srv/x").placing.directory == Path("/srv/x")


@pytest.mark.parametrize(
    ("flags", "word"),
    [
        (["--place", "{date}"], "{id}"),
        (["--place", "../{id}"], "segment"),
        (["--place-file-mode", "240"], "readable"),
        (["--place-file-mode", "755"], "executable"),
        (["--place-file-mode", "rw-r--r--"], "640"),
        (["--place-dir-mode", "550"], "750"),
        (["--place-dir-mode", "99"], "750"),
        (["--place-collision", "overwrite"], "number"),
        (["--place", "{id}", "--local", "drop", "--remote", "memory://a"], "contradict"),
    ],
)
def test_places_that_can_not_be_are_refused(flags, word):
    assert word in refusal(*flags)
