"""A training run from settings to the adapter folder: what the guide calls `ChatGLMTrainer`."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from tripletune.config import TrainingSettings
from tripletune.schema import Example
from tripletune.training.ranks import gather_over_ranks, is_main_process, leave_ranks_at_exit
from tripletune.training.run_guard import check_run, choose_checkpoint, guard_run, match_ranks
from tripletune.training.run_record import find_changed_data, recorded_run
from tripletune.training.startup import StartupClock

__all__ = ["EVAL_SENTENCES", "TrainingRun"]

logger = logging.getLogger("tripletune")

EVAL_SENTENCES = 200
"""Validation sentences that are extracted from at each evaluation, at most."""


class TrainingRun:
    """One training run, in three steps that may be called one by one.

    Args:
        settings: What to train, on what, and how.

    Attributes:
        model: The adapted model, after `setup_model_and_tokenizer`.
        tokenizer: Its tokenizer.
        schema: The `RelationSchema` of the training data, after `setup_model_and_tokenizer`.
        validation_examples: What is scored, after `prepare_datasets`.
        trainer: The `TripletTrainer`, after `train`.
    """

    def __init__(self, settings: TrainingSettings) -> None:
        self.settings = settings
        self.model: Any = None
        self.tokenizer: Any = None
        self.trainer: Any = None
        self.train_examples: list[Example] = []
        self.validation_examples: list[Example] = []
        self.schema: Any = None
        self._train_set: Any = None
        self._validation_set: Any = None
        self._encoded: dict[Path, Any] = {}
        self._fit: Any = None
        self._clock = StartupClock()

    def setup_model_and_tokenizer(self) -> None:
        """Loads the tokenizer and the quantised model and adds LoRA.

        Raises:
            ModelError: the model cannot be found or read.
            AdapterError: the checkpoint to resume from is none.
            ConfigError: a LoRA target matches no layer; the network cannot read both ways.
            OutputError: the output folder cannot be written (checked before anything is loaded).
            DataError: a data file is missing, empty or damaged (before the model is loaded).
            ResourceError: the run does not fit the GPU (before the model is loaded).
        """
        import torch

        from tripletune.models.bidirectional_prompt import reads_one_way
        from tripletune.models.loading import default_device, load_config, load_tokenizer
        from tripletune.training.acceleration import accelerate_layers
        from tripletune.training.adapters import count_parameters, render_parameter_line
        from tripletune.training.run_data import load_run_data
        from tripletune.training.sharding import join_processes, load_sharded

        settings = self.settings
        check_run(settings)
        if settings.fsdp:
            join_processes(compute=settings.compute)
        # Before the model, so that a broken line is told before minutes of loading.
        data = load_run_data(settings)
        self.train_examples, self.validation_examples = data.training, data.validation
        self.schema = data.schema
        if settings.bidirectional_prompt:
            config = load_config(settings.model_name, revision=settings.revision)
            if not reads_one_way(config, settings.max_source_length + settings.max_target_length):
                logger.info("这个模型的提示本来就是双向阅读的 (bidirectional_prompt)")
                self.settings = settings = settings.changed(bidirectional_prompt=False)
        torch.manual_seed(settings.seed)
        logger.info("加载分词器...")
        self.tokenizer = load_tokenizer(settings.model_name, revision=settings.revision)
        device = default_device()
        if device.type == "cuda":
            self._plan_ahead(device)
        logger.info("设置量化配置...")
        logger.info("加载基础模型...")
        with self._clock.measure("加载与量化"):
            if settings.fsdp:
                logger.info("FSDP: 冻结的权重分给各个进程，按块收集；不编译模型，不保留解压的权重")
                self.model = load_sharded(lambda: self._load_adapted(device), device)
            else:
                self.model = self._load_adapted(device)
            keep = False if settings.fsdp else None
            if self._fit is not None:
                keep = self._fit.plan.keeps_weights
            accelerate_layers(self.model, keep_weights=keep, in_fp8=settings.compute == "fp8")
        if is_main_process():
            print_line(render_parameter_line(*count_parameters(self.model)))

    def _load_adapted(self, device: Any) -> Any:
        """The base model with fresh LoRA layers; in host memory when it is to be cut."""
        from tripletune.models.loading import default_dtype, load_model
        from tripletune.models.quantization import quantized_on
        from tripletune.training.adapters import add_lora
        from tripletune.training.sharding import PACKED_DTYPE

        settings = self.settings
        with quantized_on(device) if settings.fsdp else nullcontext():
            base = load_model(
                settings.model_name,
                quantize=settings.load_in_4bit,
                device="cpu" if settings.fsdp else device,
                dtype=default_dtype(device),
                revision=settings.revision,
                quant_storage=PACKED_DTYPE if settings.fsdp else None,
            )
        logger.info("设置LoRA配置...")
        return add_lora(
            base,
            rank=settings.lora_r,
            alpha=settings.lora_alpha,
            dropout=settings.lora_dropout,
            target_modules=settings.lora_target_modules,
            model_name=settings.model_name,
            revision=settings.revision,
        )

    def prepare_datasets(self) -> None:
        """Encodes the training and validation data, or finds them encoded in the cache.

        Raises:
            DataError: a file is missing, empty or damaged, or nothing in it fits the lengths.
            OutputError: the token cache cannot be written.
        """
        if self.tokenizer is None:
            self.setup_model_and_tokenizer()
        settings = self.settings
        logger.info("准备训练数据集...")
        self._train_set = self._encode(self.train_examples, settings.train_file)
        logger.info("准备验证数据集...")
        self._validation_set = self._encode(self.validation_examples, settings.validation_file)

    def _encode(self, examples: list[Example], path: Path) -> Any:
        from tripletune.training.trainer import ExampleDataset

        logger.info("加载了 %d 条数据从 %s", len(examples), path)
        return ExampleDataset(self._encode_once(examples, path))

    def _encode_once(self, examples: list[Example], path: Path) -> Any:
        from tripletune.training.encoding import encode_data

        if path not in self._encoded:
            with self._clock.measure(f"编码 {path.name}"):
                self._encoded[path] = encode_data(
                    examples, self.tokenizer, self.settings, path=path, schema=self.schema
                )
        return self._encoded[path]

    def _plan_ahead(self, device: Any) -> None:
        """Plans memory and time, and prints the plan.

        Raises:
            ResourceError: nothing fits.
        """
        import torch

        from tripletune.training.fitting import GpuFit, describe_run
        from tripletune.training.plan_table import render_plan

        settings = self.settings
        planned = describe_run(
            settings,
            self.tokenizer,
            training=self._encode_once(self.train_examples, settings.train_file),
            validation=self._encode_once(self.validation_examples, settings.validation_file),
            scored_texts=[e.text for e in self.validation_examples[: self.num_scored]],
            schema=self.schema,
        )
        count = torch.cuda.device_count()
        if count > 1 and "RANK" not in os.environ:
            logger.info(
                "本机有 %d 块 GPU，只用其中一块；全部使用: torchrun --nproc_per_node=%d …",
                count,
                count,
            )
        self._fit = GpuFit.on_device(planned, device)
        if is_main_process():
            print_line(render_plan(self._fit.plan))

    def train(self) -> dict[str, float]:
        """Trains, saves adapter, tokenizer, curves and history, and gives the last evaluation.

        Raises:
            AdapterError: the checkpoint to resume from does not exist or is damaged.
            OutputError: another run trains into the folder, or it cannot be written.
            ResourceError: memory, a GPU or a data worker failed, or losses stay not finite.
            KeyboardInterrupt: a signal asked to stop; a checkpoint has been saved.
        """
        if self._train_set is None:
            self.prepare_datasets()
        with guard_run(self.settings.output_dir) as stop:
            checkpoint = choose_checkpoint(
                self.settings.resume_from_checkpoint, self.settings.output_dir
            )
            if checkpoint is not None:
                self.settings = match_ranks(self.settings, checkpoint)
                if self._fit is not None:
                    self._fit.continue_from(self.settings, checkpoint.path)
            source = None if checkpoint is None else str(checkpoint.path)
            with self._recorded(source) as result:
                self.trainer = self._build_trainer(stop)
                leave_ranks_at_exit()
                logger.info("开始训练...")
                if source is not None:
                    logger.info("从检查点继续: %s", source)
                self.trainer.train(resume_from_checkpoint=source)
                metrics = self._save()
                result |= self._summarise(metrics)
            return metrics

    @contextmanager
    def _recorded(self, source: str | None) -> Iterator[dict[str, Any]]:
        """The run record's result, to be filled; on other ranks a dictionary nobody reads."""
        if not is_main_process():
            yield {}
            return
        with recorded_run(self.settings, resumed_from=source) as record:
            for path in find_changed_data(record):
                logger.warning("数据在上次启动后已改变，继续的训练不再与原来相同: %s", path)
            yield record["result"]

    def _summarise(self, metrics: Mapping[str, float]) -> dict[str, Any]:
        state = self.trainer.state
        return {
            "metrics": dict(metrics),
            "steps": state.global_step,
            "best_step": state.best_global_step,
            "best_metric": state.best_metric,
            "tokens": state.num_input_tokens_seen,
            "train_seconds": round(self.trainer.train_seconds, 2),
            "startup_seconds": {k: round(v, 2) for k, v in self._clock.parts.items()},
            "skipped_steps": self.trainer.skipped_steps,
            "ranks": gather_over_ranks(self._describe_rank()),
            **({} if self._fit is None else {"plan": self._fit.plan.summary()}),
        }

    def _describe_rank(self) -> dict[str, int]:
        """What this process did since it started: tokens learnt from, and its GPU's peak memory."""
        import torch

        device = self.model.device
        peak = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else 0
        return {"tokens": self.trainer.rank_tokens, "peak_bytes": peak}

    @property
    def num_scored(self) -> int:
        """How many validation sentences `score` extracts from: the first 200 at most."""
        return min(len(self.validation_examples), EVAL_SENTENCES)

    def score(self) -> dict[str, float]:
        """Strict precision, recall and F1 of the model as it is on validation sentences."""
        from tripletune.training.acceleration import plain_attention
        from tripletune.training.scoring import score_model

        with plain_attention(self.model):
            return score_model(
                self.model,
                self.tokenizer,
                self.validation_examples[: self.num_scored],
                max_new_tokens=self.settings.max_target_length,
                relations=self.schema,
                relations_per_prompt=self.settings.relations_per_prompt,
                bidirectional_prompt=self.settings.bidirectional_prompt,
                halving=not self.settings.fsdp,
                use_cuda_graphs=not self.settings.fsdp,
                batch_size=16 if self._fit is None else self._fit.plan.generation_batch,
            )

    def extract(self, texts: Sequence[str]) -> list[Any]:
        """The `Extraction` of each text by the model as it is; with FSDP all processes call it."""
        from tripletune.extraction.extractor import Extractor
        from tripletune.training.acceleration import plain_attention
        from tripletune.training.sharding import lockstep

        with plain_attention(self.model), lockstep(self.model):
            extractor = Extractor(
                self.model.eval(),
                self.tokenizer,
                max_new_tokens=self.settings.max_target_length,
                relations=self.schema,
                relations_per_prompt=self.settings.relations_per_prompt,
                bidirectional_prompt=self.settings.bidirectional_prompt,
                use_cuda_graphs=not self.settings.fsdp,
            )
            return extractor.extract(texts)

    def _build_trainer(self, stop: Any = None) -> Any:
        from tripletune.data.collate import PackedCollator, PaddedCollator
        from tripletune.models.bidirectional_prompt import read_prompts_both_ways
        from tripletune.models.loading import find_position_scheme
        from tripletune.training.arguments import build_training_arguments
        from tripletune.training.callbacks import (
            EarlyStoppingCallback,
            HistoryCallback,
            ProgressCallback,
        )
        from tripletune.training.sharded_trainer import ShardedTrainer
        from tripletune.training.trackers import TrackerCallback, choose_trackers
        from tripletune.training.trainer import TripletTrainer

        settings = self.settings
        on_gpu = self.model.device.type == "cuda"
        self._speed_up()
        packing = on_gpu if settings.packing is None else settings.packing
        base = self.model.get_base_model()
        scheme: Any = find_position_scheme(base)
        if settings.bidirectional_prompt:
            read_prompts_both_ways(base)  # after all else that replaces its forward pass
        pad_token_id = self.tokenizer.pad_token_id
        counts = on_gpu and getattr(base, "takes_label_count", False)
        collator: Any = PaddedCollator(pad_token_id, scheme, counts)
        if packing:
            collator = PackedCollator(pad_token_id, scheme, 128 if on_gpu else 1, counts)
        if self._fit is not None:
            with self._clock.measure("编译与试算" if self._fit.plan.policy.compiled else "试算"):
                settings = self._fit.settle(self.model, collator, self._train_set).apply(settings)
        trainer_class = ShardedTrainer if settings.fsdp else TripletTrainer
        trainer = trainer_class(
            model=self.model,
            args=build_training_arguments(settings, num_examples=len(self._train_set)),
            train_dataset=self._train_set,
            eval_dataset=self._validation_set,
            data_collator=collator,
            processing_class=self.tokenizer,
            scorer=self.score,
            group_by_length=not packing,
            balance_tokens=packing,
            stop=stop,
            save_minutes=settings.save_minutes,
            clock=self._clock,
        )
        from transformers import trainer_callback as stock

        trainer.remove_callback(stock.ProgressCallback)
        trainer.remove_callback(stock.PrinterCallback)
        trainer.add_callback(ProgressCallback())
        trainer.add_callback(HistoryCallback(settings.output_dir))
        for name in choose_trackers(settings.report_to):
            trainer.add_callback(TrackerCallback(name, settings))
        if settings.early_stopping_patience is not None:
            trainer.add_callback(EarlyStoppingCallback(settings.early_stopping_patience))
        return trainer

    def _speed_up(self) -> None:
        from tripletune.training.acceleration import speed_up_network

        compiled = self._fit is not None and self._fit.plan.policy.compiled
        used = speed_up_network(self.model, compiled=compiled)
        if used:
            logger.info("加速: %s", ", ".join(used))
        if self.model.device.type != "cuda":
            return
        if self.settings.offload_activations:
            from tripletune.training.offload import offload_activations

            offload_activations(self.model.get_base_model())
        if not compiled and not self.settings.fsdp:
            logger.info("训练量小，不编译模型 (编译约需半分钟)")

    def _report_speed(self) -> None:
        """Logs tokens a second and, on a GPU, the peak memory beside what was predicted."""
        import torch

        seconds = self.trainer.train_seconds
        tokens = self.trainer.state.num_input_tokens_seen
        line = (
            f"训练 {seconds:.1f} 秒, {tokens:,} tokens, {tokens / max(seconds, 1e-9):,.0f} tokens/s"
        )
        if self._fit is not None:
            peak = torch.cuda.max_memory_allocated(self.model.device)
            planned = self._fit.plan.total
            line += f", 显存峰值 {peak / 2**30:.2f} GiB (预计 {planned / 2**30:.2f} GiB)"
        logger.info(self._clock.render())
        logger.info(line)

    def _save_extraction_settings(self) -> None:
        """Writes what constrained extraction reads: the relations learnt, and a text's length."""
        from tripletune.data.relation_schema import save_schema
        from tripletune.extraction.loading import save_reading_settings

        save_schema(self.schema, self.settings.output_dir / "schema.json")
        save_reading_settings(
            self.settings.output_dir,
            (example.text for example in self.train_examples),
            relations_per_prompt=self.settings.relations_per_prompt,
            bidirectional_prompt=self.settings.bidirectional_prompt,
        )

    def _save(self) -> dict[str, float]:
        settings = self.settings
        records = [r for r in self.trainer.state.log_history if "eval_loss" in r]
        metrics: Mapping[str, float] = records[-1] if records else {}
        if self.trainer.is_world_process_zero():
            self.model.save_pretrained(
                settings.output_dir, safe_serialization=settings.save_safetensors
            )
            self.tokenizer.save_pretrained(settings.output_dir)
            self._save_extraction_settings()
            self.trainer.state.save_to_json(str(settings.output_dir / "trainer_state.json"))
            logger.info("模型保存在 %s", settings.output_dir)
            self._report_speed()
        return dict(metrics)


def print_line(text: str) -> None:
    """Writes a line to standard output, as the guide shows it, without a log prefix."""
    os.write(1, (text + "\n").encode())
