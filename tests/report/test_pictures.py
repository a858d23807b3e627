"""Pictures of single cases: which are chosen, what is drawn where, what files there are, and how pages show them."""

import dataclasses
import io
import json
import re
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
from rich.console import Console

from compress import artifacts
from compress.artifacts import Gallery, Picture, Reading, Report
from compress.report import render_html, render_markdown, tables, terminal, write_gallery_page
from compress.report.pictures import COLOURS, MAX_SIDE, draw_marks, shrink, worst_cases, write_gallery
from compress.tasks.base import Case, Mark, MarkKind
from tests.report.test_report import NASTY, Page, make_report


def cases_of(errors: Sequence[float]) -> tuple[Case, ...]:
    return tuple(Case(index, f"{index}.png", "label", "found", error) for index, error in enumerate(errors))


def grey(case: Case) -> np.ndarray:
    """A picture whose brightness is the case's number."""
    return np.full((16, 40, 3), case.index, np.uint8)


def square(left: int, top: int, size: int, kind: MarkKind) -> Mark:
    corners = [[left, top], [left + size, top], [left + size, top + size], [left, top + size]]
    return Mark(np.array(corners, np.float32), kind)


def colour_at(image: np.ndarray, x: int, y: int) -> str:
    """The kind whose colour a pixel is nearest to, or "background"; lines are smoothed, JPEGs inexact."""
    colours = {kind: list(bytes.fromhex(colour[1:])) for kind, colour in COLOURS.items()}
    colours |= {"background": [255, 255, 255]}  # type: ignore[dict-item]
    return min(colours, key=lambda kind: int(np.abs(image[y, x, ::-1].astype(int) - colours[kind]).sum()))


# --- choice -----------------------------------------------------------------------------------------------------


def test_worst_first_by_the_last_models_error_then_by_what_it_lost() -> None:
    """2 and 4 are equally wrong, but 4 was right before; 3 is mended, so it comes last; 0 was never wrong."""
    before, after = cases_of([0.0, 0.1, 0.8, 0.5, 0.0]), cases_of([0.0, 0.2, 0.8, 0.0, 0.8])
    assert [pair[0].index for pair in worst_cases([before, after], 9)] == [4, 2, 1, 3]
    assert [(pair[0].error, pair[1].error) for pair in worst_cases([before, after], 2)] == [(0.0, 0.8), (0.8, 0.8)]


def test_equally_bad_cases_stay_in_their_order() -> None:
    assert [case.index for (case,) in worst_cases([cases_of([1.0, 0.5, 1.0, 1.0])], 3)] == [0, 2, 3]


def test_nothing_wrong_is_nothing_to_show(tmp_path: Path) -> None:
    gallery = write_gallery(tmp_path, {"m": cases_of([0.0, 0.0])}, grey, count=5, error_name="e")
    assert (gallery.pictures, gallery.wrong, gallery.images) == ((), (0,), 2)
    assert list(tmp_path.iterdir()) == []


# --- drawing ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", COLOURS)
def test_a_region_is_outlined_in_its_colour_and_nothing_else_is_touched(kind: MarkKind) -> None:
    image = np.full((60, 80, 3), 255, np.uint8)
    drawn = draw_marks(image, [square(10, 20, 30, kind)])
    for x, y in ((10, 20), (40, 20), (25, 50), (10, 35)):
        assert colour_at(drawn, x, y) == kind
    assert (drawn[24:46, 14:36] == 255).all()
    assert (drawn[:, 50:] == 255).all()
    assert (image == 255).all()


def test_what_went_wrong_lies_on_top() -> None:
    marks = [square(10, 10, 20, "missed"), square(10, 10, 20, "label")]
    assert colour_at(draw_marks(np.full((40, 40, 3), 255, np.uint8), marks), 20, 10) == "missed"


def test_regions_are_shrunk_with_their_image() -> None:
    image = np.full((400, 4 * MAX_SIDE, 3), 255, np.uint8)
    drawn = draw_marks(image, [square(2000, 100, 200, "found")])
    assert drawn.shape == (100, MAX_SIDE, 3)
    assert [colour_at(drawn, *point) for point in ((500, 25), (550, 75), (525, 50))] == ["found", "found", "background"]


@pytest.mark.parametrize(
    ("shape", "shrunk"),
    [((20, 30), (20, 30)), ((500, 1000), (500, 1000)), ((3000, 2000), (1000, 667)), ((1, 5000), (1, 1000))],
)
def test_shrink(shape: tuple[int, int], shrunk: tuple[int, int]) -> None:
    assert shrink(np.zeros((*shape, 3), np.uint8)).shape == (*shrunk, 3)


def test_a_region_outside_its_image_is_no_error() -> None:
    image = np.zeros((20, 20, 3), np.uint8)
    assert (draw_marks(image, [square(100, 100, 10, "wrong"), square(-50, -50, 10, "label")]) == 0).all()


# --- files ------------------------------------------------------------------------------------------------------


def test_words_have_one_picture_for_all_models(tmp_path: Path) -> None:
    models = {"baseline": cases_of([0.0, 0.5, 0.0]), "int8": cases_of([0.2, 0.0, 1.0])}
    gallery = write_gallery(tmp_path, models, grey, count=2, error_name="e", subfolder="images")
    assert (gallery.models, gallery.images, gallery.wrong) == (("baseline", "int8"), 3, (1, 2))
    assert (gallery.lost, gallery.mended) == (2, 1)
    assert (gallery.worse, gallery.better) == (2, 1)
    assert [picture.file for picture in gallery.pictures] == ["images/01-2.png", "images/02-0.png"]
    assert [[found.error for found in picture.readings] for picture in gallery.pictures] == [[0.0, 1.0], [0.0, 0.2]]
    assert (cv2.imread(str(tmp_path / "images/01-2.png")) == 2).all()
    assert len(list((tmp_path / "images").iterdir())) == 2


def test_worse_is_not_yet_lost(tmp_path: Path) -> None:
    """Wrong before and more so now; less wrong; the same; newly wrong."""
    models = {"baseline": cases_of([0.2, 0.8, 0.3, 0.0]), "int8": cases_of([0.4, 0.1, 0.3, 0.1])}
    gallery = write_gallery(tmp_path, models, grey, count=0, error_name="e")
    assert (gallery.lost, gallery.mended, gallery.worse, gallery.better) == (1, 0, 2, 1)


def test_scenes_have_one_picture_for_each_model(tmp_path: Path) -> None:
    white = np.full((60, 80, 3), 255, np.uint8)
    models = {
        name: (Case(0, "receipt 7.jpg", "1 region", text, error, (square(10, 10, 30, kind),)),)
        for name, text, error, kind in (("baseline", "1 of 1", 0.0, "label"), ("int8", "0 of 1", 1.0, "missed"))
    }
    gallery = write_gallery(tmp_path, models, lambda _: white, count=8, error_name="e")  # type: ignore[arg-type]
    (picture,) = gallery.pictures
    assert picture.file == ""
    assert [found.file for found in picture.readings] == ["01-receipt-7-baseline.jpg", "01-receipt-7-int8.jpg"]
    for found, kind in zip(picture.readings, ("label", "missed"), strict=True):
        assert colour_at(cv2.imread(str(tmp_path / found.file)), 25, 10) == kind


def test_an_image_without_any_region_is_a_scene_all_the_same(tmp_path: Path) -> None:
    gallery = write_gallery(tmp_path, {"m": (Case(0, "a.png", "", "", 1.0, ()),)}, grey, count=1, error_name="e")
    assert gallery.pictures[0].readings[0].file == "01-a-m.jpg"


def test_files_sort_in_the_order_of_the_cases(tmp_path: Path) -> None:
    gallery = write_gallery(tmp_path, {"m": cases_of([0.5] * 120)}, grey, count=110, error_name="e")
    names = [picture.file for picture in gallery.pictures]
    assert (len(names), names[0], names[-1]) == (110, "001-0.png", "110-109.png")
    assert names == sorted(path.name for path in tmp_path.iterdir())


def test_pictures_of_an_earlier_time_are_removed_and_nothing_else(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    many = {"m": cases_of([1.0, 1.0, 1.0])}
    before = write_gallery(folder, many, grey, count=3, error_name="e", subfolder="images")
    for name in ("images/mine.png", "int8.onnx"):
        (folder / name).write_text("mine")
    (tmp_path / "outside.png").write_text("mine")
    doctored = Picture("x", "x", (Reading("", 1.0, "../outside.png"),), "int8.onnx")
    before = dataclasses.replace(before, pictures=(*before.pictures, doctored))
    write_gallery(folder, many, grey, count=1, error_name="e", subfolder="images", previous=before)
    assert sorted(path.name for path in (folder / "images").iterdir()) == ["01-0.png", "mine.png"]
    assert (folder / "int8.onnx").exists()
    assert (tmp_path / "outside.png").exists()


def test_a_gallery_is_stored_and_read_back(tmp_path: Path) -> None:
    cases = (Case(0, "a.png", "EXIT", None, 1.0), Case(1, "b.png", "b", "c", 0.25))
    gallery = write_gallery(tmp_path, {"m": cases}, grey, count=2, error_name="e")
    page = write_gallery_page(gallery, tmp_path, "title")
    assert page == tmp_path / "index.html"
    assert artifacts.load(Gallery, tmp_path / "pictures.json") == gallery
    shown = Page(page.read_text(encoding="utf-8"))
    for words in ("title", "EXIT", "(unusable output)", "2 of 2 images are not wholly right."):
        assert words in shown.text


# --- pages ------------------------------------------------------------------------------------------------------


def make_gallery(label: str = "EXIT", text: str | None = "EXlT") -> Gallery:
    readings = (Reading(label, 0.0), Reading(text, 0.25))
    return Gallery(
        ("baseline", "int8"),
        "share",
        600,
        (173, 152),
        9,
        30,
        31,
        52,
        (Picture("5.png", label, readings, "images/01-5.png"),),
    )


FACTS = [
    "Of 600 images not wholly right: baseline 173, int8 152.",
    "Against baseline, int8 loses 9 and fixes 30; its error is above baseline's on 31 and below it on 52.",
]


@pytest.mark.parametrize("fact", FACTS)
def test_terminal_markdown_and_html_say_the_same(fact: str) -> None:
    report = make_report(gallery=make_gallery())
    stream = io.StringIO()
    terminal.print_report(report, Console(file=stream, width=200))
    assert fact in stream.getvalue()
    assert fact in render_markdown(report)
    assert fact in Page(render_html(report)).text


def test_markdown_shows_image_label_and_readings() -> None:
    text = render_markdown(make_report(gallery=make_gallery("a|b", "*c*")))
    assert "## Worst cases of int8" in text
    assert "| image | label | baseline | int8 |" in text
    assert "| ![5\\.png](images/01-5.png)<br>5\\.png | a\\|b | a\\|b | \\*c\\* |" in text


def test_html_loads_only_the_pictures_beside_it_and_late() -> None:
    text = render_html(make_report(gallery=make_gallery(NASTY, NASTY)))
    assert NASTY in Page(text).text
    assert not {"script", "link", "iframe"} & set(Page(text).tags)
    assert set(re.findall(r'(?:src|href)="(?!#)([^"]*)"', text)) == {"images/01-5.png"}
    assert text.count("<img ") == text.count('loading="lazy"') == 1


def test_html_embeds_pictures_as_far_as_there_is_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A report whose folder holds them needs nothing else; above the budget, and where a file is gone, names stay."""
    scene = tuple(Reading("1", 0.0, f"images/{name}.jpg") for name in ("small", "large"))
    gone = tuple(Reading("1", 0.0, "gone.jpg") for _ in scene)
    gallery = dataclasses.replace(make_gallery(), pictures=(Picture("a", "1", scene), Picture("b", "1", gone)))
    (tmp_path / "images").mkdir()
    for name, size in (("small", 6), ("large", 60)):
        (tmp_path / "images" / f"{name}.jpg").write_bytes(b"x" * size)
    monkeypatch.setattr("compress.report.html.EMBEDDED", 50)
    text = render_html(make_report(gallery=gallery), folder=tmp_path)
    assert re.findall(r'img[^>]* src="([^"]*)"', text) == [
        "data:image/jpeg;base64,eHh4eHh4",
        *("images/large.jpg", "gone.jpg", "gone.jpg"),
    ]


def test_html_of_scenes_has_a_panel_for_each_model_and_says_what_the_lines_mean() -> None:
    readings = (Reading("1 of 1", 0.0, "images/01-a-baseline.jpg"), Reading("0 of 1", 1.0, "images/01-a-int8.jpg"))
    gallery = dataclasses.replace(make_gallery(), pictures=(Picture("a.jpg", "1 region", readings),))
    text = render_html(make_report(gallery=gallery))
    assert re.findall(r'img src="([^"]*)"', text) == ["images/01-a-baseline.jpg", "images/01-a-int8.jpg"]
    for words in ("label, missed", "model, wrong", "0 of 1", "error 1.00"):
        assert words in Page(text).text
    markdown = render_markdown(make_report(gallery=gallery))
    assert "![a\\.jpg](images/01-a-int8.jpg)<br>0 of 1" in markdown


def test_the_worst_cases_in_the_terminal() -> None:
    stream = io.StringIO()
    terminal.print_gallery(make_gallery(text=None), Console(file=stream, width=120))
    assert re.search(r"5\.png +EXIT +EXIT +\(unusable output\) +0\.25", stream.getvalue())
    assert "Shown: the worst 1, by int8's error, then by how much worse than baseline it is." in stream.getvalue()


def test_without_pictures_the_report_is_as_before() -> None:
    assert "Worst cases" not in render_markdown(make_report()) + render_html(make_report())


def test_a_report_from_before_there_were_pictures_still_loads(tmp_path: Path) -> None:
    data = json.loads(artifacts.to_json(make_report()))
    del data["gallery"], data["scan"], data["checksum"]
    (tmp_path / "report.json").write_text(json.dumps(data))
    assert artifacts.load(Report, tmp_path / "report.json") == make_report()
    artifacts.save(make_report(gallery=make_gallery()), tmp_path / "new.json")
    assert artifacts.load(Report, tmp_path / "new.json").gallery == make_gallery()


def test_table_is_rectangular() -> None:
    table = tables.gallery_table(make_gallery())
    assert {len(row) for row in table.rows} == {len(table.header)}
