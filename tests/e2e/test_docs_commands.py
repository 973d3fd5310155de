"""What the docs tell people to paste, pasted: shell, Python and JavaScript, with only names and addresses replaced.

The README's first screen of curl is in test_curl.py; what can be held against the code without a server is in
tests/test_docs_claims.py.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from . import tools
from .daemon import ROOT, Daemon, environment, free_port
from .tus import Tus, metadata, pattern

DATA = pattern(1_300_007, seed=61)
ID = "24e533e02ec3bc40c387f1a0e460e216"


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """With a remote and a hook of the names that the pages use."""
    nas = tmp_path_factory.mktemp("nas")
    with Daemon("--remote", f"file://{nas}?name=nas", "--hook", f"billing=http://127.0.0.1:{free_port()}/") as it:
        yield it.start()


def page(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def blocks(name: str, language: str) -> list[str]:
    found = re.findall(rf"^```{language}\n(.*?)^```$", page(name), re.DOTALL | re.MULTILINE)
    assert found, f"{name} has no block of {language}"
    return found


def marked(name: str, mark: str) -> str:
    """The block after ``<!-- run: mark -->``."""
    found = re.search(rf"^<!-- run: {mark} -->\n```sh\n(.*?)^```$", page(name), re.DOTALL | re.MULTILINE)
    assert found is not None, f"{name} has no block marked {mark}"
    return found[1]


def pasted(script: str, cwd: Path) -> str:
    """What the shell prints; curl fails for answers that are refusals."""
    tools.need("curl")
    script = re.sub(r"\bcurl ", "curl -fsS ", script)
    return tools.run(tools.need("bash"), "-eu", "-o", "pipefail", "-c", script, cwd=cwd)


def sent(tus: Tus, name: str = "plan.pdf") -> str:
    """The id of a finished upload."""
    path = tus.create(len(DATA), {"Upload-Metadata": metadata(filename=name)}, DATA)
    return path.rpartition("/")[2]


def test_the_upload_pages_page() -> None:
    start, look = blocks("docs/page.md", "sh")
    assert start.split()[:3] == ["twistd", "-n", "resumable"]
    with Daemon(*start.split()[3:]) as it:
        it.start()
        assert "<main>" in pasted(look.replace("http://127.0.0.1:8080", it.origin), ROOT)


def test_the_admin_apis_page(daemon: Daemon, tus: Tus) -> None:
    looking, draining = blocks("docs/api.md", "sh")
    replaced = looking.replace(ID, sent(tus)).replace("s3://bucket", "nas")
    assert replaced.count("nas") == 1
    assert pasted(replaced, daemon.home).count('"id"') >= 1
    (place,) = re.findall(r"^SOCKET=.*\n", looking, re.MULTILINE)
    assert '"draining": true' in pasted(place + draining, daemon.home)
    pasted("curl --unix-socket uploads/.resumable/admin.sock -X DELETE http://localhost/v1/drain", daemon.home)


def test_the_page_of_the_draft(daemon: Daemon, tmp_path: Path) -> None:
    found = re.search(r"^<!-- run: draft -->\n```sh\n(.*?)^```$", page("docs/draft.md"), re.DOTALL | re.MULTILINE)
    assert found is not None
    said = pasted(f"exec 2>&1\n{found[1]}".replace("http://127.0.0.1:8080", daemon.origin), tmp_path)
    first, _, second = said.partition("HTTP/1.1 204 No Content")
    assert first.index("HTTP/1.1 104 Upload Resumption Supported") < first.index("HTTP/1.1 200 OK")
    assert "the server has 2000000 bytes" in second and f"intact: {daemon.url}" in second
    assert re.findall(r"^HTTP/1.1 (2\d\d)", second, re.MULTILINE) == ["200", "204"], "the rest, and the end"


def test_the_page_of_sending(daemon: Daemon, tmp_path: Path) -> None:
    bin_ = tmp_path / "bin"
    bin_.mkdir()
    (bin_ / "resumable").write_text(f'#!/bin/sh\nexec {sys.executable} -m resumable "$@"\n')
    (bin_ / "resumable").chmod(0o755)
    begin = f"export PATH={bin_}:$PATH XDG_STATE_HOME={tmp_path}/state PYTHONPATH={ROOT}\n"

    def run(mark: str, **replaced: str) -> str:
        script = marked("docs/sending.md", mark).replace("http://127.0.0.1:8080", daemon.origin)
        for old, new in replaced.items():
            script = script.replace(old, new)
        return pasted(begin + script, tmp_path)

    receipt = run("sending")
    assert receipt.startswith("film.mp4: sent, 19 MiB in ")
    run("fetching", **{ID: receipt.strip().rpartition("/")[2]})
    assert (tmp_path / "copy.mp4").read_bytes() == (tmp_path / "film.mp4").read_bytes()


def test_dead_events_on_the_page_of_hooks(daemon: Daemon) -> None:
    (block,) = [each for each in blocks("docs/hooks.md", "sh") if "replay" in each]
    assert "billing" in pasted(block, daemon.home)


def test_secrets_and_tokens(daemon: Daemon, tmp_path: Path) -> None:
    (secret,) = [each for each in blocks("docs/hooks.md", "sh") if "whsec_" in each]
    assert re.fullmatch(r"whsec_[A-Za-z0-9+/]{43}=\n", pasted(secret, tmp_path))
    (sign,) = [each for each in blocks("docs/access.md", "sh") if "auth.sign" in each]
    (tmp_path / "keys.txt").write_text("k" * 40 + "\n")
    assert len(pasted(sign.replace("python ", f"{sys.executable} "), tmp_path)) > 60


def test_metrics_and_downloads(daemon: Daemon, tus: Tus, tmp_path: Path) -> None:
    (line,) = re.findall(r"^ {4}(curl .*metrics)$", page("docs/operations.md"), re.MULTILINE)
    assert "resumable_uploads_created_total" in pasted(line, daemon.home)
    whole, rest = re.findall(r"^ {4}(curl .*)$", page("docs/downloads.md"), re.MULTILINE)
    at = f"{daemon.url}{sent(tus)}"
    pasted(re.sub(r"https://\S+", at, whole), tmp_path)
    assert (tmp_path / "plan.pdf").read_bytes() == DATA
    (tmp_path / "plan.pdf").write_bytes(DATA[:500_000])
    pasted(re.sub(r"https://\S+", at, rest), tmp_path)
    assert (tmp_path / "plan.pdf").read_bytes() == DATA, "the download continues where it stopped"


def test_the_page_of_digests(tmp_path: Path) -> None:
    (block,) = blocks("docs/digests.md", "sh")
    with Daemon("--digest", "sha256") as daemon:
        told = pasted(block.replace("http://127.0.0.1:8080/files/", daemon.start().url), tmp_path)
    assert told.lower().startswith("repr-digest: sha-256=:")
    assert (tmp_path / "part.bin").read_bytes() == (tmp_path / "big.bin").read_bytes()[:10]


def test_the_readmes_look_at_an_installation(daemon: Daemon) -> None:
    (line,) = re.findall(r"^\.venv/bin/resumable (doctor .*)$", page("README.md"), re.MULTILINE)
    done = subprocess.run(
        [sys.executable, "-m", "resumable", *line.split()],
        cwd=daemon.home, env=environment(), capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "it is ready" in done.stdout


def test_the_readmes_python(daemon: Daemon, tus: Tus, tmp_path: Path) -> None:
    snippet = blocks("README.md", "python")[0]
    (tmp_path / "big.bin").write_bytes(DATA)
    (tmp_path / "it.py").write_text(snippet.replace("http://127.0.0.1:8080/files/", daemon.url))
    url = tools.run(sys.executable, "it.py", cwd=tmp_path).strip()
    assert tus.content("/files/" + url.rpartition("/")[2]) == DATA
    assert json.loads((tmp_path / "uploads.json").read_text())


def test_the_readmes_javascript(daemon: Daemon, tus: Tus) -> None:
    """In Node, which has no File of a person's choosing."""
    node, home = tools.need("node"), tools.HERE / "node"
    tools.install_npm("tus-js-client", home)
    snippet = next(each for each in blocks("README.md", "js") if "tus-js-client" in each)
    snippet = snippet.replace("http://127.0.0.1:8080/files/", daemon.url)
    file = "const file = Object.assign(Buffer.alloc(300000, 'x'), {name: 'x.bin', type: 'text/plain'})\n"
    out = tools.run(node, "--input-type=module", "-e", file + snippet, cwd=home)
    url = out.splitlines()[-1]
    assert out.count(" of 300000") and tus.content("/files/" + url.rpartition("/")[2]) == b"x" * 300_000


def with_our_command(script: str, home: Path) -> str:
    """The script, in a home of its own, with ``resumable`` on its path."""
    (home / "bin").mkdir()
    (home / "bin" / "resumable").write_text(f'#!/bin/sh\nexec {sys.executable} -m resumable "$@"\n')
    (home / "bin" / "resumable").chmod(0o755)
    return f"export PATH={home}/bin:$PATH HOME={home} PYTHONPATH={ROOT}\n{script}"


def shell(script: str, home: Path) -> str:
    return tools.run(
        tools.need("bash"), "-eu", "-o", "pipefail", "-c", with_our_command(script, home), cwd=home
    )  # fmt: skip


def test_the_configuration_files_page(tmp_path: Path) -> None:
    said = shell(marked("docs/configuration.md", "config"), tmp_path)
    assert "resumable.toml is written" in said and "\nok\n" in said
    assert re.search(r"^max-size +10G +--max-size$", said, re.MULTILINE)
    (example,) = blocks("docs/configuration.md", "toml")
    (tmp_path / "resumable.toml").write_text(example.replace("/run/secrets/jwt", "jwt"))
    (tmp_path / "jwt").write_text("s" * 40)
    checked = subprocess.run(
        [sys.executable, "-m", "resumable", "config", "check", "--config", "resumable.toml"],
        cwd=tmp_path, env=environment({"DATABASE_URL": "postgresql://u@h/d"}), capture_output=True, text=True,
    )  # fmt: skip
    assert (checked.stdout, checked.stderr) == ("ok\n", "")


def test_completion_and_manual_pages(tmp_path: Path) -> None:
    shell(marked("docs/cli.md", "completion"), tmp_path)
    for path in (".local/share/bash-completion/completions/resumable", ".zfunc/_resumable"):
        assert "max-size" in (tmp_path / path).read_text()
    assert "max-size" in (tmp_path / ".config/fish/completions/resumable.fish").read_text()
    (tmp_path / "bin" / "resumable").unlink()
    (tmp_path / "bin").rmdir()
    script = marked("docs/cli.md", "man")
    if shutil.which("man") is None:
        script = script.replace("| man -l -", "> /dev/null")
    shell(script, tmp_path)
    assert (tmp_path / ".local/share/man/man1/twistd-resumable.1").read_text().startswith(".TH TWISTD")


def test_files_for_ones_options(tmp_path: Path) -> None:
    (tmp_path / "resumable.toml").write_text('max-size = "1G"\n')
    said = shell(marked("docs/deployment.md", "write"), tmp_path)
    assert said.count("is written") == 3
    assert "RESUMABLE_MAX_SIZE=10G" in (tmp_path / "resumable.service").read_text()
    assert "resumable.toml" in (tmp_path / "docker-compose.yml").read_text()
    assert "kind: Deployment" in (tmp_path / "resumable.yaml").read_text()


def test_the_readmes_first_five_minutes(daemon: Daemon, tus: Tus, tmp_path: Path) -> None:
    block = marked("README.md", "first").replace("http://127.0.0.1:8080/files/", daemon.url)
    block = block.replace("-c 500000000", "-c 5000000").replace(".venv/bin/resumable", "resumable")
    told = shell(block, tmp_path)
    (url,) = re.findall(rf"{re.escape(daemon.url)}\w+", told)
    assert tus.content("/files/" + url.rpartition("/")[2]) == (tmp_path / "film.mp4").read_bytes()
