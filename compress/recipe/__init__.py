"""Recipes: what to do to a model, in one YAML file that is checked whole before anything is loaded."""

from compress.recipe.load import load_recipe
from compress.recipe.reconstruct_step import ReconstructStep
from compress.recipe.replace_step import ReplaceStep
from compress.recipe.schema import (
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
    TeacherStep,
)
from compress.recipe.search_settings import SearchSettings
from compress.recipe.task_settings import KEYS_OF, PreprocessSettings, TaskSettings
from compress.recipe.values import Step

__all__ = [
    "KEYS_OF",
    "CompareSettings",
    "DataSettings",
    "FinetuneStep",
    "GateSettings",
    "PactSettings",
    "PreprocessSettings",
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
