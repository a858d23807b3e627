"""What a sensitivity scan works on, whichever way it goes through its cells."""

from dataclasses import dataclass, field
from typing import Self

import onnx
import torch
from torch import fx

from compress.errors import CompressError
from compress.graph import to_torch
from compress.pipeline.evaluation import check_fits, default_threads
from compress.pipeline.execution import Execution
from compress.pipeline.models import model_identity
from compress.pipeline.scanning.scan_cost import at_side
from compress.pipeline.scope import Scope
from compress.pipeline.training_images import check_train_images, fitting_batches
from compress.prune.brain_surgeon import obs_scores, stored_scores
from compress.prune.channels import ChannelGroup
from compress.prune.compensation import Equations, reader_equations
from compress.prune.importance import OBS
from compress.prune.norms import norm_notes
from compress.recipe import SensitivityStep
from compress.tasks.base import Task

Scores = dict[str, tuple[float, ...]]
"""Of each group's channels, as a scan's file has them."""


@dataclass(frozen=True)
class ScanInputs:
    """A model, its groups of channels and the images that say what they are worth."""

    module: fx.GraphModule = field(repr=False)
    groups: list[ChannelGroup] = field(repr=False)
    task: Task
    """Validation images, at the side that the scan scores."""
    training: Task
    """The task that has training images."""
    model: str
    """Identity of the model."""

    @classmethod
    def open(
        cls,
        model: onnx.ModelProto,
        task: Task,
        step: SensitivityStep,
        scope: Scope,
        training: Task | None,
        execution: Execution,
    ) -> Self:
        """Check that the model, the data and the step fit.

        Args:
            model: in canonical form.
            task: validation images and metric.
            step: settings of the scan.
            scope: which channels are scanned.
            training: the task that has training images; default `task`.
            execution: whom to tell what pruning some group means for the layers behind it.

        Raises:
            CompressError: `step.side` is given, but the task has none, or does not score validation images; or no
                layer has a protected name.
            DataError: there are no training images, and the step needs some.
        """
        if step.measure != "metric" and step.side is not None:
            reason = f"not with measure: {step.measure}, which scores training images. Remove it."
            raise CompressError(f"sensitivity.side: {reason}")
        training, task = training or task, at_side(task, step.side)
        module = to_torch(model)
        check_fits(model, task)
        groups = scope.groups(module, task.input_shape)
        for text in norm_notes(module, {group.name: group.layers for group in groups}):
            execution.note(f"scan: {text}")
        if step.sees_training_images:
            check_train_images(training)
        return cls(module, groups, task, training, model_identity(model))

    def rank(
        self, step: SensitivityStep, stored: Scores, execution: Execution, *, compensates: bool = False
    ) -> tuple[Scores, Equations]:
        """What the layers that read groups' channels say on training images, where the step needs it.

        Args:
            step: its criterion.
            stored: scores that a scan which goes on has already.
            execution: threads, and progress in layers and groups. Of a team the first process ranks, for all of them:
                on another machine another rounding might settle a tie otherwise.
            compensates: whether the layers' equations are needed, even if there are scores.

        Returns:
            The scores of channels by `obs`, none for other criteria; and the equations, none if they were not needed.
        """
        team, is_ranked = execution.team, step.criterion != OBS or not self.groups
        ranks = not (is_ranked or stored) and (team is None or team.is_main)
        equations: Equations = {}
        if ranks or compensates:
            torch.set_num_threads(execution.threads or default_threads())
            images = fitting_batches(self.module, self.training)
            equations = reader_equations(self.module, self.groups, images, on_progress=execution.on_progress)
        if is_ranked:
            return stored, equations
        if ranks:
            stored = stored_scores(obs_scores(self.module, self.groups, equations, on_progress=execution.on_progress))
        return (stored if team is None else team.same(stored)), equations
