"""Names of flags and variables: misspelt ones, and those of somebody else."""

from __future__ import annotations

import base64

import pytest
from twisted.logger import LogLevel, formatEvent

from resumable.config import OPTIONS
from resumable.config.option import is_slip, of_a_service, unknown_variables
from tests.daemon.site_rig import Listening
from tests.parsing import parse, refusal


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("RESUMABLE_MAXSIZE", "RESUMABLE_MAX_SIZE"),
        ("RESUMABLE_MAX_SIZES", "RESUMABLE_MAX_SIZE"),
        ("RESUMABLE_UPLOADDIR", "RESUMABLE_UPLOAD_DIR"),
        ("RESUMABLE_max_size", "RESUMABLE_MAX_SIZE"),
        ("RESUMABLE_REMOTES", "RESUMABLE_REMOTE"),
        ("RESUMABLE_AUTH_HTPASWD", "RESUMABLE_AUTH_HTPASSWD"),
        ("RESUMABLE_MAX_REQUEST_PER_USER", "RESUMABLE_MAX_REQUESTS_PER_USER"),
        *((f"RESUMABLE_{word}", "RESUMABLE_PORT") for word in ("PROT", "POTR", "PORTT", "PRT", "PPORT", "PORD", "ort")),
        ("RESUMABLE_HOKO", "RESUMABLE_HOOK"),
        ("RESUMABLE_GAURD", "RESUMABLE_GUARD"),
        ("RESUMABLE_AKC", "RESUMABLE_ACK"),
        ("RESUMABLE_H2", "RESUMABLE_H2C"),
    ],
)
def test_a_misspelt_variable_ends_the_start_with_what_was_meant(name, meant):
    assert refusal(**{name: "hunter2"}) == f"{name} is no variable of this server: did you mean {meant}?"


@pytest.mark.parametrize(
    ("flag", "meant"),
    [
        ("prot", "port"),
        ("upload_dir=x", "upload-dir"),
        ("MAX-SIZE", "max-size"),
        ("trusted-proxy", None),
        ("remotes", "remote"),
        ("disable-dowload", "disable-download"),
        ("versoin", "version"),
    ],
)
def test_a_misspelt_flag_is_refused_with_what_was_meant(flag, meant):
    hint = "" if meant is None else f": did you mean --{meant}?"
    assert refusal(f"--{flag}", "hunter2") == f"option --{flag.partition('=')[0]} not recognized{hint}"
    assert refusal("-x") == "option -x not recognized"


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--por", "0"], "option --por not recognized: did you mean --port?"),
        (["--max-siz=1K"], "option --max-siz not recognized: did you mean --max-size?"),
        (["--port", "0", "--disable-down"], "option --disable-down not recognized: did you mean --disable-download?"),
        (["--port", "--por", "--h2"], "option --h2 not recognized: did you mean --h2c?"),
    ],
)
def test_a_flag_is_written_in_full(flags, said):
    """Or a new one, in another release, makes it mean nothing."""
    assert refusal(*flags) == said


@pytest.mark.parametrize("name", ["PORT", "AC", "LISTEN"])
def test_what_is_a_slip(name):
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZ_"
    places = range(len(name) + 1)
    near = {name[:at] + other + name[at + cut :] for at in places for other in ("", *letters) for cut in (0, 1)}
    near |= {name[:at] + name[at : at + 2][::-1] + name[at + 2 :] for at in places}
    assert all(is_slip(each, name) and is_slip(name, each) for each in near)
    assert not any(is_slip(each + "ZZ", name) for each in near if not each.startswith(name))
    assert not is_slip(name[::-1] + "X", name)


def test_no_variable_of_ours_is_taken_for_somebody_elses():
    names = {option.variable for option in OPTIONS}
    assert unknown_variables(dict.fromkeys(names, "x"), names) == []
    assert not any(of_a_service(name, "8080") for name in names)


def test_a_variable_of_the_commands_for_people_means_nothing_to_a_server():
    assert unknown_variables({"RESUMABLE_TOKEN": "x"}, {option.variable for option in OPTIONS}) == []


# What Kubernetes sets in a pod beside Services called resumable and resumable-admin.
OF_SERVICES = {
    "RESUMABLE_PORT": "tcp://10.43.0.17:8080",
    "RESUMABLE_SERVICE_HOST": "10.43.0.17",
    "RESUMABLE_SERVICE_PORT": "8080",
    "RESUMABLE_SERVICE_PORT_HTTP": "8080",
    "RESUMABLE_PORT_8080_TCP": "tcp://10.43.0.17:8080",
    "RESUMABLE_PORT_8080_TCP_PROTO": "tcp",
    "RESUMABLE_PORT_8080_TCP_PORT": "8080",
    "RESUMABLE_PORT_8080_TCP_ADDR": "10.43.0.17",
    "RESUMABLE_ADMIN_PORT": "tcp://10.43.0.18:9090",
    "RESUMABLE_ADMIN_SERVICE_HOST": "10.43.0.18",
    "RESUMABLE_ADMIN_PORT_9090_TCP_ADDR": "10.43.0.18",
}


def warnings(**environ: str) -> list[str]:
    with Listening() as events:
        parse(**environ)
    return [formatEvent(event) for event in events if event["log_level"] is LogLevel.warn]


def test_what_kubernetes_sets_for_services_of_our_name_keeps_nothing_from_starting():
    assert parse(**OF_SERVICES).listen == ("tcp:8080",)
    (said,) = warnings(**OF_SERVICES)
    assert "RESUMABLE_PORT" in said and "enableServiceLinks" in said


def test_a_variable_of_somebody_else_is_warned_of():
    (said,) = warnings(RESUMABLE_IMAGE_TAG="1.2", RESUMABLE_MAX_SIZE="1K", RESUMABLE_X="")
    assert said == "RESUMABLE_IMAGE_TAG is no variable of this server"
    (said,) = warnings(RESUMABLE_UPLOAD_DIRECTORY="x")
    assert said.endswith("did you mean RESUMABLE_UPLOAD_DIR?")


def test_a_variable_that_a_remote_is_told_to_look_at_is_ours():
    key = base64.b64encode(bytes(32)).decode()
    url = "s3://b?endpoint=https://h&sse-c-variable=RESUMABLE_SSE_KEY"
    assert warnings(RESUMABLE_REMOTE=url, RESUMABLE_SSE_KEY=key) == []
