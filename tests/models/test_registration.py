"""`import tripletune` before or after transformers, and no remote code either way."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from transformers import AutoModel, AutoTokenizer

from tripletune.errors import ModelError
from tripletune.models.chatglm2 import ChatGLM2ForConditionalGeneration
from tripletune.models.tokenization_chatglm2 import ChatGLM2Tokenizer

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


FILES = ("model.safetensors", "config.json", "tokenizer_config.json")
VOCABULARIES = {"chatglm-6b": "ice_text.model", "chatglm2-6b": "tokenizer.model"}


def make_hostile(folder: Path, shared_dir: Path, family: str) -> Path:
    """An official folder whose own code writes a file when it is run."""
    for source in (f"references/{family}", f"tokenizers/{family}"):
        for name in (*FILES, VOCABULARIES[family]):
            path = shared_dir / source / name
            if path.is_file() and not (folder / name).exists():
                shutil.copy(path, folder)
    for kind in ("configuration", "modeling", "tokenization"):
        code = f"open({str(folder / 'executed')!r}, 'w').close()\n"
        (folder / f"{kind}_chatglm.py").write_text(code, encoding="utf-8")
    assert "auto_map" in json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return folder


@pytest.fixture(scope="module")
def hostile_folder(shared_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_hostile(tmp_path_factory.mktemp("hostile"), shared_dir, "chatglm-6b")


@pytest.mark.parametrize("order", SNIPPETS)
def test_auto_classes_use_ours_whatever_is_trusted(hostile_folder, order):
    code = SNIPPETS[order] + "\n"
    expected = []
    for trust in ("", ", trust_remote_code=True"):
        for name in ("AutoTokenizer", "AutoModel"):
            if name in SNIPPETS[order]:
                loaded = f"{name}.from_pretrained({str(hostile_folder)!r}{trust})"
                code += f"print(type({loaded}).__name__)\n"
                expected.append(
                    {"AutoModel": "ChatGLMForConditionalGeneration"}.get(name, "ChatGLMTokenizer")
                )
    assert run(code).split() == expected
    assert not (hostile_folder / "executed").exists()


def test_auto_classes_use_ours_for_the_second_generation(shared_dir, tmp_path):
    folder = make_hostile(tmp_path, shared_dir, "chatglm2-6b")
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=True)
    model = AutoModel.from_pretrained(folder, trust_remote_code=True)
    assert type(tokenizer) is ChatGLM2Tokenizer
    assert type(model) is ChatGLM2ForConditionalGeneration
    assert not (folder / "executed").exists()


@pytest.mark.parametrize("bits", [4, 8])
def test_prequantised_folder_is_refused_and_its_code_not_run(shared_dir, tmp_path, bits):
    folder = make_hostile(tmp_path, shared_dir, "chatglm-6b")
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config |= {"quantization_bit": bits, "_name_or_path": f"THUDM/chatglm-6b-int{bits}"}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    message = rf"{re.escape(str(folder))}/config\.json: .* INT{bits} .* use 'THUDM/chatglm-6b',"
    with pytest.raises(ModelError, match=message):
        AutoModel.from_pretrained(folder, trust_remote_code=True)
    assert not (folder / "executed").exists()


def test_import_loads_neither_torch_nor_transformers():
    code = "import sys, tripletune; print({'torch', 'transformers'} & set(sys.modules))"
    assert run(code) == "set()"
