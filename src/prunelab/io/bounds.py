"""Bounds of all numbers that users give, shared by the command line, configurations and the Python API."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

from pydantic import WrapValidator

from prunelab.errors import InvalidRequest


@dataclass(frozen=True)
class Bounds:
    """Inclusive bounds of a number.

    Attributes:
        low: the smallest allowed value.
        high: the largest allowed value; anything larger is a typo, and would overflow or exhaust the memory.
        whole: whether it must be a whole number.
        or_zero: whether 0 is allowed in addition.
    """

    low: float
    high: float
    whole: bool = True
    or_zero: bool = False

    def __str__(self) -> str:
        number = "a whole number" if self.whole else "a number"
        return f"{'0 or ' if self.or_zero else ''}{number} from {self.low:,.12g} to {self.high:,.12g}"

    def holds(self, value: Any) -> bool:
        """Whether a value is a number within the bounds; booleans and NaN are not."""
        if isinstance(value, bool) or not isinstance(value, Integral if self.whole else Real):
            return False
        number: Any = value
        return bool(self.low <= number <= self.high or (self.or_zero and number == 0))

    def check(self, called: str, value: Any) -> None:
        """Refuse a value outside the bounds.

        Args:
            called: name of the option or field.
            value: the given value.

        Raises:
            InvalidRequest: with the given value and the bounds.
        """
        if not self.holds(value):
            raise InvalidRequest(f"{called} {shown(value)} is not possible: give {self}")

    @property
    def field(self) -> WrapValidator:
        """Validator for a pydantic field: `Annotated[int, LIMIT.field]`."""
        return WrapValidator(self._validated)

    def _validated(self, value: Any, parse: Callable[[Any], Any]) -> Any:
        if isinstance(value, bool):  # pydantic would accept it as 0 or 1
            raise ValueError(f"{str(value).lower()} is not a number: give {self}")
        parsed = parse(value)
        if not self.holds(parsed):
            raise ValueError(f"{shown(parsed)} is not possible: give {self}")
        return parsed


def check_all(values: Mapping[str, Any], bounds: Mapping[str, Bounds]) -> None:
    """Refuse the first value outside its bounds; None counts as not given.

    Raises:
        InvalidRequest: see `Bounds.check`.
    """
    for name, bound in bounds.items():
        if values.get(name) is not None:
            bound.check(name, values[name])


def shown(value: Any) -> str:
    """Format a value for a message: long text is truncated, and a huge integer is replaced by its number of digits."""
    if isinstance(value, bool) or not isinstance(value, Real):
        text = repr(value)
        return text if len(text) <= 40 else f"{text[:40]}..."
    if isinstance(value, Integral):
        number = int(value)
        if number.bit_length() <= 100:
            return str(number)
        return f"of some {int(number.bit_length() * math.log10(2)) + 1:,} digits"
    return f"{float(value):g}"


SEED = Bounds(0, 2**63 - 1)
LIMIT = Bounds(1, 10**9)
SHOTS = Bounds(0, 1000)
SAMPLES = Bounds(1, 10**6)
SEQUENCE_LENGTH = Bounds(2, 10**7)
WINDOW = Bounds(2, 10**7)
COMPLETIONS = Bounds(1, 10**4)
TEMPERATURE = Bounds(0.001, 100, whole=False, or_zero=True)
"""Divides the logits; below 0.001 only the most likely token has probability left, which is what 0 means."""
RATIO = Bounds(1e-6, 1 - 1e-6, whole=False, or_zero=True)
SHARE = Bounds(1e-6, 1, whole=False)
TOKENS = Bounds(1, 10**6)
TOKENS_A_BATCH = Bounds(1, 10**8)
REPEATS = Bounds(1, 10**4)
BLOCKS = Bounds(0, 10**4)
MULTIPLE = Bounds(1, 2**20)
WORKERS = Bounds(1, 10**4)
PROCESSORS = Bounds(0.001, 10**4, whole=False, or_zero=True)
CPUS = Bounds(0.001, 10**4, whole=False)
WEIGHT = Bounds(1e-6, 1e6, whole=False)
SPEEDUP = Bounds(1e-6, 1e6, whole=False)
MEMORY = Bounds(1, 1e18, whole=False)

EVALUATION = {
    "limit": LIMIT, "shots": SHOTS, "window": WINDOW, "seed": SEED, "tokens_a_batch": TOKENS_A_BATCH,
    "prompt_tokens": TOKENS, "new_tokens": Bounds(2, 10**6), "repeats": REPEATS, "completions": COMPLETIONS,
    "temperature": TEMPERATURE, "top_p": SHARE,
}  # fmt: skip
"""Fields of `EvaluationSettings`."""
CALIBRATION = {"samples": SAMPLES, "sequence_length": SEQUENCE_LENGTH, "held_out": SAMPLES, "seed": SEED}
"""Fields of `CalibrationOptions`."""
CONSTRAINTS = {"protect_first": BLOCKS, "protect_last": BLOCKS, "channel_multiple": MULTIPLE}
"""Fields of `Constraints`."""
