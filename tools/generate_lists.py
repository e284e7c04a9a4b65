"""Fill the generated lists in the README and the documentation from the registries.

    python -m tools.generate_lists            regenerate all lists
    python -m tools.generate_lists --check    change nothing; exit 1 and name each outdated file

A list lies between the lines `<!-- generated: NAME -->` and `<!-- end -->`; `LISTS` holds the names. Third-party
plug-ins are excluded, so that the documentation does not depend on the installation.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from prunelab.api.doctor import EXTRAS
from prunelab.evaluation.benchmarks import benchmarks, with_argument
from prunelab.evaluation.benchmarks.base import Benchmark
from prunelab.evaluation.benchmarks.suites import suites
from prunelab.models.families import families
from prunelab.pruning.methods import PruningMethod, methods

ROOT = Path(__file__).resolve().parents[1]
MARKER = re.compile(r"^<!-- (?:generated: (?P<name>[\w-]+)|(?P<end>end)) -->$", re.MULTILINE)
STRATEGIES = ("depth", "width", "hybrid")
NEEDED_FOR = {
    "ifeval": "the `ifeval` benchmark",
    "gguf": "`prunelab export --to gguf`",
    "ray": "`prunelab study --engine ray`",
    "mlflow": "`prunelab study --tracker mlflow`",
    "wandb": "`prunelab study --tracker wandb`",
}


class ListError(Exception):
    """A page has a marker that cannot be filled."""


def pages(root: Path) -> list[Path]:
    """The Markdown files that may hold generated lists."""
    return [root / "README.md", root / "CONTRIBUTING.md", *sorted((root / "docs").rglob("*.md"))]


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """A Markdown table."""
    return [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}", *(f"| {' | '.join(row)} |" for row in rows)]


def built_in_methods() -> list[PruningMethod]:
    """prunelab's methods: depth, width, hybrid, and the baselines last."""
    package_methods = [method for method in methods.values() if type(method).__module__.startswith("prunelab.")]
    return sorted(
        package_methods, key=lambda method: (is_baseline(method), STRATEGIES.index(method.strategy), method.name)
    )


def is_baseline(method: PruningMethod) -> bool:
    """Whether the method is a baseline: random units, or the smallest weights."""
    return method.source == "baseline"


def needs_the_model_in_memory(method: PruningMethod) -> bool:
    """Whether the method runs the model or compares losses, which streaming does not support."""
    return method.needs_loss or method.runs_model


def method_table() -> list[str]:
    """Every method."""
    rows = ((f"`{m.name}`", m.strategy, m.summary, m.source) for m in built_in_methods())
    return table(("method", "strategy", "what it does", "source"), rows)


def streamed_methods() -> list[str]:
    """The methods that can prune a model that stays on disk."""
    return [f"- `{m.name}`: {m.summary}" for m in built_in_methods() if not needs_the_model_in_memory(m)]


def in_memory_methods() -> list[str]:
    """The methods that need the model in memory."""
    return [f"- `{m.name}`: {m.summary}" for m in built_in_methods() if needs_the_model_in_memory(m)]


def benchmark_table() -> list[str]:
    """Every benchmark, and those that take an argument."""
    package_benchmarks = [b for b in benchmarks.values() if type(b).__module__.startswith("prunelab.")]
    rows = [_benchmark_row(b.name, type(b)) for b in package_benchmarks]
    rows += [_benchmark_row(form, b) for form, b in with_argument.items() if b.__module__.startswith("prunelab.")]
    return table(("benchmark", "measures", "primary metric", "chance", "examples in the prompt"), rows)


def _benchmark_row(name: str, benchmark: type[Benchmark]) -> tuple[str, ...]:
    chance, shots = ("" if value is None else f"{value:.3g}" for value in (benchmark.chance, benchmark.shots))
    return f"`{name}`", benchmark.title, f"`{benchmark.primary}`", chance, shots


def suite_table() -> list[str]:
    """Every suite."""
    rows = ((f"`{s.name}`", s.title, ", ".join(f"`{name}`" for name in s.benchmarks)) for s in suites.values())
    return table(("suite", "purpose", "benchmarks"), rows)


def family_table() -> list[str]:
    """Every family."""
    rows = ((f"`{f.name}`", f"`{f.stock_class}`", f.language_family or "") for f in families.values())
    return table(
        ("family", "transformers class", "language model inside"),
        ((name, stock, f"`{inside}`" if inside else "") for name, stock, inside in rows),
    )


def extra_table() -> list[str]:
    """Every optional dependency."""
    rows = ((f"`pip install 'prunelab[{extra}]'`", NEEDED_FOR[extra]) for extra in EXTRAS)
    return table(("command", "needed for"), rows)


LISTS: dict[str, Callable[[], list[str]]] = {
    "methods": method_table,
    "streamed-methods": streamed_methods,
    "in-memory-methods": in_memory_methods,
    "benchmarks": benchmark_table,
    "suites": suite_table,
    "families": family_table,
    "extras": extra_table,
}


def filled(text: str) -> str:
    """The text with every list regenerated.

    Raises:
        ListError: a marker names no list, has no end, or is an end without a beginning.
    """
    pieces, position, opened = [], 0, ""
    for marker in MARKER.finditer(text):
        name = marker["name"]
        if name:
            if opened:
                raise ListError(f"'<!-- generated: {opened} -->' has no '<!-- end -->'")
            if name not in LISTS:
                raise ListError(f"no list is called {name!r}: use one of {', '.join(LISTS)}")
            pieces.append(text[position : marker.end()])
            pieces.append("\n" + "\n".join(["", *LISTS[name](), ""]) + "\n")
        elif not opened:
            raise ListError("'<!-- end -->' has no '<!-- generated: NAME -->' before it")
        opened, position = name or "", marker.end() if name else marker.start()
    if opened:
        raise ListError(f"'<!-- generated: {opened} -->' has no '<!-- end -->'")
    return "".join([*pieces, text[position:]])


def out_of_date(root: Path, *, write: bool) -> list[Path]:
    """The pages whose lists differ from the registries; with `write` they are corrected.

    Raises:
        ListError: a page has a marker that cannot be filled.
    """
    stale = []
    for page in pages(root):
        text = page.read_text(encoding="utf-8")
        try:
            new = filled(text)
        except ListError as error:
            raise ListError(f"{page.relative_to(root)}: {error}") from None
        if new != text:
            stale.append(page)
            if write:
                page.write_text(new, encoding="utf-8")
    return stale


def main(arguments: Sequence[str] | None = None, root: Path = ROOT) -> int:
    """Run the command.

    Returns:
        The exit code: 0; 1 if a list is outdated and `--check` is given; 2 if a marker cannot be filled.
    """
    parser = argparse.ArgumentParser(description="Fill the generated lists in the README and the documentation.")
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 if a list is outdated")
    check = parser.parse_args(arguments).check
    try:
        stale = out_of_date(root, write=not check)
    except ListError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for page in stale:
        name = page.relative_to(root)
        remedy = "a generated list is out of date: run python -m tools.generate_lists"
        print(f"{name}: {remedy}" if check else f"{name}: written", file=sys.stderr if check else sys.stdout)
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
