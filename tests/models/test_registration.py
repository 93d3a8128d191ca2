"""`import tripletune` before or after transformers, and no remote code either way."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SNIPPETS = {
    "tripletune first": "import tripletune\nfrom transformers import AutoTokenizer, AutoModel",
    "transformers first": "from transformers import AutoTokenizer, AutoModel\nimport tripletune",
    "only tokenizer": "import tripletune\nfrom transformers import AutoTokenizer",
    "only model": "import tripletune\nfrom transformers import AutoModel",
    "causal class": "import tripletune\nfrom transformers import AutoModelForCausalLM as AutoModel",
}


def run(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture(scope="module")
def hostile_folder(shared_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An official folder whose own code writes a file when it is run."""
    folder = tmp_path_factory.mktemp("hostile")
    for source in ("references/chatglm-6b", "tokenizers/chatglm-6b"):
        for name in ("model.safetensors", "config.json", "ice_text.model", "tokenizer_config.json"):
            path = shared_dir / source / name
            if path.is_file() and not (folder / name).exists():
                shutil.copy(path, folder)
    for kind in ("configuration", "modeling", "tokenization"):
        code = f"open({str(folder / 'executed')!r}, 'w').close()\n"
        (folder / f"{kind}_chatglm.py").write_text(code, encoding="utf-8")
    assert "auto_map" in json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return folder


@pytest.mark.parametrize("order", SNIPPETS)
@pytest.mark.parametrize("trust", ["", ", trust_remote_code=True"])
def test_auto_classes_use_ours(hostile_folder, order, trust):
    code = SNIPPETS[order] + "\n"
    expected = []
    for name in ("AutoTokenizer", "AutoModel"):
        if name in code:
            loaded = f"{name}.from_pretrained({str(hostile_folder)!r}{trust})"
            code += f"print(type({loaded}).__name__)\n"
            expected.append(
                "ChatGLMTokenizer" if name == "AutoTokenizer" else "ChatGLMForConditionalGeneration"
            )
    assert run(code).split() == expected
    assert not (hostile_folder / "executed").exists()


def test_import_loads_neither_torch_nor_transformers():
    code = "import sys, tripletune; print({'torch', 'transformers'} & set(sys.modules))"
    assert run(code) == "set()"
