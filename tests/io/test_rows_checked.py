"""Rows of data sets that cannot be used are refused before anything is computed: row, field, what is allowed."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import Ran, byte_tokenizer
from hypothesis import given, settings
from hypothesis import strategies as st
from miniature_hub import documents, write_data_set
from miniature_vision import mmmu_row, pope_rows, write_repository

from prunelab.calibration.corpus import C4, WIKITEXT2, draw_calibration_set
from prunelab.errors import DataError
from prunelab.evaluation.benchmarks import EvaluationSettings, benchmarks, find_benchmark
from prunelab.evaluation.benchmarks.arc_easy import ArcRow
from prunelab.evaluation.benchmarks.boolq import BoolQRow
from prunelab.evaluation.benchmarks.gsm8k import Gsm8kRow
from prunelab.evaluation.benchmarks.humaneval import HumanEvalRow, _problems
from prunelab.evaluation.benchmarks.ifeval import IfEvalRow
from prunelab.evaluation.benchmarks.lm_eval.definition import prepare
from prunelab.evaluation.benchmarks.mmlu import MmluRow
from prunelab.evaluation.benchmarks.mmmu import DISCIPLINES, MmmuRow
from prunelab.evaluation.benchmarks.pope import OfficialRow, PopeRow
from prunelab.evaluation.benchmarks.stereoset import StereoSetRow
from prunelab.evaluation.benchmarks.textvqa import TextVqaRow
from prunelab.evaluation.benchmarks.wikitext2 import PAGES, PageRow
from prunelab.evaluation.benchmarks.winogrande import WinoGrandeRow
from prunelab.io.data_rows import Row, TextRow, checked_row, require_rows
from prunelab.io.datasets import Source

HUB = documents()


def first(repository: str, config: str, split: str) -> dict[str, Any]:
    return dict(HUB[repository][config][split][0])


PLACES: dict[str, tuple[str, str, str]] = {
    "arc_easy": ("allenai/ai2_arc", "ARC-Easy", "test"),
    "arc_challenge": ("allenai/ai2_arc", "ARC-Challenge", "test"),
    "boolq": ("aps/super_glue", "boolq", "validation"),
    "winogrande": ("allenai/winogrande", "winogrande_xl", "validation"),
    "gsm8k": ("openai/gsm8k", "main", "test"),
    "mmlu": ("cais/mmlu", "anatomy", "test"),
    "ifeval": ("google/IFEval", "default", "train"),
    "stereoset": ("McGill-NLP/stereoset", "intrasentence", "validation"),
    "wikitext2": ("EleutherAI/wikitext_document_level", "wikitext-2-raw-v1", "test"),
    "humaneval": ("openai/openai_humaneval", "openai_humaneval", "test"),
}
GOOD: dict[type[Row], dict[str, Any]] = {
    ArcRow: first(*PLACES["arc_easy"]),
    BoolQRow: first(*PLACES["boolq"]),
    WinoGrandeRow: first(*PLACES["winogrande"]),
    Gsm8kRow: first(*PLACES["gsm8k"]),
    MmluRow: first(*PLACES["mmlu"]),
    IfEvalRow: first(*PLACES["ifeval"]),
    StereoSetRow: first(*PLACES["stereoset"]),
    PageRow: first(*PLACES["wikitext2"]),
    HumanEvalRow: first(*PLACES["humaneval"]),
    TextRow: {"text": ""},
    PopeRow: {name: value for name, value in pope_rows()[0].items() if name != "image"},
    OfficialRow: {"question_id": 1, "image": "a.jpg", "text": "Is there a dog?", "label": "no"},
    TextVqaRow: {"question_id": 4, "question": "what is written?", "answers": ["stop", ""]},
    MmmuRow: {name: value for name, value in mmmu_row("Art", 0).items() if not name.startswith("image")},
}
ARC, STEREO = GOOD[ArcRow]["choices"], GOOD[StereoSetRow]["sentences"]


def impossible(row: type[Row], field: str, *values: Any) -> list[tuple[type[Row], str, Any]]:
    return [(row, field, value) for value in values]


IMPOSSIBLE: list[tuple[type[Row], str, Any]] = [
    *impossible(BoolQRow, "label", -1, 2, True, 1.0, "1", None),
    *impossible(MmluRow, "answer", -1, 4, 9, "A", 1.5, None),
    *impossible(MmluRow, "choices",
        [], ["a", "b"], ["a", "b", "c", None], ["a", "b", "c", " "], "abcd", list("abcde"),
    ),
    *impossible(Gsm8kRow, "answer",
        "5", "It is 5.\n#### ", "####5", "#### five", "#### 5 apples", "", None, 5,
    ),
    *impossible(ArcRow, "answerKey", "F", "", "a", "1", None, 0, "A "),
    *impossible(ArcRow, "choices",
        None, [], {}, {**ARC, "label": ["A", "A", "B"]}, {**ARC, "label": ["A"]}, {**ARC, "text": ["a", None, "c"]},
        {"text": ["a"], "label": ["A"]}, {**ARC, "text": "abc"}, {**ARC, "text": ["a", "b"]},
    ),
    *impossible(WinoGrandeRow, "answer", "3", "", "0", 1, None, "1 "),
    *impossible(WinoGrandeRow, "sentence", "no blank", "two _ and _", "", None),
    *impossible(StereoSetRow, "sentences",
        None, {**STEREO, "gold_label": [0, 1, 1]}, {**STEREO, "gold_label": [0, 1]},
        {**STEREO, "gold_label": [0, 1, 3]},
        {**STEREO, "sentence": STEREO["sentence"][:2]}, {**STEREO, "sentence": ["a", "b", None]},
        {**STEREO, "sentence": ["a", "", "c"]},
        {**STEREO, "gold_label": ["0", "1", "2"]}, {**STEREO, "gold_label": [True, False, 2]},
    ),
    *impossible(StereoSetRow, "bias_type", "age", "", None, 1, "Race"),
    *impossible(HumanEvalRow, "entry_point", "", "two words", "def", None, 7, "other", "f()"),
    *impossible(HumanEvalRow, "test", "", "assert f(1) == 2", None, ["def check(f): pass"]),
    *impossible(HumanEvalRow, "canonical_solution", 5, ["return 1"]),
    *impossible(IfEvalRow, "instruction_id_list",
        [], ["no:such"], None, "punctuation:no_comma", [None], ["keywords:existence", 3],
    ),
    *impossible(IfEvalRow, "kwargs", [], [{}, {}], None, [None], {}, [{"nonsense": 1}]),
    *impossible(PopeRow, "answer", "maybe", "", None, True),
    *impossible(PopeRow, "category", "odd", None, "Random"),
    *impossible(OfficialRow, "label", "Yes", "maybe", None, 0),
    *impossible(OfficialRow, "question_id", None, 1.5, [1]),
    *impossible(TextVqaRow, "answers", [], None, [None], "stop", [5]),
    *impossible(MmmuRow, "answer", "D", "Z", "", "b", "AB", None, 1, "[" * 3000),
    *impossible(MmmuRow, "options",
        "[]", "['one']", "one, two", None, ["a", "b"], "[" * 3000, "5", "[" + "'x'," * 27 + "]",
    ),
    *impossible(MmmuRow, "question_type", "closed", None, "Open"),
    *impossible(PageRow, "page", "", " \n", None, 4),
    *impossible(TextRow, "text", None, 4, ["a"], b"a"),
]  # fmt: skip


@pytest.mark.parametrize("row", GOOD)
def test_good_rows_pass(row: type[Row]) -> None:
    checked_row(row, GOOD[row], "here", "mend it")
    checked_row(row, {**GOOD[row], "another field": object()}, "here", "mend it")


@pytest.mark.parametrize(("row", "field", "value"), IMPOSSIBLE, ids=lambda value: str(value)[:40])
def test_impossible_values_are_refused_by_field(row: type[Row], field: str, value: Any) -> None:
    with pytest.raises(DataError) as caught:
        checked_row(row, {**GOOD[row], field: value}, "DATA, row 3", "mend it")
    message = str(caught.value)
    assert message.startswith("DATA, row 3, field ")
    if row is not HumanEvalRow or value != "other":
        assert f"field {field}" in message
    assert message.endswith("is given: mend it")
    assert "\n" not in message
    assert len(message) < 500


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.binary(max_size=4),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)


def places_in(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from places_in(inner, (*path, key))


@pytest.mark.parametrize("row", [row for row in GOOD if row is not IfEvalRow])
@given(data=st.data())
@settings(max_examples=30, deadline=None)
def test_whatever_a_row_holds_it_passes_or_is_refused_in_one_line(row: type[Row], data: st.DataObject) -> None:
    fields: Any = copy.deepcopy(GOOD[row])
    place = data.draw(st.sampled_from(list(places_in(fields))))
    junk = data.draw(JUNK)
    if not place:
        fields = junk
    else:
        inner = fields
        for key in place[:-1]:
            inner = inner[key]
        inner[place[-1]] = junk
    try:
        checked_row(row, fields, "here", "mend it")
    except DataError as error:
        refusal = str(error)
        assert refusal.startswith("here")
        assert "\n" not in refusal


@pytest.mark.parametrize("limit", [None, 1])
@pytest.mark.parametrize(
    ("name", "field", "value"),
    [
        ("arc_easy", "answerKey", "Q"), ("arc_challenge", "answerKey", ""), ("boolq", "label", -1),
        ("winogrande", "answer", "3"),
        ("gsm8k", "answer", "no mark"), ("mmlu", "answer", 9), ("ifeval", "instruction_id_list", ["no:such"]),
        ("stereoset", "bias_type", "age"), ("wikitext2", "page", " "), ("humaneval", "entry_point", "a b"),
    ],
)  # fmt: skip
def test_every_benchmark_refuses_before_it_computes(
    name: str, field: str, value: Any, limit: int | None, tmp_path: Path
) -> None:
    repository, config, split = PLACES[name]
    for other, configs in HUB.items():
        if other.split("/")[1] in ("wikitext", repository.split("/")[1]):
            write_data_set(tmp_path / other, configs)
    splits = {part: [dict(row) for row in rows] for part, rows in HUB[repository][config].items()}
    splits[split][-1][field] = value
    bad = len(splits[split]) - 1
    path = tmp_path / repository / config / f"{split}.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in splits[split]))
    asked = EvaluationSettings(datasets_root=tmp_path, limit=limit)
    with pytest.raises(DataError, match=rf"{split}\), row {bad} \(counted from 0\), field {field}.*prunelab fetch"):
        _problems(asked) if name == "humaneval" else find_benchmark(name).check(asked)


def test_the_shots_are_checked_as_well(tmp_path: Path) -> None:
    rows = {split: [dict(row) for row in rows] for split, rows in HUB["openai/gsm8k"]["main"].items()}
    rows["train"][2]["answer"] = "2"
    write_data_set(tmp_path / "openai/gsm8k", {"main": rows})
    with pytest.raises(DataError, match=r"split train\), row 2 \(counted from 0\), field answer"):
        benchmarks["gsm8k"].check(EvaluationSettings(datasets_root=tmp_path))


@pytest.mark.parametrize(
    ("name", "arguments", "field"),
    [
        ("length_constraints:number_sentences", {"num_sentences": "three", "relation": "less than"}, "kwargs"),
        ("length_constraints:number_sentences", {"num_sentences": 3, "relation": "nearly"}, "kwargs"),
        ("keywords:existence", {"keywords": 5}, "kwargs"),
        ("combination:repeat_prompt", {"prompt_to_repeat": None}, "kwargs"),
        ("punctuation:no_comma", {"extra": 1}, "kwargs"),
    ],
)
def test_arguments_that_a_check_of_ifeval_cannot_take(name: str, arguments: dict[str, Any], field: str) -> None:
    from prunelab.evaluation.benchmarks.lm_eval.punkt import sentence_splitter

    row = {"key": 1, "prompt": "Write.", "instruction_id_list": [name], "kwargs": [arguments]}
    with (
        sentence_splitter(trained=False),
        pytest.raises(DataError, match=f"field {field}: arguments that the check {name}"),
    ):
        checked_row(IfEvalRow, row, "here", "mend it")


@pytest.mark.parametrize("name", ["humaneval", "stereoset", "mmmu", "textvqa", "pope"])
def test_names_of_samples_occur_once(name: str, tmp_path: Path) -> None:
    by_name: dict[str, tuple[type[Row], Source]] = {
        "humaneval": (HumanEvalRow, benchmarks["humaneval"].sources()[0]),
        "stereoset": (StereoSetRow, benchmarks["stereoset"].sources()[0]),
        "mmmu": (MmmuRow, benchmarks["mmmu"].sources()[0]),
        "textvqa": (TextVqaRow, benchmarks["textvqa"].sources()[0]),
        "pope": (PopeRow, benchmarks["pope"].sources()[0]),
    }
    row, source = by_name[name]
    fields = dict(GOOD[row])
    fields |= {image: {"bytes": b"", "path": None} for image in row.images}
    twice = datasets.Dataset.from_list([fields, fields])
    with pytest.raises(DataError, match=r"row 1 \(counted from 0\), field .*may occur once.*also given in row 0"):
        require_rows(source, "test", twice, row)
    require_rows(source, "test", datasets.Dataset.from_list([fields]), row)


@pytest.mark.parametrize("column", [["x.png", "y.png"], [1, 2], [b"a", b"b"], [["x"], ["y"]]])
def test_a_column_of_images_that_holds_none_is_refused(column: list[Any]) -> None:
    rows = [{**GOOD[TextVqaRow], "question_id": i, "image": image} for i, image in enumerate(column)]
    with pytest.raises(DataError, match="field image: images are required"):
        require_rows(benchmarks["textvqa"].sources()[0], "test", datasets.Dataset.from_list(rows), TextVqaRow)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("textvqa", {"answers": []}),
        ("textvqa", {"question": " "}),
        ("mmmu", {"answer": "H"}),
        ("pope", {"answer": "perhaps"}),
    ],
)
def test_vision_benchmarks_refuse_by_row(name: str, change: dict[str, Any], tmp_path: Path) -> None:
    image = {"bytes": b"x", "path": None}
    if name == "pope":
        rows = pope_rows()
        rows[2] |= change
        write_repository(tmp_path / "lmms-lab/POPE", {"default": {"test": rows}})
    elif name == "textvqa":
        reading = [{**GOOD[TextVqaRow], "question_id": i, "image": image} for i in range(4)]
        reading[2] |= change
        write_repository(tmp_path / "lmms-lab/textvqa", {"default": {"validation": reading}})
    else:
        subject = DISCIPLINES["Art & Design"][0]
        write_repository(tmp_path / "MMMU/MMMU", {
            subject: {"validation": [mmmu_row(subject, 0), mmmu_row(subject, 1), {**mmmu_row(subject, 2), **change}]}
        })  # fmt: skip
    with pytest.raises(DataError, match=rf"row 2 \(counted from 0\), field {next(iter(change))}"):
        benchmarks[name].check(EvaluationSettings(datasets_root=tmp_path))


@pytest.mark.parametrize("corpus", ["wikitext2", "c4"])
@pytest.mark.parametrize("bad", [None, 5])
def test_corpora_of_the_hub_are_checked_too(corpus: str, bad: Any, tmp_path: Path) -> None:
    source = WIKITEXT2 if corpus == "wikitext2" else C4
    texts: list[Any] = ["a b c", "d e f"] if bad is None else []
    rows = [{"text": text} for text in [*texts, bad]]
    if corpus == "c4":
        import gzip

        folder = tmp_path / source.repository / "en"
        folder.mkdir(parents=True)
        with gzip.open(tmp_path / source.repository / str(source.file), "wt") as file:
            file.write("".join(json.dumps(row) + "\n" for row in rows))
    else:
        write_data_set(tmp_path / source.repository, {str(source.config): {"train": rows}})
    with pytest.raises(DataError, match=rf"row {len(texts)} \(counted from 0\), field text"):
        draw_calibration_set(corpus, byte_tokenizer(), samples=1, sequence_length=4, datasets_root=tmp_path)


def test_texts_in_parquet_that_are_no_utf8(tmp_path: Path) -> None:
    bad = pa.StringArray.from_buffers(2, pa.array([b"ok", b"a\xff"]).buffers()[1], pa.py_buffer(b"oka\xff"))
    folder = tmp_path / "EleutherAI/wikitext_document_level"
    write_data_set(folder, {"wikitext-2-raw-v1": {"test": [{"page": "a"}]}})
    pq.write_table(pa.table({"page": bad}), folder / "wikitext-2-raw-v1/test.parquet")
    readme = folder / "README.md"
    readme.write_text(readme.read_text().replace("test.jsonl", "test.parquet"))
    with pytest.raises(DataError, match=r"split test\) cannot be read \(.*utf-8"):
        prepare(PAGES, tmp_path)


def test_the_command_exits_with_one_line(
    tmp_path: Path, command: Callable[..., Ran], tiny_checkpoint: Callable[[str], Path]
) -> None:
    rows = [dict(row) for row in HUB["aps/super_glue"]["boolq"]["validation"]]
    rows[3]["label"] = -1
    write_data_set(tmp_path / "aps/super_glue", {"boolq": {"validation": rows}})
    ran = command("evaluate", tiny_checkpoint("llama"), "--benchmark", "boolq", "--datasets-root", tmp_path)
    assert (ran.code, len(ran.err.splitlines())) == (2, 1), ran
    assert "row 3 (counted from 0), field label" in ran.err


def test_the_real_data_pass(shared: Path) -> None:
    asked = EvaluationSettings(datasets_root=shared / "hub")
    for name in PLACES:
        if name not in ("humaneval", "mmlu"):  # programs are not run here; a part of the subjects is below
            find_benchmark(name).check(asked)
    assert len(_problems(asked)) == 164
    for source in list(benchmarks["mmlu"].sources())[::19]:
        for split in ("test", "dev"):
            require_rows(source, split, source.load(split, asked.datasets_root), MmluRow)
