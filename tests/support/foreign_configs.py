"""Configurations of other tools, with the keys of public ones and values of our own, ten of a kind."""

from __future__ import annotations

AXOLOTL = {
    "lora": """\
base_model: example-org/tiny-chat
model_type: AutoModelForCausalLM
tokenizer_type: AutoTokenizer
load_in_8bit: false
load_in_4bit: false
strict: false
datasets:
  - path: example-org/faq
    type: alpaca
dataset_prepared_path:
val_set_size: 0.07
output_dir: ./elsewhere
adapter: lora
lora_model_dir:
sequence_len: 1536
sample_packing: false
lora_r: 24
lora_alpha: 48
lora_dropout: 0.1
lora_target_linear: true
gradient_accumulation_steps: 3
micro_batch_size: 5
num_epochs: 2
optimizer: adamw_bnb_8bit
lr_scheduler: cosine
learning_rate: 3e-4
bf16: auto
tf32: false
gradient_checkpointing: true
resume_from_checkpoint:
logging_steps: 2
flash_attention: true
warmup_steps: 7
evals_per_epoch: 3
saves_per_epoch: 2
weight_decay: 0.02
wandb_project:
wandb_entity:
special_tokens:
  pad_token: "<pad>"
""",
    "qlora with turns": """\
base_model: example-org/tiny-instruct
load_in_4bit: true
adapter: qlora
chat_template: llama3
datasets:
  - path: example-org/talks
    type: chat_template
    split: train[:700]
    field_messages: conversations
    message_property_mappings:
      role: from
      content: value
    roles_to_train: [assistant]
    train_on_eos: turn
    roles:
      user: [human, user]
      assistant: [gpt]
      system: [system]
val_set_size: 0.0
sequence_len: 3072
sample_packing: true
eval_sample_packing: true
pad_to_sequence_len: true
lora_r: 12
lora_alpha: 36
lora_target_modules: [q_proj, k_proj, v_proj, o_proj]
gradient_accumulation_steps: 6
micro_batch_size: 1
num_epochs: 5
optimizer: paged_adamw_8bit
lr_scheduler: constant_with_warmup
learning_rate: 0.00015
warmup_ratio: 0.04
evals_per_epoch: 1
gradient_checkpointing_kwargs:
  use_reentrant: false
plugins:
  - axolotl.integrations.liger.LigerPlugin
liger_rope: true
liger_rms_norm: true
bf16: true
seed: 17
""",
    "all weights": """\
base_model: example-org/tiny
adapter:
lora_r:
lora_alpha:
datasets: [{path: example-org/tales, type: completion, field: story}]
shuffle_merged_datasets: true
sequence_len: 900
micro_batch_size: 2
gradient_accumulation_steps: 2
num_epochs: 1
learning_rate: 2e-5
lr_scheduler: linear
warmup_steps: 0
max_grad_norm: 0.5
bf16: true
fsdp: [full_shard, auto_wrap]
fsdp_config:
  fsdp_offload_params: true
  fsdp_transformer_layer_cls_to_wrap: LlamaDecoderLayer
deepspeed:
""",
    "columns of one's own": """\
base_model: example-org/tiny
load_in_8bit: true
adapter: lora
datasets:
  - path: example-org/tickets
    name: emea
    revision: v3
    type:
      system_prompt: Be brief.
      field_system: system
      field_instruction: ticket
      field_output: reply
      format: "Q: {instruction}"
      no_input_format: "Q: {instruction}"
lora_target_modules: 'model.layers.[\\d]+.(mlp|self_attn).(up|down|q)_proj'
lora_modules_to_save: [embed_tokens]
train_on_inputs: true
excess_length_strategy: truncate
num_epochs: 1
max_steps: 40
micro_batch_size: 4
warmup_ratio: 0.1
early_stopping_patience: 2
hub_model_id: example-org/out
wandb_project: bots
wandb_name: third
""",
    "multimodal": """\
base_model: example-org/tiny-vision
processor_type: AutoProcessor
skip_prepare_dataset: true
remove_unused_columns: false
sample_packing: false
chat_template: gemma3
datasets: [{path: example-org/pictures, type: chat_template, split: "train[:2%]"}]
adapter: qlora
load_in_4bit: true
lora_r: 8
lora_alpha: 8
lora_mlp_kernel: true
eot_tokens: ["<end_of_turn>"]
""",
    "pretraining": """\
base_model: example-org/tiny
pretraining_dataset:
  - path: example-org/web
    name: en
    type: pretrain
    text_column: body
streaming: true
max_steps: 250
micro_batch_size: 8
learning_rate: 1e-4
weight_decay: 0.1
adam_beta2: 0.95
adam_epsilon: 0.00001
""",
    "quantization aware": """\
base_model: example-org/tiny
datasets: [{path: example-org/faq, type: alpaca}]
qat: {activation_dtype: int8, weight_dtype: int4, group_size: 32}
fp8: true
torch_compile: true
cosine_min_lr_ratio: 0.2
cosine_constant_lr_ratio: 0.5
loss_watchdog_threshold: 6.0
loss_watchdog_patience: 2
dataset_exact_deduplication: true
neftune_noise_alpha: 5
save_total_limit: 3
load_best_model_at_end: true
metric_for_best_model: eval_loss
val_set_size: 0.1
""",
    "many GPUs": """\
base_model: example-org/tiny
datasets: [{path: example-org/faq, type: sharegpt, conversation: chatml}]
chat_template: tokenizer_default
dp_shard_size: 4
tensor_parallel_size: 2
context_parallel_size: 1
ddp_timeout: 1800
expert_parallel_size: 2
adapter: lora
peft_use_rslora: true
peft_use_dora: false
peft_init_lora_weights: pissa
relora: true
relora_prune_ratio: 0.8
trust_remote_code: true
""",
    "old names": """\
base_model: example-org/tiny
base_model_config: example-org/tiny
is_llama_derived_model: true
datasets: [{path: rows/part.jsonl, type: "alpaca_chat.load_qa", ds_type: json}]
max_packed_sequence_len:
gptq_groupsize:
float16: true
xformers_attention: true
local_rank:
batch_size: 32
micro_batch_size: 4
tokens: ["<|a|>", "<|b|>"]
lora_fan_in_fan_out: false
torchdistx_path:
""",
    "trackers": """\
base_model: example-org/tiny
datasets: [{path: example-org/faq, type: alpaca, shards: 4, shards_idx: 1}]
test_datasets: [{path: example-org/faq, type: alpaca, split: test}]
use_swanlab: true
swanlab_project: bots
use_mlflow: true
mlflow_tracking_uri: http://127.0.0.1:5000
use_tensorboard: true
report_to: [wandb, comet_ml]
eval_steps: 40
a_key_of_next_year: {inside: 3, deeper: {still: [1, 2]}}
""",
}

LLAMA_FACTORY = {
    "lora": """\
model_name_or_path: example-org/tiny-instruct
trust_remote_code: true
stage: sft
do_train: true
finetuning_type: lora
lora_rank: 12
lora_target: all
dataset: faq
template: llama3
cutoff_len: 1200
max_samples: 600
preprocessing_num_workers: 4
dataloader_num_workers: 2
output_dir: saves/x
logging_steps: 5
save_steps: 300
plot_loss: true
overwrite_output_dir: true
save_only_model: false
report_to: none
per_device_train_batch_size: 3
gradient_accumulation_steps: 5
learning_rate: 2.0e-4
num_train_epochs: 2.5
lr_scheduler_type: cosine
warmup_ratio: 0.05
bf16: true
ddp_timeout: 9000
resume_from_checkpoint: null
val_size: 0.08
per_device_eval_batch_size: 2
eval_strategy: steps
eval_steps: 200
""",
    "qlora": """\
model_name_or_path: example-org/tiny
quantization_bit: 4
quantization_method: bnb
double_quantization: false
stage: sft
finetuning_type: lora
lora_rank: 6
lora_alpha: 30
lora_dropout: 0.2
lora_target: q_proj,v_proj
use_rslora: true
dataset: faq, talks
template: qwen
cutoff_len: 700
packing: true
neat_packing: true
seed: 4
""",
    "full": """\
model_name_or_path: example-org/tiny
stage: sft
finetuning_type: full
deepspeed: examples/z3.json
dataset: talks
template: default
pure_bf16: true
max_steps: 90
flash_attn: fa2
enable_liger_kernel: true
optim: adamw_torch
train_on_prompt: true
mask_history: true
""",
    "pretrain": """\
model_name_or_path: example-org/tiny
stage: pt
dataset: tales
cutoff_len: 512
warmup_steps: 3
lr_scheduler_type: cosine_with_restarts
adam_beta2: 0.999
""",
    "without thinking": """\
model_name_or_path: example-org/tiny
dataset: faq
template: qwen3_nothink
enable_thinking: false
default_system: Be kind.
finetuning_type: lora
neftune_noise_alpha: 3
additional_target: embed_tokens
""",
    "thinking": """\
model_name_or_path: example-org/tiny
dataset: faq
template: qwen3
enable_thinking: true
finetuning_type: freeze
freeze_trainable_layers: 4
freeze_trainable_modules: all
""",
    "unknown data set": """\
model_name_or_path: example-org/tiny
dataset: nobody_knows
dataset_dir: REMOTE:example-org/data
template: gemma3
use_galore: true
galore_rank: 64
loraplus_lr_ratio: 8.0
""",
    "other bits": """\
model_name_or_path: example-org/tiny-AWQ
quantization_bit: 8
quantization_method: hqq
dataset: faq
template: zephyr
pissa_init: true
pissa_iter: 8
pissa_convert: true
use_dora: true
""",
    "multimodal": """\
model_name_or_path: example-org/tiny-vl
image_max_pixels: 1000
video_max_pixels: 500
freeze_vision_tower: true
freeze_language_model: false
dataset: pictures
template: qwen2_vl
""",
    "ray": """\
model_name_or_path: example-org/tiny
dataset: faq
eval_dataset: held
ray_num_workers: 3
resources_per_worker: {GPU: 1}
use_swanlab: true
run_name: fourth
report_to: wandb
adapter_name_or_path: saves/before
""",
}

#: What stands beside them.
DATASET_INFO = {
    "faq": {
        "file_name": "faq.json",
        "columns": {"prompt": "question", "response": "answer", "history": "before"},
    },
    "talks": {
        "hf_hub_url": "example-org/talks",
        "subset": "en",
        "split": "train",
        "formatting": "sharegpt",
        "columns": {"messages": "messages", "tools": "tools", "system": "sys"},
        "tags": {"role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "bot"},
        "num_samples": 50,
    },
    "tales": {"file_name": "tales.jsonl", "columns": {"prompt": "text"}},
    "pictures": {
        "file_name": "p.json",
        "formatting": "sharegpt",
        "columns": {"messages": "m", "images": "i"},
    },
    "held": {"script_url": "held_out", "ranking": False, "folder": "x"},
}

_AIKIT = """\
apiVersion: v1alpha1
baseModel: {base}
datasets:
{rows}config:
  unsloth:
{settings}output:
{output}"""


def _aikit(rows: str, settings: str, output: str = "name: bot", base: str = "example-org/tiny") -> str:
    def indented(text: str, by: str) -> str:
        return "".join(f"{by}{line}\n" for line in text.splitlines())

    return _AIKIT.format(
        base=base,
        rows=indented(rows, "  "),
        settings=indented(settings, "    "),
        output=indented(output, "  "),
    )


_STEPS = """\
maxSeqLength: 640
batchSize: 3
gradientAccumulationSteps: 5
warmupSteps: 4
maxSteps: 70
learningRate: 0.0003
loggingSteps: 2
optimizer: adamw_8bit
weightDecay: 0.03
lrSchedulerType: linear
seed: 9
"""
AIKIT = {
    "alpaca": _aikit(
        "- {source: example-org/faq, type: alpaca}", "packing: false\nloadIn4bit: true\n" + _STEPS
    ),
    "quantized base": _aikit(
        "- {source: example-org/faq, type: alpaca}", _STEPS, base="example-org/tiny-unsloth-bnb-4bit"
    ),
    "messages": _aikit("- {source: example-org/talks, type: messages}", "packing: true\n" + _STEPS),
    "answers": _aikit("- {source: example-org/talks, type: sharegpt}", "loss: response\n" + _STEPS),
    "everything": _aikit("- {source: example-org/talks, type: messages}", "loss: all\nloadIn4bit: false"),
    "completion": _aikit(
        "- source: https://data.example.com/rows.jsonl\n  type: prompt-completion\n"
        "  loader: {type: json, split: train, checksum: 'sha256:00'}",
        _STEPS,
    ),
    "loader": _aikit(
        "- source: example-org/faq\n  type: alpaca\n"
        "  loader: {type: huggingface, subset: en, split: 'train', revision: abcdef}",
        "lrSchedulerType: cosine",
    ),
    "text": _aikit(
        "- {source: example-org/tales, type: text}", "maxSteps: 11", "format: adapter\nname: My Bot"
    ),
    "two": _aikit(
        "- {source: example-org/faq, type: alpaca}\n- {source: example-org/tales, type: text}",
        _STEPS,
        "format: gguf\nquantize: q8_0\nname: bot",
    ),
    "defaults": "apiVersion: v1alpha1\nbaseModel: example-org/tiny\n"
    "objective: {type: sft}\ndatasets: [{source: example-org/faq, type: alpaca}]\n",
}

TRL = {
    "small": "model_name_or_path: example-org/tiny\ndataset_name: example-org/faq\nreport_to: none\n"
    "learning_rate: 0.0004\nlr_scheduler_type: cosine\n",
    "adapter": """\
model_name_or_path: example-org/tiny
model_revision: v1
dtype: bfloat16
attn_implementation: kernels-community/vllm-flash-attn3
dataset_name: example-org/talks
dataset_config: en
dataset_train_split: train
dataset_test_split: test
use_peft: true
load_in_4bit: true
lora_r: 20
lora_alpha: 10
lora_target_modules: all-linear
lora_task_type: CAUSAL_LM
max_length: 2500
packing: true
packing_strategy: bfd
assistant_only_loss: true
eos_token: "<|end|>"
per_device_train_batch_size: 2
gradient_accumulation_steps: 7
gradient_checkpointing: true
num_train_epochs: 1
warmup_steps: 0.05
max_steps: 200
logging_steps: 3
eval_strategy: "no"
push_to_hub: true
hub_model_id: example-org/out
env: {CUDA_VISIBLE_DEVICES: "0"}
""",
    "mixture": """\
model_name_or_path: example-org/tiny
datasets:
  - {path: json, data_files: rows.jsonl}
  - {path: example-org/faq, name: en, split: train, columns: [question, answer], fraction: 0.5}
streaming: false
test_split_size: 0.1
completion_only_loss: true
num_train_epochs: 3
""",
}

_UNSLOTH = """\
from unsloth import {model}
longest = {length}
{before}
model, tokenizer = {model}.from_pretrained({from_pretrained})
model = {model}.get_peft_model(model, {peft})
{rows}
trainer = SFTTrainer(model=model, tokenizer=tokenizer, train_dataset=dataset, {trainer}args={config})
{after}
trainer.train()
"""


def _unsloth(
    from_pretrained: str = 'model_name="example-org/tiny", max_seq_length=longest, load_in_4bit=True',
    peft: str = 'r=12, target_modules=["q_proj", "v_proj"], lora_alpha=24, lora_dropout=0, bias="none"',
    config: str = "SFTConfig(per_device_train_batch_size=3, gradient_accumulation_steps=5, max_steps=50)",
    trainer: str = "",
    rows: str = 'dataset = load_dataset("example-org/faq", split="train")',
    model: str = "FastLanguageModel",
    before: str = "",
    after: str = "",
    length: int = 1100,
) -> str:
    return _UNSLOTH.format(**locals())


UNSLOTH = {
    "alpaca": _unsloth(
        before='alpaca_prompt = "### Instruction: {}"',
        rows='dataset = load_dataset("example-org/faq", split="train")\n'
        "def form(row):\n    return {'text': alpaca_prompt.format(row['a'])}\ndataset = dataset.map(form)",
        trainer='dataset_text_field="text", max_seq_length=longest, dataset_num_proc=2, packing=False, ',
        config="TrainingArguments(per_device_train_batch_size=2, gradient_accumulation_steps=3,"
        " warmup_steps=4, max_steps=30, learning_rate=3e-4, fp16=not is_bf16_supported(),"
        " bf16=is_bf16_supported(),"
        ' logging_steps=1, optim="adamw_8bit", weight_decay=0.02, lr_scheduler_type="linear", seed=11,'
        ' output_dir="outputs", report_to="none")',
    ),
    "responses": _unsloth(
        before="from unsloth.chat_templates import get_chat_template\nload = False\nrank = 8",
        from_pretrained='"example-org/tiny-bnb-4bit", max_seq_length=2 * longest, dtype=None,'
        " load_in_4bit=load",
        peft="r=rank, lora_alpha=rank * 2, use_rslora=True, loftq_config=None, random_state=5,"
        ' use_gradient_checkpointing="unsloth"',
        rows='tokenizer = get_chat_template(tokenizer, chat_template="llama-3.1", map_eos_token=True,'
        ' mapping={"role": "from", "content": "value", "user": "human", "assistant": "gpt"})\n'
        'dataset = load_dataset("example-org/talks", "en", split="train[:900]")',
        trainer='dataset_text_field="text", data_collator=DataCollatorForSeq2Seq(tokenizer=tokenizer), ',
        config="SFTConfig(num_train_epochs=2, warmup_ratio=0.05, per_device_train_batch_size=2)",
        after='trainer = train_on_responses_only(trainer, instruction_part="<u>", response_part="<a>")',
    ),
    "parts": _unsloth(
        model="FastModel",
        peft="finetune_vision_layers=False, finetune_language_layers=True, finetune_attention_modules=True,"
        " finetune_mlp_modules=True, r=4, lora_alpha=4, random_state=3407",
        trainer="eval_dataset=None, ",
    ),
    "vision": _unsloth(
        model="FastVisionModel",
        peft="finetune_vision_layers=True, finetune_mlp_modules=False, r=4, lora_alpha=4",
        trainer="data_collator=UnslothVisionDataCollator(model, tokenizer), ",
        config='SFTConfig(dataset_text_field="", remove_unused_columns=False,'
        ' dataset_kwargs={"skip_prepare_dataset": True}, max_length=900, max_grad_norm=0.3)',
    ),
    "continued": _unsloth(
        peft='r=64, target_modules=["q_proj", "embed_tokens", "lm_head"], lora_alpha=16, use_rslora=True',
        config="UnslothTrainingArguments(embedding_learning_rate=1e-5, num_train_epochs=1, warmup_ratio=0.1,"
        " per_device_train_batch_size=2, gradient_accumulation_steps=8)",
    ),
    "full": _unsloth(
        from_pretrained='model_name="example-org/tiny", full_finetuning=True, load_in_8bit=False,'
        ' token="hf_x"',
        config='SFTConfig(num_train_epochs=4, optim="adamw_torch_fused", lr_scheduler_type="cosine")',
    ),
    "held out": _unsloth(
        rows='dataset = load_dataset("json", data_files={"train": "rows.jsonl"})["train"]\n'
        "parts = dataset.train_test_split(test_size=0.2, seed=3)",
        trainer="eval_dataset=parts['test'], ",
        config='SFTConfig(eval_strategy="steps", eval_steps=10, num_train_epochs=1, packing=True)',
    ),
    "unpacked": _unsloth(
        before='options = {"per_device_train_batch_size": 6, "learning_rate": 1e-4}\n'
        "import sys\nmore = sys.argv",
        config="SFTConfig(num_train_epochs=int(more[1]), **options, **more)",
    ),
    "in main": "from unsloth import FastLanguageModel\nRANK = 18\ndef main():\n"
    "    model, tok = FastLanguageModel.from_pretrained('example-org/tiny', 300)\n"
    "    model = FastLanguageModel.get_peft_model(model, r=RANK)\n"
    "    for alpha in (1, 2):\n        pass\n"
    "    SFTTrainer(model, args=SFTConfig(max_steps=-1, num_train_epochs=1.5, seed=alpha))\n"
    "if __name__ == '__main__':\n    main()\n",
    "two data sets": _unsloth(
        rows='one = load_dataset("example-org/faq", split="train", num_proc=4)\n'
        'two = load_dataset("example-org/talks", split="train+test", token="hf_x")\ndataset = one',
        trainer="formatting_func=form, callbacks=[Stop()], compute_metrics=score, ",
        after="trainer = SFTTrainer(model=model, args=SFTConfig(max_steps=3))",
    ),
}
