"""A plan as text for a terminal and as Markdown for a pull request."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from tunebuild.build.plan.report import Bin, Plan, StagePlan
from tunebuild.grammar import counted
from tunebuild.pages import page_environment
from tunebuild.train.plan.settings import ways_to_less

_BAR = 40


def as_text(plan: Plan) -> str:
    """Lines for people."""
    return "\n".join(_lines(plan)) + "\n"


def as_markdown(plan: Plan) -> str:
    """A comment for a pull request."""
    environment = page_environment(
        "plan", html=False, trim=False
    )  # Markdown; cells are escaped by the filter
    environment.filters.update(size=size, short=short, cell=_cell)
    return environment.get_template("plan.md.j2").render(
        plan=plan,
        why=why,
        histogram=histogram,
        serving=serving,
        tools=tools,
        runs_on=runs_on,
        image_facts=image_facts,
        too_little=too_little,
    )


def size(count: float) -> str:
    """Bytes for people, in powers of ten as disks and registries count."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 999.5:
            return f"{count:.0f} {unit}" if unit in ("B", "kB") or count >= 100 else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def short(value: Any) -> str:
    """A value on one line; digests by their start."""
    if value is None:
        return "absent"
    text = str(value).replace("\n", " ").replace("sha256:", "")
    limit = 12 if str(value).startswith("sha256:") else 60
    return text if len(text) <= limit else text[:limit] + ("" if limit == 12 else "...")


def why(stage: StagePlan) -> str:
    """Why a stage has to run."""
    if stage.status == "unchanged":
        return ""
    if stage.after:
        return f"after {stage.after}"
    if stage.why:
        return f"{stage.why.field}: {short(stage.why.old)} -> {short(stage.why.new)}"
    return "not built before"


def runs_on(plan: Plan) -> str:
    """The engine and the device, and why that engine."""
    found = plan.serving
    return f"{found.engine} on {found.device}" + (f": {found.reason}" if found.reason else "")


def image_facts(plan: Plan) -> str:
    """Size, platform and CUDA of the image."""
    image = plan.image
    about = "about " if image.estimated else ""
    cuda = ""
    if image.cuda or image.driver:
        cuda = f", CUDA {image.cuda or '13.0'}"
    if image.driver:
        cuda += f" (NVIDIA driver {image.driver} or newer)"
    elif image.cuda:
        cuda += " that it does not use: no index that pip knows has a CPU build of torch"
    return f"{about}{size(image.size)}, {image.platform}{cuda}"


def tools(plan: Plan) -> str:
    """Whether requests may bring tools."""
    reason = plan.serving.no_tools
    return (
        f"no tools: {reason}" if reason else "tools in requests: calls are parsed as the template prints them"
    )


def serving(plan: Plan) -> str:
    """The context, and how it stands to the base."""
    context, positions = plan.serving.context, plan.serving.positions
    beside = "" if positions is None else f"; the base has positions for {positions:,}"
    return f"{context:,} tokens{beside}"


def histogram(bins: Sequence[Bin]) -> str:
    """One bar a line."""
    most = max(bar.rows for bar in bins)
    width = len(f"{bins[-1].high:,}")
    drawn = ("█" * -(-bar.rows * _BAR // most) for bar in bins)
    return "\n".join(
        f"{bar.low:>{width},} - {bar.high:>{width},}  {blocks:<{_BAR}} {bar.rows:,}"
        for bar, blocks in zip(bins, drawn, strict=True)
    )


def _lines(plan: Plan) -> Iterator[str]:
    for stage in plan.stages:
        mark = " " if stage.status == "unchanged" else "+"
        yield f"{mark} {stage.name:<8} {stage.status:<10} {why(stage)}".rstrip()
    if plan.against:
        yield from ("", *_against(plan))
    data, training = plan.data, plan.training
    rejected = "".join(f", {count} rejected: {reason}" for reason, count in data.rejected.items())
    yield ""
    yield f"rows      {data.train:,} to train on, {data.eval:,} held out{rejected or ', none rejected'}"
    yield from (f"          {line}" for line in data.unshown)
    yield f"tokens    {data.tokens:,}, {data.supervised_share:.0%} supervised; tokens a row:"
    yield from (f"          {line}" for line in histogram(data.histogram).splitlines())
    yield (
        f"training  {training.method} on {training.device} in {training.compute_dtype}: "
        f"{counted(training.steps, 'step')}, {training.epochs:g} epoch{'' if training.epochs == 1 else 's'}"
    )
    yield from (f"          {reason}" for reason in training.reasons)
    yield from _memory(plan)
    yield f"serving   {runs_on(plan)}"
    yield f"          context of {serving(plan)}"
    yield f"          {tools(plan)}"
    yield from _disk(plan)
    yield from _image(plan)
    for output in plan.outputs:
        twice = ": the weights again" if output.name == "modelpack" else ""
        yield f"output    {output.reference} adds {size(output.adds)} to a registry with the image{twice}"
    lock = {"none": "there is none: 'tunebuild lock' makes one", "matches": "says what would be built"}
    yield f"lock      {lock.get(plan.lock, 'is behind:')}"
    yield from (f"          {line}" for line in plan.drift)
    yield ""
    yield "There is work to do." if plan.work else "Nothing to do."


def _memory(plan: Plan) -> Iterator[str]:
    memory = plan.memory
    of = f" of {size(memory.available)}" if memory.available else ""
    short_of = memory.available and memory.total > memory.available
    advice = f": more than there is; {ways_to_less(plan.training.method)}" if short_of else ""
    yield f"memory    {size(memory.total)} estimated{of}{advice}"
    yield "          " + ", ".join(f"{name} {size(count)}" for name, count in memory.components.items())


def _disk(plan: Plan) -> Iterator[str]:
    disk = plan.disk
    needed = ", ".join(f"{what} {size(count)}" for what, count in disk.needed.items()) or "nothing"
    yield f"disk      {size(disk.most)} at once of {size(disk.free)} free{too_little(plan)}"
    yield f"          {needed}"


def too_little(plan: Plan) -> str:
    """How much room is lacking on disk, if any."""
    lacking = plan.disk.lacking
    return f": {size(lacking)} too little; free some space, or take another --store" if lacking else ""


def _image(plan: Plan) -> Iterator[str]:
    image = plan.image
    than = f" that {image.compared_with} has not" if image.compared_with else ""
    send = (
        "size not known before its packages are"
        if image.send is None
        else f"{size(image.send)} to send{than}"
    )
    yield f"image     {image.reference}, {image_facts(plan)}"
    yield f"          {send}"
    for layer in image.layers:
        known = "not built yet" if layer.size is None else size(layer.size)
        yield f"          {'=' if layer.status == 'reused' else '+'} {layer.name:<12} {known}"


def _against(plan: Plan) -> Iterator[str]:
    against = plan.against
    assert against is not None
    stages = f" ({', '.join(against.stages)})" if against.stages else ""
    yield f"against {against.other}: {against.level}{stages}"
    yield from (f"  {line}" for line in against.words)
    for stage, changes in against.changes.items() if not against.words else ():
        for change in changes:
            yield f"  {stage:<8} {change.field}: {short(change.old)} -> {short(change.new)}"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")
