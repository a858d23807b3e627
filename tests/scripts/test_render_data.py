"""`scripts/render_data.py`: what `make demo` calls."""

from compress.data.images import load_images
from compress.data.labels import read_labels
from compress.data.scenes import load_scenes
from tests.scripts.running import run_script


def test_it_writes_a_training_and_a_validation_set_with_nothing_in_common(tmp_path):
    result = run_script("render_data", "--out", str(tmp_path), "--train", "6", "--val", "4")
    assert result.returncode == 0, result.stderr
    parts = [load_images(read_labels(tmp_path / part / "labels.txt")) for part in ("train", "val")]
    assert [len(part.images) for part in parts] == [6, 4]
    pixels = [{image.tobytes() for image in part.images} for part in parts]
    assert not pixels[0] & pixels[1]


def test_scenes_are_detection_data_with_nothing_in_common(tmp_path):
    result = run_script("render_data", "--out", str(tmp_path), "--kind", "scenes", "--train", "3", "--val", "2")
    assert result.returncode == 0, result.stderr
    assert "3 scenes" in result.stdout
    parts = [load_scenes(tmp_path / part / "labels.txt").scenes for part in ("train", "val")]
    assert [len(scenes) for scenes in parts] == [3, 2]
    pixels = [{scene.image.read_bytes() for scene in scenes} for scenes in parts]
    assert not pixels[0] & pixels[1]


def test_another_kind_is_refused_with_the_allowed_ones(tmp_path):
    result = run_script("render_data", "--out", str(tmp_path), "--kind", "pages")
    assert result.returncode == 2
    assert "words" in result.stderr
    assert "scenes" in result.stderr


def test_help_has_examples():
    result = run_script("render_data", "--help")
    assert result.returncode == 0
    assert "python scripts/render_data.py --out runs/demo_data" in result.stdout


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").touch()
    result = run_script("render_data", "--out", str(tmp_path / "file"))
    assert result.returncode != 0
    assert result.stderr.strip().startswith("Error: ")
    assert "Traceback" not in result.stderr
