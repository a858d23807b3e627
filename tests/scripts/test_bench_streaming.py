"""The script that measures very large lists, on a small one."""

from pathlib import Path

import pytest

from tests.scripts.test_scan_scripts import load_script

bench_streaming = load_script("bench_streaming")


def test_it_measures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(bench_streaming, "CROPS", 40)
    monkeypatch.setattr(bench_streaming, "BATCH", 4)
    folder = str(tmp_path / "set")
    assert bench_streaming.main(["--images", "100", "--workers", "0", "--steps", "2", "--folder", folder]) == 0
    said = capsys.readouterr().out
    assert said.startswith("100 crops: opened in ")
    assert "2 steps of 4: " in said
    assert len((tmp_path / "set" / "labels_100.txt").read_text().splitlines()) == 100
