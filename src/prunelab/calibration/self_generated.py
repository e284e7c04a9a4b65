"""Text that the model itself generates, for calibration without a suitable corpus.

    python -m prunelab.calibration.self_generated MODEL --out generated.jsonl

Unprompted samples follow the model's training distribution; Williams et al. (2024) calibrate on such text and lose no
more quality than with real text. Do not evaluate on it: the model generated it.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from prunelab.calibration.corpus import start_tokens
from prunelab.errors import InvalidRequest, PrunelabError
from prunelab.errors.text import one_line
from prunelab.io.atomic_write import write_text
from prunelab.io.bounds import LIMIT, SEED, SEQUENCE_LENGTH, check_all
from prunelab.io.lazy import inference_mode, torch, transformers
from prunelab.io.paths import require_output_file
from prunelab.models.loading import LanguageModel, load_model
from prunelab.models.rotary import RotaryLengths

AT_ONCE = 64
"""Documents in a generation batch."""
_LONGEST_ROW = 1 << 24
"""The longest row, in characters, that is read."""


@inference_mode
def own_text(model: LanguageModel, documents: int, tokens: int, seed: int = 0) -> list[str]:
    """Sample documents from the model at temperature 1 over its full vocabulary, each beginning with the start token.

    Args:
        model: the model.
        documents: number of documents.
        tokens: most tokens of a document; a document ends earlier at an end-of-text token.
        seed: seed of the sampling.

    Returns:
        The texts, without special tokens.

    Raises:
        InvalidRequest: fewer than 1 document or 2 tokens, or a tokenizer without a start token.
    """
    if documents < 1 or tokens < 2:
        raise InvalidRequest(f"{documents} documents of {tokens} tokens: give at least 1 document of 2 tokens")
    start = start_tokens(model.tokenizer) or [t for t in (model.tokenizer.bos_token_id,) if t is not None]
    if not start:
        raise InvalidRequest(f"{model.name} has no start token, which generation begins with: calibrate on real text")
    ends = model.tokenizer.eos_token_id
    limit = RotaryLengths([model.model]).limit or tokens  # beyond it, cached keys would have other frequencies
    texts: list[str] = []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        while len(texts) < documents:
            prompts = torch.tensor([start] * min(AT_ONCE, documents - len(texts)), device=model.device)
            generated = model.model.generate(
                prompts, attention_mask=torch.ones_like(prompts), do_sample=True, temperature=1.0, top_k=0, top_p=1.0,
                max_length=min(tokens, model.context_length, limit), pad_token_id=start[0] if ends is None else ends,
            )  # fmt: skip
            texts += model.tokenizer.batch_decode(generated, skip_special_tokens=True)
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
    """Parse the command line, generate the documents and write them to a JSONL file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a folder or an id on the hub")
    parser.add_argument("--out", type=Path, required=True, help="a JSONL file for --calibration")
    parser.add_argument("--documents", type=int, default=256)
    parser.add_argument("--tokens", type=int, default=512, help="most tokens of a document")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--overwrite", action="store_true", help="replace an existing file of this command")
    options = parser.parse_args()
    transformers.logging.disable_progress_bar()
    transformers.logging.set_verbosity_error()
    try:
        check_all(vars(options), {"documents": LIMIT, "tokens": SEQUENCE_LENGTH, "seed": SEED})
        require_output_file(options.out, options.overwrite, _is_own_text, "text that a model wrote")
        texts = own_text(load_model(options.model), options.documents, options.tokens, options.seed)
        write_text(options.out, "".join(json.dumps({"text": text}) + "\n" for text in texts))
    except PrunelabError as error:
        print(f"error: {one_line(error)}", file=sys.stderr)
        sys.exit(2)
    print(f"{len(texts)} documents written to {options.out}; next: --calibration {options.out}")


if __name__ == "__main__":
    main()
