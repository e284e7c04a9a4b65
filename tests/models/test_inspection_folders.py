"""One reader: a folder gives the same model in memory, streamed and spread, or the same refusal."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.utils.modeling import get_state_dict_offloaded_model  # type: ignore[import-untyped]
from inspected_folders import OPENING, REFUSED, Opens, Refused

from prunelab.errors import PrunelabError
from prunelab.io.fingerprint import tensor_bytes
from prunelab.models.loading import LanguageModel, inspected, load_model
from prunelab.models.offloading import OffloadedModel, load_offloaded
from prunelab.models.streaming.model import StreamedModel, open_streamed
from prunelab.models.tying import is_tied

CheckpointOf = Callable[[str], Path]
ROOM = 0.8
"""Share of the weights that memory holds of a spread model."""


@dataclass(frozen=True)
class Read:
    """What a reader made of a folder."""

    tensors: dict[str, bytes]
    dtype: str
    parameters: int
    tied: bool
    flag: bool
    fingerprint: str


def seen(model: LanguageModel) -> Read:
    """What can be compared between readers."""
    names = sorted(model.model.state_dict())
    if isinstance(model, StreamedModel):
        state: dict[str, Any] = {name: model.decoder.tensor(name) for name in names}
    elif isinstance(model, OffloadedModel):
        state = get_state_dict_offloaded_model(model.model)
    else:
        state = model.model.state_dict()
    return Read(
        tensors={name: bytes(tensor_bytes(state[name])) for name in names},
        dtype=model.dtype,
        parameters=model.decoder.parameters,
        tied=is_tied(model.model),
        flag=bool(model.model.config.tie_word_embeddings),
        fingerprint=model.fingerprint,
    )


def in_memory(folder: str) -> LanguageModel:
    return load_model(folder, device="cpu")


def streamed(folder: str) -> LanguageModel:
    return open_streamed(folder, device="cpu")


def spread(folder: str) -> LanguageModel:
    model = load_offloaded(folder, device="cpu", memory=int(ROOM * inspected(folder).weight_bytes()))
    assert isinstance(model, OffloadedModel)
    return model


READERS = (in_memory, streamed, spread)


def made(case: Opens | Refused, tiny_checkpoint: CheckpointOf, tmp_path: Path) -> str:
    folder = tmp_path / "model"
    shutil.copytree(tiny_checkpoint(case.variant), folder)
    case.change(folder)
    return str(folder)


@pytest.mark.parametrize("kind", OPENING)
def test_every_reader_opens_the_same_model(kind: str, tiny_checkpoint: CheckpointOf, tmp_path: Path) -> None:
    case = OPENING[kind]
    folder = made(case, tiny_checkpoint, tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        one, *others = [seen(reader(folder)) for reader in READERS]
    for reader, other in zip(READERS[1:], others, strict=True):
        assert other == one, reader.__name__
    assert (one.dtype, one.tied, one.flag) == (case.dtype, case.tied, case.tied)
    assert all(one.tensors[name] for name in one.tensors if not name.endswith("o_proj.weight"))


@pytest.mark.parametrize("kind", REFUSED)
def test_every_reader_refuses_in_the_same_line(kind: str, tiny_checkpoint: CheckpointOf, tmp_path: Path) -> None:
    case = REFUSED[kind]
    folder = made(case, tiny_checkpoint, tmp_path)
    lines = set()
    for reader in READERS:
        with pytest.raises(PrunelabError, match=case.match) as raised:
            reader(folder)
        lines.add(str(raised.value))
    assert len(lines) == 1
    assert "\n" not in lines.pop()


def test_there_are_forty_odd_kinds() -> None:
    assert len(OPENING) + len(REFUSED) >= 40
    assert torch.get_num_threads() == 1
