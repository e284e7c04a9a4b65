"""lm-eval's task definitions, and their adaptation to data without a train split."""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Mapping
from copy import deepcopy
from dataclasses import dataclass
from functools import cache, cached_property, wraps
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from prunelab.errors import DataError, InvalidRequest, first_line
from prunelab.io.data_rows import Row, require_rows
from prunelab.io.datasets import Source, documents_hash, read_lines
from prunelab.io.lazy import datasets
from prunelab.io.structured import parse_json_object

LM_EVAL_SEED = 1234
"""lm-eval's default seed of the shots."""


def tasks_folder() -> Path:
    """The folder of lm-eval's task definitions."""
    package = find_spec("lm_eval")
    assert package is not None, "lm-eval is a dependency"
    assert package.origin is not None, "lm-eval has an __init__.py"
    return Path(package.origin).parent / "tasks"


@dataclass(frozen=True)
class Definition:
    """One of lm-eval's task definitions.

    Attributes:
        path: its YAML file, relative to lm-eval's tasks folder.
        row: schema of its documents.
        wanted_by: option of `prunelab fetch` that downloads its data.
    """

    path: str
    row: type[Row]
    wanted_by: str

    def fields(self, resolve: bool) -> dict[str, Any]:
        """The fields of the file; with `resolve`, the Python functions that it names are imported."""
        # lm-eval's TaskManager would first read all of its thousands of definitions.
        from lm_eval.tasks._yaml_loader import load_yaml

        fields: dict[str, Any] = load_yaml(tasks_folder() / self.path, resolve_func=resolve)
        return fields

    @cached_property
    def source(self) -> Source:
        """The data set of the task."""
        fields = self.fields(resolve=False)
        return Source(fields["dataset_path"], fields.get("dataset_name"), wanted_by=self.wanted_by)

    def load_splits(self, root: Path | None) -> datasets.DatasetDict:
        """All splits of its data: from `root` or the hub, or from local JSON files that the definition names.

        Files (`dataset_path: json` with `dataset_kwargs: {data_files: ...}`) are found beside the definition, or else
        in the working directory.

        Raises:
            DataError: the data set or a file is missing or damaged.
        """
        fields = self.fields(resolve=False)
        if fields["dataset_path"] != "json":
            return self.source.load_splits(root)
        files = (fields.get("dataset_kwargs") or {}).get("data_files")
        by_split = {"train": files} if isinstance(files, str) else files
        if not isinstance(by_split, dict) or not all(isinstance(file, str) for file in by_split.values()):
            raise DataError(
                f"{self.path}: dataset_kwargs must name data_files, one JSONL file a split: correct the file"
            )
        return datasets.DatasetDict({split: self._rows(file) for split, file in by_split.items()})

    def _rows(self, file: str) -> datasets.Dataset:
        beside = (tasks_folder() / self.path).parent / file
        path = beside if beside.exists() else Path(file)
        rows = [
            parse_json_object(line, source=f"{path}, line {number}", error=DataError)
            for number, line in read_lines(path)
        ]
        try:
            return datasets.Dataset.from_list(rows)
        except (ValueError, TypeError) as error:
            raise DataError(f"{path}: rows of different kinds ({first_line(error)}): make all rows alike") from error


@dataclass(frozen=True)
class PreparedTask:
    """A definition, adapted to the available splits, with its data.

    Attributes:
        name: lm-eval's name of the task.
        version: lm-eval's version of the definition.
        fields: fields of the definition.
        data: all splits.
        split: the scored split.
        shots_split: the split of the shots; None if there is none.
        without_train: whether this is a copy of the definition without the train split.
        fingerprint: hash of the documents in both splits.
    """

    name: str
    version: str
    fields: Mapping[str, Any]
    data: datasets.DatasetDict
    split: str
    shots_split: str | None
    without_train: bool
    fingerprint: str

    @property
    def generates(self) -> bool:
        """Whether the model generates its answer; otherwise given choices are scored."""
        return bool(self.fields["output_type"] == "generate_until")

    @property
    def most_shots(self) -> int:
        """Maximum number of shots; one less if the scored item has to be left out."""
        if self.shots_split is None:
            return 0
        return len(self.data[self.shots_split]) - (self.shots_split == self.split)

    def require_shots(self, shots: int) -> None:
        """Check that there are enough examples.

        Raises:
            InvalidRequest: there are fewer examples than shots; the message gives their number.
        """
        if not 0 <= shots <= self.most_shots:
            where = f"split {self.shots_split} has {self.most_shots}" if self.shots_split else "no split has any"
            allowed = f"from 0 to {self.most_shots}" if self.most_shots else "0"
            raise InvalidRequest(f"{self.name} does not support {shots} shots, {where}: give --shots {allowed}")

    def build(self, shots: int, seed: int, context: int) -> Any:
        """lm-eval's task object.

        Args:
            shots: number of examples in the prompt.
            seed: seed of the shots; 0 draws those that lm-eval draws.
            context: context length in tokens, which limits the generated tokens.
        """
        from lm_eval.api.task import ConfigurableTask

        fields = deepcopy({key: value for key, value in self.fields.items() if key != "tag"})
        fields |= {"custom_dataset": lambda **_: self.data, "num_fewshot": shots}
        if self.generates:
            fields["generation_kwargs"]["max_gen_toks"] = self.new_tokens(context)
        task = ConfigurableTask(config=fields)
        task.set_fewshot_seed(LM_EVAL_SEED + seed)
        # Replace the aggregations: lm-eval's perplexities raise OverflowError where a float overflows.
        aggregations = task.aggregation()
        aggregations.update({metric: _or_infinite(aggregate) for metric, aggregate in aggregations.items()})
        return task

    def new_tokens(self, context: int) -> int:
        """Maximum number of generated tokens: the definition's, or half the context if it exceeds the context."""
        wanted: int = self.fields["generation_kwargs"].get("max_gen_toks", 256)
        return wanted if wanted < context else context // 2


def _or_infinite(aggregate: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """An aggregation that returns infinity where its exponential overflows."""

    @wraps(aggregate)
    def aggregated(items: Any) -> Any:
        try:
            return aggregate(items)
        except OverflowError:
            return math.inf

    return aggregated


@cache
def prepare(definition: Definition, root: Path | None) -> PreparedTask:
    """Load a definition and its data; cached per process.

    Raises:
        DataError: a data set, a split or a column is missing, a split is empty, or a row is malformed.
    """
    source = definition.source
    data = definition.load_splits(root)
    stock = definition.fields(resolve=True)
    scored = stock.get("test_split") or stock.get("validation_split")
    if scored is None or scored not in data:
        raise DataError(
            f"{source.described()} has no split {scored!r}, only {', '.join(data)}: fetch it again with "
            f"`prunelab fetch {source.wanted_by} --to DIR`"
        )
    fields = fitted(stock, data)
    shots = fields.get("fewshot_split") or fields.get("training_split") or fields.get("validation_split")
    used = list(dict.fromkeys(split for split in (scored, shots) if split))
    for split in used:
        require_rows(source, split, data[split], definition.row)
    return PreparedTask(
        name=stock["task"],
        version=str((stock.get("metadata") or {}).get("version", 0)),
        fields=fields,
        data=data,
        split=scored,
        shots_split=shots,
        without_train=fields.get("training_split") != stock.get("training_split"),
        fingerprint="-".join(documents_hash(data[split]) for split in used),
    )


def fitted(stock: Mapping[str, Any], splits: Container[str]) -> Mapping[str, Any]:
    """The definition if its splits exist; otherwise a copy that draws its shots from the validation split."""
    optional = ("training_split", "validation_split", "fewshot_split")
    missing = [key for key in optional if stock.get(key) is not None and stock[key] not in splits]
    if not missing:
        return stock
    fields = {key: value for key, value in stock.items() if key not in missing}
    if fields.get("fewshot_split") is None and fields.get("training_split") is None:
        # lm-eval leaves the scored item out of the shots only if both come from its test split.
        fields["test_split"] = stock.get("test_split") or stock["validation_split"]
        fields["fewshot_split"] = fields.get("validation_split")
    return fields
