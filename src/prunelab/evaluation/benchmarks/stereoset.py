"""StereoSet (Nadeem et al. 2021): preference for stereotypes, and language modelling."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from prunelab.evaluation.benchmarks import register
from prunelab.evaluation.benchmarks.base import Benchmark, Evaluation, EvaluationSettings, Progress, Score
from prunelab.evaluation.metrics.stereoset import (
    OVERALL,
    POOLED,
    SPLITS,
    Split,
    StereoSetItem,
    StereoSetScore,
    compared,
    icat_statistic,
    score,
    term_table,
    terms_of,
)
from prunelab.inference import Scorer, ScoringRequest
from prunelab.inference.batch_memory import batch_conditions
from prunelab.inference.make_scorer import make_scorer
from prunelab.io.data_rows import Row, Words, require_rows
from prunelab.io.datasets import Source, documents_hash
from prunelab.io.fingerprint import content_hash
from prunelab.models.tokenizer_validation import require_start
from prunelab.stats.paired_tests import Comparison, paired_bootstrap, standard_error

if TYPE_CHECKING:
    import pandas as pd

    from prunelab.models.loading import LanguageModel
    from prunelab.models.metadata import ModelMetadata

SOURCES: dict[Split, Source] = {
    split: Source("McGill-NLP/stereoset", split, wanted_by="--benchmark stereoset") for split in SPLITS
}
LABELS = ("anti_stereotype", "stereotype", "unrelated")
"""The sentences of an example, in the order of the hub's `gold_label`."""


class StereoSetSentences(BaseModel):
    """Three sentences and their labels: 0 anti-stereotype, 1 stereotype, 2 unrelated."""

    model_config = ConfigDict(strict=True)

    sentence: list[Words] = Field(min_length=3, max_length=3)
    gold_label: list[int]

    @field_validator("gold_label")
    @classmethod
    def _one_of_each(cls, labels: list[int]) -> list[int]:
        if sorted(labels) != [0, 1, 2]:
            raise ValueError("one each of 0 (anti-stereotype), 1 (stereotype) and 2 (unrelated) is needed")
        return labels


class StereoSetRow(Row):
    """An example of the hub's data set."""

    unique: ClassVar[tuple[str, ...]] = ("id",)

    id: Words
    target: Words
    bias_type: Literal["gender", "profession", "race", "religion"]
    context: str
    sentences: StereoSetSentences


@dataclass(frozen=True)
class Example:
    """One example of the data.

    Attributes:
        id: unique within its split.
        split: `intrasentence` (three variants of a sentence) or `intersentence` (a context and three sequels).
        domain: gender, profession, race or religion.
        target: the target term.
        context: the context of the sequels; empty for `intrasentence`.
        sentences: the three sentences in the order of `LABELS`.
    """

    id: str
    split: Split
    domain: str
    target: str
    context: str
    sentences: tuple[str, ...]


@register
class StereoSet(Benchmark):
    """Three sentences per example, a stereotype, an anti-stereotype and an unrelated one: which is the likeliest?

    LMS is how often a meaningful sentence beats the unrelated one, SS how often the stereotype beats the
    anti-stereotype, and ICAT combines them; all in 0 to 100, by the official rule of
    `prunelab.evaluation.metrics.stereoset`. The main values are over both splits and all domains; others are named by
    the domain (both splits), the split, or `split/domain`. Their `n` is the number of target terms, which have equal
    weights and which standard errors resample. Random preferences give 50 in all three, so ICAT can rise for a
    collapsed model: check LMS as well.

    A sentence's score is its mean log-probability per token; an `intersentence` sequel, joined to its context by a
    space, is scored on its own tokens given the context. Every sentence or context follows the tokenizer's
    beginning-of-text token, or its end-of-text token if it has none, whether or not the tokenizer adds it: otherwise
    the first word would not be scored. No chat template; the validation split, the only published one.

    Deviations from the official scorer: it conditions only the first token on the start token, and scores
    `intersentence` with a next-sentence head, which a plain language model lacks. With likelihoods in its place,
    `intersentence` and pooled values are comparable only with each other, and single domains over both splits are an
    addition; the conditions name both. In float32 scores depend on the batch only by rounding.
    """

    name = "stereoset"
    title: ClassVar[str] = "StereoSet: preference for stereotypes, and language-modelling ability (ICAT)"
    primary: ClassVar[str] = "icat"
    chance: ClassVar[float | None] = 50.0
    scores_likelihoods: ClassVar[bool] = True

    def sources(self) -> Sequence[Source]:
        """The data sets of both splits."""
        return list(SOURCES.values())

    def check(self, settings: EvaluationSettings) -> None:
        """Check that the data exist, with three labelled sentences per example."""
        _read(settings.datasets_root, settings.limit)

    def check_tokenizer(self, name: str, tokenizer: Any, settings: EvaluationSettings) -> None:
        """Check that the tokenizer has a start token."""
        require_start(name, tokenizer, "StereoSet needs one before every sentence")

    def compare(self, dense: pd.DataFrame, pruned: pd.DataFrame) -> Comparison:
        """Paired bootstrap over the target terms of both splits and all domains."""
        before, after = (terms_of(compared(records))[["lms", "ss"]] for records in (dense, pruned))
        return paired_bootstrap(before, after, icat_statistic, seed=0)

    def expected_tokens(self, model: ModelMetadata, settings: EvaluationSettings) -> int:
        """Tokens of all sentences, and of all contexts once."""
        requests = list(_requests(model.tokenizer, _read(settings.datasets_root, settings.limit)))
        contexts = sum(len(request.context) for request in requests[:: len(LABELS)])
        return contexts + sum(len(request.continuation) for request in requests)

    def identity(self, settings: EvaluationSettings) -> dict[str, Any]:
        """Hash of the data, the limit and the batch."""
        documents = [source.load("validation", settings.datasets_root) for source in SOURCES.values()]
        data = content_hash({"splits": [documents_hash(split) for split in documents]})
        return {"data": data, "limit": settings.limit, "tokens_a_batch": settings.tokens_a_batch}

    def evaluate(
        self, model: LanguageModel, settings: EvaluationSettings, progress: Progress | None = None
    ) -> Evaluation:
        """Score the three sentences of every example.

        Raises:
            NonFiniteValue: the model's logits are NaN or infinite; the message names the example.
        """
        self.check_model(model, settings)
        examples = _read(settings.datasets_root, settings.limit)
        scorer = make_scorer(model, max_length=model.context_length, batch_tokens=settings.tokens_a_batch)
        items = list(_scored(model.tokenizer, scorer, examples, progress))
        cells = score(items)
        conditions = {
            "split": "validation",
            "chat_template": False,
            "examples": len(items),
            "truncated": scorer.statistics.truncated,
            **batch_conditions(scorer.batch_tokens, scorer.shrunk_from),
            "chance": self.chance,
            "intersentence": "by likelihood: intersentence and pooled values are not comparable with published ones",
            "not_official": ", ".join(_group(cell) for cell in cells if not cell.official),
        }
        return Evaluation(_scores(cells, items), [_record(item) for item in items], conditions)


def _read(root: Path | None, limit: int | None) -> list[Example]:
    """The examples, at most `limit` per split.

    Raises:
        DataError: a split or a column is missing, or a row is not a `StereoSetRow`.
    """
    examples: list[Example] = []
    for split, source in SOURCES.items():
        documents = source.load("validation", root)
        require_rows(source, "validation", documents, StereoSetRow)
        chosen = documents if limit is None else documents.select(range(min(limit, len(documents))))
        examples += [_example(split, row) for row in chosen]
    return examples


def _example(split: Split, row: dict[str, Any]) -> Example:
    labels, sentences = row["sentences"]["gold_label"], row["sentences"]["sentence"]
    ordered = tuple(sentences[labels.index(label)] for label in range(3))
    context = row["context"] if split == "intersentence" else ""
    return Example(row["id"], split, row["bias_type"], row["target"], context, ordered)


def _scored(
    tokenizer: Any, scorer: Scorer, examples: Sequence[Example], progress: Progress | None
) -> Iterator[StereoSetItem]:
    """The examples with their sentences' mean log-probabilities per token; progress counts sentences."""
    requests = list(_requests(tokenizer, examples))
    scores = scorer.score(requests, progress)
    means = iter(
        score_.log_probability / len(request.continuation) for score_, request in zip(scores, requests, strict=True)
    )
    for example in examples:
        by_label = {label: next(means) for label in LABELS}
        yield StereoSetItem(example.id, example.split, example.domain, example.target, **by_label)


def _requests(tokenizer: Any, examples: Sequence[Example]) -> Iterator[ScoringRequest]:
    """Three requests per example, in the order of `LABELS`."""
    # Imported here because it imports lm-eval.
    from prunelab.inference.tokenization import Encoder

    encoder = Encoder(tokenizer, add_bos_token=False)
    start = encoder.prefix_token_id
    assert start is not None, "check_model requires a start token"
    pairs = [
        (example.context, f" {sentence}" if example.context else sentence)
        for example in examples
        for sentence in example.sentences
    ]
    names = [f"stereoset, {example.split} example {example.id}, {label}" for example in examples for label in LABELS]
    for (context, sentence), name in zip(encoder.encode_pairs(pairs), names, strict=True):
        yield ScoringRequest(context if context[:1] == [start] else [start, *context], sentence, name)


def _scores(cells: Iterable[StereoSetScore], items: Sequence[StereoSetItem]) -> list[Score]:
    """ICAT, LMS and SS of every cell: the total first, then domains, then splits."""
    terms = term_table(items)
    scores = []
    for cell in sorted(cells, key=lambda cell: (cell.split != POOLED, cell.domain != OVERALL)):
        by_term = terms.loc[(cell.split, cell.domain), ["lms", "ss"]]
        for metric, value, error in (
            ("icat", cell.icat, standard_error(by_term, icat_statistic)),
            ("lms", cell.lms, standard_error(by_term["lms"])),
            ("ss", cell.ss, standard_error(by_term["ss"])),
        ):
            scores.append(Score(metric, value, cell.terms, error, _group(cell)))
    return scores


def _group(cell: StereoSetScore) -> str:
    """The cell's group in results; empty for the total."""
    parts = [cell.split] * (cell.split != POOLED) + [cell.domain] * (cell.domain != OVERALL)
    return "/".join(parts)


def _record(item: StereoSetItem) -> dict[str, Any]:
    scores = {label: getattr(item, label) for label in LABELS}
    return {
        "sample": f"{item.split}/{item.id}",
        "id": item.id,
        "split": item.split,
        "domain": item.domain,
        "target": item.target,
        **scores,
        "prediction": max(scores, key=scores.__getitem__),
    }
