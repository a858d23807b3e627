"""The recipes of `compress demo`: those of recipes/demo_*.yaml, made to stand in a folder of their own."""

import shutil
from importlib import resources
from pathlib import Path

from compress.errors import CompressError
from compress.zoo import models_folder

RECIPES = {"classification": "demo_cls.yaml", "recognition": "demo_rec.yaml", "detection": "demo_det.yaml"}
"""Kind of task -> its recipe."""
_MODELS = "../compress/zoo/models/"
_DATA = ("../runs/demo_data/", "../runs/demo_scenes/")


def write_recipe(kind: str, folder: Path) -> Path:
    """Write recipe.yaml, and the model and charset that it names beside it; images are expected in data/. What is there
    already stays, for users may have changed it.

    Args:
        kind: one of `RECIPES`.
        folder: where; it is made.

    Raises:
        CompressError: the recipe does not ship with this installation.
    """
    recipe = folder / "recipe.yaml"
    if recipe.exists():
        return recipe
    text = _recipe_text(RECIPES[kind])
    folder.mkdir(parents=True, exist_ok=True)
    for file in sorted(models_folder().iterdir()):
        if f"{_MODELS}{file.name}" in text:
            shutil.copyfile(file, folder / file.name)
    for prefix, own in ((_MODELS, ""), *((data, "data/") for data in _DATA)):
        text = text.replace(prefix, own)
    text = text.replace("version: 1\n", f"version: 1\nname: {kind} demo\n")
    recipe.write_text(text, encoding="utf-8")
    return recipe


def _recipe_text(name: str) -> str:
    """The recipe as it ships in a wheel, or in the repository that this package is installed from."""
    package = Path(str(resources.files("compress.zoo")))
    for file in (package / "recipes" / name, package.parents[1] / "recipes" / name):
        if file.is_file():
            return file.read_text(encoding="utf-8")
    raise CompressError(f"{name}: does not ship with this installation. Install compress from its wheel.")
