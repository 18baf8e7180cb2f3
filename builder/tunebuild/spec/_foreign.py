"""Keys of other tools' configurations: which of ours says the same, or what we decide ourselves and how.

The names are those of axolotl, LLaMA-Factory, TRL, Unsloth, torchtune and transformers'
``TrainingArguments``.
"""

from __future__ import annotations

import re

#: Our key -> what others call it.
_SAME: dict[str, str] = {
    "model.base": (
        "base_model model_name_or_path model_name model_id pretrained_model_name_or_path base_model_name"
    ),
    "model.revision": "model_revision base_model_revision revision_of_model",
    "model.token": "hub_token hf_token hf_hub_token use_auth_token hf_use_auth_token hub_auth_token",
    "prompt.template": "chat_template chat_template_jinja chat_template_path template default_template",
    "prompt.system": "default_system default_system_message system_prompt system_message",
    "prompt.variables": "chat_template_kwargs",
    "data.train": (
        "datasets dataset train_dataset dataset_name dataset_path train_file train_files data_files"
    ),
    "data.eval.files": "eval_dataset eval_datasets test_datasets validation_file validation_files eval_file",
    "data.eval.fraction": "val_set_size val_size test_size validation_split eval_split_ratio",
    "data.train[].columns": "dataset_text_field message_property_mappings field_messages columns_mapping",
    "data.train[].split": "dataset_split dataset_train_split train_split",
    "data.train[].config": "dataset_config dataset_config_name subset",
    "data.train[].max_rows": "max_samples max_train_samples",
    "data.deduplicate": "dataset_exact_deduplication",
    "data.on_long": "excess_length_strategy truncation_side truncation_mode",
    "tuning.method": "adapter finetuning_type full_finetuning use_peft tune_type",
    "tuning.epochs": "num_epochs num_train_epochs n_epochs train_epochs max_epochs",
    "tuning.learning_rate": "lr",
    "tuning.schedule": "lr_scheduler lr_scheduler_type scheduler",
    "tuning.warmup_steps": "num_warmup_steps lr_warmup_steps",
    "tuning.batch_size": "train_batch_size global_batch_size effective_batch_size total_batch_size",
    "tuning.micro_batch_size": "per_device_train_batch_size per_gpu_train_batch_size",
    "tuning.max_length": (
        "sequence_len cutoff_len max_seq_length max_seq_len model_max_length max_sequence_length"
    ),
    "tuning.max_grad_norm": "gradient_clipping clip_grad_norm",
    "tuning.packing": "sample_packing neat_packing packed",
    "tuning.lora.r": "lora_r lora_rank rank",
    "tuning.lora.alpha": "lora_alpha",
    "tuning.lora.dropout": "lora_dropout",
    "tuning.lora.targets": (
        "lora_target_modules lora_target_linear lora_target target_modules lora_attn_modules"
    ),
    "tuning.lora.rslora": "use_rslora peft_use_rslora",
    "tuning.lora.dora": "use_dora peft_use_dora",
    "tuning.lora.init": "init_lora_weights peft_init_lora_weights pissa_init loftq_config",
    "tuning.seed": "data_seed random_state random_seed",
    "tuning.early_stopping.patience": "early_stopping_patience",
    "tuning.early_stopping.min_delta": "early_stopping_threshold",
    "tuning.checkpoints": "save_total_limit",
    "tuning.processes": "nproc_per_node num_processes num_gpus n_gpu",
    "tuning.nodes": "nnodes num_nodes num_machines",
    "tuning.shard": "fsdp fsdp_config fsdp_version deepspeed",
    "tuning.report_to": "use_wandb use_mlflow use_tensorboard log_with",
    "serving.defaults.max_tokens": "max_new_tokens",
    "serving.limits.context": "max_model_len n_ctx context_length num_ctx",
    "image.repository": "image_name",
    "image.platform": "platforms",
}

#: What we decide -> the keys with which others have it decided.
_OURS: dict[str, str] = {
    (
        "tuning.batch_size counts all rows of a step; into how many micro-batches it is cut, the "
        "memory plan decides, or tuning.micro_batch_size"
    ): "gradient_accumulation_steps gradient_accumulation",
    "say tuning.compute_dtype, whose default takes bfloat16 where the hardware has it": (
        "bf16 bfloat16 fp16 float16 tf32 dtype torch_dtype pure_bf16 mixed_precision precision bf16_full_eval"
    ),
    "say tuning.method: qlora, which holds the base in 4-bit NF4 with double quantization": (
        "load_in_4bit quantization_bit quantization_method bnb_config_kwargs quantization "
        "bnb_4bit_quant_type bnb_4bit_compute_dtype bnb_4bit_use_double_quant double_quantization "
        "use_bnb quantize"
    ),
    "there are no 8-bit bases in training: tuning.method is qlora (4 bits) or lora (16 bits)": "load_in_8bit",
    (
        "the memory plan decides which layers checkpoint; to bound the memory, say tuning.memory: {fit: 24GB}"
    ): (
        "gradient_checkpointing use_gradient_checkpointing gradient_checkpointing_kwargs "
        "activation_checkpointing enable_activation_checkpointing activation_offloading "
        "device_map max_memory"
    ),
    (
        "not a setting: the fastest attention that computes what the base computes is taken; the "
        "plan names it"
    ): (
        "flash_attention flash_attn flash_attention_2 use_flash_attention_2 attn_implementation "
        "sdp_attention xformers_attention eager_attention attn_fn"
    ),
    "not a setting: layers are fused and compiled where that pays; the plan says so": (
        "torch_compile compile liger_kernel use_liger use_liger_kernel enable_liger_kernel "
        "use_unsloth lora_mlp_kernel lora_qkv_kernel lora_o_kernel plugins"
    ),
    (
        "not a setting: the optimizer is AdamW with its usual betas; set tuning.learning_rate and "
        "tuning.weight_decay"
    ): (
        "optim optimizer optim_args adam_beta1 adam_beta2 adam_epsilon loraplus_lr_ratio "
        "embedding_learning_rate cosine_min_lr_ratio lr_scheduler_kwargs"
    ),
    (
        "say tuning.warmup_steps, in steps; left out, it is 10 or a tenth of all steps, whichever is less"
    ): "warmup_ratio",
    (
        "say tuning.epochs, which may be a fraction such as 0.5; the plan prints how many steps that is"
    ): "max_steps",
    "say tuning.evaluations: how often held-out rows are evaluated during training": (
        "eval_steps evals_per_epoch eval_strategy evaluation_strategy do_eval eval_sample_packing "
        "per_device_eval_batch_size eval_batch_size eval_table_size eval_max_new_tokens"
    ),
    "say tuning.keep: best": "load_best_model_at_end metric_for_best_model greater_is_better",
    ("checkpoints are written at each epoch or evaluation; tuning.checkpoints says how many stay"): (
        "save_steps saves_per_epoch save_strategy save_first_step save_only_model save_safetensors"
    ),
    "every step is logged; tuning.report_to sends the metrics elsewhere, too": (
        "logging_steps logging_strategy logging_dir logging_first_step plot_loss include_tokens_per_second"
    ),
    (
        "say tuning.report_to: [wandb] or [mlflow], which read names from their own variables, "
        "WANDB_PROJECT and the like"
    ): (
        "wandb_project wandb_entity wandb_name wandb_run_id wandb_watch wandb_log_model run_name "
        "mlflow_tracking_uri mlflow_experiment_name trackio_space_id project"
    ),
    (
        "not a setting: answers are in the loss and prompts never; to leave an answer out of it, "
        "give its turn weight: 0"
    ): (
        "train_on_inputs train_on_prompt completion_only_loss assistant_only_loss mask_history "
        "roles_to_train train_on_eos train_on_responses_only response_template "
        "instruction_template"
    ),
    "say prompt.template; a row's form is data.train[].format": "type conversation prompt_style ds_type",
    "rows are tokenized once, on all cores, and kept in the store": (
        "dataset_prepared_path dataset_num_proc dataset_processes preprocessing_num_workers "
        "overwrite_cache dataloader_num_workers dataloader_pin_memory dataloader_prefetch_factor "
        "tokenized_path streaming num_proc remove_unused_columns shuffle_merged_datasets "
        "dataset_dir"
    ),
    ("not a setting: rows are packed, or padded to equal lengths, as the plan says (tuning.packing)"): (
        "pad_to_sequence_len pad_to_multiple_of group_by_length padding_free "
        "sample_packing_eff_est packing_strategy multipack_real_batches padding_side"
    ),
    "not a setting: the tokenizer is the base's, whose special tokens the template may write": (
        "special_tokens tokens added_tokens additional_special_tokens add_tokens resize_vocab "
        "tokenizer_type tokenizer_config tokenizer_name tokenizer_use_fast use_fast_tokenizer "
        "eos_token pad_token bos_token eot_tokens new_special_tokens"
    ),
    "not a setting: the base's config.json says what it is": (
        "model_type model_config_type is_llama_derived_model"
    ),
    (
        "code that comes with a model is never run, so the architecture must be one of transformers'"
    ): "trust_remote_code trust_remote_code_model",
    (
        "not a setting: what is built is kept in the store (--store) and in dist/; 'tunebuild "
        "push' publishes it"
    ): ("output_dir hub_model_id push_to_hub hub_strategy export_dir export_size export_device save_dir"),
    "a build that was stopped goes on from its last checkpoint by itself": (
        "resume_from_checkpoint auto_resume_from_checkpoints overwrite_output_dir "
        "save_on_each_node ignore_data_skip"
    ),
    "merge it into its base first, and name the result as model.base": (
        "lora_model_dir adapter_name_or_path adapter_path"
    ),
    (
        "say tuning.lora.targets, which may name head and embedding, too; tuning.method: full trains all "
        "weights"
    ): (
        "modules_to_save lora_modules_to_save additional_target unfrozen_parameters "
        "lora_fan_in_fan_out apply_lora_to_mlp apply_lora_to_output"
    ),
    "the merge decides how an adapter becomes weights (merge.strategy)": "merge_lora merge_adapter",
    "the spec says what is built; 'tunebuild build' trains, evaluates, merges and packages": (
        "do_train do_predict stage"
    ),
    "there is no such training: tunebuild fine-tunes on answers (SFT)": (
        "rl rl_type pref_beta pref_loss dpo_beta loss_type trl reward_model ref_model"
    ),
    "there is none of it: the loss is the plain cross-entropy of the answers": (
        "neftune_noise_alpha label_smoothing_factor label_smoothing use_neftune chunked_cross_entropy"
    ),
    "adapters train no biases; tuning.method: full trains all there is": "bias",
}
_SECTION = re.compile(r"[a-z_]+(?:\.[a-z_\[\]]+)+")


def foreign_hint(key: str, here: str) -> str:
    """What to say instead of another tool's key; empty if no tool is known to have it.

    Args:
        key: as it is written.
        here: dotted path of the section that it stands in; empty at the top.
    """
    said = _HINTS.get(key.lower().replace("-", "_").lstrip("_"))
    if said is None or not _SECTION.fullmatch(said):
        return said or ""
    section, _, name = said.rpartition(".")
    return f"did you mean '{name}'?" if section == here else f"did you mean {said}?"


#: Another tool's key -> our key's path, or a sentence.
_HINTS = {theirs: said for said, names in (*_SAME.items(), *_OURS.items()) for theirs in names.split()}
