"""nltk's sentence splitter, trained where its data are there, untrained where that was allowed."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from prunelab.errors import DataError, MissingRequirement

FOLDER = "nltk_data"
"""Where `prunelab fetch` puts nltk's data, below the folder of data sets."""

PACKAGES = ("nltk", "langdetect", "immutabledict")
_ENGLISH = "tokenizers/punkt_tab/english"
_FILES = ("abbrev_types.txt", "collocations.tab", "ortho_context.tab", "sent_starters.txt")


def require_packages() -> None:
    """Refuse to go on without the packages that IFEval's checks use.

    Raises:
        MissingRequirement: naming the missing ones.
    """
    missing = [package for package in PACKAGES if find_spec(package) is None]
    if missing:
        raise MissingRequirement(f"ifeval needs {', '.join(missing)}: pip install 'prunelab[ifeval]'")


def is_trained(root: Path | None) -> bool:
    """Whether nltk's trained data are among its own folders or in `root`."""
    import nltk

    try:
        nltk.data.find(_ENGLISH, [*_below(root), *nltk.data.path])
    except LookupError:
        return False
    return True


def _below(root: Path | None) -> list[str]:
    return [str(root / FOLDER)] if root is not None else []


@contextmanager
def sentence_splitter(root: Path | None, allow_untrained: bool) -> Iterator[None]:
    """Let nltk split sentences, by its trained data or, where they are missing and that is allowed, without.

    Untrained means what nltk's own `PunktSentenceTokenizer()` means: parameters that know no abbreviations. nltk reads
    them from files like any others, so that nothing of it is changed.

    Raises:
        MissingRequirement: the data are missing and that is not allowed.
    """
    import nltk

    trained = is_trained(root)
    if not trained and not allow_untrained:
        raise MissingRequirement(
            "ifeval counts sentences and words with nltk's punkt_tab, which is not on this machine: run "
            "`python -m nltk.downloader punkt_tab`, or `prunelab fetch --benchmark ifeval --to DIR` where there is "
            "internet and give --datasets-root DIR, or give --allow-untrained-punkt to have the figures made without, "
            "and marked"
        )
    with tempfile.TemporaryDirectory(prefix="prunelab-punkt-") as folder:
        english = Path(folder) / _ENGLISH
        english.mkdir(parents=True)
        for name in _FILES:
            (english / name).touch()
        before = list(nltk.data.path)
        nltk.data.path[:] = [*_below(root), *before] if trained else [folder, *before]
        _forget()
        try:
            yield
        finally:
            nltk.data.path[:] = before
            _forget()


def _forget() -> None:
    """Splitters that were read from other data."""
    import sys

    import nltk.tokenize

    nltk.tokenize._get_punkt_tokenizer.cache_clear()
    counting = sys.modules.get("lm_eval.tasks.ifeval.instructions_util")
    if counting is not None:
        counting._get_sentence_tokenizer.cache_clear()


def fetch_punkt(root: Path) -> None:
    """Download nltk's trained data to where `--datasets-root` is looked through.

    Raises:
        MissingRequirement: nltk is not installed.
        DataError: they cannot be downloaded.
    """
    require_packages()
    import nltk

    if not nltk.download("punkt_tab", download_dir=str(root / FOLDER), quiet=True):
        raise DataError(f"nltk's punkt_tab could not be downloaded to {root / FOLDER}: check the connection")
