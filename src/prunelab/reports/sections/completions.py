"""What models wrote, dense beside pruned, where the dense one was right and pruning broke it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from prunelab.reports.elements import AnswerComparison, ModelAnswer, Part, Prose, Section
from prunelab.reports.grid import ReportCut, Study
from prunelab.reports.pictures import with_pictures

if TYPE_CHECKING:
    import pandas as pd

    from prunelab.studies.run import Measured

SHOWN = 4
LONGEST = 700
COLUMNS = ("sample", "text", "prompt", "correct", "prediction", "target", "verdict", "repeats")


@dataclass(frozen=True)
class _Records:
    """One cut's records of one benchmark, by sample."""

    cut: ReportCut
    by_sample: Mapping[str, Mapping[str, Any]]


def section(study: Study) -> Section | None:
    """The samples that most cuts lost, a few a model and benchmark; of every strategy the mildest cut that lost it."""
    parts: list[Part] = []
    for model in study.grid.models:
        for (benchmark, _), found in _texts(study, model).items():
            parts += with_pictures(study, benchmark, _worst(found, f"{model}, {benchmark}"))
    if not parts:
        return None
    lead = (
        "Answers that the dense model got right and pruned ones wrong; first those that most cuts lost. Each strategy "
        "shows the mildest cut that lost it. Long texts are shortened."
    )
    return Section("completions", "What was written, before and after", lead, (*_note(), *parts), "Samples")


def _note() -> tuple[Prose, ...]:
    return (Prose("These are models' own words: they were not checked, and some are wrong on purpose of this page."),)


def _texts(study: Study, model: str) -> dict[tuple[str, int | None], list[_Records]]:
    """The records that hold texts, dense first; one seed a cut, no baselines."""
    found: dict[tuple[str, int | None], dict[ReportCut, Measured]] = {}
    for one in study.run.measured:
        m = one.primary
        cut = ReportCut(m.model, m.method, m.ratio)
        if m.model == model and not cut.is_baseline:
            found.setdefault((m.benchmark, m.shots), {}).setdefault(cut, one)
    dense = ReportCut(model, "dense", 0.0)
    with_texts = {}
    for key, by_cut in found.items():
        if len(by_cut) > 1 and _has_texts(by_cut.get(dense)):
            ordered = [cut for cut in study.grid.of_model(model) if cut in by_cut]
            with_texts[key] = [_Records(cut, _by_sample(by_cut[cut].samples)) for cut in ordered]
    return with_texts


def _has_texts(one: Measured | None) -> bool:
    return one is not None and one.samples is not None and {"text", "correct", "sample"} <= set(one.samples.columns)


def _by_sample(samples: pd.DataFrame | None) -> dict[str, dict[str, Any]]:
    if samples is None:
        return {}
    columns = [name for name in COLUMNS if name in samples]
    return {str(row["sample"]): {str(k): v for k, v in row.items()} for row in samples[columns].to_dict("records")}


def _worst(found: list[_Records], model_and_benchmark: str) -> list[AnswerComparison]:
    dense, pruned = found[0], found[1:]
    lost = {
        sample: [one for one in pruned if sample in one.by_sample and not one.by_sample[sample]["correct"]]
        for sample, record in dense.by_sample.items()
        if record["correct"]
    }
    ordered = sorted((sample for sample in lost if lost[sample]), key=lambda sample: -len(lost[sample]))
    return [_pair(sample, dense, lost[sample], len(pruned), model_and_benchmark) for sample in ordered[:SHOWN]]


def _pair(sample: str, dense: _Records, lost: list[_Records], of: int, model_and_benchmark: str) -> AnswerComparison:
    mildest: dict[str, _Records] = {}
    for one in sorted(lost, key=lambda one: one.cut.ratio):
        mildest.setdefault(one.cut.strategy, one)
    record = dense.by_sample[sample]
    answers = tuple(_answer(one, one.by_sample[sample]) for one in (dense, *mildest.values()))
    prompt = shortened(str(record.get("prompt") or ""))
    target = record.get("target")
    asked = prompt or (f"The right answer is {target}." if target is not None else "")
    name = f"{model_and_benchmark}, sample {sample}"
    return AnswerComparison(name, dense.cut.model, f"{len(lost)} of {of} cuts lost it", asked, answers)


def _answer(one: _Records, record: Mapping[str, Any]) -> ModelAnswer:
    right = bool(record["correct"])
    said = [str(record["verdict"]).replace("_", " ")] if record.get("verdict") else ["right" if right else "wrong"]
    said += [f"read as {record['prediction']}"] if record.get("prediction") is not None else []
    said += ["repeats itself"] if record.get("repeats") else []
    return ModelAnswer(one.cut.label, shortened(str(record["text"])) or "(nothing)", ", ".join(said), right)


def shortened(text: str, most: int = LONGEST) -> str:
    """The beginning of a text, and its end where it is long: loops show at the end."""
    text = text.strip("\n")
    if len(text) <= most:
        return text
    return f"{text[: 3 * most // 4]}\n[… {len(text) - most} letters …]\n{text[-most // 4 :]}"
