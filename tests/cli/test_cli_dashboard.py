"""The command line of ``resumable dashboard``; what it does is in test_relay.py and in tests/e2e."""

from __future__ import annotations

from pathlib import Path

import pytest

from resumable.cli.main import main


def test_a_server_that_is_not_there_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["dashboard", "--no-browser"], {}) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "no daemon answers" in said and "--upload-dir" in said


@pytest.mark.parametrize("arguments", [["--port", "x"], ["--port", "65536"], ["--port", "-1"], ["--prot", "1"], ["x"]])
def test_a_command_line_that_makes_no_sense_is_status_2(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["dashboard", *arguments], {})
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith("resumable dashboard: ")


def test_a_token_file_that_can_t_be_read_is_status_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["dashboard", "--url", "http://127.0.0.1:1", "--token-file", str(tmp_path / "missing")]
    assert main(given, {}) == 2
    assert "--token-file" in capsys.readouterr().err
