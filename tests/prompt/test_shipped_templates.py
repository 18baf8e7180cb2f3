"""Every shipped template says, character for character, what its source says."""

from __future__ import annotations

import pytest

from tunebuild import resources
from tunebuild.prompt import PromptRefused, PromptTemplate

MESSAGES = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": "Hello."},
    {"role": "user", "content": "Why?"},
]

#: Name -> the prompt of MESSAGES where the beginning token is <s> and the end token </s>.
PROMPTS = {
    "alpaca": "<s>Be brief.\n\n### Instruction:\nHi\n\n### Response:\nHello.</s>\n\n### Instruction:\nWhy?"
    "\n\n### Response:\n",
    "chatml": "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n"
    "<|im_start|>assistant\nHello.<|im_end|>\n<|im_start|>user\nWhy?<|im_end|>\n<|im_start|>assistant\n",
    "falcon": "Be brief.\n\nUser: Hi\n\nAssistant: Hello.</s>\n\nUser: Why?\n\nAssistant:",
    "gemma": "<s><start_of_turn>user\nBe brief.\n\nHi<end_of_turn>\n"
    "<start_of_turn>model\nHello.<end_of_turn>\n"
    "<start_of_turn>user\nWhy?<end_of_turn>\n<start_of_turn>model\n",
    "llama2": "<s>[INST] <<SYS>>\nBe brief.\n<</SYS>>\n\nHi [/INST] Hello. </s><s>[INST] Why? [/INST]",
    "llama3": "<s><|start_header_id|>system<|end_header_id|>\n\nBe brief.<|eot_id|>"
    "<|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>"
    "<|start_header_id|>assistant<|end_header_id|>\n\nHello.<|eot_id|>"
    "<|start_header_id|>user<|end_header_id|>\n\nWhy?<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
    "mistral": "<s> [INST] Be brief.\n\nHi [/INST] Hello.</s> [INST] Why? [/INST]",
    "phi3": "<|system|>\nBe brief.<|end|>\n<|user|>\nHi<|end|>\n<|assistant|>\nHello.<|end|>\n"
    "<|user|>\nWhy?<|end|>\n<|assistant|>\n",
    "qa": "<s>Be brief.\nQuestion: Hi\nAnswer:\nHello.</s>\nQuestion: Why?\nAnswer:\n",
    "qwen": "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n"
    "<|im_start|>assistant\nHello.<|im_end|>\n<|im_start|>user\nWhy?<|im_end|>\n<|im_start|>assistant\n",
    "vicuna": "<s>Be brief. USER: Hi ASSISTANT: Hello.</s> USER: Why? ASSISTANT:",
    "zephyr": "<|system|>\nBe brief.</s>\n<|user|>\nHi</s>\n<|assistant|>\nHello.</s>\n<|user|>\nWhy?</s>\n"
    "<|assistant|>\n",
}


def shipped(name):
    source = resources.path("templates", "prompts", f"{name}.jinja").read_text()
    return PromptTemplate(name, source, {"bos_token": "<s>", "eos_token": "</s>"})


def test_every_shipped_template_is_here():
    assert set(PROMPTS) == set(resources.shipped_templates())


@pytest.mark.parametrize("name", sorted(PROMPTS))
def test_prompt(name):
    assert shipped(name).render(MESSAGES, add_generation_prompt=True) == PROMPTS[name]


@pytest.mark.parametrize("name", sorted(PROMPTS))
def test_it_names_its_source(name):
    assert shipped(name).source.startswith("{#- ")


@pytest.mark.parametrize("name", sorted(set(PROMPTS) - {"chatml", "llama3", "qwen"}))
def test_a_role_that_the_template_does_not_know_is_refused(name):
    with pytest.raises(PromptRefused, match=r"roles|alternation"):
        shipped(name).render([*MESSAGES, {"role": "tool", "content": "4"}], add_generation_prompt=True)


def test_qwen_has_a_default_system_text_and_tools():
    call = {"function": {"name": "add", "arguments": {"a": 2, "b": 2}}}
    text = shipped("qwen").render(
        [
            {"role": "user", "content": "2+2?"},
            {"role": "assistant", "content": "", "tool_calls": [call]},
            {"role": "tool", "content": "4"},
            {"role": "tool", "content": "four"},
        ],
        add_generation_prompt=True,
    )
    assert text == (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n2+2?<|im_end|>\n"
        '<|im_start|>assistant\n<tool_call>\n{"name": "add", "arguments": {"a": 2, "b": 2}}\n</tool_call>'
        "<|im_end|>\n<|im_start|>user\n<tool_response>\n4\n</tool_response>\n<tool_response>\nfour\n"
        "</tool_response><|im_end|>\n<|im_start|>assistant\n"
    )
