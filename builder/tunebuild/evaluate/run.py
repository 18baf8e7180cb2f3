"""Asks the models, one in memory at a time."""

from __future__ import annotations

import gc
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from tunebuild.data.privacy import mask
from tunebuild.evaluate.asked import SOURCES, general_prompts
from tunebuild.evaluate.by_source import by_source
from tunebuild.evaluate.generate import generate
from tunebuild.evaluate.harness import Results, do_tasks
from tunebuild.evaluate.metrics import divergence, lost_limit, measure, measure_regression
from tunebuild.evaluate.models import (
    Logprobs,
    ask,
    ask_base_and_trained,
    choose_rows,
    few_threads,
    load_merged,
    load_trained,
    targets,
)
from tunebuild.evaluate.parity import choose_parity
from tunebuild.evaluate.texts import Question, measure_texts, questions_of
from tunebuild.grammar import counted
from tunebuild.merge.proof.run import prove
from tunebuild.merge.proof.served import prove_served
from tunebuild.merge.safetensors_io import list_tensors
from tunebuild.prompt import PromptRefused, Renderer, load_prompt
from tunebuild.prompt.example import IGNORED
from tunebuild.serve.parity import Parity
from tunebuild.store import Progress
from tunebuild.train.loop.quiet import quieten_libraries
from tunebuild.train.loop.rows import load_rows
from tunebuild.train.model.tied import merged_in_memory

if TYPE_CHECKING:
    from tunebuild.evaluate.stage import EvaluateStage

Texts = dict[str, list[dict[str, str]]]
"""Prompts and answers by name: ``samples`` and ``general``."""

_REGRESSION_POSITIONS = 512  # of each model's log-probabilities are kept, a large vocabulary makes them large


@dataclass(frozen=True, slots=True)
class Evaluated:
    """What ``metrics.json``, ``samples.json`` and ``parity.json`` say."""

    record: dict[str, Any]
    texts: Texts
    parity: Parity


@dataclass(frozen=True, slots=True)
class _Asked:
    """What both models are asked to answer."""

    renderer: Renderer
    questions: list[Question]
    general: list[str]
    general_ids: list[list[int]]
    max_tokens: int
    positions: int | None = None

    def answers(self, model: Any) -> list[list[int]]:
        prompts = [*(q.prompt for q in self.questions), *self.general_ids]
        if not prompts:
            return []
        return generate(model, prompts, self.max_tokens, self.renderer.stop_ids, self.positions)


@dataclass(frozen=True, slots=True)
class _Responses:
    """What a model says.

    Attributes:
        rows: at the rows' tokens.
        answers: to the questions, and then to the general prompts.
        general: at the tokens of the base's answers to those.
        tasks: what it reaches.
    """

    rows: Logprobs
    answers: list[list[int]]
    general: Logprobs | None
    tasks: Results


def evaluate(stage: EvaluateStage, rows_file: str, progress: Progress) -> Evaluated:
    """Ask the base, the trained and the merged model the same.

    Raises:
        TunebuildError: the merged files are not a whole model.
    """
    quieten_libraries()
    proof = prove(
        stage.strategy,
        base=stage.base.directory,
        trained=stage.trained.root,
        merged=stage.merged.path("model"),
        progress=progress,
    )
    progress.say(proof.sentence)
    with few_threads(stage.base):
        found = _evaluate(stage, rows_file, progress)
    found.record["proof"] = {**proof.to_json(), **found.record.get("proof", {})}
    return found


def _evaluate(stage: EvaluateStage, rows_file: str, progress: Progress) -> Evaluated:
    all_rows = load_rows(stage.data.path(rows_file))
    rows = choose_rows(all_rows, stage.base.vocabulary_size)
    asked = _asked(stage, all_rows)
    steps = 3 if stage.alternative else 2
    progress.step(0, steps, "the trained model")
    harness = (stage.base.directory, stage.tasks, stage.evaluation.task_limit, _window(stage))

    def responses_of(model: Any, before: _Responses | None = None) -> _Responses:
        said, answers = ask(model, rows), asked.answers(model)
        general = _general_rows(asked, before.answers if before else answers)
        return _Responses(said, answers, ask(model, general) if general else None, do_tasks(model, *harness))

    base, trained = ask_base_and_trained(stage.base, stage.trained, stage.settings, rows, responses_of)
    progress.step(1, steps, "the files of the image")
    adapter = stage.trained.path("adapter") if stage.strategy == "none" else None
    model = load_merged(stage.merged.path("model"), stage.settings, adapter)
    served = _prove_served(stage, model, adapter) if adapter else {}
    merged = responses_of(model, base)
    del model
    gc.collect()
    figures = measure(base.rows, trained, merged.rows, targets(rows))
    method = stage.settings.tuning.method
    figures["merge_lost_limit"] = lost_limit(stage.strategy, method, figures["training_kl"])
    strategies = {stage.strategy: figures["merge_kl"]}
    if stage.alternative:
        progress.step(2, steps, f"the {stage.alternative} merge")
        strategies[stage.alternative] = divergence(trained, _alternative(stage, rows))
    if base.general and merged.general:
        figures |= measure_regression(base.general, merged.general)
    texts = _texts(asked, base.answers, merged.answers)
    if asked.questions:
        samples = texts["samples"]
        expected = [s["expected"] for s in samples]
        figures |= measure_texts([s["tuned"] for s in samples], expected)
        before = measure_texts([s["base"] for s in samples], expected)
        figures |= {f"base_{name}": value for name, value in before.items()}
    tasks = {
        task: {name: {"base": base.tasks[task][name], "tuned": value} for name, value in found.items()}
        for task, found in merged.tasks.items()
    }
    made = "base and adapter" if stage.strategy == "none" else "merged"
    kind = "held-out" if rows_file == "eval.arrow" else "training"
    progress.say(
        f"{made} against trained on {counted(len(rows), f'{kind} row')}: KL {figures['merge_kl']:.2g}, "
        f"same token {figures['merge_top1']:.1%}; "
        f"loss {figures['base_loss']:.3f} -> {figures['eval_loss']:.3f}"
    )
    if asked.questions:
        progress.say(
            f"{counted(len(asked.questions), 'written answer')}: exact {figures['exact_match']:.0%}, "
            f"F1 {figures['base_token_f1']:.2f} -> {figures['token_f1']:.2f}, "
            f"ROUGE-L {figures['base_rouge_l']:.2f} -> {figures['rouge_l']:.2f}"
        )
    for task, found in tasks.items():
        reached = ", ".join(f"{name} {v['base']:.3g} -> {v['tuned']:.3g}" for name, v in found.items())
        progress.say(f"task {task}: {reached}")
    record = {
        "metrics": figures,
        "tasks": tasks,
        "rows": len(rows),
        "of": rows_file,
        "available": len(all_rows),
        "strategies": strategies,
        "proof": served,
    }
    record["sources"] = by_source(
        _origins(stage, len(all_rows)), rows, base.rows, merged.rows, asked.questions, texts["samples"]
    )
    parity = choose_parity(
        stage.settings.compute_dtype,
        rows,
        merged.rows.log_probabilities,
        base.rows.log_probabilities,
        asked.questions,
        merged.answers[: len(asked.questions)],
        asked.max_tokens,
    )
    return Evaluated({**record, "strategy": stage.strategy}, masked(texts), parity)


def _prove_served(stage: EvaluateStage, model: Any, adapter: Path) -> dict[str, Any]:
    tensors, off = prove_served(model, base=stage.base.directory, adapter=adapter)
    return {"adapter_tensors": tensors, "served_deviation": float(f"{off:.3g}")}


def masked(texts: Texts) -> Texts:
    """Texts as the report may show them, without what the ``data`` stage masks in its lists of rows."""
    return {
        kind: [{name: mask(text) for name, text in one.items()} for one in many]
        for kind, many in texts.items()
    }


def _origins(stage: EvaluateStage, count: int) -> list[int]:
    """The number of each row's source; the same for all where that is not known."""
    path = stage.data.path(SOURCES)
    if not path.is_file():
        return [0] * count
    rows: list[int] = json.loads(path.read_text("utf-8"))["rows"]
    return rows


def _window(stage: EvaluateStage) -> int | None:
    """What virtual tokens leave of the positions, which lm-eval does not see; the base gets no more."""
    return stage.settings.left_of(stage.base.positions) if stage.settings.virtual_tokens else None


def _asked(stage: EvaluateStage, rows: Any) -> _Asked:
    renderer = load_prompt(stage.data.path("prompt"))
    evaluation = stage.evaluation
    questions = questions_of(rows, evaluation.samples, renderer.stop_ids)
    general, ids = [], []
    for text in (*general_prompts(), *evaluation.regression) if evaluation.samples else ():
        try:
            ids.append(renderer.prompt_ids([{"role": "user", "content": text}]))
            general.append(text)
        except PromptRefused:
            continue  # a template that wants more than a user's turn
    positions = stage.settings.left_of(stage.base.positions)
    return _Asked(renderer, questions, general, ids, evaluation.max_tokens, positions)


def _general_rows(asked: _Asked, answers: list[list[int]]) -> list[dict[str, Any]]:
    """Rows in which the base's own answers to the general prompts are what counts."""
    rows = []
    # The same for each, or the first ones would leave nothing to the author's, which come last.
    most = max(1, _REGRESSION_POSITIONS // max(1, len(asked.general_ids)))
    for prompt, answer in zip(asked.general_ids, answers[len(asked.questions) :], strict=True):
        if kept := answer[:most]:
            rows.append({"input_ids": prompt + kept, "labels": [IGNORED] * len(prompt) + kept})
    return rows


def _alternative(stage: EvaluateStage, rows: list[dict[str, Any]]) -> Logprobs:
    """What the ``original`` merge says, done in memory and rounded as its files would be."""
    assert stage.alternative == "original"
    unquantized = replace(stage.settings, tuning=stage.settings.tuning.model_copy(update={"method": "lora"}))
    model = merged_in_memory(load_trained(stage.base.directory, stage.trained.path("adapter"), unquantized))
    stored = {tensor.name: tensor for tensor in list_tensors(stage.base.directory)}
    for name, weight in model.named_parameters():
        if name in stored:  # perhaps in fewer bits than it was loaded in
            weight.data = weight.data.to(stored[name].torch_dtype).to(weight.dtype)
    said = ask(model, rows)
    del model
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return said


def _texts(asked: _Asked, base: list[list[int]], tuned: list[list[int]]) -> Texts:
    decode, count = asked.renderer.decode, len(asked.questions)
    samples = [
        {
            "prompt": decode(question.prompt),
            **_said(asked.renderer, question.prompt, expected=question.expected, base=before, tuned=after),
        }
        for question, before, after in zip(asked.questions, base[:count], tuned[:count], strict=True)
    ]
    general = [
        {"prompt": prompt, **_said(asked.renderer, ids, base=before, tuned=after)}
        for prompt, ids, before, after in zip(
            asked.general, asked.general_ids, base[count:], tuned[count:], strict=True
        )
    ]
    return {"samples": samples, "general": general}


def _said(renderer: Renderer, prompt: list[int], **answers: list[int]) -> dict[str, str]:
    """Answers as the endpoint gives them: what is said, and apart from it the reasoning if there is any."""
    parts = {name: renderer.answers.separate(prompt, ids) for name, ids in answers.items()}
    reasoning = {f"{name}_reasoning": said for name, (said, _) in parts.items() if said}
    return {**{name: said for name, (_, said) in parts.items()}, **reasoning}
