"""The study of very large lists, on a small one."""

from pathlib import Path

import pytest

from benchmarks.studies import stream_crops


@pytest.mark.slow
def test_it_measures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(stream_crops, "CROPS", 40)
    monkeypatch.setattr(stream_crops, "BATCH", 4)
    folder = str(tmp_path / "set")
    assert stream_crops.main(["--images", "100", "--workers", "0", "--steps", "2", "--folder", folder]) == 0
    said = capsys.readouterr().out
    assert said.startswith("100 crops: opened in ")
    assert "2 steps of 4: " in said
    assert len((tmp_path / "set" / "labels_100.txt").read_text().splitlines()) == 100
