"""Two models' per-sample values, brought into one order, or refused: never aligned in part unless asked."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from prunelab.errors import InvalidRequest, NonFiniteValue
from prunelab.io.lazy import np, pd

if TYPE_CHECKING:
    from numpy.typing import NDArray

FloatArray: TypeAlias = "NDArray[np.float64]"
PerUnit: TypeAlias = "Mapping[Any, Any] | pd.Series | pd.DataFrame | Sequence[Any] | NDArray[Any]"
"""A number or a vector a unit: under its sample id (mapping, Series or DataFrame), or by position alone."""


def table_of(values: PerUnit, name: str) -> tuple[list[Hashable], FloatArray]:
    """Ids, which count from 0 where values go by position, and values `(units, features)`.

    Raises InvalidRequest for no samples or an id given twice, NonFiniteValue with the id for NaN or infinity;
    `name` says in both whose values they are.
    """
    if isinstance(values, (pd.Series, pd.DataFrame)):
        ids, rows = list(values.index), values.to_numpy(dtype=np.float64, na_value=np.nan)
    elif isinstance(values, Mapping):
        ids, rows = list(values), np.asarray(list(values.values()), dtype=np.float64)
    else:
        rows = np.asarray(values, dtype=np.float64)
        ids = list(range(len(rows)))
    if not ids:
        raise InvalidRequest(f"{name}: there are no samples to compare; give at least one")
    if len(set(ids)) < len(ids):
        twice = next(unit for unit in ids if ids.count(unit) > 1)
        raise InvalidRequest(f"{name}: sample {twice!r} occurs more than once; give each sample once")
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
    """Both models' values `(units, features)` in one order, with its ids: sorted as text, or by position.

    Args:
        dense: a number or a vector a unit.
        pruned: likewise, for the same units.
        shared_only: keep the ids that both have, instead of refusing different ones.

    Raises:
        InvalidRequest: other samples or other features in one than in the other, none in common, ids in one
            alone, and what `table_of` refuses.
        NonFiniteValue: as `table_of`.
    """
    named = [isinstance(values, (Mapping, pd.Series, pd.DataFrame)) for values in (dense, pruned)]
    if named[0] != named[1]:
        raise InvalidRequest("one model's values have sample ids, the other's have none; give both alike")
    (ids, before), (others, after) = table_of(dense, "dense"), table_of(pruned, "pruned")
    row, other_row = ({unit: at for at, unit in enumerate(units)} for units in (ids, others))
    shared = [unit for unit in ids if unit in other_row]
    if len(shared) < max(len(ids), len(others)) and not (shared_only and shared):
        only = [
            _listed(name, units)
            for name, units in (("dense", row.keys() - other_row), ("pruned", other_row.keys() - row))
            if units
        ]
        raise InvalidRequest(
            f"dense has {len(ids)} samples and pruned {len(others)}, {'; '.join(only)}; evaluate both on the "
            "same samples, or ask for the shared ones only"
        )
    if before.shape[1] != after.shape[1]:
        raise InvalidRequest(
            f"dense has {before.shape[1]} values a sample and pruned {after.shape[1]}; give both alike"
        )
    order = sorted(shared, key=str) if named[0] else shared
    return order, (before[[row[unit] for unit in order]], after[[other_row[unit] for unit in order]])


def _listed(name: str, units: Collection[Hashable]) -> str:
    few = ", ".join(sorted(map(repr, units))[:3])
    return f"{len(units)} only in {name} ({few}{', ...' if len(units) > 3 else ''})"
