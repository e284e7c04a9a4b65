"""A tokenizer against the same tokenizer in llama.cpp, where that is installed, before a file is written.

llama.cpp has pre-tokenizers of its own, and tables of Unicode of its own: that a tokenizer was recognised does not
prove that the tokens are equal. A small file with the vocabulary and one block of zeros is read by a real llama.cpp,
and both read the same texts.
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
"""So many tokens of the vocabulary are read as texts, evenly chosen."""
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
    """Compare a tokenizer's tokens with those that llama.cpp reads.

    Args:
        model: the model with its tokenizer.
        vocabulary: the tokenizer as it will be written.
        add_vocabulary: writes the vocabulary to a GGUF writer.
        allow_other_tokens: say what differs instead of refusing it.

    Returns:
        What the user should know: nothing where everything is equal.

    Raises:
        UnsupportedModel: llama.cpp reads other tokens, or cannot read the vocabulary; the line names a text.
    """
    if find_spec("xllamacpp") is None:
        return (
            "llama.cpp is not installed here, so its tokens were not compared with the tokenizer's: "
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
        return (f"llama.cpp could not be run here, so its tokens were not compared with the tokenizer's: {line}",)
    if not allow_other_tokens:
        raise UnsupportedModel(
            f"{line}: nothing is written; serve this model with transformers, or give --allow-other-tokens to write it "
            "as it is"
        )
    return (line,)


def texts_for(model: LanguageModel, vocabulary: Vocabulary) -> list[str]:
    """The awkward texts, texts with the tokenizer's own special tokens, and texts of its own tokens.

    Those with an ordinary token that llama.cpp always takes for a special one are left out: the vocabulary's notes
    name it.
    """
    added = [token for token, kind in zip(vocabulary.tokens, vocabulary.kinds, strict=True)
             if kind in (Kind.CONTROL, Kind.USER_DEFINED)]  # fmt: skip
    texts = list(AWKWARD_TEXTS)
    for token in _evenly(added, _ADDED_TEXTS):
        texts += [token, f"{token}a", f"a{token}b", f"a {token} b", f"{token}{token}\n{token}  1", f" {token}\n\n"]
    normal = [index for index, kind in enumerate(vocabulary.kinds) if kind == Kind.NORMAL]
    own = [model.tokenizer.decode([index], clean_up_tokenization_spaces=False) for index in _evenly(normal, OWN_TEXTS)]
    texts += [text for text in own if "�" not in text]
    return [text for text in texts if not any(special in text for special in vocabulary.special_to_llama_cpp)]


def _difference(model: LanguageModel, vocabulary: Vocabulary, file: Path) -> tuple[bool, str] | None:
    """The first difference, or why there is none to be seen; true with it where it speaks against the file."""
    texts = texts_for(model, vocabulary)
    theirs = [unicodedata.normalize("NFC", text) for text in texts] if vocabulary.normalizes else texts
    # The vocabulary in the file is the key: one that was read already, in this process, is not read again.
    answer = _read(file.read_bytes(), tuple(theirs))
    if "unable" in answer:
        return False, answer["unable"]
    if "refused" in answer:
        return True, f"llama.cpp cannot read {model.name}'s vocabulary ({answer['refused']})"
    expected: Sequence[Sequence[int]] = model.tokenizer(texts).input_ids
    parted = [i for i, (ids, read) in enumerate(zip(expected, answer["tokens"], strict=True)) if list(ids) != read]
    if not parted:
        return None
    first = min(parted, key=lambda index: len(texts[index]))
    shown = [model.tokenizer.convert_ids_to_tokens(ids) for ids in (answer["tokens"][first], list(expected[first]))]
    return True, (
        f"llama.cpp reads other tokens than {model.name}'s tokenizer in {len(parted)} of {len(texts)} texts, such as "
        f"{_short(texts[first])}: {_short(shown[0])} instead of {_short(shown[1])}"
    )


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:200]}…"


def _evenly(values: Sequence[Any], count: int) -> list[Any]:
    return [values[index * len(values) // count] for index in range(count)] if len(values) > count else list(values)


@lru_cache(maxsize=4)
def _read(vocabulary: bytes, texts: tuple[str, ...]) -> dict[str, Any]:
    """What a llama.cpp of its own process reads in texts, from a file with this content."""
    with tempfile.TemporaryDirectory() as folder:
        file, answer = Path(folder, "vocabulary.gguf"), Path(folder, "answer.json")
        file.write_bytes(vocabulary)
        return read_by_llama_cpp(file, texts, answer)


def read_by_llama_cpp(file: Path, texts: Sequence[str], answer: Path) -> dict[str, Any]:
    """The tokens that llama.cpp reads in texts, by a GGUF file.

    Args:
        file: the GGUF file.
        texts: the texts.
        answer: where the other process may write.

    Returns:
        `tokens`, a list for each text; or `refused`, the reason for which llama.cpp does not read the file; or
        `unable`, the reason for which it does not run here.
    """
    script = Path(__file__).with_name("llama_cpp_reads.py")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    try:
        ran = subprocess.run(
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
    lines = [line.strip() for line in (ran.stdout + "\n" + ran.stderr).splitlines() if line.strip()]
    if answer.exists():
        found: dict[str, Any] = json.loads(answer.read_text())
        if "refused" in found:
            reasons = [line.rpartition("error loading ")[2] for line in lines if "error loading " in line]
            found["refused"] = reasons[-1] if reasons else found["refused"]
        return found
    if ran.returncode < 0:
        return {"refused": f"it ends with signal {-ran.returncode}: {lines[-1] if lines else 'without a word'}"}
    return {"unable": lines[-1] if lines else f"exit code {ran.returncode}"}


def _write_vocabulary(file: Path, rows: int, add_vocabulary: Callable[[Any], None]) -> None:
    """A GGUF file with a vocabulary and a Llama of one block of zeros, without which llama.cpp opens none."""
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
