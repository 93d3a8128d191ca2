"""The guide's Python: its two snippets as printed, the examples, and what a full model prints."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoModel

import example_train
import train_with_config
from config.train_config_simple import FastTrainingConfig, TrainingConfig
from tests.e2e.project import check, run_python
from tripletune.training.adapters import add_lora, count_parameters, render_parameter_line

PROGRAMMATIC = """\
from config.train_config_simple import TrainingConfig
from train_with_config import ChatGLMTrainer

# 创建配置
config = TrainingConfig()
config.NUM_EPOCHS = 2
config.BATCH_SIZE = 1
config.LORA_R = 4

# 开始训练
trainer = ChatGLMTrainer(config)
trainer.setup_model_and_tokenizer()
trainer.prepare_datasets()
trainer.train()
"""
INTERACTIVE = """\
from transformers import AutoTokenizer, AutoModel
from peft import PeftModel

# 加载模型
base_model = AutoModel.from_pretrained("THUDM/chatglm-6b", trust_remote_code=True)
model = PeftModel.from_pretrained(base_model, "output/chatglm-6b-triplet-qlora")
tokenizer = AutoTokenizer.from_pretrained("THUDM/chatglm-6b", trust_remote_code=True)

# 测试推理
text = "苹果公司是一家美国的科技公司。"
prompt = f"请从以下文本中抽取三元组，格式为(主体, 关系, 客体):\\n{text}"
response, history = model.chat(tokenizer, prompt, history=[])
print(response)
"""


@pytest.mark.parametrize("snippet", [PROGRAMMATIC, INTERACTIVE], ids=["programmatic", "chat"])
def test_snippets_are_those_of_the_guide(snippet, shared_dir):
    guide = "".join(path.read_text(encoding="utf-8") for path in (shared_dir / "guide").iterdir())
    assert snippet in guide


def test_programmatic_snippet(project):
    (project / "mine.py").write_text(PROGRAMMATIC, encoding="utf-8")
    out = check(run_python("mine.py", cwd=project))
    lines = [
        "INFO - 加载分词器...",
        "trainable params: 2,048 || all params: 363,008 || trainable%: 0.5642",
        "INFO - 开始训练...",
    ]
    assert [line for line in out.splitlines() if line in lines] == lines


def test_interactive_snippet(project, training_output):
    (project / "chat.py").write_text(
        "import tripletune\n" + INTERACTIVE + "print(history == [(prompt, response)])\n",
        encoding="utf-8",
    )
    # What a folder of the hub brings along; nothing of it may run.
    trap = 'raise SystemExit("remote code ran")\n'
    for name in ("modeling_chatglm.py", "tokenization_chatglm.py", "configuration_chatglm.py"):
        (project / "THUDM" / "chatglm-6b" / name).write_text(trap, encoding="utf-8")
    out = check(run_python("chat.py", cwd=project))
    assert out.endswith("True\n")


@pytest.mark.parametrize(
    ("family", "line"),
    [
        (
            "chatglm-6b",
            "trainable params: 3,670,016 || all params: 6,176,956,416 || trainable%: 0.05",
        ),
        (
            "chatglm2-6b",
            "trainable params: 1,949,696 || all params: 6,245,533,696 || trainable%: 0.03",
        ),
    ],
)
def test_full_size_model_prints_the_known_parameter_counts(family, line, shared_dir):
    config = AutoConfig.from_pretrained(shared_dir / "tokenizers" / family)
    with torch.device("meta"):
        model = AutoModel.from_config(config)
        settings = TrainingConfig().settings()
        adapted = add_lora(
            model,
            rank=settings.lora_r,
            alpha=settings.lora_alpha,
            dropout=settings.lora_dropout,
            target_modules=settings.lora_target_modules,
            model_name=family,
        )
    assert render_parameter_line(*count_parameters(adapted)).startswith(line)


@pytest.fixture
def examples(monkeypatch, tmp_path) -> list[TrainingConfig]:
    """Runs no training; what the examples would have trained with."""
    configs: list[TrainingConfig] = []
    monkeypatch.setattr(example_train, "train", configs.append)
    monkeypatch.setattr(example_train, "make_default_data", lambda: None)
    return configs


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        ("1", {"num_epochs": 3, "batch_size": 4, "lora_r": 8, "max_steps": -1}),
        ("2", {"num_epochs": 5, "batch_size": 2, "lora_r": 16, "max_steps": -1}),
        ("3", {"num_epochs": 1, "batch_size": 2, "lora_r": 8, "max_steps": 20}),
        ("4", {"num_epochs": 2, "batch_size": 1, "lora_r": 4, "max_steps": -1}),
    ],
)
def test_examples_train_with_their_settings(examples, monkeypatch, number, expected):
    monkeypatch.setattr("sys.argv", ["example_train.py", "--example", number])
    assert example_train.main() == 0
    (config,) = examples
    settings = config.settings()
    assert {name: getattr(settings, name) for name in expected} == expected
    assert settings.effective_batch_size >= 8


def test_examples_write_to_folders_of_their_own(examples):
    for _, run in example_train.EXAMPLES.values():
        run()
    folders = [config.OUTPUT_DIR for config in examples]
    assert len(folders) == len(set(folders)) == 4


def test_example_train_makes_the_default_data_once(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    made = []
    monkeypatch.setattr("data.generate_triplet_data.generate", made.append)
    example_train.make_default_data()
    assert made == [Path("data")]
    Path("data").mkdir()
    Path("data/train_triplet.jsonl").touch()
    example_train.make_default_data()
    assert made == [Path("data")]


def test_trainer_class_takes_a_configuration(monkeypatch):
    monkeypatch.setattr("tripletune.cli.train.set_up_logging", lambda: None)
    config = FastTrainingConfig()
    config.MODEL_NAME = "models/mine"
    config.SEED = 7
    settings = train_with_config.ChatGLMTrainer(config).settings
    assert (settings.model_name, settings.seed, settings.num_epochs) == ("models/mine", 7, 1)


def test_presets_of_the_script_are_the_classes_of_the_configuration_file():
    assert {name: config.__name__ for name, config in train_with_config.CONFIGS.items()} == {
        "small": "SmallGPUConfig",
        "medium": "MediumGPUConfig",
        "large": "LargeGPUConfig",
        "fast": "FastTrainingConfig",
    }


def test_configuration_file_names_only_fields_that_exist(repository):
    source = (repository / "config" / "train_config_simple.py").read_text(encoding="utf-8")
    names = re.findall(r"^    ([A-Z_]+) = ", source, re.MULTILINE)
    assert len(names) > 20
    assert [name for name in names if name.lower() not in TrainingConfig().fields()] == []
