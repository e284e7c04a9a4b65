"""Sample completions that the dense model got right and pruned models got wrong."""

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
    """One cut's sample records of one benchmark, by sample."""

    cut: ReportCut
    by_sample: Mapping[str, Mapping[str, Any]]


def section(study: Study) -> Section | None:
    """For each model and benchmark, the samples that most cuts got wrong, with each strategy's smallest such cut."""
    parts: list[Part] = []
    for model in study.grid.models:
        for (benchmark, _), records in _texts(study, model).items():
            parts += with_pictures(study, benchmark, _worst(records, f"{model}, {benchmark}"))
    if not parts:
        return None
    lead = (
        "Answers that the dense model got right and pruned models got wrong, those with the most wrong cuts first. "
        "Each strategy shows the smallest cut that got it wrong. Long texts are shortened."
    )
    return Section("completions", "Sample completions", lead, (*_note(), *parts), "Samples")


def _note() -> tuple[Prose, ...]:
    return (Prose("The models generated these texts; nobody checked them, and this section selects incorrect ones."),)


def _texts(study: Study, model: str) -> dict[tuple[str, int | None], list[_Records]]:
    """The records that hold texts, the dense model first; one seed per cut, without baselines."""
    measured_by_benchmark: dict[tuple[str, int | None], dict[ReportCut, Measured]] = {}
    for measured in study.run.measured:
        m = measured.primary
        cut = ReportCut(m.model, m.method, m.ratio)
        if m.model == model and not cut.is_baseline:
            measured_by_benchmark.setdefault((m.benchmark, m.shots), {}).setdefault(cut, measured)
    dense = ReportCut(model, "dense", 0.0)
    with_texts = {}
    for key, by_cut in measured_by_benchmark.items():
        if len(by_cut) > 1 and _has_texts(by_cut.get(dense)):
            ordered = [cut for cut in study.grid.of_model(model) if cut in by_cut]
            with_texts[key] = [_Records(cut, _by_sample(by_cut[cut].samples)) for cut in ordered]
    return with_texts


def _has_texts(measured: Measured | None) -> bool:
    return (
        measured is not None
        and measured.samples is not None
        and {"text", "correct", "sample"} <= set(measured.samples.columns)
    )


def _by_sample(samples: pd.DataFrame | None) -> dict[str, dict[str, Any]]:
    if samples is None:
        return {}
    columns = [name for name in COLUMNS if name in samples]
    return {str(row["sample"]): {str(k): v for k, v in row.items()} for row in samples[columns].to_dict("records")}


def _worst(records: list[_Records], model_and_benchmark: str) -> list[AnswerComparison]:
    dense, pruned = records[0], records[1:]
    lost = {
        sample: [
            cut_records
            for cut_records in pruned
            if sample in cut_records.by_sample and not cut_records.by_sample[sample]["correct"]
        ]
        for sample, record in dense.by_sample.items()
        if record["correct"]
    }
    ordered = sorted((sample for sample in lost if lost[sample]), key=lambda sample: -len(lost[sample]))
    return [_pair(sample, dense, lost[sample], len(pruned), model_and_benchmark) for sample in ordered[:SHOWN]]


def _pair(sample: str, dense: _Records, lost: list[_Records], of: int, model_and_benchmark: str) -> AnswerComparison:
    mildest: dict[str, _Records] = {}
    for cut_records in sorted(lost, key=lambda cut_records: cut_records.cut.ratio):
        mildest.setdefault(cut_records.cut.strategy, cut_records)
    record = dense.by_sample[sample]
    answers = tuple(_answer(cut_records, cut_records.by_sample[sample]) for cut_records in (dense, *mildest.values()))
    prompt = shortened(str(record.get("prompt") or ""))
    target = record.get("target")
    asked = prompt or (f"The correct answer is {target}." if target is not None else "")
    name = f"{model_and_benchmark}, sample {sample}"
    return AnswerComparison(name, dense.cut.model, f"{len(lost)} of {of} cuts got it wrong", asked, answers)


def _answer(records: _Records, record: Mapping[str, Any]) -> ModelAnswer:
    right = bool(record["correct"])
    verdict = [str(record["verdict"]).replace("_", " ")] if record.get("verdict") else ["right" if right else "wrong"]
    verdict += [f"parsed as {record['prediction']}"] if record.get("prediction") is not None else []
    verdict += ["repeats itself"] if record.get("repeats") else []
    return ModelAnswer(records.cut.label, shortened(str(record["text"])) or "(empty)", ", ".join(verdict), right)


def shortened(text: str, most: int = LONGEST) -> str:
    """The beginning of a text and, if it is long, its end, where repetition shows."""
    text = text.strip("\n")
    if len(text) <= most:
        return text
    return f"{text[: 3 * most // 4]}\n[… {len(text) - most} characters …]\n{text[-most // 4 :]}"
