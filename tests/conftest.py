from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

# How long a case takes depends on what else the machine does.
settings.register_profile("tripletune", deadline=None)
settings.load_profile("tripletune")

# Networks here are tiny: on a busy machine the threads of torch wait for one another at every
# operation, which makes some tests fifty times as slow. Set before torch is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the checkout."""
    return Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def shared_dir(repository: Path) -> Path:
    """The reference material that may lie beside the checkout; tests skip where it is absent."""
    folder = repository.parent / "shared"
    if not folder.is_dir():
        pytest.skip("reference material is not beside this checkout")
    return folder


@pytest.fixture(scope="session")
def tiny_model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ChatGLM-6B folder with random weights: 2 layers of width 64, the embedded vocabulary."""
    import torch

    from tripletune.models.chatglm import ChatGLMForConditionalGeneration
    from tripletune.models.configuration_chatglm import ChatGLMConfig
    from tripletune.models.loading import load_tokenizer

    folder = tmp_path_factory.mktemp("models") / "tiny-chatglm"
    tokenizer = load_tokenizer("embedded")
    config = ChatGLMConfig(
        vocab_size=-(-tokenizer.vocab_size // 16) * 16,
        hidden_size=64,
        num_layers=2,
        num_attention_heads=4,
        inner_hidden_size=128,
        max_sequence_length=512,
        mask_token_id=tokenizer.mask_token_id,
        gmask_token_id=tokenizer.gmask_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    torch.manual_seed(0)
    ChatGLMForConditionalGeneration(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory, tiny_model_dir: Path) -> Path:
    """A user's project folder: the scripts, a few lines of data, a tiny local model."""
    from tests.e2e.project import make_project

    return make_project(tmp_path_factory.mktemp("project"), tiny_model_dir)


@pytest.fixture(scope="session")
def training_output(project: Path) -> str:
    """What `train_with_config.py` printed in the project; its adapter lies under `output/`."""
    from tests.e2e.project import check, run_python

    flags = ["--config", "small", "--max_steps", "2", "--model_name", "THUDM/chatglm-6b"]
    flags += ["--epochs", "1", "--logging_steps", "1", "--lora_r", "2"]
    return check(run_python("train_with_config.py", *flags, cwd=project))
