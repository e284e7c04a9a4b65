"""The StereoSet rule on hand-made sets whose figures are known."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, cast

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prunelab.errors import InvalidRequest, NonFiniteValue
from prunelab.evaluation.metrics.stereoset import (
    DOMAINS,
    SPLITS,
    Split,
    StereoSetItem,
    StereoSetScore,
    icat_statistic,
    score,
    term_table,
)
from prunelab.stats.paired_tests import mean, paired_bootstrap, standard_error


def example(
    number: int,
    stereotype: float,
    anti: float,
    unrelated: float,
    *,
    target: str = "chess player",
    domain: str = "profession",
    split: Split = "intrasentence",
) -> StereoSetItem:
    return StereoSetItem(f"e{number}", split, domain, target, stereotype, anti, unrelated)


def cell(items: list[StereoSetItem], split: str = "intrasentence", domain: str = "overall") -> StereoSetScore:
    return next(found for found in score(items) if (found.split, found.domain) == (split, domain))


def figures(found: StereoSetScore) -> tuple[float, float, float]:
    return found.lms, found.ss, found.icat


def test_an_ideal_model_scores_100() -> None:
    items = [example(i, -2 - i % 2, -3 + i % 2, -9) for i in range(10)]
    assert figures(cell(items)) == (100, 50, 100)


def test_a_fully_stereotyped_model_and_its_opposite_score_0() -> None:
    items = [example(i, -2, -3, -9) for i in range(10)]
    assert figures(cell(items)) == (100, 100, 0)
    turned = [replace(item, stereotype=-3, anti_stereotype=-2) for item in items]
    assert figures(cell(turned)) == (100, 0, 0)


def test_a_model_that_prefers_the_unrelated_sentence_scores_0() -> None:
    assert figures(cell([example(0, -2, -3, -1), example(1, -3, -2, -1)])) == (0, 50, 0)


def test_a_random_model_scores_near_50() -> None:
    draws = np.random.default_rng(0).normal(size=(4000, 3))
    items = [example(i, *row, target=f"t{i % 80}") for i, row in enumerate(draws.tolist())]
    assert figures(cell(items)) == pytest.approx((50, 50, 50), abs=2.5)


def test_hand_computed_terms_weigh_the_same_whatever_their_size() -> None:
    items = [
        example(0, -1, -2, -3, target="a"),  # pro, related twice
        example(1, -1, -2, -1.5, target="a"),  # pro, related once
        example(2, -2, -1, -3, target="a"),  # anti, related twice
        example(3, -2, -1, -1.5, target="a"),  # anti, related once: SS 50, LMS 75
        example(4, -1, -2, -3, target="b"),  # SS 100, LMS 100
    ]
    found = cell(items)
    assert figures(found) == (87.5, 75, 87.5 * 25 / 50)
    assert (found.terms, found.examples) == (2, 5)
    # the averages' ICAT, not the average of the terms' (75 and 0)
    assert found.icat == pytest.approx(43.75)


@pytest.mark.parametrize(
    ("scores", "lms", "ss"),
    [
        ((-1, -1, -2), 100, 0),  # stereotype = anti-stereotype counts as anti
        ((-1, -2, -1), 0, 100),  # stereotype = unrelated is not related
        ((-2, -1, -1), 0, 0),  # anti-stereotype = unrelated is not related either
        ((-1, -1, -1), 0, 0),
    ],
)
def test_ties(scores: tuple[float, float, float], lms: float, ss: float) -> None:
    found = cell([example(0, *scores)])
    assert (found.lms, found.ss) == (lms, ss)


def test_numpy_scores_count_like_python_ones() -> None:
    found = cell([example(0, *np.array([-1.0, -2.0, -3.0]))])
    assert (found.lms, found.ss) == (100, 100)


def test_domains_by_split_then_overall_then_pooled() -> None:
    items = [
        example(i, -1, -2, -3, split=split, domain=domain, target=domain)
        for i, (split, domain) in enumerate((split, domain) for split in SPLITS for domain in DOMAINS)
    ]
    found = score(items)
    wanted = [*DOMAINS, "overall"]
    assert [(one.split, one.domain) for one in found] == [
        (split, domain) for split in (*SPLITS, "pooled") for domain in wanted
    ]
    assert [one.examples for one in found] == [1, 1, 1, 1, 4] * 2 + [2, 2, 2, 2, 8]
    assert [one.terms for one in found] == [1, 1, 1, 1, 4] * 3
    assert [(one.split, one.domain) for one in found if not one.official] == [("pooled", d) for d in DOMAINS]


def test_a_term_of_both_splits_is_one_term_when_pooled() -> None:
    items = [
        example(0, -1, -2, -3, target="a"),
        example(1, -2, -1, -3, target="a", split="intersentence"),
        example(2, -2, -1, -3, target="a", split="intersentence"),
        example(3, -1, -2, -3, target="b"),
    ]
    found = cell(items, "pooled")
    assert found.terms == 2
    assert found.ss == pytest.approx((100 / 3 + 100) / 2)
    assert cell(items, "pooled", "profession").ss == found.ss


def test_spelling_tells_terms_apart() -> None:
    assert cell([example(0, -1, -2, -3, target="Arab"), example(1, -1, -2, -3, target="arab")]).terms == 2


def test_cells_without_examples_are_left_out() -> None:
    assert [(one.split, one.domain) for one in score([example(0, -1, -2, -3)])] == [
        (split, domain) for split in ("intrasentence", "pooled") for domain in ("profession", "overall")
    ]


@pytest.mark.parametrize("field", ["stereotype", "anti_stereotype", "unrelated"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_score_that_is_no_number_names_its_example(field: str, value: float) -> None:
    broken: dict[str, Any] = {field: value}
    items = [example(0, -1, -2, -3), replace(example(7, -1, -2, -3), **broken)]
    with pytest.raises(NonFiniteValue, match=f"'e7'.*chess player.*{field}"):
        score(items)


@pytest.mark.parametrize(
    ("items", "message"),
    [
        ([], "0 StereoSet examples given"),
        ([example(0, -1, -2, -3), example(0, -2, -1, -3)], "'e0' occurs twice"),
        ([example(0, -1, -2, -3, domain="age")], "domain 'age'; allowed are gender, profession"),
        (
            [replace(example(0, -1, -2, -3), split=cast(Split, "dev"))],
            "split 'dev'; allowed are intra",
        ),
    ],
)
def test_requests_that_cannot_be_met(items: list[StereoSetItem], message: str) -> None:
    with pytest.raises(InvalidRequest, match=message):
        score(items)


def test_the_same_id_may_occur_in_both_splits() -> None:
    found = cell([example(0, -1, -2, -3), example(0, -1, -2, -3, split="intersentence")], "pooled")
    assert found.examples == 2


def random_items(seed: int, shift: float = 0.0) -> list[StereoSetItem]:
    generator = np.random.default_rng(seed)
    rows = generator.normal(loc=(0.8, 0.3 + shift, 0), size=(400, 3))
    return [example(i, *row, target=f"t{i % 40}", split=SPLITS[i // 200]) for i, row in enumerate(rows.tolist())]


def test_the_term_table_averages_to_the_score_and_feeds_the_bootstrap() -> None:
    dense, pruned = random_items(0), random_items(0, shift=0.4)
    tables = [term_table(items) for items in (dense, pruned)]
    before, after = (table.loc[("pooled", "overall"), ["lms", "ss"]] for table in tables)
    assert tables[0]["examples"].loc[("pooled", "overall")].tolist() == [10] * 40
    found = paired_bootstrap(before, after, icat_statistic, seed=0)
    assert found.n == 40
    assert found.dense == pytest.approx(cell(dense, "pooled").icat)
    assert found.pruned == pytest.approx(cell(pruned, "pooled").icat)
    assert found.interval[0] < found.difference < found.interval[1]
    alone = paired_bootstrap(before["ss"], after["ss"], mean, seed=0)
    assert alone.dense == pytest.approx(cell(dense, "pooled").ss)
    assert alone.significant
    error = standard_error(before, icat_statistic)
    assert error is not None
    assert 0.5 < error < 10


def test_the_term_table_is_sorted_so_that_a_cell_is_found_without_a_warning() -> None:
    table = term_table(random_items(1))
    assert isinstance(table.index, pd.MultiIndex)
    assert table.index.names == ["split", "domain", "term"]
    assert table.index.is_monotonic_increasing
    assert table.index.is_unique


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(*[st.integers(-3, 3)] * 3, st.sampled_from("abc")), min_size=1, max_size=30))
def test_figures_stay_within_bounds_and_ignore_order_and_scale(rows: list[tuple[int, int, int, str]]) -> None:
    items = [example(i, s, a, u, target=term) for i, (s, a, u, term) in enumerate(rows)]
    found = cell(items)
    rounding = 1e-12
    assert 0 <= found.icat <= found.lms * (1 + rounding) <= 100 * (1 + 2 * rounding)
    assert 0 <= found.ss <= 100 * (1 + rounding)
    assert figures(cell(items[::-1])) == pytest.approx(figures(found))
    # probabilities order the sentences as their logarithms do
    warped = [
        replace(
            item,
            stereotype=math.exp(item.stereotype),
            anti_stereotype=math.exp(item.anti_stereotype),
            unrelated=math.exp(item.unrelated),
        )
        for item in items
    ]
    assert figures(cell(warped)) == figures(found)
