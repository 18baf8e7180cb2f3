"""Small tokenizers of the families that base models use."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

TEXTS = [
    "How do I reset the device? Hold the button for ten seconds, then let go.",
    "What is the warranty? Two years from the day of purchase, parts and labour.",
    "Below is an instruction that describes a task. ### Instruction: ### Response: Question: Answer:",
    "user assistant system [INST] [/INST] hello world",
]

#: Control tokens of the shipped templates besides ChatML's.
MARKS = [
    "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<start_of_turn>", "<end_of_turn>",
    "<|system|>", "<|user|>", "<|assistant|>", "<|end|>",
]  # fmt: skip

CHATML = (
    "{%- for m in messages -%}{{- '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' -}}"
    "{%- endfor -%}{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\n' -}}{%- endif -%}"
)


def byte_level(prefix_space: bool = False) -> Tokenizer:
    """GPT-2's and Qwen's kind (Falcon's and Llama 3's too)."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix_space)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=430,
        show_progress=False,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|pad|>", *MARKS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    return tokenizer


def sentence_piece(prepend_scheme: str = "first") -> Tokenizer:
    """Llama 2's and Mistral's kind: a prefix space, and bytes for what is not in the vocabulary."""
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=prepend_scheme, split=False)
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    _train_with_bytes(tokenizer)
    return _bytes_as_text(tokenizer)


def sentence_piece_normalizer() -> Tokenizer:
    """The older spelling of the same: the prefix space comes from a normalizer."""
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")]
    )
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    _train_with_bytes(tokenizer)
    return _bytes_as_text(tokenizer)


FAMILIES = {
    "byte-level": lambda: byte_level(),
    "byte-level-prefix-space": lambda: byte_level(prefix_space=True),
    "sentence-piece-first": lambda: sentence_piece("first"),
    "sentence-piece-always": lambda: sentence_piece("always"),
    "sentence-piece-normalizer": lambda: sentence_piece_normalizer(),
}

#: For pytest: 'make quick' takes one of bytes and one of SentencePiece.
PARAMETERS = [
    pytest.param(name, marks=() if name in ("byte-level", "sentence-piece-normalizer") else pytest.mark.slow)
    for name in sorted(FAMILIES)
]


def save(tokenizer: Tokenizer, directory: Path, *, chat_template: str | None = CHATML, **tokens: str) -> Path:
    """Save as a base model's tokenizer directory; returns it."""
    known = tokenizer.get_vocab()
    if not tokens:
        tokens = (
            {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
            if "<s>" in known
            else {"eos_token": "<|im_end|>", "pad_token": "<|pad|>"}
        )
    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer, **tokens)
    if chat_template is not None:
        wrapped.chat_template = chat_template
    wrapped.save_pretrained(directory)
    return directory


def _train_with_bytes(tokenizer: Tokenizer) -> None:
    control = ["<unk>", "<s>", "</s>", "<|im_start|>", "<|im_end|>", *MARKS]
    byte_tokens = [f"<0x{i:02X}>" for i in range(256)]
    trainer = trainers.BpeTrainer(
        vocab_size=530, show_progress=False, special_tokens=[*control, *byte_tokens]
    )
    tokenizer.train_from_iterator(TEXTS, trainer)


def _bytes_as_text(tokenizer: Tokenizer) -> Tokenizer:
    # The trainer knows only special tokens; byte tokens are ordinary ones.
    definition = json.loads(tokenizer.to_str())
    definition["added_tokens"] = [t for t in definition["added_tokens"] if t["content"][:3] != "<0x"]
    return Tokenizer.from_str(json.dumps(definition))
