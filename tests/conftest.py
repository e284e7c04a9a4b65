"""Tiny random models of the real architectures, a byte tokenizer, and the folder with real data where there is one."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
import transformers
from miniature_hub import write_hub
from miniature_vision import write_vision_hub
from seeing import is_multimodal, llava_processor, seeing_config, seeing_processor
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from prunelab import cli
from prunelab.calibration import ActivationStatistics, CalibrationSet, calibrate
from prunelab.errors import MissingRequirement
from prunelab.evaluation.sandbox import Sandbox
from prunelab.models.families import families
from prunelab.models.loading import LanguageModel
from prunelab.pocket.data import pocket_data

SHARED = Path(os.environ.get("PRUNELAB_SHARED", Path(__file__).parents[2] / "shared"))

_COMMON: dict[str, Any] = {
    "vocab_size": 258, "hidden_size": 32, "intermediate_size": 40, "num_hidden_layers": 4, "num_attention_heads": 8,
    "num_key_value_heads": 4, "head_dim": 4, "max_position_embeddings": 256, "bos_token_id": 256, "eos_token_id": 257,
    "pad_token_id": None,
}  # fmt: skip
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("Llama", {}),
    "llama_biased": ("Llama", {"attention_bias": True, "mlp_bias": True}),
    "qwen2": ("Qwen2", {"tie_word_embeddings": True}),
    "qwen2_window": ("Qwen2", {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 2}),
    "mistral": ("Mistral", {"sliding_window": None}),
    "mistral_window": ("Mistral", {"sliding_window": 8}),
    "gemma2": ("Gemma2", {"sliding_window": 8, "query_pre_attn_scalar": 4, "attn_logit_softcapping": 5.0,
                          "final_logit_softcapping": 3.0}),
    "idefics3": ("Idefics3", {}),
}  # fmt: skip
LIKE_IDEFICS3: dict[str, tuple[str, dict[str, Any]]] = {
    "smolvlm": ("SmolVLM", {}),
    "llava": ("Llava", {}),
    "llava_mistral": ("Llava", {"model_type": "mistral", "sliding_window": None}),
    "llava_qwen2": ("Llava", {"model_type": "qwen2"}),
}
"""Others that see: `test_seeing.py` tries them, and the rest of the contracts are Idefics3's."""
VARIANTS |= {
    family.name: (family.stock_class.removesuffix("ForCausalLM"), {})
    for family in families.values()
    if not family.is_multimodal and family.name not in VARIANTS
}
"""A family without a variant of its own is tried with the common configuration: its file is all that a family needs."""
FAMILIES = tuple(families)


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """Tests run side by side; and warn about nothing that a user of the libraries would not act on."""
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    logging.getLogger("datasets").setLevel(logging.ERROR)


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """Every byte a token, with start and end tokens; the start token is put in front as Llama's is."""
    vocabulary = {token: i for i, token in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    core = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens(["<s>", "</s>"])
    core.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 256)])
    return PreTrainedTokenizerFast(tokenizer_object=core, bos_token="<s>", eos_token="</s>")


def tiny_model(variant: str, seed: int = 0, **changes: Any) -> PreTrainedModel:
    """A random model whose numbers are of the size that trained ones have."""
    name, fields = (VARIANTS | LIKE_IDEFICS3)[variant]
    if is_multimodal(variant):
        config = seeing_config(name, {**_COMMON, **fields, **changes})
    else:
        config = getattr(transformers, f"{name}Config")(**{**_COMMON, **fields, **changes})
    torch.manual_seed(seed)
    kind = "ConditionalGeneration" if is_multimodal(variant) else "CausalLM"
    model: PreTrainedModel = getattr(transformers, f"{name}For{kind}")(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.25 if parameter.ndim > 1 else 0.5)
    return model


@dataclass(frozen=True)
class Tiny:
    """A tiny model with calibration tokens and what they gave."""

    model: LanguageModel
    calibration: CalibrationSet
    statistics: ActivationStatistics


def tiny_calibration(seed: int = 0, samples: int = 6, tokens: int = 24) -> CalibrationSet:
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(256, (samples + 2, tokens), generator=generator)
    return CalibrationSet(ids[:samples], None, ids[samples:], "random", "none", "0", seed)


def make_tiny(variant: str, **changes: Any) -> Tiny:
    tokenizer = byte_tokenizer()
    make_processor = llava_processor if variant.startswith("llava") else seeing_processor
    processor = make_processor(tokenizer) if is_multimodal(variant) else None
    model = LanguageModel(f"tiny-{variant}", tiny_model(variant, **changes), tokenizer, processor)
    calibration = tiny_calibration()
    return Tiny(model, calibration, calibrate(model.decoder, calibration))


@pytest.fixture(scope="session")
def tiny() -> Callable[[str], Tiny]:
    """Tiny models by variant; made once, so no test may change them."""
    made: dict[str, Tiny] = {}

    def get(variant: str) -> Tiny:
        if variant not in made:
            made[variant] = make_tiny(variant)
        return made[variant]

    return get


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with real data and a real model."""
    if not SHARED.is_dir():
        pytest.skip(f"no real data at {SHARED}: set PRUNELAB_SHARED")
    return SHARED


@pytest.fixture(scope="session", autouse=True)
def _own_copies_of_data(tmp_path_factory: pytest.TempPathFactory) -> None:
    """What the library copies of data sets in temporary folders goes where they go."""
    datasets.config.HF_DATASETS_CACHE = tmp_path_factory.mktemp("copies")


@pytest.fixture(scope="session")
def miniature(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of data sets with a few documents of every text benchmark; no test may change it."""
    return write_hub(tmp_path_factory.mktemp("hub"))


@pytest.fixture(scope="session")
def vision_hub(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of data sets with a few documents of every vision benchmark; no test may change it."""
    return write_vision_hub(tmp_path_factory.mktemp("vision"))


@pytest.fixture(scope="session")
def pocket_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pocket models' data sets, which take seconds to draw, alone in a cache folder; no test may change them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PRUNELAB_CACHE", str(tmp_path_factory.mktemp("pocket")))
        return pocket_data()


@pytest.fixture(scope="session")
def can_cage() -> None:
    """For tests that run programs; the tests of the sandbox check why a machine has none, and that it holds."""
    try:
        Sandbox().check()
    except MissingRequirement as error:
        pytest.skip(str(error))


@pytest.fixture
def _clean_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRUNELAB_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def _pocket_cache(tmp_path: Path, pocket_root: Path, _clean_cache: None) -> None:
    """A cache folder of the test's own in which the pocket models' data are there already."""
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / pocket_root.name).symlink_to(pocket_root)


@pytest.fixture
def in_folder(tmp_path: Path, pocket_root: Path, monkeypatch: pytest.MonkeyPatch, _clean_cache: None) -> Path:
    """An empty folder to work in, with one cache for all such tests, as of a user who tries one page after another."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PRUNELAB_CACHE", str(pocket_root.parent))
    return tmp_path


@dataclass(frozen=True)
class Ran:
    """How a command ended."""

    code: int
    out: str
    err: str


@pytest.fixture
def command(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, _clean_cache: None
) -> Iterator[Callable[..., Ran]]:
    """Run `prunelab ARGS` in this process."""
    import warnings

    shown = warnings.showwarning

    def run(*args: object) -> Ran:
        monkeypatch.setattr(sys, "argv", ["prunelab", *map(str, args)])
        capsys.readouterr()
        code = 0
        with warnings.catch_warnings():
            warnings.simplefilter("default")
            try:
                cli.main()
            except SystemExit as stop:
                code = int(stop.code or 0)
        captured = capsys.readouterr()
        return Ran(code, captured.out, captured.err)

    yield run
    warnings.showwarning = shown


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Folders with tiny checkpoints by variant; made once, so no test may change them."""
    made: dict[str, Path] = {}

    def get(variant: str) -> Path:
        if variant not in made:
            folder = tmp_path_factory.mktemp("checkpoints") / f"tiny-{variant}"
            tiny_model(variant).save_pretrained(folder)
            tokenizer = byte_tokenizer()
            (seeing_processor(tokenizer) if is_multimodal(variant) else tokenizer).save_pretrained(folder)
            made[variant] = folder
        return made[variant]

    return get


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A text file of several documents."""
    path = tmp_path_factory.mktemp("text") / "text.txt"
    line = "the red fox saw a blue bird and the bird saw a green frog near the old stone house"
    words = line.split()
    documents = [" ".join(words[(i * 7 + j * j) % len(words)] for j in range(120)) for i in range(20)]
    path.write_text("\n<|endoftext|>\n".join(documents))
    return path
