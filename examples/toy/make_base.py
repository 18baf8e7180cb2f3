"""Makes ``base/``: a Llama of 1.2 million parameters that knows nothing, and its tokenizer.

A real spec names a pre-trained model, as the quickstart does. This example works without a download and in
a minute: it brings a model with random weights, just large enough to learn this FAQ by heart. Takes about a
second:

    python make_base.py [DIRECTORY]

The bytes are the same on every run and every processor: weights come from integers (a sum of uniform
draws, near enough to a normal distribution), never from vectorised logarithms and sines whose last bit
depends on the machine.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import save
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

HERE = Path(__file__).parent
SEED = 20

HIDDEN, LAYERS, HEADS, KEY_VALUE_HEADS, MLP = 192, 2, 6, 2, 512
HEAD = HIDDEN // HEADS
VOCABULARY, CONTEXT = 2048, 256
# Four times the usual 0.02. LoRA leaves embeddings and norms as they are, so with small random ones the
# logits stay too flat to ever name a token with certainty.
STANDARD_DEVIATION = 0.08

START, END, PAD = "<|im_start|>", "<|im_end|>", "<|pad|>"
SPECIAL_TOKENS = ["<|endoftext|>", START, END, PAD]

# The line breaks are inside the expressions: whitespace control would eat any other.
CHAT_TEMPLATE = """\
{%- for message in messages -%}
{{- '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{- '<|im_start|>assistant\\n' -}}
{%- endif -%}
"""


def corpus() -> Iterator[str]:
    """The text that the tokenizer is trained on: the FAQ, and some prose for all other words."""
    for name in ("faq.jsonl", "faq_variants.jsonl"):
        for line in (HERE / name).read_text("utf-8").splitlines():
            row = json.loads(line)
            yield row["question"]
            yield row["answer"]
    yield from (HERE / "prose.txt").read_text("utf-8").splitlines()
    yield from ("system\n", "user\n", "assistant\n")


def make_tokenizer() -> Tokenizer:
    """A byte-level BPE tokenizer: any text can be encoded, the FAQ's words mostly as one token each."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=SPECIAL_TOKENS,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus(), trainer)
    return tokenizer


def shapes() -> Iterator[tuple[str, tuple[int, ...]]]:
    """Names and shapes of the weights, as transformers' ``LlamaForCausalLM`` calls them."""
    key_value = KEY_VALUE_HEADS * HEAD
    yield "model.embed_tokens.weight", (VOCABULARY, HIDDEN)
    for layer in range(LAYERS):
        prefix = f"model.layers.{layer}"
        yield f"{prefix}.input_layernorm.weight", (HIDDEN,)
        yield f"{prefix}.self_attn.q_proj.weight", (HIDDEN, HIDDEN)
        yield f"{prefix}.self_attn.k_proj.weight", (key_value, HIDDEN)
        yield f"{prefix}.self_attn.v_proj.weight", (key_value, HIDDEN)
        yield f"{prefix}.self_attn.o_proj.weight", (HIDDEN, HIDDEN)
        yield f"{prefix}.post_attention_layernorm.weight", (HIDDEN,)
        yield f"{prefix}.mlp.gate_proj.weight", (MLP, HIDDEN)
        yield f"{prefix}.mlp.up_proj.weight", (MLP, HIDDEN)
        yield f"{prefix}.mlp.down_proj.weight", (HIDDEN, MLP)
    yield "model.norm.weight", (HIDDEN,)


def make_weights() -> dict[str, torch.Tensor]:
    """Random bfloat16 matrices; norms are 1."""
    generator = torch.Generator().manual_seed(SEED)
    draws, levels = 12, 1 << 16
    # The sum of 12 uniform numbers has a variance of 12 * levels**2 / 12, so its deviation is `levels`.
    scale = STANDARD_DEVIATION / levels
    weights = {}
    for name, shape in shapes():
        if len(shape) == 1:
            weights[name] = torch.ones(shape, dtype=torch.bfloat16)
            continue
        total = torch.randint(0, levels, (draws, *shape), generator=generator).sum(dim=0)
        centred = (total - draws * (levels - 1) // 2).to(torch.float64)
        weights[name] = (centred * scale).to(torch.bfloat16)
    return weights


def make_config(tokenizer: Tokenizer) -> dict[str, object]:
    """``config.json``. Widths are multiples of 64: bitsandbytes' 4-bit CPU kernels need that."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": VOCABULARY,
        "hidden_size": HIDDEN,
        "intermediate_size": MLP,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KEY_VALUE_HEADS,
        "head_dim": HEAD,
        "hidden_act": "silu",
        "max_position_embeddings": CONTEXT,
        "initializer_range": STANDARD_DEVIATION,
        "rms_norm_eps": 1e-6,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
        "tie_word_embeddings": True,
        "attention_bias": False,
        "mlp_bias": False,
        "dtype": "bfloat16",
        "bos_token_id": None,
        "eos_token_id": tokenizer.token_to_id(END),
        "pad_token_id": tokenizer.token_to_id(PAD),
    }


def make_files() -> dict[str, bytes]:
    """Name and content of each file of the model directory."""
    tokenizer = make_tokenizer()
    if tokenizer.get_vocab_size() != VOCABULARY:
        raise SystemExit(
            f"the texts give only {tokenizer.get_vocab_size()} of {VOCABULARY} tokens: add prose to prose.txt"
        )
    end, pad = tokenizer.token_to_id(END), tokenizer.token_to_id(PAD)
    tokenizer_config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": END,
        "pad_token": PAD,
        "model_max_length": CONTEXT,
        "clean_up_tokenization_spaces": False,
    }
    return {
        "model.safetensors": save(make_weights(), metadata={"format": "pt"}),
        "tokenizer.json": (tokenizer.to_str(pretty=True) + "\n").encode(),
        "tokenizer_config.json": _json(tokenizer_config),
        "chat_template.jinja": CHAT_TEMPLATE.encode(),
        "generation_config.json": _json({"eos_token_id": end, "pad_token_id": pad}),
        # Last, because a directory with a config.json counts as a model.
        "config.json": _json(make_config(tokenizer)),
    }


def make_base(directory: Path) -> None:
    """Write the model directory, readable by everyone whatever the umask is."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "config.json").unlink(missing_ok=True)
    for name, content in make_files().items():
        file = directory / name
        file.write_bytes(content)
        file.chmod(0o644)


def _json(value: dict[str, object]) -> bytes:
    return (json.dumps(value, indent=2) + "\n").encode()


if __name__ == "__main__":
    make_base(Path(sys.argv[1]) if len(sys.argv) > 1 else HERE / "base")
