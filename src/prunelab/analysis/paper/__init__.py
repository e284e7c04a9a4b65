"""The paper's own tables: "Rethinking the Value of Training-Free Structured Pruning of LLMs" (TMLR 2025), Tables 1-3.

Values that the paper only plots are not included.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Literal, get_args

from pydantic import BaseModel, ConfigDict

from prunelab.errors import UnknownName

Table = Literal["ifeval", "throughput", "pope", "textvqa", "mmmu"]
"""IFEval (share), throughput (tokens per second at batch size 1), and Table 3's three benchmarks (percent)."""
Strategy = Literal["baseline", "depth", "width"]

NAMES = {
    "LLaMA-3-8B": r"^(meta)?llama38b",
    "Gemma-2-2B": r"^gemma22b",
    "Idefics3-8B": r"^idefics38b",
}
"""The paper's model names, each with prefixes of common names, in lower case and without punctuation."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class _Row(_Frozen):
    model: str
    strategy: Strategy
    compression: float
    score: float | None = None
    tokens_per_second: float | None = None
    pope: float | None = None
    textvqa: float | None = None
    mmmu: float | None = None


class _Table(_Frozen):
    note: str
    rows: tuple[_Row, ...]


class _Tables(_Frozen):
    source: str
    ifeval: _Table
    throughput: _Table
    multimodal: _Table


@dataclass(frozen=True)
class PaperRow:
    """One value of the paper's tables.

    Attributes:
        table: the benchmark.
        model: the paper's name of the model.
        strategy: `depth`, `width`, or `baseline` for the dense model.
        ratio: 0 for the dense model; the paper does not define what it is a share of.
        value: the value, in the paper's unit.
    """

    table: Table
    model: str
    strategy: Strategy
    ratio: float
    value: float


@cache
def _tables() -> _Tables:
    return _Tables.model_validate_json(files(__name__).joinpath("tables.json").read_text(encoding="utf-8"))


def paper_rows(table: Table) -> Sequence[PaperRow]:
    """The values of one benchmark, in the paper's order.

    Raises:
        UnknownName: the paper has no such table.
    """
    if table not in get_args(Table):
        raise UnknownName("table of the paper", table, get_args(Table))
    column = {"ifeval": "score", "throughput": "tokens_per_second"}.get(table, table)
    source = getattr(_tables(), table if table in ("ifeval", "throughput") else "multimodal")
    return [PaperRow(table, r.model, r.strategy, r.compression, getattr(r, column)) for r in source.rows]


def paper_note(table: Table) -> str:
    """The paper's information about a table, and what it leaves open."""
    tables = _tables()
    note: str = getattr(tables, table if table in ("ifeval", "throughput") else "multimodal").note
    return note


def paper_model(name: str) -> str | None:
    """The paper's name of a model, from a folder or a hub id; None for a model that is not in the tables.

    Owner, case, punctuation and suffixes after the size (`-Instruct`, `-it`) are ignored; size and version must match.
    """
    plain = re.sub(r"[^a-z0-9.]", "", name.rstrip("/").rsplit("/", 1)[-1].lower())
    return next((known for known, pattern in NAMES.items() if re.match(pattern, plain)), None)


def paper_value(table: Table, model: str, strategy: str, ratio: float) -> float | None:
    """A value of the paper's tables; None if there is none.

    Args:
        table: the benchmark.
        model: the paper's name, or a name that `paper_model` recognizes.
        strategy: `depth` or `width`; `dense` and `baseline` are equivalent.
        ratio: requested ratio, compared in integer percent.
    """
    wanted = (paper_model(model), {"dense": "baseline"}.get(strategy, strategy), round(100 * ratio))
    rows = paper_rows(table)
    return next((r.value for r in rows if (r.model, r.strategy, round(100 * r.ratio)) == wanted), None)


__all__ = ["PaperRow", "Strategy", "Table", "paper_model", "paper_note", "paper_rows", "paper_value"]
