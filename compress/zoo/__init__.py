"""Reference networks in PyTorch, and the small trained ONNX files that ship with the package."""

from importlib import resources
from pathlib import Path

from compress.errors import ModelError

_SUFFIX = ".onnx"


def shipped_names() -> tuple[str, ...]:
    """Names of the models that ship with the package."""
    return tuple(sorted(path.stem for path in models_folder().glob(f"*{_SUFFIX}")))


def shipped(name: str) -> Path:
    """Path of a model that ships with the package, by its name without `.onnx`.

    Raises:
        ModelError: there is none of that name.
    """
    if name not in shipped_names():
        raise ModelError(f"{name!r} is no shipped model. Allowed: {', '.join(shipped_names()) or 'none'}.")
    return models_folder() / f"{name}{_SUFFIX}"


def models_folder() -> Path:
    """Folder of the models that ship, and of the charset of the recogniser among them."""
    # The package is installed as ordinary files (never zipped), so the resource is a path.
    return Path(str(resources.files("compress.zoo") / "models"))
