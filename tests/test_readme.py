"""What the two READMEs say about commands, flags, presets and files is what there is."""

from __future__ import annotations

import inspect
import re

import pytest

from tripletune.cli.generate import generate
from tripletune.cli.main import COMMANDS
from tripletune.cli.train import SAMPLE_SENTENCE
from tripletune.config import PRESET_VALUES, TrainingSettings, build_settings
from tripletune.data.generator.dataset import DatasetPlan, write_dataset
from tripletune.data.generator.domain_files import load_domain

LANGUAGES = ("README.md", "README_zh.md")


@pytest.fixture(params=LANGUAGES)
def readme(request, repository) -> str:
    return (repository / request.param).read_text(encoding="utf-8")


def read_rows(text: str) -> list[list[str]]:
    """The cells of every table row."""
    return [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in text.splitlines()
        if line.startswith("|")
    ]


def test_readme_lists_every_setting(readme):
    named = set(re.findall(r"`(\w+)`", " ".join(row[0] for row in read_rows(readme))))
    assert [name for name in TrainingSettings.model_fields if name not in named] == []


def test_readme_lists_every_command(readme):
    rows = [row[0] for row in read_rows(readme)]
    listed = {match for row in rows for match in re.findall(r"`tripletune (\w+)", row)}
    assert listed == set(COMMANDS)


@pytest.mark.parametrize("name", PRESET_VALUES)
def test_readme_presets_are_those_of_the_package(readme, name):
    (row,) = [row for row in read_rows(readme) if row[0] == f"`{name}`"]
    settings = build_settings(PRESET_VALUES[name])
    assert row[2:] == [
        f"{settings.batch_size} × {settings.gradient_accumulation_steps}",
        f"{settings.lora_r} / {settings.lora_alpha}",
        f"{settings.max_source_length} / {settings.max_target_length}",
        f"{settings.num_epochs:g}",
    ]


def test_readme_names_only_flags_that_exist(readme):
    flags = set(re.findall(r"(?<![\w-])--(\w+)", readme))
    elsewhere = {"config", "epochs", "example", "nproc_per_node", "adapter", "input", "output"}
    elsewhere |= {"gold", "html", "resume", "debug", "workers", "gpu_memory", "against", "schema"}
    elsewhere |= {"min_confidence", "overwrite", "report", "vote_share", "votes"}
    elsewhere |= {"no", "nnodes", "rdzv_backend", "rdzv_endpoint"}  # of torchrun
    elsewhere |= {"dist"}  # of pytest
    elsewhere |= {
        "free",
        "batch_sizes",
        "dev",
        "parts",
        "family",
        "fsdp_steps",
        "gigabytes",
        "held_out",
        "sentences",
        "kills",
        "model",
        "repeats",
        "runs",
        "save_kills",
        "steps",
        "train",
        "variants",
        "vocabulary",
    }  # of the benchmarks
    # Of `tripletune data generate`, up to the first hyphen.
    elsewhere |= {name.split("_")[0] for name in inspect.signature(generate).parameters} | {"help"}
    assert flags - elsewhere - set(TrainingSettings.model_fields) == set()


def test_readme_names_only_files_that_exist(readme, repository):
    tree = readme[readme.index("train_pure_python.py      ") : readme.index("tests/  ")]
    package = tree[tree.index("src/tripletune/") : tree.index("benchmarks/")]
    inside = re.findall(r"^  (\S+)", package, re.MULTILINE)
    outside = re.findall(r"^(\S+)", tree, re.MULTILINE)
    paths = [f"src/tripletune/{name}" for name in inside] + outside
    paths += re.findall(r"python ((?:benchmarks|data|scripts)/\w+\.py)", readme)
    assert len(paths) > 20
    assert [path for path in paths if not (repository / path).exists()] == []


def test_readme_holds_the_guides_snippets(readme):
    from tests.e2e.test_snippets import INTERACTIVE, PROGRAMMATIC

    assert PROGRAMMATIC in readme
    assert f"import tripletune\n{INTERACTIVE}" in readme


def test_readmes_show_the_same_code(repository):
    english, chinese = (
        re.findall(r"```python\n(.*?)```", (repository / name).read_text("utf-8"), re.DOTALL)
        for name in LANGUAGES
    )
    assert len(english) == 4
    assert english == chinese


def test_readme_templates_generate(readme, tmp_path):
    block = next(
        text for text in re.findall(r"```json\n(.*?)```", readme, re.DOTALL) if "names_file" in text
    )
    (tmp_path / "templates.jsonl").write_text(block, encoding="utf-8")
    (tmp_path / "symptoms.txt").write_text(
        "发热 咳嗽 头痛 乏力 腹痛 恶心".replace(" ", "\n"), "utf-8"
    )
    domain = load_domain(tmp_path / "templates.jsonl", None, None)
    plan = DatasetPlan(30, 10, 10, domain=domain)
    files = write_dataset(plan, tmp_path)
    assert [file.num_examples for file in files] == [30, 10, 10]
    assert files[0].num_relations == 2


def test_readme_shows_the_sentence_that_is_offered(readme):
    assert f"回车使用: {SAMPLE_SENTENCE})" in readme
