"""Compare a tokenizer's tokens with llama.cpp's, if llama.cpp is installed, before a file is written.

llama.cpp has its own pre-tokenizers and Unicode tables: a recognised tokenizer is no proof of equal tokens. llama.cpp
loads a small file with the vocabulary and one block of zeros, and both tokenize the same texts.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import unicodedata
from collections.abc import Callable, Sequence
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from prunelab.checkpoint.gguf.awkward_texts import AWKWARD_TEXTS
from prunelab.checkpoint.gguf.tokenizer import Kind, Vocabulary
from prunelab.errors import UnsupportedModel

if TYPE_CHECKING:
    from prunelab.models.loading import LanguageModel

OWN_TEXTS = 3000
"""Tokens of the vocabulary that are compared as texts, evenly spaced."""
_ADDED_TEXTS = 40
_ROOM = 32
_TIMEOUT = 300.0


def compared_tokens(
    model: LanguageModel,
    vocabulary: Vocabulary,
    add_vocabulary: Callable[[Any], None],
    *,
    allow_other_tokens: bool = False,
) -> tuple[str, ...]:
    """Compare a tokenizer's tokens with llama.cpp's.

    Args:
        model: the model with its tokenizer.
        vocabulary: the vocabulary as the export writes it.
        add_vocabulary: adds the vocabulary to a GGUF writer.
        allow_other_tokens: whether to return a difference as a note instead of raising.

    Returns:
        Notes for the user; none if all tokens are equal.

    Raises:
        UnsupportedModel: llama.cpp yields other tokens (names a text), or cannot load the vocabulary.
    """
    if find_spec("xllamacpp") is None:
        return (
            "llama.cpp is not installed, so its tokens were not compared with the tokenizer's: "
            "pip install 'prunelab[llama-cpp]'",
        )
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "vocabulary.gguf")
        _write_vocabulary(file, len(vocabulary.tokens), add_vocabulary)
        difference = _difference(model, vocabulary, file)
    if difference is None:
        return ()
    refused, line = difference
    if not refused:
        return (f"llama.cpp failed to run, so its tokens were not compared with the tokenizer's: {line}",)
    if not allow_other_tokens:
        raise UnsupportedModel(
            f"{line}: no file was written; serve this model with transformers, or give --allow-other-tokens to write "
            "the file anyway"
        )
    return (line,)


def texts_for(model: LanguageModel, vocabulary: Vocabulary) -> list[str]:
    """The awkward texts, texts with the tokenizer's special tokens, and the texts of its ordinary tokens.

    Texts with an ordinary token that llama.cpp always treats as special are left out: the vocabulary's notes name it.
    """
    added = [token for token, kind in zip(vocabulary.tokens, vocabulary.kinds, strict=True)
             if kind in (Kind.CONTROL, Kind.USER_DEFINED)]  # fmt: skip
    texts = list(AWKWARD_TEXTS)
    for token in _evenly(added, _ADDED_TEXTS):
        texts += [token, f"{token}a", f"a{token}b", f"a {token} b", f"{token}{token}\n{token}  1", f" {token}\n\n"]
    normal = [index for index, kind in enumerate(vocabulary.kinds) if kind == Kind.NORMAL]
    decoded = [
        model.tokenizer.decode([index], clean_up_tokenization_spaces=False) for index in _evenly(normal, OWN_TEXTS)
    ]
    texts += [text for text in decoded if "�" not in text]
    return [text for text in texts if not any(special in text for special in vocabulary.special_to_llama_cpp)]


def _difference(model: LanguageModel, vocabulary: Vocabulary, file: Path) -> tuple[bool, str] | None:
    """The shortest difference, or the reason why none can be determined; true if it refutes the file."""
    texts = texts_for(model, vocabulary)
    theirs = [unicodedata.normalize("NFC", text) for text in texts] if vocabulary.normalizes else texts
    # Cached by the content of the file: a process reads the same vocabulary only once.
    answer = _read(file.read_bytes(), tuple(theirs))
    if "unable" in answer:
        return False, answer["unable"]
    if "refused" in answer:
        return True, f"llama.cpp cannot load {model.name}'s vocabulary ({answer['refused']})"
    expected: Sequence[Sequence[int]] = model.tokenizer(texts).input_ids
    differing = [i for i, (ids, read) in enumerate(zip(expected, answer["tokens"], strict=True)) if list(ids) != read]
    if not differing:
        return None
    first = min(differing, key=lambda index: len(texts[index]))
    shown = [model.tokenizer.convert_ids_to_tokens(ids) for ids in (answer["tokens"][first], list(expected[first]))]
    return True, (
        f"llama.cpp tokenizes {len(differing)} of {len(texts)} texts differently from {model.name}'s tokenizer, such "
        f"as {_short(texts[first])}: {_short(shown[0])} instead of {_short(shown[1])}"
    )


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:200]}…"


def _evenly(values: Sequence[Any], count: int) -> list[Any]:
    return [values[index * len(values) // count] for index in range(count)] if len(values) > count else list(values)


@lru_cache(maxsize=4)
def _read(vocabulary: bytes, texts: tuple[str, ...]) -> dict[str, Any]:
    """Tokenize texts with llama.cpp in a separate process, by a GGUF file with this content."""
    with tempfile.TemporaryDirectory() as folder:
        file, answer = Path(folder, "vocabulary.gguf"), Path(folder, "answer.json")
        file.write_bytes(vocabulary)
        return read_by_llama_cpp(file, texts, answer)


def read_by_llama_cpp(file: Path, texts: Sequence[str], answer: Path) -> dict[str, Any]:
    """Tokenize texts with llama.cpp and the vocabulary of a GGUF file.

    Args:
        file: the GGUF file.
        texts: the texts.
        answer: the file that the other process writes its answer to.

    Returns:
        `tokens`, a list of ids for each text; or `refused`, the reason why llama.cpp does not load the file; or
        `unable`, the reason why llama.cpp does not run.
    """
    script = Path(__file__).with_name("llama_cpp_reads.py")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    try:
        process = subprocess.run(
            [sys.executable, "-P", str(script), str(file), str(answer)],
            input=json.dumps(list(texts)),
            text=True,
            capture_output=True,
            timeout=_TIMEOUT,
            check=False,
            env=environment,
        )
    except subprocess.TimeoutExpired:
        return {"unable": f"it took longer than {_TIMEOUT:.0f} s"}
    lines = [line.strip() for line in (process.stdout + "\n" + process.stderr).splitlines() if line.strip()]
    if answer.exists():
        result: dict[str, Any] = json.loads(answer.read_text())
        if "refused" in result:
            reasons = [line.rpartition("error loading ")[2] for line in lines if "error loading " in line]
            result["refused"] = reasons[-1] if reasons else result["refused"]
        return result
    if process.returncode < 0:
        return {"refused": f"it ends with signal {-process.returncode}: {lines[-1] if lines else 'no output'}"}
    return {"unable": lines[-1] if lines else f"exit code {process.returncode}"}


def _write_vocabulary(file: Path, rows: int, add_vocabulary: Callable[[Any], None]) -> None:
    """Write a GGUF file with a vocabulary and a Llama of one block of zeros, which llama.cpp requires to load it."""
    import gguf

    writer = gguf.GGUFWriter(file, "llama")
    writer.add_block_count(1)
    writer.add_context_length(64)
    writer.add_embedding_length(_ROOM)
    writer.add_feed_forward_length(_ROOM)
    writer.add_head_count(1)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(rows)
    add_vocabulary(writer)
    writer.add_tensor("token_embd.weight", np.zeros((rows, _ROOM), np.float16))
    for norm in ("output_norm", "blk.0.attn_norm", "blk.0.ffn_norm"):
        writer.add_tensor(f"{norm}.weight", np.zeros(_ROOM, np.float32))
    for matrix in ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"):
        writer.add_tensor(f"blk.0.{matrix}.weight", np.zeros((_ROOM, _ROOM), np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
