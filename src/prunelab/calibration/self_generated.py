"""Text that a model writes by itself, to calibrate on where no text of its kind is at hand.

    python -m prunelab.calibration.self_generated MODEL --out own.jsonl

What a model writes without a prompt is drawn from what it learned (Williams et al. 2024 calibrate on it, and lose no
more than on real text). It must not be measured on: it is the model's own.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import torch
import transformers

from prunelab.calibration.corpus import start_tokens
from prunelab.errors import InvalidRequest, PrunelabError
from prunelab.errors.text import one_line
from prunelab.io.atomic_write import write_text
from prunelab.io.bounds import LIMIT, SEED, SEQUENCE_LENGTH, check_all
from prunelab.io.paths import require_output_file
from prunelab.models.loading import LanguageModel, load_model
from prunelab.models.rotary import RotaryLengths

AT_ONCE = 64
"""Documents that are written side by side."""
_LONGEST_ROW = 1 << 24
"""Characters of a row that is looked at."""


@torch.inference_mode()
def own_text(model: LanguageModel, documents: int, tokens: int, seed: int = 0) -> list[str]:
    """Documents drawn from the model at temperature 1 from its whole vocabulary, each from the start token on.

    Args:
        model: the model.
        documents: how many.
        tokens: a document's, at most; one whose end the model writes is shorter.
        seed: of the draws.

    Raises:
        InvalidRequest: a number that is not positive, or a tokenizer without a start token.
    """
    if documents < 1 or tokens < 2:
        raise InvalidRequest(f"{documents} documents of {tokens} tokens: give at least 1 document of 2 tokens")
    start = start_tokens(model.tokenizer) or [t for t in (model.tokenizer.bos_token_id,) if t is not None]
    if not start:
        raise InvalidRequest(f"{model.name} has no start token to begin a text with: calibrate on real text")
    ends = model.tokenizer.eos_token_id
    limit = RotaryLengths([model.model]).limit or tokens  # beyond it the cached keys would have other frequencies
    texts: list[str] = []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        while len(texts) < documents:
            begun = torch.tensor([start] * min(AT_ONCE, documents - len(texts)), device=model.device)
            written = model.model.generate(
                begun, attention_mask=torch.ones_like(begun), do_sample=True, temperature=1.0, top_k=0, top_p=1.0,
                max_length=min(tokens, model.context_length, limit), pad_token_id=start[0] if ends is None else ends,
            )  # fmt: skip
            texts += model.tokenizer.batch_decode(written, skip_special_tokens=True)
    return texts


def _is_own_text(path: Path) -> bool:
    """Whether a file holds rows with a text and nothing else, as this command writes them."""
    try:
        with path.open(encoding="utf-8") as file:
            first = json.loads(file.readline(_LONGEST_ROW))
    except (ValueError, RecursionError):
        return False
    return isinstance(first, dict) and list(first) == ["text"]


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a folder, or an id on the hub")
    parser.add_argument("--out", type=Path, required=True, help="a JSONL file for --calibration")
    parser.add_argument("--documents", type=int, default=256)
    parser.add_argument("--tokens", type=int, default=512, help="a document, at most")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--overwrite", action="store_true", help="replace a file that was written so before")
    given = parser.parse_args()
    transformers.logging.disable_progress_bar()
    transformers.logging.set_verbosity_error()
    try:
        check_all(vars(given), {"documents": LIMIT, "tokens": SEQUENCE_LENGTH, "seed": SEED})
        require_output_file(given.out, given.overwrite, _is_own_text, "text that a model wrote")
        texts = own_text(load_model(given.model), given.documents, given.tokens, given.seed)
        write_text(given.out, "".join(json.dumps({"text": text}) + "\n" for text in texts))
    except PrunelabError as error:
        print(f"error: {one_line(error)}", file=sys.stderr)
        sys.exit(2)
    print(f"{len(texts)} documents written to {given.out}; next: --calibration {given.out}")


if __name__ == "__main__":
    main()
