"""Align two models' per-sample values by sample id; different samples are an error unless a subset is requested."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from prunelab.errors import InvalidRequest, NonFiniteValue
from prunelab.io.lazy import np, pd

if TYPE_CHECKING:
    from numpy.typing import NDArray

FloatArray: TypeAlias = "NDArray[np.float64]"
PerUnit: TypeAlias = "Mapping[Any, Any] | pd.Series | pd.DataFrame | Sequence[Any] | NDArray[Any]"
"""One number or vector per unit, keyed by sample id (mapping, Series or DataFrame) or given by position."""


def table_of(values: PerUnit, name: str) -> tuple[list[Hashable], FloatArray]:
    """Sample ids and values of shape `(units, features)`; values given by position get the ids 0, 1, ...

    Args:
        values: one number or vector per unit.
        name: whose values these are, for error messages.

    Raises:
        InvalidRequest: there are no samples, or an id occurs twice.
        NonFiniteValue: a value is NaN or infinite; the message names its sample.
    """
    if isinstance(values, (pd.Series, pd.DataFrame)):
        ids, rows = list(values.index), values.to_numpy(dtype=np.float64, na_value=np.nan)
    elif isinstance(values, Mapping):
        ids, rows = list(values), np.asarray(list(values.values()), dtype=np.float64)
    else:
        rows = np.asarray(values, dtype=np.float64)
        ids = list(range(len(rows)))
    if not ids:
        raise InvalidRequest(f"{name}: 0 samples given; a comparison needs at least 1")
    if len(set(ids)) < len(ids):
        twice = next(unit for unit in ids if ids.count(unit) > 1)
        raise InvalidRequest(f"{name}: sample {twice!r} occurs more than once; remove the duplicates")
    table = rows.reshape(len(ids), -1)
    bad = np.flatnonzero(~np.isfinite(table).all(axis=1))
    if len(bad):
        more = f" (and {len(bad) - 1} more)" if len(bad) > 1 else ""
        raise NonFiniteValue(
            f"{name}: sample {ids[bad[0]]!r}{more} has {table[bad[0]].tolist()}; values must be finite"
        )
    return ids, table


def aligned(
    dense: PerUnit, pruned: PerUnit, shared_only: bool = False
) -> tuple[list[Hashable], tuple[FloatArray, FloatArray]]:
    """Ids and both models' values `(units, features)` in the same order: sorted ids, or the given positions.

    Args:
        dense: one number or vector per unit.
        pruned: the same for the same units.
        shared_only: compare the intersection of the ids instead of raising an error if they differ.

    Raises:
        InvalidRequest: the samples or the number of features differ, no sample is shared, only one model's values
            have ids, or `table_of` raises it.
        NonFiniteValue: as in `table_of`.
    """
    named = [isinstance(values, (Mapping, pd.Series, pd.DataFrame)) for values in (dense, pruned)]
    if named[0] != named[1]:
        raise InvalidRequest("only one model's values have sample ids; give ids for both models or for neither")
    (ids, before), (pruned_ids, after) = table_of(dense, "dense"), table_of(pruned, "pruned")
    row, other_row = ({unit: at for at, unit in enumerate(units)} for units in (ids, pruned_ids))
    shared = [unit for unit in ids if unit in other_row]
    if len(shared) < max(len(ids), len(pruned_ids)) and not (shared_only and shared):
        only = [
            _listed(name, units)
            for name, units in (("dense", row.keys() - other_row), ("pruned", other_row.keys() - row))
            if units
        ]
        raise InvalidRequest(
            f"dense has {len(ids)} samples and pruned {len(pruned_ids)}, {'; '.join(only)}; evaluate both on the "
            "same samples, or compare only the shared ones (shared_only=True)"
        )
    if before.shape[1] != after.shape[1]:
        raise InvalidRequest(
            f"dense has {before.shape[1]} values per sample and pruned {after.shape[1]}; both need the same number"
        )
    order = sorted(shared, key=str) if named[0] else shared
    return order, (before[[row[unit] for unit in order]], after[[other_row[unit] for unit in order]])


def _listed(name: str, units: Collection[Hashable]) -> str:
    first_units = ", ".join(sorted(map(repr, units))[:3])
    return f"{len(units)} only in {name} ({first_units}{', ...' if len(units) > 3 else ''})"
