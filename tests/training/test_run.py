from __future__ import annotations

import json
import logging
import shutil
import time
from pathlib import Path

import pytest
import torch

from tests.training.plan_cases import CARD, build_run
from tripletune.config import TrainingSettings
from tripletune.errors import AdapterError, ConfigError, DataError, ModelError, OutputError
from tripletune.models.loading import load_tokenizer
from tripletune.schema import Example, Triplet
from tripletune.training import scoring
from tripletune.training.fitting import GpuFit
from tripletune.training.run import TrainingRun

EXAMPLES = [
    Example("甲公司位于乙市。", (Triplet("甲公司", "位于", "乙市"),)),
    Example("丙毕业于丁大学。", (Triplet("丙", "毕业院校", "丁大学"),)),
    Example("今天天气不错。"),
    Example("《戊》的作者是己。", (Triplet("戊", "作者", "己"),)),
]
LINES = "".join(example.to_json() + "\n" for example in EXAMPLES)


@pytest.fixture
def settings(tmp_path, tiny_model_dir) -> TrainingSettings:
    for name in ("train", "val"):
        (tmp_path / f"{name}.jsonl").write_text(LINES, encoding="utf-8")
    return TrainingSettings(
        model_name=str(tiny_model_dir),
        train_file=tmp_path / "train.jsonl",
        validation_file=tmp_path / "val.jsonl",
        output_dir=tmp_path / "out",
        batch_size=2,
        gradient_accumulation_steps=1,
        learning_rate=5e-3,
        max_steps=4,
        eval_steps=2,
        save_steps=2,
        logging_steps=1,
        load_best_model_at_end=False,
    )


@pytest.fixture
def short_answers(monkeypatch):
    """No generation: an untrained model would write on to its limit."""
    nothing = {"precision": 0.0, "recall": 0.0, "f1": 0.0}
    monkeypatch.setattr(scoring, "score_model", lambda *parts, **options: nothing)


def write_checkpoint(folder: Path, step: int) -> Path:
    path = folder / f"checkpoint-{step}"
    path.mkdir(parents=True)
    (path / "trainer_state.json").write_text("{}", encoding="utf-8")
    return path


def read_adapter(folder: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return load_file(folder / "adapter_model.safetensors")


def test_run_refuses_the_output_folder_before_it_loads_a_model(settings, monkeypatch):
    settings.output_dir.touch()
    monkeypatch.setattr("tripletune.models.loading.load_tokenizer", lambda *a, **k: 1 / 0)
    with pytest.raises(OutputError, match="is a file"):
        TrainingRun(settings).setup_model_and_tokenizer()


def test_run_refuses_what_is_no_checkpoint_before_it_loads_a_model(settings, monkeypatch):
    monkeypatch.setattr("tripletune.models.loading.load_tokenizer", lambda *a, **k: 1 / 0)
    with pytest.raises(AdapterError, match="resume_from_checkpoint: 'none' is no checkpoint"):
        TrainingRun(settings.changed(resume_from_checkpoint="none")).setup_model_and_tokenizer()


def test_run_says_that_there_is_no_such_model(settings, tmp_path):
    changed = settings.changed(model_name=str(tmp_path / "none"))
    with pytest.raises(ModelError, match=r"model: '.*none' is no folder here"):
        TrainingRun(changed).setup_model_and_tokenizer()


def test_run_says_that_a_layer_does_not_exist(settings):
    changed = settings.changed(lora_target_modules=("q_proj",))
    with pytest.raises(ConfigError, match="'q_proj' matches no linear layer"):
        TrainingRun(changed).setup_model_and_tokenizer()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (LINES.encode() + b'{"text": \n', r"train\.jsonl:5: "),
        (b"", r"train\.jsonl: .*empty"),
        (LINES.encode("gb18030"), r"train\.jsonl.*UTF-8"),
        (LINES.encode() + b'{"text": "\xe7\x94\xb2", "triplets": [{"subject": "a"}]}\n', ":5: "),
        (LINES.replace("乙市", "").encode(), r"train\.jsonl:1: .*object"),
    ],
)
def test_run_names_file_and_line_of_bad_data(settings, content, message):
    settings.train_file.write_bytes(content)
    with pytest.raises(DataError, match=message):
        TrainingRun(settings).prepare_datasets()


def test_run_reads_each_file_once_and_before_the_model(settings, monkeypatch):
    from tripletune.models import loading
    from tripletune.training import run_data

    events = []
    read, load = run_data.load_examples, loading.load_model
    monkeypatch.setattr(run_data, "load_examples", lambda path: events.append(path) or read(path))
    monkeypatch.setattr(
        loading, "load_model", lambda *a, **k: events.append("model") or load(*a, **k)
    )
    TrainingRun(settings).prepare_datasets()
    assert events == [settings.train_file, settings.validation_file, "model"]


def test_run_says_that_nothing_fits(settings):
    changed = settings.changed(max_source_length=8)
    message = r"train\.jsonl: none of the 4 examples fits max_source_length=8 and max_target_length"
    with pytest.raises(DataError, match=message):
        TrainingRun(changed).prepare_datasets()


def test_run_reports_what_it_drops(settings, caplog):
    long = Example("很长的句子，" * 60 + "甲位于乙。", (Triplet("甲", "位于", "乙"),))
    settings.train_file.write_text(LINES + long.to_json() + "\n", encoding="utf-8")
    run = TrainingRun(settings.changed(max_source_length=100))
    run.prepare_datasets()
    warnings = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    (warning,) = [text for text in warnings if "也在训练集中" not in text]
    assert "共 5 条, 保留 4 条; 文本过长丢弃 1 条 (max_source_length=100)" in warning
    assert len(run._train_set) == 4


def test_run_logs_the_guides_lines(settings, caplog, capfd, short_answers):
    caplog.set_level(logging.INFO, logger="tripletune")
    TrainingRun(settings).train()
    lines = [
        "加载分词器...",
        "设置量化配置...",
        "加载基础模型...",
        "设置LoRA配置...",
        "准备训练数据集...",
        f"加载了 4 条数据从 {settings.train_file}",
        "准备验证数据集...",
        f"加载了 4 条数据从 {settings.validation_file}",
        "开始训练...",
    ]
    assert [message for message in caplog.messages if message in lines] == lines
    assert "trainable params: 4,096 || all params: 365,056 || trainable%: 1.1220" in (
        capfd.readouterr().out.splitlines()
    )


def test_run_counts_its_trial_as_part_of_the_start(settings, short_answers, monkeypatch):
    def settle(fit, *_):
        time.sleep(0.05)
        return fit.plan

    monkeypatch.setattr(GpuFit, "settle", settle)
    run = TrainingRun(settings)
    run._fit = GpuFit(build_run(batch_size=2), CARD, available=24 * 2**30)
    run.train()
    record = json.loads((settings.output_dir / "run.json").read_text("utf-8"))
    parts = record["result"]["startup_seconds"]
    assert list(parts)[-2:] == ["试算", "第一步"]
    assert parts["试算"] >= 0.05


def test_run_leaves_a_folder_that_peft_loads(settings, short_answers):
    from peft import PeftModel

    from tripletune.models.loading import load_model

    run = TrainingRun(settings)
    run.train()
    names = {path.name for path in settings.output_dir.iterdir()}
    assert {
        "adapter_config.json",
        "adapter_model.safetensors",
        "ice_text.model",
        "tokenizer_config.json",
        "training_history.json",
        "training_curves.png",
        "trainer_state.json",
    } <= names
    base = load_model(settings.model_name, quantize=False, device="cpu")
    loaded = PeftModel.from_pretrained(base, settings.output_dir)
    ours = {n: p for n, p in run.model.named_parameters() if "lora_" in n}
    theirs = {n: p for n, p in loaded.named_parameters() if "lora_" in n}
    assert set(ours) == set(theirs)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert any(p.abs().sum() > 0 for n, p in theirs.items() if "lora_B" in n)


def test_run_goes_on_as_if_it_had_not_been_interrupted(settings, short_answers, tmp_path):
    TrainingRun(settings).train()
    expected = read_adapter(settings.output_dir)
    history = json.loads((settings.output_dir / "training_history.json").read_text())
    resumed_dir = tmp_path / "resumed"
    shutil.copytree(settings.output_dir / "checkpoint-2", resumed_dir / "checkpoint-2")
    resumed = settings.changed(output_dir=resumed_dir, resume_from_checkpoint="auto")
    TrainingRun(resumed).train()
    actual = read_adapter(resumed_dir)
    assert {name: value.tolist() for name, value in actual.items()} == {
        name: value.tolist() for name, value in expected.items()
    }
    again = json.loads((resumed_dir / "training_history.json").read_text())
    assert [r["loss"] for r in again if "loss" in r] == [r["loss"] for r in history if "loss" in r]


def test_run_asks_at_extraction_what_it_asked_in_training(settings, monkeypatch):
    from tripletune.extraction import answering
    from tripletune.extraction.extractor import Extractor

    run = TrainingRun(settings.changed(relations_per_prompt=1, max_target_length=40))
    run.train()
    trained = {tuple(e.input_ids[: e.num_prompt_tokens]) for e in run._train_set.examples}
    asked = []
    generate = answering.iter_greedy

    def note(model, prompts, *rest, **options):
        asked.extend(map(tuple, prompts))
        return generate(model, prompts, *rest, **options)

    monkeypatch.setattr(answering, "iter_greedy", note)
    texts = [example.text for example in EXAMPLES]
    for extractor in (
        Extractor.from_pretrained(settings.output_dir, max_new_tokens=8),
        Extractor.from_pretrained(settings.output_dir, max_new_tokens=8, constrained=False),
        run,
    ):
        asked.clear()
        extractor.extract(texts)
        # Three relations, four texts, and one relation a prompt: all of them are asked. Training
        # asks about each text's own and as many others, in the same words.
        assert len(asked) == 12
        assert trained < set(asked)
    asked.clear()
    assert set(run.score()) == {"precision", "recall", "f1"}
    assert trained < set(asked)
    own = [{triplet.relation for triplet in example.triplets} for example in EXAMPLES]
    assert len(trained) == sum(min(3, max(1, 2 * len(relations))) for relations in own)


@pytest.fixture
def tiny_llama_dir(tmp_path) -> Path:
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = load_tokenizer("embedded")
    config = LlamaConfig(
        vocab_size=tokenizer.vocab_size, hidden_size=64, intermediate_size=64,
        num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    torch.manual_seed(0)
    LlamaForCausalLM(config).save_pretrained(tmp_path / "llama")
    tokenizer.save_pretrained(tmp_path / "llama")
    return tmp_path / "llama"


@pytest.mark.parametrize("packing", [False, True])
def test_run_reads_prompts_both_ways(settings, tiny_llama_dir, short_answers, packing):
    from tripletune.extraction.extractor import Extractor

    run = TrainingRun(
        settings.changed(
            model_name=str(tiny_llama_dir),
            bidirectional_prompt=True,
            packing=packing,
            lora_target_modules="all-linear",
        )
    )
    metrics = run.train()
    total, count = 0.0, 0
    with torch.no_grad():
        for example in run._validation_set.examples:
            place = torch.arange(len(example))
            seen = (place[:, None] >= place) | (place < example.num_prompt_tokens)
            ids = torch.tensor([example.input_ids])
            logits = run.model(ids, attention_mask=seen[None, None]).logits[0, :-1]
            labels = torch.tensor(example.labels)[1:]
            total += float(torch.nn.functional.cross_entropy(logits, labels, reduction="sum"))
            count += int((labels != -100).sum())
    assert metrics["eval_loss"] == pytest.approx(total / count, rel=1e-4)
    assert Extractor.from_pretrained(settings.output_dir).options.bidirectional_prompt


def test_run_says_that_a_model_reads_prompts_both_ways_as_it_is(settings, short_answers, caplog):
    caplog.set_level(logging.INFO, "tripletune")
    run = TrainingRun(settings.changed(bidirectional_prompt=True, max_steps=1))
    run.train()
    assert "这个模型的提示本来就是双向阅读的 (bidirectional_prompt)" in caplog.messages
    saved = json.loads((settings.output_dir / "extraction.json").read_text("utf-8"))
    assert saved["bidirectional_prompt"] is False


def test_run_scores_at_most_200_sentences(settings):
    run = TrainingRun(settings)
    assert run.num_scored == 0
    run.validation_examples = EXAMPLES * 60
    assert run.num_scored == 200
