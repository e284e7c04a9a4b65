"""Paired tests against hand-computed, published, enumerated and simulated figures."""

from __future__ import annotations

import itertools
import math
from random import Random

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import optimize, special, stats

from prunelab.errors import InvalidRequest, NonFiniteValue
from prunelab.stats.paired_tests import (
    Comparison,
    holm,
    mean,
    paired_accuracy,
    paired_bootstrap,
    perplexity,
    ratio,
    standard_error,
    with_holm,
)

Array = NDArray[np.float64]


def answers(gained: int, lost: int, n: int, both: int = 0) -> tuple[list[bool], list[bool]]:
    """Right and wrong of the dense and of the pruned model, with these discordant counts."""
    neither = n - gained - lost - both
    dense = [False] * gained + [True] * lost + [True] * both + [False] * neither
    pruned = [True] * gained + [False] * lost + [True] * both + [False] * neither
    return dense, pruned


def of_counts(gained: int, lost: int, n: int, both: int = 0) -> Comparison:
    return paired_accuracy(*answers(gained, lost, n, both))


class TestAccuracy:
    def test_hand_computed(self) -> None:
        # 12 discordant: 2 * (C(12,0) + C(12,1) + C(12,2)) / 2^12 = 2 * 79 / 4096
        found = of_counts(gained=2, lost=10, n=40, both=20)
        assert found.p == pytest.approx(158 / 4096)
        assert found.p == pytest.approx(0.03857, abs=5e-6)
        assert (found.dense, found.pruned, found.n, found.test) == (0.75, 0.55, 40, "exact McNemar")
        assert found.difference == pytest.approx(-0.2)
        assert found.p_adjusted is None

    def test_p_is_scipys_binomial_test(self) -> None:
        for gained, lost in itertools.product(range(0, 30, 3), range(0, 41, 5)):
            if gained + lost:
                expected = stats.binomtest(gained, gained + lost).pvalue
                assert of_counts(gained, lost, 80).p == pytest.approx(expected, rel=1e-9)

    @pytest.mark.parametrize(
        ("gained", "lost", "n", "low", "high"),
        [(1, 7, 21, -0.517, -0.026), (6, 16, 161, -0.1240, -0.0054)],
        ids=["Bentur 2009", "Cavo 2012"],
    )
    def test_tango_interval_as_published(self, gained: int, lost: int, n: int, low: float, high: float) -> None:
        """Fagerland, Lydersen and Laake 2014; the R package contingencytables."""
        digits = 3 if n == 21 else 4
        assert [round(limit, digits) for limit in of_counts(gained, lost, n).interval] == [low, high]

    def test_the_exact_test_may_be_more_cautious_than_the_interval(self) -> None:
        found = of_counts(6, 16, 161, both=59)
        assert found.p == pytest.approx(0.052479, abs=1e-6)
        assert not found.significant
        assert found.interval[1] < 0
        assert found.sentence(scale=100) == (
            "no significant change (n = 161; 46.6 to 40.4, -6.2, 95 % interval -12.4 to -0.5, p = 0.052)"
        )

    @pytest.mark.parametrize(("gained", "lost", "n"), [(3, 9, 30), (0, 4, 50), (40, 25, 200), (1, 0, 5)])
    def test_tango_limits_solve_the_score_equation(self, gained: int, lost: int, n: int) -> None:
        """Against the likelihood itself, maximised numerically under the constraint of the limit."""
        for limit in of_counts(gained, lost, n).interval:
            if abs(limit) == 1:
                continue

            def against(share_lost: float, limit: float = limit) -> float:
                share_gained = share_lost + limit
                rest = n - gained - lost
                return -float(
                    special.xlogy(gained, share_gained)
                    + special.xlogy(lost, share_lost)
                    + special.xlogy(rest, 1 - share_lost - share_gained)
                )

            bounds = (max(0.0, -limit), (1 - limit) / 2)
            q = optimize.minimize_scalar(against, bounds=bounds, method="bounded", options={"xatol": 1e-12}).x
            score = (gained - lost - n * limit) / math.sqrt(n * (2 * q + limit * (1 - limit)))
            assert abs(score) == pytest.approx(1.959964, abs=2e-3)

    @pytest.mark.parametrize("n", [1, 5, 1000])
    def test_all_concordant(self, n: int) -> None:
        found = of_counts(0, 0, n, both=n)
        assert (found.difference, found.p) == (0, 1)
        half = 1.959964**2 / (n + 1.959964**2)
        assert found.interval == pytest.approx((-half, half), rel=1e-5)

    @pytest.mark.parametrize("n", [1, 2, 3, 7, 100, 5000])
    def test_all_lost(self, n: int) -> None:
        found = of_counts(0, n, n)
        assert found.interval[0] == found.difference == -1
        assert -1 < found.interval[1] < 1
        assert 0 < found.p <= 1
        if n > 2:
            assert of_counts(0, n - 1, n).interval[0] > -1

    @pytest.mark.parametrize("n", [30, 60])
    def test_interval_covers(self, n: int) -> None:
        """The exact chance, over all outcomes, that the interval holds the truth."""
        counts = [(gained, lost) for gained in range(n + 1) for lost in range(n + 1 - gained)]
        limits = np.array([of_counts(gained, lost, n).interval for gained, lost in counts])
        covered = []
        for gains, losses in [(0.02, 0.02), (0.02, 0.1), (0.05, 0.2), (0.1, 0.1), (0.1, 0.3), (0.01, 0.6)]:
            chance = stats.multinomial.pmf(
                [(gained, lost, n - gained - lost) for gained, lost in counts],
                n,
                [gains, losses, 1 - gains - losses],
            )
            holds = (limits[:, 0] <= gains - losses) & (gains - losses <= limits[:, 1])
            covered.append(float(chance[holds].sum()))
        assert min(covered) > 0.93
        assert 0.945 < np.mean(covered) < 0.98

    def test_thousands_of_losses_do_not_underflow(self) -> None:
        assert of_counts(0, 5000, 14042).p > 0

    @given(st.integers(0, 30), st.integers(0, 30), st.integers(0, 30), st.integers(1, 20))
    def test_swapping_the_models_turns_the_sign(self, gained: int, lost: int, both: int, rest: int) -> None:
        dense, pruned = answers(gained, lost, gained + lost + both + rest, both)
        there, back = paired_accuracy(dense, pruned), paired_accuracy(pruned, dense)
        assert there.difference == -back.difference
        assert there.p == back.p
        assert 0 < there.p <= 1
        assert there.interval == (-back.interval[1], -back.interval[0])
        assert -1 <= there.interval[0] <= there.difference <= there.interval[1] <= 1

    def test_only_right_and_wrong(self) -> None:
        with pytest.raises(InvalidRequest, match=r"pruned: .* sample 'q2' has \[0.5\]; .*paired_bootstrap"):
            paired_accuracy({"q1": 1, "q2": 0}, {"q1": True, "q2": 0.5})
        with pytest.raises(InvalidRequest, match="correct \\(1\\) or incorrect"):
            paired_accuracy([(1, 1)], [(1, 0)])


class TestBootstrap:
    def test_normal_differences_give_students_t(self) -> None:
        generator = np.random.default_rng(3)
        dense = generator.normal(5, 1, size=40)
        pruned = dense + generator.normal(-0.3, 0.7, size=40)
        found = paired_bootstrap(dense, pruned, mean, seed=0)
        t = stats.ttest_rel(pruned, dense)
        assert found.difference == pytest.approx(np.mean(pruned - dense))
        assert found.p == pytest.approx(t.pvalue, rel=0.3)
        assert found.interval == pytest.approx(tuple(t.confidence_interval()), abs=0.03)

    def test_against_every_possible_resample(self) -> None:
        """6 units: all 6^6 resamples, each as likely, of a ratio."""
        dense = np.array([[3, 4], [1, 2], [5, 5], [2, 4], [0, 1], [4, 6]], dtype=float)
        pruned = np.array([[1, 4], [1, 2], [4, 5], [0, 4], [1, 1], [2, 6]], dtype=float)
        drawn = np.array(list(itertools.product(range(6), repeat=6)))
        differences = np.sort(ratio(pruned[drawn].sum(axis=1)) - ratio(dense[drawn].sum(axis=1)))
        tail = stats.norm.cdf(stats.t.ppf(0.025, 5) * math.sqrt(6 / 5))
        found = paired_bootstrap(dense, pruned, ratio, seed=0, resamples=40_000)
        assert found.interval == pytest.approx(np.quantile(differences, [tail, 1 - tail]), abs=0.012)
        share = float((differences >= -1e-12).mean())
        p = 2 * stats.t.cdf(stats.norm.ppf(share) * math.sqrt(5 / 6), 5)
        assert p > 2.0**-5
        assert found.p == pytest.approx(p, rel=0.05)

    def test_interval_covers_and_the_level_is_kept(self) -> None:
        """Perplexity of ten documents, with and without a change; 5 % and 95 % within simulation error."""
        generator = np.random.default_rng(4)
        covered = rejected = 0
        for run in range(400):
            tokens = generator.integers(200, 4000, size=10).astype(float)
            loss = 2.5 + 0.4 * generator.normal(size=10)
            later = loss + 0.3 + 0.15 * generator.normal(size=10)
            same = loss + 0.15 * generator.normal(size=10)
            base = np.column_stack([tokens * loss, tokens])
            changed = paired_bootstrap(
                base, np.column_stack([tokens * later, tokens]), perplexity, seed=run, resamples=1000
            )
            unchanged = paired_bootstrap(
                base, np.column_stack([tokens * same, tokens]), perplexity, seed=run, resamples=1000
            )
            covered += changed.interval[0] <= math.exp(2.8) - math.exp(2.5) <= changed.interval[1]
            rejected += unchanged.significant
        assert 0.90 <= covered / 400 <= 0.98
        assert 0.02 <= rejected / 400 <= 0.09

    def test_named_statistics(self) -> None:
        loss_and_tokens = {"a": (6.0, 2), "b": (2.0, 2)}
        worse = {"a": (8.0, 2), "b": (4.0, 2)}
        found = paired_bootstrap(loss_and_tokens, worse, perplexity, seed=0)
        assert (found.dense, found.pruned) == pytest.approx((math.exp(2), math.exp(3)))
        assert paired_bootstrap(loss_and_tokens, worse, ratio, seed=0).difference == pytest.approx(1)
        shares = [np.mean([1, 1, 0, 0, 1]), np.mean([0, 0, 0, 0, 0])]
        assert paired_bootstrap(shares, [0.0, 0.0], mean, seed=0).dense == pytest.approx(0.3)

    def test_identical_models(self) -> None:
        values = np.random.default_rng(0).normal(size=(50, 2)) + 9
        found = paired_bootstrap(values, values, perplexity, seed=0)
        assert (found.difference, found.interval, found.p) == (0, (0, 0), 1)

    def test_ties_that_rounding_would_break(self) -> None:
        dense = [0.1, 0.2, 0.3, 0.6, 0.7, 0.8]
        found = paired_bootstrap(dense, dense[::-1], mean, seed=0)
        assert (found.difference, found.p) == (0, 1)

    def test_tenths_give_the_p_of_whole_numbers(self) -> None:
        """Sums of tenths that cancel leave rounding behind, which must not break the ties at 0."""
        dense, pruned = np.array([1, 2, 3, 6, 7, 8, 2, 9]), np.array([3, 1, 6, 3, 9, 8, 4, 8])
        whole = paired_bootstrap(dense, pruned, mean, seed=0)
        assert 0.2 < whole.p < 0.9
        assert paired_bootstrap(dense / 10, pruned / 10, mean, seed=0).p == whole.p

    def test_p_and_interval_agree_at_the_very_edge(self) -> None:
        values = np.random.default_rng(0).normal(size=12)
        values += 0.01 + (stats.t.ppf(0.975, 11) * values.std(ddof=1) / math.sqrt(12) - values.mean())
        found = [paired_bootstrap(np.zeros(12), values, mean, seed=s, resamples=1000) for s in range(200)]
        assert 50 < sum(one.significant for one in found) < 150
        assert all(one.significant == (one.interval[0] > 0) for one in found)

    @pytest.mark.parametrize("n", [2, 5])
    def test_few_units_fall_back_to_students_t(self, n: int) -> None:
        dense, pruned = np.arange(n, dtype=float), np.arange(n) * 1.5 + 2
        found = paired_bootstrap(dense, pruned, mean, seed=0, resamples=100_000)
        t = stats.ttest_rel(pruned, dense)
        assert found.interval == pytest.approx(tuple(t.confidence_interval()), rel=0.02)
        assert found.p == pytest.approx(max(t.pvalue, 2.0 ** (1 - n)), rel=0.02)
        assert "Student" in found.test
        assert not found.significant

    @pytest.mark.parametrize(("n", "least"), [(2, 0.5), (3, 0.25), (6, 2.0**-5)])
    def test_p_is_no_smaller_than_signs_allow(self, n: int, least: float) -> None:
        found = paired_bootstrap([1.0] * n, [2.0] * n, mean, seed=0)
        assert found.p == pytest.approx(least)
        assert found.interval == (1, 1)

    def test_a_single_unit_says_nothing(self) -> None:
        found = paired_bootstrap([1.0], [2.0], mean, seed=0)
        assert (found.difference, found.p, found.interval) == (1, 1, (-math.inf, math.inf))
        assert found.sentence() == "too few samples to tell (n = 1; 1.0 to 2.0)"

    def test_five_units_are_too_few_to_tell_however_clear(self) -> None:
        found = paired_bootstrap([1.0, 2, 3, 4, 5], [9.0, 10.1, 11, 12, 13], mean, seed=0)
        assert found.interval[0] > 0
        assert found.sentence().startswith("too few samples to tell (n = 5; 3.00 to 11.02, +8.02")

    def test_the_draw_does_not_depend_on_how_much_is_held_in_memory(self, monkeypatch: pytest.MonkeyPatch) -> None:
        values = np.random.default_rng(1).normal(size=(30, 2)) ** 2 + 1
        whole = paired_bootstrap(values, values[::-1], ratio, seed=5, resamples=1001)
        monkeypatch.setattr("prunelab.stats.paired_tests.CELLS_AT_ONCE", 7 * 30)
        assert paired_bootstrap(values, values[::-1], ratio, seed=5, resamples=1001) == whole

    def test_a_statistic_that_breaks_down(self) -> None:
        with pytest.raises(NonFiniteValue, match="NaN or infinite in 1 of 1 draws"):
            paired_bootstrap([(1.0, 0.0)] * 6, [(1.0, 1.0)] * 6, ratio, seed=0)
        with pytest.raises(NonFiniteValue, match="of 1000 draws"):
            paired_bootstrap([(1.0, 0.0)] * 5 + [(1.0, 1.0)], [(1.0, 1.0)] * 6, ratio, seed=0, resamples=1000)

    def test_too_few_resamples(self) -> None:
        with pytest.raises(InvalidRequest, match="10 resamples given"):
            paired_bootstrap([1.0, 2], [1.0, 3], mean, seed=0, resamples=10)


units = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=25)


class TestBootstrapProperties:
    @settings(max_examples=60, deadline=None)
    @given(units)
    def test_swapping_the_models_turns_the_sign_and_keeps_p(self, pairs: list[tuple[int, int]]) -> None:
        dense, pruned = ([float(pair[side]) for pair in pairs] for side in (0, 1))
        there = paired_bootstrap(dense, pruned, mean, seed=1, resamples=1000)
        back = paired_bootstrap(pruned, dense, mean, seed=1, resamples=1000)
        assert there.difference == -back.difference
        assert there.p == back.p
        assert 0 < there.p <= 1
        assert there.interval == pytest.approx((-back.interval[1], -back.interval[0]))

    @settings(max_examples=60, deadline=None)
    @given(units, st.randoms())
    def test_the_order_of_named_units_changes_nothing(self, pairs: list[tuple[int, int]], random: Random) -> None:
        dense = {f"s{i}": pair[0] for i, pair in enumerate(pairs)}
        pruned = {f"s{i}": pair[1] for i, pair in enumerate(pairs)}
        shuffled = dict(random.sample(sorted(dense.items()), len(dense)))
        found = paired_bootstrap(dense, pruned, mean, seed=1, resamples=1000)
        assert paired_bootstrap(shuffled, pruned, mean, seed=1, resamples=1000) == found
        assert paired_bootstrap(pd.Series(shuffled), pd.Series(pruned), mean, seed=1, resamples=1000) == found

    @settings(max_examples=100, deadline=None)
    @given(units, st.integers(0, 2**32))
    def test_p_and_interval_agree(self, pairs: list[tuple[int, int]], seed: int) -> None:
        assume(len(pairs) >= 6)
        dense, pruned = ([float(pair[side]) for pair in pairs] for side in (0, 1))
        found = paired_bootstrap(dense, pruned, mean, seed=seed, resamples=1000)
        assert found.interval[0] <= found.interval[1]
        assert found.significant == (found.interval[0] > 0 or found.interval[1] < 0)


class TestStandardError:
    def test_binomial_for_right_and_wrong(self) -> None:
        answered = [True] * 30 + [False] * 10
        assert standard_error(answered) == pytest.approx(math.sqrt(0.75 * 0.25 / 39))

    def test_bootstrap_agrees_with_the_closed_form_of_a_mean(self) -> None:
        values = np.random.default_rng(0).exponential(size=12)

        def same_mean(means: Array) -> Array:
            return means[:, 0]

        assert standard_error(values, same_mean, resamples=40_000) == pytest.approx(standard_error(values), rel=0.02)

    def test_bootstrap_agrees_with_the_delta_method(self) -> None:
        generator = np.random.default_rng(0)
        tokens = generator.integers(100, 200, size=400).astype(float)
        losses = tokens * generator.normal(3, 0.3, size=400)
        residual = losses - tokens * losses.sum() / tokens.sum()
        expected = math.exp(losses.sum() / tokens.sum()) * residual.std() / tokens.mean() / 20
        found = standard_error(np.column_stack([losses, tokens]), perplexity, seed=1)
        assert found == pytest.approx(expected, rel=0.05)

    def test_one_unit_has_none(self) -> None:
        assert standard_error([True]) is None
        assert standard_error([(3.0, 1)], perplexity) is None

    def test_constant_values(self) -> None:
        assert standard_error([1, 1, 1]) == 0

    def test_deterministic(self) -> None:
        values = np.random.default_rng(0).normal(5, 1, size=(20, 2))
        assert standard_error(values, ratio, seed=1) == standard_error(values, ratio, seed=1)
        assert standard_error(values, ratio, seed=1) != standard_error(values, ratio, seed=2)

    def test_bad_values(self) -> None:
        with pytest.raises(NonFiniteValue, match="values: sample 1 "):
            standard_error([1.0, math.nan])
        with pytest.raises(InvalidRequest, match="0 samples given"):
            standard_error([])


class TestHolm:
    def test_hand_computed(self) -> None:
        # sorted 0.005, 0.01, 0.03, 0.04 times 4, 3, 2, 1 = 0.02, 0.03, 0.06, 0.04, then never falling
        assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])

    def test_edges(self) -> None:
        assert holm([]) == []
        assert holm([0.3]) == [0.3]
        assert holm([0.9, 0.8]) == [1, 1]

    @pytest.mark.parametrize("p", [-0.1, 1.1, math.nan])
    def test_refuses_what_is_no_p(self, p: float) -> None:
        with pytest.raises(InvalidRequest, match="between 0 and 1"):
            holm([0.5, p])

    @given(st.lists(st.floats(0, 1), max_size=12))
    def test_against_its_definition(self, p: list[float]) -> None:
        adjusted = holm(p)
        order = sorted(range(len(p)), key=lambda i: p[i])
        for position, i in enumerate(order):
            steps = [min(1.0, (len(p) - k) * p[j]) for k, j in enumerate(order[: position + 1])]
            assert adjusted[i] == pytest.approx(max(steps))
        assert all(after >= before for before, after in zip(p, adjusted, strict=True))
        assert [adjusted[i] for i in order] == sorted(adjusted)

    def test_with_holm_decides(self) -> None:
        first, second = with_holm([of_counts(2, 10, 40), of_counts(0, 20, 40)])
        assert first.p_adjusted == first.p < 0.05
        assert second.p_adjusted == pytest.approx(2 * second.p)
        pair = with_holm([of_counts(2, 10, 40), of_counts(2, 10, 40)])
        assert [one.significant for one in pair] == [False, False]
        assert pair[0].sentence(scale=100).endswith("p = 0.039, 0.077 after Holm)")


def compared(dense: float, pruned: float, low: float, high: float, p: float, n: int = 1172) -> Comparison:
    return Comparison(dense, pruned, pruned - dense, (low, high), p, n, "made up")


class TestSentence:
    def test_accuracy(self) -> None:
        found = compared(0.612, 0.589, -0.039, -0.007, 0.0031)
        assert found.sentence(scale=100) == "fell from 61.2 to 58.9 (-2.3, 95 % interval -3.9 to -0.7, p = 0.003)"
        assert found.sentence(scale=100, unit=" %").startswith("fell from 61.2 to 58.9 % (-2.3,")

    def test_perplexity_rises_for_the_worse(self) -> None:
        found = compared(12.1, 15.3, 1.9, 4.5, 1e-4)
        assert found.sentence(higher_is_better=False) == (
            "rose from 12.1 to 15.3 (worse, +3.2, 95 % interval 1.9 to 4.5, p < 0.001)"
        )
        assert (
            compared(15.3, 12.1, -4.5, -1.9, 0.02)
            .sentence(higher_is_better=False)
            .startswith("fell from 15.3 to 12.1 (better, -3.2,")
        )

    def test_neither_direction_is_better(self) -> None:
        assert compared(52.0, 58.0, 2.0, 10.0, 0.01).sentence(higher_is_better=None) == (
            "rose from 52.0 to 58.0 (+6.0, 95 % interval 2.0 to 10.0, p = 0.010)"
        )

    def test_no_change_is_never_a_rise(self) -> None:
        assert compared(0.612, 0.614, -0.0104, 0.0144, 0.74).sentence(scale=100) == (
            "no significant change (n = 1172; 61.2 to 61.4, +0.2, 95 % interval -1.0 to 1.4, p = 0.740)"
        )

    def test_digits_follow_the_interval(self) -> None:
        assert (
            compared(12.1, 12.134, 0.021, 0.047, 0.001)
            .sentence()
            .startswith("rose from 12.100 to 12.134 (+0.034, 95 % interval 0.021 to 0.047")
        )
        assert "rose from 12.1 to 3.46e+08" in compared(12.1, 3.4567e8, 1e8, 9e8, 0.001).sentence()
        assert "-0.0" not in compared(1.0, 1.0, -0.04, 3.0, 0.5).sentence()

    def test_holm_is_told(self) -> None:
        found = with_holm([compared(0.6, 0.5, -0.15, -0.05, 1e-5)] * 2)[0]
        assert found.sentence(scale=100).endswith("p < 0.001, < 0.001 after Holm)")


class TestPairing:
    def test_ids_of_one_model_only_are_named(self) -> None:
        with pytest.raises(InvalidRequest) as raised:
            paired_accuracy({"a": 1, "b": 0, "c": 1}, {"b": 0, "z": 1})
        assert str(raised.value) == (
            "dense has 3 samples and pruned 2, 2 only in dense ('a', 'c'); 1 only in pruned ('z'); "
            "evaluate both on the same samples, or compare only the shared ones (shared_only=True)"
        )

    def test_long_lists_are_cut(self) -> None:
        with pytest.raises(InvalidRequest, match=r"7 only in dense \(3, 4, 5, \.\.\.\)"):
            paired_bootstrap(np.ones(10), np.ones(3), mean, seed=0)

    def test_shared_only_when_asked(self) -> None:
        found = paired_accuracy({"a": 1, "b": 0, "c": 1}, {"c": 0, "b": 0, "z": 1}, shared_only=True)
        assert (found.n, found.dense, found.pruned) == (2, 0.5, 0)
        with pytest.raises(InvalidRequest, match="1 only in dense"):
            paired_accuracy({"a": 1}, {"b": 1}, shared_only=True)

    def test_named_units_are_matched_by_name(self) -> None:
        found = paired_accuracy(pd.Series({"a": True, "b": False}), {"b": False, "a": True})
        assert found.p == 1
        assert found.dense == 0.5

    def test_frames_and_mixed_kinds_of_ids(self) -> None:
        frame = pd.DataFrame({"loss": [6.0, 2], "tokens": [2, 2]}, index=pd.Index([("d", 1), 7], dtype=object))
        other = {7: (4.0, 2), ("d", 1): (8.0, 2)}
        assert paired_bootstrap(frame, other, ratio, seed=0).difference == pytest.approx(1)

    def test_named_against_unnamed(self) -> None:
        with pytest.raises(InvalidRequest, match="sample ids"):
            paired_accuracy({"a": 1}, [1])

    def test_an_id_given_twice(self) -> None:
        with pytest.raises(InvalidRequest, match="dense: sample 'a' occurs more than once"):
            paired_accuracy(pd.Series([1, 0], index=["a", "a"]), {"a": 1})

    def test_other_features(self) -> None:
        with pytest.raises(InvalidRequest, match="dense has 2 values per sample and pruned 1"):
            paired_bootstrap([(1.0, 2.0)], [1.0], mean, seed=0)

    @pytest.mark.parametrize("nothing", [[], {}, np.empty(0), pd.Series(dtype=float)])
    def test_nothing_to_compare(self, nothing: list[bool]) -> None:
        with pytest.raises(InvalidRequest, match="dense: 0 samples given"):
            paired_accuracy(nothing, nothing)

    @pytest.mark.parametrize("value", [math.nan, None, math.inf])
    def test_a_value_that_is_no_number_names_its_sample(self, value: float | None) -> None:
        with pytest.raises(NonFiniteValue, match=r"pruned: sample 'doc-3' \(and 1 more\)"):
            paired_bootstrap(
                {"doc-3": 1.0, "doc-4": 2.0, "doc-5": 1.0},
                {"doc-3": value, "doc-4": 2.0, "doc-5": value},
                mean,
                seed=0,
            )
