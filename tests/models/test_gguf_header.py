from __future__ import annotations

import os

import pytest
from transformers import AutoConfig

from tests.models.tiny_gguf import write_tiny_gguf
from tripletune.models.gguf_header import forget_headers, headers_read_once

gguf = pytest.importorskip("gguf")
T = gguf.GGUFValueType


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
    kinds = set()
    for name, field in expected.fields.items():
        ours = reader.fields[name]
        assert ours.contents() == field.contents(), name
        assert (ours.data, ours.types) == (field.data, field.types), name
        assert [part.tolist() for part in ours.parts] == [p.tolist() for p in field.parts], name
        assert [part.dtype for part in ours.parts] == [part.dtype for part in field.parts], name
        kinds |= set(field.types)
    assert kinds >= {T.STRING, T.FLOAT32, T.ARRAY}, "no such array; the test shows little"
    assert [t.name for t in reader.tensors] == [t.name for t in expected.tensors]
    for ours, theirs in zip(reader.tensors, expected.tensors, strict=True):
        assert (ours.data == theirs.data).all()


def test_package_reads_for_itself_outside(path):
    plain = gguf.GGUFReader
    with pytest.raises(OSError, match="missing"), headers_read_once():
        AutoConfig.from_pretrained(path.parent, gguf_file="missing.gguf", local_files_only=True)
    assert gguf.GGUFReader is plain
    assert gguf.GGUFReader(path) is not gguf.GGUFReader(path)


@pytest.mark.parametrize("kept", [0.05, 0.2, 0.5])
def test_header_that_is_cut_off_is_an_error_at_once(path, kept):
    content = path.read_bytes()
    reader = gguf.GGUFReader(path)
    end = int(kept * reader.data_offset)
    del reader
    path.write_bytes(content[:end])
    with pytest.raises((IndexError, ValueError)), headers_read_once():
        gguf.GGUFReader(path)


def test_count_that_no_file_could_hold_is_an_error_at_once(path):
    content = bytearray(path.read_bytes())
    key = b"tokenizer.ggml.tokens"
    count = content.index(key) + len(key) + 8  # behind the types of the field and of its items
    content[count : count + 8] = (2**60).to_bytes(8, "little")
    path.write_bytes(content)
    message = r"array of 1152921504606846976 strings at byte"
    with pytest.raises(IndexError, match=message), headers_read_once():
        gguf.GGUFReader(path)
