"""The guide's scripts, each run as a process of its own in a user's folder."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

import pytest

from tests.e2e.project import SCRIPTS, VALIDATION_LINES, check, make_project, run_python

ADAPTER = "output/chatglm-6b-triplet-qlora"


@pytest.mark.parametrize(
    ("script", "flags", "words"),
    [
        ("train_with_config.py", ["--config", "huge"], ["--config", "'huge'", "medium"]),
        ("train_with_config.py", ["--epoch", "3"], ["--epoch", "(did you mean) --epochs"]),
        ("train_with_config.py", ["--batch_size", "x"], ["--batch_size", "'x'"]),
        ("train_pure_python.py", ["--lora_rank", "4"], ["--lora_rank", "(did you mean) --lora_r"]),
        ("example_train.py", ["--example", "5"], ["--example", "'5'"]),
        ("inference_triplet.py", ["--out", "x"], ["--out", "(did you mean) --output"]),
        ("evaluate_triplet.py", ["--adaptor", "x"], ["--adaptor", "(did you mean) --adapter"]),
        ("data/generate_triplet_data.py", ["--sead", "1"], ["--sead", "(did you mean) --seed"]),
    ],
)
def test_script_makes_a_wrong_flag_one_line(project, script, flags, words):
    result = run_python(script, *flags, cwd=project)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.count("\n") == 1
    assert [word for word in words if word not in result.stderr] == []


def test_scripts_import_no_torch_before_they_need_it(project):
    names = [Path(name).stem for name in SCRIPTS if "/" not in name]
    assert len(names) == 5
    code = (
        f"import sys, {', '.join(names)}; assert not {{'torch', 'transformers'}} & set(sys.modules)"
    )
    check(run_python("-c", code, cwd=project))


@pytest.mark.parametrize(
    "script", ["train_with_config.py", "inference_triplet.py", "evaluate_triplet.py"]
)
def test_script_explains_its_flags(project, script):
    out = check(run_python(script, "--help", cwd=project))
    assert out.startswith(f"usage: {script} ")


def test_training_prints_the_guides_lines_in_order(training_output):
    expected = [
        "INFO - 加载分词器...",
        "INFO - 设置量化配置...",
        "INFO - 加载基础模型...",
        "INFO - 设置LoRA配置...",
        "trainable params: 1,024 || all params: 361,984 || trainable%: 0.2829",
        "INFO - 准备训练数据集...",
        "INFO - 加载了 8 条数据从 data/train_triplet.jsonl",
        "INFO - 准备验证数据集...",
        "INFO - 加载了 2 条数据从 data/val_triplet.jsonl",
        "INFO - 开始训练...",
        f"INFO - 模型保存在 {ADAPTER}",
    ]
    assert [line for line in training_output.splitlines() if line in expected] == expected


def test_training_prints_losses_and_evaluations_as_dictionaries(training_output):
    losses = re.findall(
        r"^\{'loss': [\d.]+, .*'learning_rate': [\d.e-]+, 'epoch': [\d.]+\}$",
        training_output,
        re.MULTILINE,
    )
    evaluations = re.findall(
        r"^\{'eval_loss': [\d.]+, .*'eval_runtime': [\d.]+, 'epoch': [\d.]+\}$",
        training_output,
        re.MULTILINE,
    )
    assert len(losses) == 2
    assert len(evaluations) == 1


def test_training_prints_f1_before_and_after(training_output):
    assert "INFO - 微调前 F1: 0.0000 (验证集 2 条)\n" in training_output
    assert re.search(r"^INFO - 微调后 F1: [\d.]+ ", training_output, re.MULTILINE)


def test_training_shows_no_remarks_of_other_libraries(training_output):
    ours = re.compile(r"INFO - |trainable params|\{'|文本: |  |更多: |输出目录: ")
    assert [line for line in training_output.splitlines() if not ours.match(line)] == []


def test_training_writes_the_guides_folder(project, training_output):
    names = {path.name for path in (project / ADAPTER).iterdir()}
    assert {
        "adapter_config.json",
        "adapter_model.safetensors",
        "tokenizer_config.json",
        "ice_text.model",
        "training_history.json",
        "training_curves.png",
    } <= names
    config = json.loads((project / ADAPTER / "adapter_config.json").read_text(encoding="utf-8"))
    assert config["base_model_name_or_path"] == "THUDM/chatglm-6b"
    assert (config["r"], config["lora_alpha"], config["target_modules"]) == (
        2,
        16,
        ["query_key_value"],
    )


def test_inference_extracts_from_arguments_and_a_file(project, training_output):
    (project / "sentences.txt").write_text("他走了。\n她来了。\n", encoding="utf-8")
    result = run_python(
        *("inference_triplet.py", "苹果公司是一家美国的科技公司。"),
        *("--input", "sentences.txt", "--output", "triplets.jsonl"),
        cwd=project,
    )
    assert check(result) == "3 条结果写入 triplets.jsonl\n"
    assert result.stderr == f"加载 {ADAPTER} ...\n"
    lines = (project / "triplets.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["text"] for line in lines] == [
        "苹果公司是一家美国的科技公司。",
        "他走了。",
        "她来了。",
    ]


def test_inference_without_arguments_is_a_dialogue(project, training_output):
    out = check(run_python("inference_triplet.py", cwd=project, stdin="2\n你好。\nquit\n不要。\n"))
    samples = re.findall(r"^  (\d)\. (.+)$", out, re.MULTILINE)
    assert [number for number, _ in samples] == ["1", "2", "3", "4", "5"]
    assert re.findall(r"文本: (.+)", out) == [samples[1][1], "你好。"]


def test_evaluation_prints_the_guides_figures_and_writes_a_report(project, training_output):
    result = run_python("evaluate_triplet.py", cwd=project)
    out = check(result)
    for name in ("总样本数: 2", "精确率: ", "召回率: ", "F1分数: ", "完全匹配准确率: "):
        assert re.search(rf"^{name}", out, re.MULTILINE), name
    assert re.search(r"^标注三元组: 1  预测三元组: \d+  正确: 0$", out, re.MULTILINE)
    assert "[例子] 庚水公司位于辛安市。" in out
    folder = project / ADAPTER / "evaluation"
    assert {"report.html", "report.md", "report.json", "predictions.jsonl"} <= {
        path.name for path in folder.iterdir()
    }
    texts = [json.loads(line)["text"] for line in VALIDATION_LINES.splitlines()]
    predictions = (folder / "predictions.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["text"] for line in predictions] == texts


def test_train_pure_python_needs_no_flags(tmp_path, tiny_model_dir):
    project = make_project(tmp_path, tiny_model_dir)
    out = check(run_python("train_pure_python.py", cwd=project))
    assert "微调后 F1" in out
    assert (project / ADAPTER / "adapter_model.safetensors").is_file()
    config = json.loads((project / ADAPTER / "adapter_config.json").read_text(encoding="utf-8"))
    assert (config["r"], config["base_model_name_or_path"]) == (8, "models/clone")


def test_train_pure_python_makes_missing_data_before_it_needs_the_model(tmp_path, tiny_model_dir):
    project = make_project(tmp_path, tiny_model_dir)
    for path in (project / "data").glob("*.jsonl"):
        path.unlink()
    result = run_python("train_pure_python.py", "--model_name", "./no-model", cwd=project)
    assert result.returncode == 2
    assert "'./no-model'" in result.stderr
    assert count_lines(project / "data" / "train_triplet.jsonl") == 903
    assert count_lines(project / "data" / "val_triplet.jsonl") == 101


def test_generating_data_gives_the_same_bytes_again(tmp_path, tiny_model_dir):
    data = make_project(tmp_path, tiny_model_dir) / "data"
    digests = []
    for _ in range(2):
        check(run_python("generate_triplet_data.py", cwd=data))
        digests.append([hash_file(data / f"{name}_triplet.jsonl") for name in ("train", "val")])
    assert digests[0] == digests[1]
    assert count_lines(data / "train_triplet.jsonl") == 903
    assert count_lines(data / "val_triplet.jsonl") == 101


def test_example_train_runs_what_is_chosen_from_the_menu(project):
    out = check(run_python("example_train.py", cwd=project, stdin="9\n3\n"))
    titles = ["基础训练", "自定义配置", "快速测试", "编程式配置"]
    assert re.findall(r"^  \d\. (.+)$", out, re.MULTILINE) == titles
    assert "没有示例 '9'" in out
    assert "运行示例 3: 快速测试" in out
    assert (project / "output" / "fast-test" / "adapter_model.safetensors").is_file()


@pytest.mark.parametrize("answers", ["", "q\n"])
def test_example_train_ends_without_a_choice(project, answers):
    out = check(run_python("example_train.py", cwd=project, stdin=answers))
    assert out.endswith("没有选择示例\n")


def count_lines(path: Path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines())


def hash_file(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_torchrun_trains_with_one_process_speaking(project):
    out = check(
        run_python(
            *("-m", "torch.distributed.run", "--nproc_per_node=2", "train_with_config.py"),
            *("--config", "large", "--model_name", "THUDM/chatglm-6b", "--max_steps", "1"),
            *("--output_dir", "output/torchrun"),
            cwd=project,
        )
    )
    assert out.count("INFO - 开始训练...") == 1
    assert (project / "output/torchrun/adapter_model.safetensors").is_file()


def test_adapter_is_a_bin_file_on_request(project):
    check(
        run_python(
            *("train_with_config.py", "--config", "fast", "--model_name", "THUDM/chatglm-6b"),
            *("--max_steps", "1", "--save_safetensors", "false", "--output_dir", "output/bin"),
            cwd=project,
        )
    )
    written = {path.name for path in (project / "output/bin").glob("adapter_model.*")}
    assert written == {"adapter_model.bin"}
