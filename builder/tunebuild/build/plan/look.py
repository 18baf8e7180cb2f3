"""Walks a build's stages without running them: which are there, which are not, and since what."""

from __future__ import annotations

from dataclasses import dataclass, field

from tunebuild.build.checks import check_rows
from tunebuild.build.pipeline import Pipeline
from tunebuild.build.plan.report import Change, StagePlan
from tunebuild.build.walk import walk_to_gates, walk_to_image
from tunebuild.image.oci.manifest import Image
from tunebuild.store import Progress, Stage, Tree

_ORDER = ("data", "train", "merge", "evaluate", "weights", "chat", "runtime", "image")


class _NotThere(Exception):
    """A stage has no output yet, so what follows it cannot be known."""


@dataclass(frozen=True, slots=True)
class Look:
    """What a walk has seen so far.

    Attributes:
        pipeline: the spec's stages.
        stages: by name, in the order of a build.
        outputs: of those that are there, by the stage's name.
    """

    pipeline: Pipeline
    stages: dict[str, StagePlan] = field(default_factory=dict)
    outputs: dict[str, Tree] = field(default_factory=dict)

    def rows(self, progress: Progress) -> Tree:
        """The data stage's output; made if it is not there, because a plan shows the rows.

        Raises:
            TunebuildError: rows that a build would refuse.
        """
        stage = self.pipeline.data()
        self.stages[stage.name] = self._see(stage)
        data = self.outputs[stage.name] = self.pipeline.store.ensure(stage, progress)
        self.pipeline.store.note_use(stage, self.pipeline.spec.name)
        check_rows(self.pipeline, data)
        return data

    def to_image(self, data: Tree) -> Image | None:
        """Look at every stage behind the rows; the image, if it is there."""
        image = None
        try:
            records = walk_to_gates(self.pipeline, self._step, data)
            stage, output = walk_to_image(self.pipeline, self._step, records, self._runtime)
            image = stage.image(output)
        except _NotThere:
            if "runtime" not in self.stages:
                self._note(self.pipeline.runtime())
        waits = ""
        for name in _ORDER:
            seen = self.stages.pop(name, None) or StagePlan(name=name, status="run", after=waits)
            self.stages[name] = seen
            if seen.status != "unchanged":
                waits = name
        return image

    def _runtime(self) -> Tree:
        return self._step(self.pipeline.runtime())

    def _step(self, stage: Stage) -> Tree:
        """The stage's output.

        Raises:
            _NotThere: it has none.
        """
        self._note(stage)
        if stage.name not in self.outputs:
            raise _NotThere
        return self.outputs[stage.name]

    def _note(self, stage: Stage) -> None:
        self.outputs.pop(stage.name, None)  # of the merge that turned out not to be the closer one
        self.stages[stage.name] = self._see(stage)
        if found := self.pipeline.store.find(stage):
            self.outputs[stage.name] = found

    def _see(self, stage: Stage) -> StagePlan:
        store = self.pipeline.store
        if store.find(stage):
            return StagePlan(name=stage.name, status="unchanged")
        reason = store.why(stage, self.pipeline.spec.name)
        why = Change(field=reason.field, old=reason.old, new=reason.new) if reason.field else None
        going = any(store.scratch(stage).glob("checkpoints/checkpoint-*/sealed.json"))
        return StagePlan(name=stage.name, status="resume" if going else "run", why=why)
