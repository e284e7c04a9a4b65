"""Validation of data set rows before anything is computed: types, allowed labels, and answers that can be correct.

A benchmark declares its rows as a `Row`, and `require_rows` checks a split against it. Otherwise an invalid label would
count as a wrong answer, and a missing text would end in a traceback in the middle of an evaluation.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, ClassVar, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError

from prunelab.errors import DataError, first_line
from prunelab.errors.text import one_line
from prunelab.io.datasets import Source, require_documents
from prunelab.io.lazy import datasets

_AT_ONCE = 1000
_SHOWN = 80
_IMAGE_COLUMN = re.compile(r"image(_\d)?")
_IMAGE_PARTS = {"bytes", "path"}


def _not_blank(text: str) -> str:
    if not text.strip():
        raise ValueError("a non-blank text is required")
    return text


Words = Annotated[str, AfterValidator(_not_blank)]
"""A text with at least one visible character."""


class Row(BaseModel):
    """The fields of a row that a benchmark reads; types are strict, and other fields are ignored.

    A field with a default may be missing; an alias is the column's name. A validator raises a ValueError that states
    what is allowed.

    Attributes:
        images: columns that hold images, which are not decoded here.
        unique: fields whose combination must be unique in a split; empty if rows may repeat.
    """

    model_config = ConfigDict(strict=True, frozen=True, extra="ignore")

    images: ClassVar[tuple[str, ...]] = ()
    unique: ClassVar[tuple[str, ...]] = ()

    @classmethod
    def columns(cls) -> tuple[str, ...]:
        """The required columns of a split."""
        fields = cls.model_fields.items()
        return (*(field.alias or name for name, field in fields if field.is_required()), *cls.images)


class TextRow(Row):
    """A row of running text, such as a line of WikiText-2 or a document of C4; it may be blank."""

    text: str


RowType = TypeVar("RowType", bound=Row)


def require_rows(source: Source, split: str, documents: datasets.Dataset, row: type[Row]) -> None:
    """Refuse a split that is empty, lacks a column, or has an invalid row.

    Args:
        source: the data set, for messages.
        split: its name, for messages.
        documents: the rows of the split.
        row: schema of a row.

    Raises:
        DataError: with the row, counted from 0, and the field.
    """
    require_documents(source, split, documents, row.columns())
    remedy = f"fetch it again with `prunelab fetch {source.wanted_by} --to DIR`, or correct the row"
    _require_images(source, split, documents, row)
    seen: dict[tuple[Any, ...], int] = {}
    for index, fields in enumerate(_readable(source, split, _rows_of(documents, row))):
        where = f"{source.described(split)}, row {index} (counted from 0)"
        checked_row(row, fields, where, remedy)
        refuse_repeated(row, fields, where, remedy, seen, f"row {index}")


def checked_row(row: type[RowType], fields: Any, where: str, remedy: str) -> RowType:
    """Validate a row.

    Args:
        row: schema of the row.
        fields: its values.
        where: its place, for messages.
        remedy: end of the message.

    Raises:
        DataError: with the first invalid field.
    """
    try:
        return row.model_validate(fields)
    except ValidationError as error:
        problem = error.errors(include_url=False, include_context=False)[0]
        field = ".".join(map(str, problem["loc"]))
        named = f", field {field}" if field else ""
        message = "an object is required" if problem["type"] == "model_type" else problem["msg"]
        message = message.removeprefix("Value error, ")
        value = one_line(repr(problem["input"]), _SHOWN)
        raise DataError(f"{where}{named}: {one_line(message, 300)}, and {value} is given: {remedy}") from None


def refuse_repeated(
    row: type[Row], fields: Mapping[str, Any], where: str, remedy: str, seen: dict[tuple[Any, ...], Any], place: str
) -> None:
    """Refuse a row that repeats the `unique` fields of an earlier row; `seen` maps these fields to places."""
    if not row.unique:
        return
    key = tuple(fields[name] for name in row.unique)
    if key in seen:
        raise DataError(
            f"{where}, field {', '.join(row.unique)}: each value may occur once, and {one_line(repr(key), _SHOWN)} is "
            f"also given in {seen[key]}: {remedy}"
        )
    seen[key] = place


def _readable(source: Source, split: str, rows: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield the rows; damaged files and files that are not UTF-8 only fail when their rows are read."""
    from datasets.exceptions import DatasetsError

    try:
        yield from rows
    except (ValueError, OSError, RuntimeError, TypeError, DatasetsError) as error:
        raise DataError(
            f"{source.described(split)} cannot be read ({one_line(first_line(error), 200)}): fetch it again with "
            f"`prunelab fetch {source.wanted_by} --to DIR`"
        ) from error


def _rows_of(documents: datasets.Dataset, row: type[Row]) -> Iterator[dict[str, Any]]:
    known = [field.alias or name for name, field in row.model_fields.items()]
    names = [name for name in known if name in documents.column_names]
    if not names:
        return
    for batch in documents.select_columns(names).with_format(None).iter(batch_size=_AT_ONCE):
        for values in zip(*(batch[name] for name in names), strict=True):
            yield dict(zip(names, values, strict=True))


def _require_images(source: Source, split: str, documents: datasets.Dataset, row: type[Row]) -> None:
    """Refuse an image column of another type; the images are decoded later, one at a time."""
    for name in documents.column_names:
        if not row.images or _IMAGE_COLUMN.fullmatch(name) is None:
            continue
        feature = documents.features[name]
        holds_images = isinstance(feature, datasets.Image) or (
            isinstance(feature, dict) and set(feature) == _IMAGE_PARTS
        )
        if not holds_images and feature != datasets.Value("null"):
            raise DataError(
                f"{source.described(split)}, field {name}: images are required, and {one_line(feature, _SHOWN)} "
                f"is given: fetch it again with `prunelab fetch {source.wanted_by} --to DIR`"
            )
