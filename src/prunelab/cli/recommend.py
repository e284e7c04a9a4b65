"""`prunelab recommend`: which strategy and ratio for a need."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table as RichTable

from prunelab.cli.terminal import app, out
from prunelab.errors import InvalidRequest

UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "KI": 2**10, "MI": 2**20, "GI": 2**30, "TI": 2**40}


@app.command()
def recommend(
    run: Annotated[Path | None, typer.Argument(help="a study's folder; without, the paper's rules answer")] = None,
    model: Annotated[str | None, typer.Option(help="which of the run's models")] = None,
    keep: Annotated[
        str | None, typer.Option(help="least share of the dense model's quality, such as 95%, which is the default")
    ] = None,
    benchmark: Annotated[list[str] | None, typer.Option(help="what quality is; repeatable, all by default")] = None,
    weight: Annotated[list[str] | None, typer.Option(help="of a benchmark, such as gsm8k=2; repeatable")] = None,
    speedup: Annotated[str | None, typer.Option(help="least speed against the dense model, such as 1.3")] = None,
    memory: Annotated[str | None, typer.Option(help="most memory, such as 12GB")] = None,
) -> None:
    """Say which strategy and ratio meet a need, what they cost, and the command that makes the checkpoint."""
    from prunelab.analysis.paper.advice import paper_advice
    from prunelab.analysis.recommend import Need
    from prunelab.analysis.recommend import recommend as answer
    from prunelab.studies.run import load_run

    need = Need(
        keep=None if keep is None else share_of(keep),
        benchmarks=tuple(dict.fromkeys(benchmark or ())),
        weights=dict(weight_of(text) for text in weight or ()),
        speedup=None if speedup is None else _number(speedup.removesuffix("x"), "--speedup", "1.3"),
        memory=None if memory is None else bytes_of(memory),
        model=model,
    )
    if run is None:
        if need.model or need.benchmarks or need.weights or need.memory:
            raise InvalidRequest("the paper's rules know --keep and --speedup alone: give a run for the other options")
        for line in advice_lines(paper_advice(need.keep, need.speedup)):
            out.print(line)
        return
    found = answer(load_run(run), need)
    for line in recommendation_lines(found):
        out.print(line)
    out.print(_table(found))
    out.print(f"make it: {found.command}")


def share_of(text: str) -> float:
    """95% or 0.95 as a share."""
    if text.strip().endswith("%"):
        return _number(text.strip()[:-1], "--keep", "95%") / 100
    value = _number(text, "--keep", "95%")
    if value > 1:
        raise InvalidRequest(f"--keep {text} is no share: give one up to 100%, such as 95% or 0.95")
    return value


def weight_of(text: str) -> tuple[str, float]:
    """gsm8k=2 as a name and a number."""
    name, equals, value = text.rpartition("=")
    if not equals or not name:
        raise InvalidRequest(f"--weight {text} names no weight: give a benchmark and a number, such as gsm8k=2")
    return name, _number(value, "--weight", "gsm8k=2")


def bytes_of(text: str) -> float:
    """12GB, 800 MB or 11.5GiB as bytes."""
    found = re.fullmatch(r"\s*([\d.]+)\s*([KMGT]?I?)B?\s*", text.upper())
    if found is None or found.group(2) not in UNITS:
        raise InvalidRequest(f"--memory {text} is no size: give a number and a unit, such as 12GB or 800MiB")
    return _number(found.group(1), "--memory", "12GB") * UNITS[found.group(2)]


def _number(text: str, option: str, example: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise InvalidRequest(f"{option}: {text!r} is no number: give one, such as {example}") from None


def advice_lines(advice: Any) -> list[str]:
    """The paper's advice in words."""
    from prunelab.analysis.paper.advice import SOURCE

    lines = [f"{advice.strategy} ({advice.method}) at {advice.ratio:.0%}: {advice.why}"]
    lines += [f"but {advice.caution}"] if advice.caution else []
    lines += [f"this is from {SOURCE}; measure: prunelab study --model MODEL, then prunelab recommend RUN"]
    return [*lines, f"make it: prunelab prune MODEL --method {advice.method} --ratio {advice.ratio:g} --out DIR"]


def recommendation_lines(found: Any) -> list[str]:
    """The choice, its reason, its cost and its doubts."""
    need, choice = found.need, found.choice
    what = "recommended" if choice.feasible else "nothing meets the need; nearest"
    lines = [f"{what}: {cut_words(choice)}", f"because {found.why}" if choice.feasible else found.why]
    weights = "" if not need.weights else f", weighted {', '.join(f'{n} {w:g}' for n, w in need.weights.items())}"
    lines.append(f"quality is the mean share kept above chance on {', '.join(need.benchmarks)}{weights}")
    lines += [f"of several: {what}" for what in found.taken]
    lines += [f"once: {what}" for what in found.duplicates]
    if choice.memory is not None and found.dense_memory is not None:
        lines.append(f"memory: {_gigabytes(choice.memory)} of {_gigabytes(found.dense_memory)} ({found.memory_is})")
    lines += [f"costs: {difference.sentence()}" for difference in (*choice.fell, *choice.untold)]
    if not (choice.fell or choice.untold):
        lines.append("costs: no chosen benchmark was seen to fall significantly")
    lines += [f"runner-up: {cut_words(one)}; {doubt}" for one, doubt in found.runners_up]
    lines += [f"left out: {reason}" for reason in found.left_out]
    if found.not_measured:
        lines.append(f"not measured: {', '.join(found.not_measured)}")
    return lines


def cut_words(candidate: Any) -> str:
    """ "m, depth (shortgpt) at 20% (achieved 18.8%): keeps 93.1% of the quality, 1.21x the speed"."""
    cut = candidate.cut
    quality = "quality unknown" if candidate.quality is None else f"keeps {candidate.quality:.1%} of the quality"
    speed = "" if candidate.speedup is None else f", {candidate.speedup:.2f}x the speed"
    size = f"{cut.ratio:.0%} (achieved {cut.achieved_ratio:.1%})"
    return f"{cut.model}, {cut.strategy} ({cut.method}) at {size}: {quality}{speed}"


def _table(found: Any) -> RichTable:
    """The feasible frontier, or the nearest cut where nothing is feasible."""
    names: Sequence[str] = found.need.benchmarks
    title = "feasible, and beaten by none" if found.frontier else "nearest"
    table = RichTable("cut", "achieved", "quality", "speed", "memory", *names, title=title)
    for one in found.frontier or (found.choice,):
        shares = [f"{one.retained[name]:.1%}" if name in one.retained else "–" for name in names]
        table.add_row(
            f"{one.cut.method} {one.cut.ratio:.0%}",
            f"{one.cut.achieved_ratio:.1%}",
            "–" if one.quality is None else f"{one.quality:.1%}",
            "–" if one.speedup is None else f"{one.speedup:.2f}x",
            "–" if one.memory is None else _gigabytes(one.memory),
            *shares,
        )
    return table


def _gigabytes(value: float) -> str:
    return f"{value / 1e9:.3g} GB"
