from __future__ import annotations

import os

import pytest
from transformers import AutoConfig

from tests.models.tiny_gguf import write_tiny_gguf
from tripletune.models.gguf_header import forget_headers, headers_read_once

gguf = pytest.importorskip("gguf")


@pytest.fixture
def path(tmp_path):
    forget_headers()
    yield write_tiny_gguf(tmp_path / "tiny.gguf")
    forget_headers()


def test_reader_of_a_file_is_made_once_until_the_file_changes(path):
    with headers_read_once():
        first = gguf.GGUFReader(path)
        assert gguf.GGUFReader(str(path)) is first
        os.utime(path, ns=(1, 1))
        assert gguf.GGUFReader(path) is not first


def test_reader_has_what_the_package_reads(path):
    expected = gguf.GGUFReader(path)
    with headers_read_once():
        reader = gguf.GGUFReader(path)
    assert list(reader.fields) == list(expected.fields)
    for name, field in expected.fields.items():
        assert reader.fields[name].contents() == field.contents(), name
    assert [t.name for t in reader.tensors] == [t.name for t in expected.tensors]
    for ours, theirs in zip(reader.tensors, expected.tensors, strict=True):
        assert (ours.data == theirs.data).all()


def test_package_reads_for_itself_outside(path):
    plain = gguf.GGUFReader
    with pytest.raises(OSError, match="missing"), headers_read_once():
        AutoConfig.from_pretrained(path.parent, gguf_file="missing.gguf", local_files_only=True)
    assert gguf.GGUFReader is plain
    assert gguf.GGUFReader(path) is not gguf.GGUFReader(path)
