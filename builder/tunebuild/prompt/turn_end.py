"""Finds the token that ends an assistant's turn, without which a model would never learn to stop."""

from __future__ import annotations

from tunebuild.errors import fail
from tunebuild.prompt.messages import Message
from tunebuild.prompt.template import PromptRefused, PromptTemplate
from tunebuild.prompt.tokenizer import PromptTokenizer


def find_turn_end(template: PromptTemplate, tokenizer: PromptTokenizer) -> int:
    """The id of the control token that comes after an answer, whatever the answer is.

    Raises:
        TunebuildError: there is none.
        PromptRefused: the template does not even take a question and its answer.
    """

    def rendered(answer: str) -> list[int]:
        return tokenizer.encode(template.render(_exchange(answer), add_generation_prompt=False))

    try:
        one, other = rendered("b"), rendered("c")
    except PromptRefused as refusal:
        (problem,) = refusal.diagnostics
        hint = ""
        if "eos_token" in problem.message and "eos_token" not in template.special_tokens:
            hint = "the base's tokenizer_config.json must name it; is that file there?"
        placed = fail(problem.code, problem.message, hint, path="prompt.template")
        raise PromptRefused(placed.diagnostics) from None
    answer_at = next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), len(one))
    controls = [i for i in one[answer_at:] if i in tokenizer.control_ids]
    if not controls:
        text = template.render(_exchange("ANSWER"), add_generation_prompt=False)
        end = text.rpartition("ANSWER")[2].strip()
        what = f"'{end}', which is no control token of this tokenizer" if end else "no control token"
        raise fail(
            "no-end-of-turn",
            f"prompt template '{template.name}' ends an assistant turn with {what}, "
            "so the model would never learn to stop",
            "choose one whose end token it has, such as qa; in one of your own write {{ eos_token }} there",
            path="prompt.template",
        )
    return controls[-1]


def _exchange(answer: str) -> list[Message]:
    return [{"role": "user", "content": "a"}, {"role": "assistant", "content": answer}]
