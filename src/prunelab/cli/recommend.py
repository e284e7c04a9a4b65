"""`prunelab recommend`: recommend a method and ratio for given requirements."""

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
    run: Annotated[
        Path | None,
        typer.Argument(
            help='folder of a study; without it, advice from "Rethinking the Value of Training-Free Structured '
            'Pruning of LLMs"'
        ),
    ] = None,
    model: Annotated[str | None, typer.Option(help="model to choose for, if the run has several")] = None,
    keep: Annotated[
        str | None, typer.Option(help="minimum share of the dense model's quality to keep, 95% by default")
    ] = None,
    benchmark: Annotated[
        list[str] | None, typer.Option(help="benchmark that counts as quality, repeatable; by default all")
    ] = None,
    weight: Annotated[list[str] | None, typer.Option(help="weight of a benchmark, such as gsm8k=2; repeatable")] = None,
    speedup: Annotated[str | None, typer.Option(help="minimum speed-up over the dense model, such as 1.3")] = None,
    memory: Annotated[str | None, typer.Option(help="maximum memory, such as 12GB")] = None,
) -> None:
    """Recommend a method and ratio, with the quality they cost and the command that creates the checkpoint."""
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
            raise InvalidRequest(
                "without a run, only --keep and --speedup are available: give the folder of a study for other options"
            )
        for line in advice_lines(paper_advice(need.keep, need.speedup)):
            out.print(line)
        return
    recommendation = answer(load_run(run), need)
    for line in recommendation_lines(recommendation):
        out.print(line)
    out.print(_table(recommendation))
    out.print(f"command: {recommendation.command}")


def share_of(text: str) -> float:
    """Parse a share, such as 95% or 0.95."""
    if text.strip().endswith("%"):
        return _number(text.strip()[:-1], "--keep", "95%") / 100
    value = _number(text, "--keep", "95%")
    if value > 1:
        raise InvalidRequest(f"--keep {text} is not a share: give at most 100%, such as 95% or 0.95")
    return value


def weight_of(text: str) -> tuple[str, float]:
    """Parse a benchmark and its weight, such as gsm8k=2."""
    name, equals, value = text.rpartition("=")
    if not equals or not name:
        raise InvalidRequest(f"--weight {text} is not a weight: give a benchmark and a number, such as gsm8k=2")
    return name, _number(value, "--weight", "gsm8k=2")


def bytes_of(text: str) -> float:
    """Parse a memory size, such as 12GB, 800 MB or 11.5GiB, into bytes."""
    match = re.fullmatch(r"\s*([\d.]+)\s*([KMGT]?I?)B?\s*", text.upper())
    if match is None or match.group(2) not in UNITS:
        raise InvalidRequest(f"--memory {text} is not a size: give a number and a unit, such as 12GB or 800MiB")
    return _number(match.group(1), "--memory", "12GB") * UNITS[match.group(2)]


def _number(text: str, option: str, example: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise InvalidRequest(f"{option}: {text!r} is not a number: give one, such as {example}") from None


def advice_lines(advice: Any) -> list[str]:
    """The paper's advice as lines of text."""
    from prunelab.analysis.paper.advice import SOURCE

    lines = [f"{advice.strategy} ({advice.method}) at {advice.ratio:.0%}: {advice.why}"]
    lines += [f"caution: {advice.caution}"] if advice.caution else []
    lines += [f"source: {SOURCE}; to measure: prunelab study --model MODEL, then prunelab recommend RUN"]
    return [*lines, f"command: prunelab prune MODEL --method {advice.method} --ratio {advice.ratio:g} --out DIR"]


def recommendation_lines(recommendation: Any) -> list[str]:
    """The choice with its reason, costs and uncertainties, as lines of text."""
    need, choice = recommendation.need, recommendation.choice
    what = "recommended" if choice.feasible else "nothing meets the requirements; nearest"
    lines = [f"{what}: {cut_words(choice)}", f"reason: {recommendation.why}" if choice.feasible else recommendation.why]
    weights = "" if not need.weights else f", weighted {', '.join(f'{n} {w:g}' for n, w in need.weights.items())}"
    lines.append(f"quality is the mean share kept above chance on {', '.join(need.benchmarks)}{weights}")
    lines += [f"note: {what}" for what in recommendation.taken]
    lines += [f"duplicate: {what}" for what in recommendation.duplicates]
    if choice.memory is not None and recommendation.dense_memory is not None:
        dense = _gigabytes(recommendation.dense_memory)
        lines.append(f"memory: {_gigabytes(choice.memory)} of {dense} ({recommendation.memory_is})")
    lines += [f"costs: {difference.sentence()}" for difference in (*choice.fell, *choice.untold)]
    if not (choice.fell or choice.untold):
        lines.append("costs: no chosen benchmark fell significantly")
    lines += [f"runner-up: {cut_words(candidate)}; {doubt}" for candidate, doubt in recommendation.runners_up]
    lines += [f"left out: {reason}" for reason in recommendation.left_out]
    if recommendation.not_measured:
        lines.append(f"not measured: {', '.join(recommendation.not_measured)}")
    return lines


def cut_words(candidate: Any) -> str:
    """ "m, depth (shortgpt) at 20% (achieved 18.8%): keeps 93.1% of the quality, 1.21x the speed"."""
    cut = candidate.cut
    quality = "quality unknown" if candidate.quality is None else f"keeps {candidate.quality:.1%} of the quality"
    speed = "" if candidate.speedup is None else f", {candidate.speedup:.2f}x the speed"
    size = f"{cut.ratio:.0%} (achieved {cut.achieved_ratio:.1%})"
    return f"{cut.model}, {cut.strategy} ({cut.method}) at {size}: {quality}{speed}"


def _table(recommendation: Any) -> RichTable:
    """The Pareto frontier of feasible cuts, or the nearest cut if none is feasible."""
    names: Sequence[str] = recommendation.need.benchmarks
    title = "feasible and not dominated" if recommendation.frontier else "nearest"
    table = RichTable("cut", "achieved", "quality", "speed", "memory", *names, title=title)
    for candidate in recommendation.frontier or (recommendation.choice,):
        shares = [f"{candidate.retained[name]:.1%}" if name in candidate.retained else "–" for name in names]
        table.add_row(
            f"{candidate.cut.method} {candidate.cut.ratio:.0%}",
            f"{candidate.cut.achieved_ratio:.1%}",
            "–" if candidate.quality is None else f"{candidate.quality:.1%}",
            "–" if candidate.speedup is None else f"{candidate.speedup:.2f}x",
            "–" if candidate.memory is None else _gigabytes(candidate.memory),
            *shares,
        )
    return table


def _gigabytes(value: float) -> str:
    return f"{value / 1e9:.3g} GB"
