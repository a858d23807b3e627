"""Recipes: what to do to a model, in one YAML file that is checked whole before anything is loaded."""

from compress.recipe.load import load_recipe
from compress.recipe.reconstruct_step import ReconstructStep
from compress.recipe.replace_step import ReplaceStep
from compress.recipe.schema import (
    CHANNELS,
    KEYS_OF,
    CompareSettings,
    DataSettings,
    FinetuneStep,
    GateSettings,
    PactSettings,
    PruneStep,
    PruneTarget,
    QuantizeStep,
    Recipe,
    SensitivityStep,
    TaskSettings,
    TeacherStep,
)
from compress.recipe.search_settings import SearchSettings
from compress.recipe.values import Step

__all__ = [
    "CHANNELS",
    "KEYS_OF",
    "CompareSettings",
    "DataSettings",
    "FinetuneStep",
    "GateSettings",
    "PactSettings",
    "PruneStep",
    "PruneTarget",
    "QuantizeStep",
    "Recipe",
    "ReconstructStep",
    "ReplaceStep",
    "SearchSettings",
    "SensitivityStep",
    "Step",
    "TaskSettings",
    "TeacherStep",
    "load_recipe",
]
