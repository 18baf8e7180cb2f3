"""Names of other tools' settings, by what they mean here.

They are those of axolotl, LLaMA-Factory, TRL, Unsloth, torchtune and transformers' ``TrainingArguments``.
"""

from __future__ import annotations

#: Our key -> what others call it.
SAME: dict[str, str] = {
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

#: What we decide, by topic: what to say instead, and the keys with which others have it decided.
OURS: dict[str, tuple[str, str]] = {
    "accumulation": (
        (
            "tuning.batch_size counts all rows of a step; into how many micro-batches it is cut, the memory"
            " plan decides, or tuning.micro_batch_size"
        ),
        ("gradient_accumulation_steps gradient_accumulation"),
    ),
    "precision": (
        "say tuning.compute_dtype, whose default takes bfloat16 where the hardware has it",
        (
            "bf16 bfloat16 fp16 float16 tf32 dtype torch_dtype pure_bf16 mixed_precision precision "
            "bf16_full_eval float32 auto_bf16 fp8 fp8_backend fp8_enable_fsdp_float8_all_gather "
            "upcast_layernorm upcast_lmhead_output"
        ),
    ),
    "quantization": (
        "say tuning.method: qlora, which holds the base in 4-bit NF4 with double quantization",
        (
            "load_in_4bit quantization_bit quantization_method bnb_config_kwargs quantization "
            "bnb_4bit_quant_type bnb_4bit_compute_dtype bnb_4bit_use_double_quant double_quantization "
            "use_bnb quantize"
        ),
    ),
    "quantization-8": (
        "there are no 8-bit bases in training: tuning.method is qlora (4 bits) or lora (16 bits)",
        ("load_in_8bit"),
    ),
    "checkpointing": (
        (
            "the memory plan decides which layers checkpoint; to bound the memory, say tuning.memory: {fit:"
            " 24GB}"
        ),
        (
            "gradient_checkpointing use_gradient_checkpointing gradient_checkpointing_kwargs "
            "activation_checkpointing enable_activation_checkpointing activation_offloading device_map "
            "max_memory disable_gradient_checkpointing use_reentrant_gc layer_offloading "
            "selective_checkpointing low_cpu_mem_usage use_unsloth_gc offload_embedding "
            "auto_find_batch_size torch_empty_cache_steps gc_steps"
        ),
    ),
    "attention": (
        (
            "not a setting: the fastest attention that computes what the base computes is taken; the plan "
            "names it"
        ),
        (
            "flash_attention flash_attn flash_attention_2 use_flash_attention_2 attn_implementation "
            "sdp_attention xformers_attention eager_attention attn_fn flex_attn_compile_kwargs "
            "flash_attn_cross_entropy flash_attn_fuse_mlp flash_attn_rms_norm flash_optimum "
            "fused_attn_kernel"
        ),
    ),
    "kernels": (
        "not a setting: layers are fused and compiled where that pays; the plan says so",
        (
            "torch_compile compile liger_kernel use_liger use_liger_kernel enable_liger_kernel "
            "use_unsloth lora_mlp_kernel lora_qkv_kernel lora_o_kernel plugins torch_compile_backend "
            "torch_compile_mode liger_rope liger_rms_norm liger_rms_norm_gated liger_layer_norm "
            "liger_glu_activation liger_swiglu liger_fused_linear_cross_entropy liger_cross_entropy "
            "cut_cross_entropy use_kernels use_scattermoe use_sonicmoe use_v1_kernels tiled_mlp "
            "experts_implementation unsloth_tiled_mlp unsloth_force_compile lora_embedding_kernel"
        ),
    ),
    "optimizer": (
        (
            "not a setting: the optimizer is AdamW with its usual betas; set tuning.learning_rate and "
            "tuning.weight_decay"
        ),
        (
            "optim optimizer optim_args adam_beta1 adam_beta2 adam_epsilon loraplus_lr_ratio "
            "embedding_learning_rate cosine_min_lr_ratio lr_scheduler_kwargs adam_eps adam_epsilon2 "
            "adam_beta3 optim_target_modules loraplus_lr_embedding embedding_lr embedding_lr_scale "
            "lr_groups lr_quadratic_warmup cosine_constant_lr_ratio lr_div_factor eta_min "
            "torchdistx_path use_galore use_apollo use_badam use_adam_mini use_muon"
        ),
    ),
    "max-steps": (
        "say tuning.epochs, which may be a fraction such as 0.5; the plan prints how many steps that is",
        ("max_steps"),
    ),
    "evaluations": (
        "say tuning.evaluations: how often held-out rows are evaluated during training",
        (
            "eval_steps evals_per_epoch eval_strategy evaluation_strategy do_eval eval_sample_packing "
            "per_device_eval_batch_size eval_batch_size eval_table_size eval_max_new_tokens"
        ),
    ),
    "keep-best": (
        "say tuning.keep: best",
        ("load_best_model_at_end metric_for_best_model greater_is_better save_best"),
    ),
    "checkpoints": (
        "checkpoints are written at each epoch or evaluation; tuning.checkpoints says how many stay",
        ("save_steps saves_per_epoch save_strategy save_first_step save_only_model save_safetensors"),
    ),
    "logging": (
        "every step is logged; tuning.report_to sends the metrics elsewhere, too",
        (
            "logging_steps logging_strategy logging_dir logging_first_step plot_loss "
            "include_tokens_per_second include_effective_tokens_per_second "
            "include_num_input_tokens_seen debug print_param_status disable_tqdm log_level "
            "profiler_steps loss_watchdog_threshold loss_watchdog_patience"
        ),
    ),
    "tracking": (
        (
            "say tuning.report_to: [wandb] or [mlflow], which read names from their own variables, "
            "WANDB_PROJECT and the like"
        ),
        (
            "wandb_project wandb_api_key wandb_entity wandb_name wandb_run_id wandb_watch wandb_log_model "
            "run_name mlflow_tracking_uri mlflow_experiment_name trackio_space_id project wandb_mode "
            "mlflow_run_name use_swanlab use_trackio use_comet trackio_project_name trackio_run_name "
            "swanlab_project swanlab_run_name swanlab_experiment_name swanlab_workspace swanlab_mode "
            "swanlab_description comet_project_name use_otel_metrics"
        ),
    ),
    "supervision": (
        (
            "not a setting: answers are in the loss and prompts never; to leave an answer out of it, give "
            "its turn weight: 0"
        ),
        (
            "train_on_inputs train_on_prompt completion_only_loss assistant_only_loss mask_history "
            "roles_to_train train_on_eos train_on_responses_only response_template instruction_template"
        ),
    ),
    "row-form": (
        "say prompt.template; a row's form is data.train[].format",
        ("type conversation prompt_style ds_type"),
    ),
    "preparation": (
        "rows are tokenized once, on all cores, and kept in the store",
        (
            "dataset_prepared_path dataset_num_proc dataset_processes preprocessing_num_workers "
            "overwrite_cache dataloader_num_workers dataloader_pin_memory dataloader_prefetch_factor "
            "tokenized_path streaming num_proc remove_unused_columns shuffle_merged_datasets "
            "dataset_dir skip_prepare_dataset dataset_keep_in_memory push_dataset_to_hub "
            "preprocessing_batch_size dataloader_drop_last dataset_kwargs data_shared_file_system "
            "shuffle_before_merging_datasets disable_shuffling curriculum_sampling "
            "sample_packing_sequentially"
        ),
    ),
    "padding": (
        "not a setting: rows are packed, or padded to equal lengths, as the plan says (tuning.packing)",
        (
            "pad_to_sequence_len pad_to_multiple_of group_by_length padding_free sample_packing_eff_est"
            " packing_strategy multipack_real_batches padding_side"
        ),
    ),
    "special-tokens": (
        "not a setting: the tokenizer is the base's, whose special tokens the template may write",
        (
            "special_tokens tokens added_tokens additional_special_tokens add_tokens resize_vocab "
            "tokenizer_type tokenizer_config tokenizer_name tokenizer_use_fast use_fast_tokenizer "
            "eos_token pad_token bos_token eot_tokens new_special_tokens unk_token tokenizer_legacy "
            "tokenizer_use_mistral_common tokenizer_save_jinja_files resize_token_embeddings_to_32x "
            "mean_resizing_embeddings fix_tokenizer"
        ),
    ),
    "media": (
        "rows are text, and the text part of a multimodal model is tuned: images, video and "
        "audio are not read",
        (
            "processor_type processor_kwargs image_size image_resize_algorithm image_max_pixels "
            "image_min_pixels video_max_pixels video_min_pixels video_fps video_maxlen media_dir "
            "use_audio_in_video audio_sampling_rate"
        ),
    ),
    "other-bits": (
        "weights are trained in 16 or 32 bits, or on a base in NF4; 'tunebuild export' quantizes the result",
        (
            "qat qat_scheme gptq gptq_disable_exllama gptq_groupsize gptq_model_v1 model_quantization_config "
            "model_quantization_config_kwargs quantize_moe_experts load_in_fp8 use_kt kt_config "
            "llmcompressor "
            "export_quantization_bit export_quantization_dataset use_onebitllms nvfp4_merge_aware"
        ),
    ),
    "parallel": (
        "say tuning.processes and tuning.nodes: processes share a step, and tuning.shard splits the model",
        (
            "dp_shard_size dp_replicate_size tensor_parallel_size context_parallel_size expert_parallel_size "
            "sequence_parallel sequence_parallel_degree tensor_model_parallel_size "
            "pipeline_model_parallel_size expert_model_parallel_size use_ray ray_num_workers "
            "use_distributed_optimizer"
        ),
    ),
    "architecture": (
        "not a setting: the base's config.json says what it is",
        ("model_type model_config_type is_llama_derived_model base_model_config cls_model_config auto_model"),
    ),
    "launching": (
        "processes are started and joined by tunebuild itself, see tuning.processes and 'tunebuild launch'",
        (
            "local_rank world_size ddp ddp_timeout ddp_find_unused_parameters ddp_bucket_cap_mb "
            "ddp_broadcast_buffers accelerator_config device strict master_addr master_port"
        ),
    ),
    "remote-code": (
        "code that comes with a model is never run, so the architecture must be one of transformers'",
        ("trust_remote_code trust_remote_code_model"),
    ),
    "output": (
        (
            "not a setting: what is built is kept in the store (--store) and in dist/; 'tunebuild push' "
            "publishes it"
        ),
        (
            "output_dir hub_model_id push_to_hub hub_strategy export_dir export_size export_device "
            "save_dir save_compressed hub_revision cache_dir export_legacy_format export_hub_model_id"
        ),
    ),
    "resume": (
        "a build that was stopped goes on from its last checkpoint by itself",
        (
            "resume_from_checkpoint auto_resume_from_checkpoints overwrite_output_dir save_on_each_node"
            " ignore_data_skip"
        ),
    ),
    "started-adapter": (
        "merge it into its base first, and name the result as model.base",
        ("lora_model_dir adapter_name_or_path adapter_path"),
    ),
    "whole-modules": (
        (
            "say tuning.lora.targets, which may name head and embedding, too; tuning.method: full trains "
            "all weights"
        ),
        (
            "modules_to_save lora_modules_to_save additional_target unfrozen_parameters "
            "lora_fan_in_fan_out apply_lora_to_mlp apply_lora_to_output freeze_trainable_layers "
            "freeze_trainable_modules freeze_extra_modules freeze_vision_tower "
            "freeze_multi_modal_projector freeze_language_model freeze_mm_modules "
            "lora_target_parameters lora_rank_pattern lora_alpha_pattern peft_layers_to_transform "
            "layers_to_transform layers_pattern"
        ),
    ),
    "merge": (
        "the merge decides how an adapter becomes weights (merge.strategy)",
        ("merge_lora merge_adapter"),
    ),
    "verbs": (
        "the spec says what is built; 'tunebuild build' trains, evaluates, merges and packages",
        ("do_train do_predict stage do_causal_lm_eval do_bench_eval predict_with_generate infer_backend"),
    ),
    "preferences": (
        "there is no such training: tunebuild fine-tunes on answers (SFT)",
        (
            "rl rl_type pref_beta pref_loss dpo_beta loss_type trl reward_model ref_model pref_ftx "
            "rl_beta orpo_alpha kto_desirable_weight kto_undesirable_weight process_reward_model "
            "num_generations reward_funcs center_rewards_coefficient"
        ),
    ),
    "loss": (
        "there is none of it: the loss is the plain cross-entropy of the answers",
        (
            "neftune_noise_alpha label_smoothing_factor label_smoothing use_neftune "
            "chunked_cross_entropy noisy_embedding_alpha use_dft_loss use_asft_loss use_eaft "
            "use_eaft_loss moe_aux_loss_coef router_aux_loss_coef"
        ),
    ),
    "bias": (
        "adapters train no biases; tuning.method: full trains all there is",
        ("bias"),
    ),
}
#: Keys that are called the same in other tools, so that only their place may need saying.
ALIKE: dict[str, str] = {
    "tuning.learning_rate": "learning_rate",
    "tuning.warmup_steps": "warmup_steps",
    "tuning.warmup_ratio": "warmup_ratio",
    "tuning.micro_batch_size": "micro_batch_size",
    "tuning.weight_decay": "weight_decay",
    "tuning.max_grad_norm": "max_grad_norm",
    "tuning.packing": "packing",
    "tuning.report_to": "report_to",
    "tuning.seed": "seed",
    "tuning.lora.r": "r",
    "tuning.max_length": "max_length",
    "data.train[].revision": "revision",
    "model.token": "token access_token",
    "serving.defaults.temperature": "temperature",
    "serving.defaults.top_p": "top_p",
}
