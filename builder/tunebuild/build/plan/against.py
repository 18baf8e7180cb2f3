"""What a spec is compared with: a revision of its repository, another spec, or an image."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tunebuild.build.pipeline import Pipeline
from tunebuild.build.plan.blast import blast
from tunebuild.build.plan.report import Blast
from tunebuild.build.plan.words import Side, in_words
from tunebuild.containers.provenance import read_provenance
from tunebuild.sources.git import PREFIX, spec_at
from tunebuild.spec.canonical import effective

#: Makes the stages of another spec's file.
Other = Callable[[Path], Pipeline]


def compare(against: str, pipeline: Pipeline, other: Other) -> Blast:
    """Compare a spec as it stands with what was named.

    Args:
        against: ``git:REVISION``; the path of a spec, which ends with .yaml; or an archive or an image.
        pipeline: the spec's stages.
        other: makes those of another file.

    Raises:
        TunebuildError: there is nothing of that name, or it cannot be read.
    """
    if against.startswith(PREFIX):
        # All of it inside: the revision's files are there only so long.
        with spec_at(pipeline.loaded.file, against.removeprefix(PREFIX)) as file:
            return _with(against, pipeline, other(file))
    if against.endswith((".yaml", ".yml")):
        return _with(against, pipeline, other(Path(against)))
    found = read_provenance(against)
    blasted = blast(against, found["inputs"], pipeline.own_inputs)
    digests = [source["digest"] for source in found["inputs"]["data"]["sources"]]
    # An image of an older version does not say what its files were called.
    names = found.get("sources") or [f"source {number}" for number in range(len(digests))]
    old = Side(found["spec"], None, dict(zip(names, digests, strict=False)))
    return blasted.model_copy(update={"words": in_words(old, _side(pipeline), blasted)})


def _with(against: str, pipeline: Pipeline, old: Pipeline) -> Blast:
    blasted = blast(against, old.own_inputs, pipeline.own_inputs)
    return blasted.model_copy(update={"words": in_words(_side(old), _side(pipeline), blasted)})


def _side(pipeline: Pipeline) -> Side:
    data = pipeline.data()
    files = {source.shown: source.path for source in data.sources}
    digests = dict(zip(files, data.file_digests, strict=False))
    template = pipeline.spec.prompt.template
    if not isinstance(template, str):
        files[template.file] = pipeline.loaded.directory / template.file
    return Side(effective(pipeline.spec), files, digests)
