"""Show the results of a run in the terminal, as Markdown and as HTML, from artefacts only; nothing is measured here."""

from pathlib import Path

from compress import artifacts
from compress.artifacts import Gallery, Report, Sensitivity
from compress.report.html import render_gallery, render_html
from compress.report.markdown import render_markdown

__all__ = ["GALLERY_FILE", "render_html", "render_markdown", "write_gallery_page", "write_report"]

GALLERY_FILE = "pictures.json"
"""What a folder of pictures holds; a later one of the same folder replaces them by it."""


def write_report(report: Report, folder: Path, sensitivity: Sensitivity | None = None) -> tuple[Path, ...]:
    """Write report.json, report.md and report.html; return their paths.

    Raises:
        OutputError: a file cannot be written.
    """
    texts = {
        "report.json": artifacts.to_json(report),
        "report.md": render_markdown(report, sensitivity),
        "report.html": render_html(report, sensitivity, folder),
    }
    for name, text in texts.items():
        artifacts.write_atomic(folder / name, text.encode())
    return tuple(folder / name for name in texts)


def write_gallery_page(gallery: Gallery, folder: Path, title: str) -> Path:
    """Write index.html beside a gallery's pictures, and pictures.json; return the page's path.

    Raises:
        OutputError: a file cannot be written.
    """
    artifacts.save(gallery, folder / GALLERY_FILE)
    page = folder / "index.html"
    artifacts.write_atomic(page, render_gallery(title, gallery).encode())
    return page
