"""Other tools' names of chat templates."""

from __future__ import annotations

from tunebuild.importers.work import Setting, Work, is_empty, shown

#: What others call a template that ships with tunebuild, written without separators.
_SHIPPED = {
    "alpaca": "alpaca",
    "chatml": "chatml",
    "falcon": "falcon",
    "gemma": "gemma",
    "gemma2": "gemma",
    "llama2": "llama2",
    "llama": "llama2",
    "llama3": "llama3",
    "mistral": "mistral",
    "mistralv1": "mistral",
    "phi3": "phi3",
    "qwen": "qwen",
    "qwen2": "qwen",
    "qwen25": "qwen",
    "vicuna": "vicuna",
    "zephyr": "zephyr",
}
#: What they call the model's own.
_OWN = frozenset(("tokenizerdefault", "default", "base", "auto"))
_FALLBACK = "tokenizer_default_fallback_"


def carry_template(work: Work, setting: Setting) -> None:
    """Carry a template that is named by a word."""
    path, key, value = "prompt.template", setting.key, setting.value
    if is_empty(value):
        return
    if not isinstance(value, str):
        work.refuse_value(setting, "the name of a template")
        work.draft.set(path, "base", "Instead of the other tool's, which could not be read.")
        return
    name = value.lower()
    plain = "".join(character for character in name if character.isalnum())
    if name.startswith(_FALLBACK):
        work.draft.set(path, "base")
        text = "base; a model without a template of its own is refused rather than given another"
        work.ledger.carried(key, path, text)
    elif plain in _OWN:
        work.draft.set(path, "base")
        work.ledger.carried(key, path, "the model's own")
    elif plain in _SHIPPED:
        work.draft.set(path, _SHIPPED[plain])
        work.ledger.carried(key, path)
    else:
        work.draft.set(path, "base", f"The model's own, in place of {work.tool}'s {name}.")
        work.ledger.lost(
            key,
            f"tunebuild ships no template {shown(value)}; base is written, the model's own",
            "compare a few rows in 'tunebuild data'; a model without a template of its own needs "
            "prompt.template: {file: prompt.jinja}",
        )
