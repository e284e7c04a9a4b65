"""Headers of safetensors files: what the safetensors library refuses is refused here, in one line, and nothing else."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from prunelab.errors import CheckpointError
from prunelab.models.tensor_files import LARGEST_HEADER, TensorFiles

SINGLE = "model.safetensors"
TENSORS = {
    "a": torch.arange(6.0).reshape(2, 3),
    "b": torch.zeros(0, 4),
    "c": torch.arange(5),
    "d": torch.ones(3).half(),
}


def parts(path: Path) -> tuple[dict[str, Any], bytes]:
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def write(path: Path, header: str, data: bytes) -> None:
    text = header.encode("utf-8", "surrogatepass")
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)


def by_the_library(path: Path) -> dict[str, tuple[int, ...]] | None:
    """Shapes by name as the library reads them; None where it refuses."""
    try:
        with safe_open(path, framework="pt") as file:
            return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError):
        return None


def here(folder: Path) -> dict[str, tuple[int, ...]] | None:
    """Shapes by name as they are read here; None where they are refused in one line."""
    try:
        return {name: tensor.shape for name, tensor in TensorFiles.open(folder).tensors.items()}
    except CheckpointError as error:
        line = str(error)
    assert "\n" not in line
    assert len(line) < 1000
    return None


numbers = st.one_of(st.integers(-9, 90), st.sampled_from([2**31, 2**63, 2**64, 10**30, 1.5, None, "4", True]))
values = st.one_of(
    numbers, st.lists(numbers, max_size=3), st.sampled_from(["F32", "F16", "I64", "BF16", "U8", "F8_E4M3", "X", ""]),
    st.dictionaries(st.sampled_from(["dtype", "shape", "data_offsets"]), st.lists(numbers, max_size=2), max_size=3),
)  # fmt: skip


@settings(
    max_examples=300, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    tensor=st.sampled_from(sorted(TENSORS)), field=st.sampled_from(["dtype", "shape", "data_offsets", "more", None]),
    value=values, cut=st.integers(-12, 12),
)  # fmt: skip
def test_a_changed_header_is_read_as_the_library_reads_it_or_refused(
    tensor: str, field: str | None, value: Any, cut: int, tmp_path: Path
) -> None:
    path = tmp_path / SINGLE
    save_file(TENSORS, path, metadata={"format": "pt"})
    header, data = parts(path)
    if field is None:
        header[tensor] = value
    else:
        header[tensor][field] = value
    data = data[:cut] if cut < 0 else data + bytes(cut % 3)
    write(path, json.dumps(header), data)
    found = here(tmp_path)
    if found is not None:
        assert found == by_the_library(path)


@settings(
    max_examples=150, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(at=st.integers(0, 400), byte=st.integers(0, 255))
def test_a_changed_byte_is_read_as_the_library_reads_it_or_refused(at: int, byte: int, tmp_path: Path) -> None:
    path = tmp_path / SINGLE
    save_file(TENSORS, path)
    content = bytearray(path.read_bytes())
    content[at % len(content)] = byte
    path.write_bytes(content)
    found = here(tmp_path)
    if found is not None:
        assert found == by_the_library(path)


@given(shift=st.sampled_from([-16, -8, -4, 4, 8, 400]), tensor=st.sampled_from(["a", "c", "d"]))
@settings(max_examples=18, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_overlaps_and_holes_are_named(shift: int, tensor: str, tmp_path: Path) -> None:
    path = tmp_path / SINGLE
    save_file(TENSORS, path)
    header, data = parts(path)
    header[tensor]["data_offsets"] = [offset + shift for offset in header[tensor]["data_offsets"]]
    write(path, json.dumps(header), data)
    assert by_the_library(path) is None
    with pytest.raises(
        CheckpointError, match=r"overlaps the tensor|belong to no tensor|invalid shape or invalid offsets"
    ):
        TensorFiles.open(tmp_path)


@pytest.mark.parametrize(
    ("header", "match"),
    [
        ('{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}',
         "'a' is repeated"),
        ('{"a":{"dtype":"U8","dtype":"I8","shape":[1],"data_offsets":[0,1]}}', "'dtype' is repeated"),
        ('{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"__metadata__":{"format":1}}', "metadata are not all"),
        (' {"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}', "not a JSON object"),
        ('{"' + "é" * 100_000 + '":{"dtype":"F8_E5M2","shape":[1],"data_offsets":[0,1]}}', "as F8_E5M2, which cannot"),
        ('{"a":' * 40_000, "cannot be read as safetensors"),
    ],
    ids=["a name twice", "a field twice", "metadata", "a space in front", "a long name", "deep"],
)  # fmt: skip
def test_other_headers_are_refused(header: str, match: str, tmp_path: Path) -> None:
    write(tmp_path / SINGLE, header, b"\0")
    with pytest.raises(CheckpointError, match=match) as raised:
        TensorFiles.open(tmp_path)
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) < 600


def test_a_header_beyond_the_librarys_limit_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / SINGLE
    with path.open("wb") as file:
        file.write((LARGEST_HEADER + 1).to_bytes(8, "little"))
        file.truncate(LARGEST_HEADER + 100)  # a hole in the file: nothing is written
    with pytest.raises(CheckpointError, match="its header has 100,000,001 bytes, and safetensors allows"):
        TensorFiles.open(tmp_path)


def test_what_is_no_regular_file_is_not_waited_for(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors.index.json").write_text('{"metadata": {}, "weight_map": {"a": "pipe"}}')
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(CheckpointError, match="it is not a regular file"):
        TensorFiles.open(tmp_path)
