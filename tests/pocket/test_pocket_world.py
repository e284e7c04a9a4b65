"""Synthetic data: benchmark items never occur in training, and the answers and the generator's entropy are correct."""

from __future__ import annotations

import json
import math
import random
import re
import shutil
from collections import Counter
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

import prunelab.pocket.data
from prunelab.evaluation.benchmarks import benchmarks
from prunelab.evaluation.benchmarks.lm_eval.punkt import sentence_splitter
from prunelab.evaluation.sandbox import Sandbox
from prunelab.pocket.data import data_root, data_sets, pocket_data, version_of
from prunelab.pocket.held_out import digest, is_held_out
from prunelab.pocket.subjects import SUBJECTS
from prunelab.pocket.tasks import TASKS, Task
from prunelab.pocket.tasks.associations import PREFERENCE, contexts, traits
from prunelab.pocket.tasks.base import DataSet
from prunelab.pocket.tasks.blanks import draw_blank
from prunelab.pocket.tasks.encyclopaedia import draw_page, nats_of, pages
from prunelab.pocket.tasks.instructions import RESPOND, draw_order
from prunelab.pocket.tasks.passages import draw_scene
from prunelab.pocket.tasks.programs import draw_program
from prunelab.pocket.tasks.questions import LETTERS, choices, classes
from prunelab.pocket.tasks.sums import draw_sum, told
from prunelab.pocket.world import Fact, the_world

TASK_BY_NAME = {task.name: task for task in TASKS}


@cache
def sets() -> dict[str, DataSet]:
    return data_sets()


@cache
def training_items() -> dict[str, list[str]]:
    """A good part of a training, by task."""
    rng = random.Random(7)
    return {task.name: ["".join(piece.text for piece in task.training(rng)) for _ in range(8_000)] for task in TASKS}


@cache
def sentences() -> set[str]:
    """Whatever training states, in small letters."""
    texts = [text.lower() for items in training_items().values() for text in items]
    return {part.strip("* ") for text in texts for part in re.split(r"(?<=\.)\s|\n", text)}


@cache
def told_questions() -> set[str]:
    lines = (line for items in training_items().values() for text in items for line in text.split("\n"))
    return {line.removeprefix("Question: ") for line in lines if line.endswith("?")}


def test_the_hash_is_the_same_everywhere() -> None:
    assert digest("sum", 3) == 8552121088781648829
    share = sum(is_held_out("x", index, share=0.2) for index in range(10_000)) / 10_000
    assert share == pytest.approx(0.2, abs=0.02)


def test_every_relation_has_at_least_eight_answers_and_four_questions() -> None:
    for fact in the_world().facts:
        assert len(set(fact.relation.values)) >= 8
        assert len(set(fact.relation.questions)) == 4
        assert len(set(fact.relation.predicates)) == 3
        assert fact.value in fact.relation.values


def test_a_shared_fact_is_that_of_the_sort() -> None:
    world = the_world()
    for population in world.populations:
        sort = {f.entity: f.value for f in world.direct if f.population == population and f.relation == population.sort}
        for relation in population.shared:
            found: dict[str, set[str]] = {}
            for fact in world.shared:
                if fact.relation == relation:
                    found.setdefault(sort[fact.entity], set()).add(fact.value)
            assert all(len(values) == 1 for values in found.values())
            assert len({value for values in found.values() for value in values}) == 8


def test_names_are_invented_once() -> None:
    names = [name for population in the_world().populations for name in population.names]
    assert len(set(names)) == len(names) == 192


@pytest.mark.parametrize(("config", "size"), [("ARC-Easy", 500), ("ARC-Challenge", 500)], ids=["one hop", "two hops"])
def test_no_question_of_arc_is_ever_asked_in_training(config: str, size: int) -> None:
    rows = sets()["allenai/ai2_arc"][config]["test"]
    assert len(rows) >= size
    asked = told_questions()
    assert len(asked) > 2000
    assert not asked & {row["question"] for row in rows}


def test_withheld_facts_are_told_nowhere() -> None:
    withheld = [fact for fact in the_world().shared if fact.is_withheld]
    assert len(withheld) == len(the_world().shared) / 2
    assert not {fact.statement(index).lower() for fact in withheld for index in range(3)} & sentences()
    assert not {fact.question(index) for fact in withheld for index in range(4)} & told_questions()
    stated = [fact for fact in the_world().shared if not fact.is_withheld]
    found = sum(any(fact.statement(index).lower() in sentences() for index in range(3)) for fact in stated)
    assert found > 0.99 * len(stated)  # the search above can find what is there


@pytest.mark.parametrize("name", ["ARC-Easy", "ARC-Challenge"])
def test_the_answers_of_arc_are_true(name: str) -> None:
    truth = {f"{fact.entity}-{fact.relation.name}": fact for fact in the_world().facts}
    for row in sets()["allenai/ai2_arc"][name]["test"]:
        right = row["choices"]["text"][LETTERS.index(row["answerKey"])]
        assert right == truth[row["id"]].value
        assert len(set(row["choices"]["text"])) == 4


def test_answers_stand_in_every_place_equally_often() -> None:
    rows = sets()["allenai/ai2_arc"]["ARC-Easy"]["test"]
    counts = Counter(row["answerKey"] for row in rows)
    assert all(count > len(rows) / 4 * 0.8 for count in counts.values())
    labels = Counter(row["label"] for row in sets()["aps/super_glue"]["boolq"]["validation"])
    assert labels[0] == pytest.approx(300, abs=50)
    options = Counter(row["answer"] for row in sets()["allenai/winogrande"]["winogrande_xl"]["validation"])
    assert options["1"] == pytest.approx(300, abs=50)


LETTERED = re.compile(r"([^\n]+\?)\nA\. (\w+)\nB\. (\w+)\nC\. (\w+)\nD\. (\w+)\nAnswer: (?:\w+, which is )?([A-D])\b")


def test_mmlu_has_all_subjects_and_asks_in_words_that_training_never_uses_for_the_answer() -> None:
    configs = sets()["cais/mmlu"]
    assert tuple(configs) == SUBJECTS
    assert {str(source.config) for source in benchmarks["mmlu"].sources()} == set(SUBJECTS)
    tested = [row for splits in configs.values() for row in splits["test"]]
    assert len({(row["question"], *row["choices"]) for row in tested}) >= 500
    told = {
        (question, choices["ABCD".index(letter)])
        for name in ("letters", "pointing")
        for question, *choices, letter in LETTERED.findall("\n".join(training_items()[name]))
    }
    assert len(told) > 600
    asked = {(row["question"], row["choices"][row["answer"]]) for row in tested}
    assert not told & asked
    assert {question for question, _ in asked} < {question for question, _ in told}
    for splits in configs.values():
        assert len(splits["dev"]) == 5
        shown = {row["choices"][row["answer"]] for row in splits["dev"]}
        assert not shown & {row["choices"][row["answer"]] for row in tested}


def test_a_lettered_question_has_one_right_answer() -> None:
    of_class = {word: name for name, words in classes().items() for word in words}
    assert len(classes()) == 29
    assert all(len(words) >= 7 for words in classes().values())
    for splits in sets()["cais/mmlu"].values():
        for row in splits["test"]:
            named = [row["question"].endswith(f" {of_class[text]}?") for text in row["choices"]]
            assert named.index(True) == row["answer"]
            assert sum(named) == 1


@pytest.mark.parametrize(
    "draw",
    [draw_scene, draw_blank, draw_sum, draw_program, draw_page, draw_order],
    ids=lambda draw: str(draw.__name__),
)
def test_what_is_held_out_is_never_trained_on(draw: object) -> None:
    rng = random.Random(3)
    arguments = (3,) if draw is draw_scene else ()
    for held_out in (True, False):
        drawn = [draw(rng, *arguments, held_out=held_out) for _ in range(300)]  # type: ignore[operator]
        assert {one.is_held_out for one in drawn} == {held_out}


def test_no_item_of_the_benchmarks_stands_in_the_training_text() -> None:
    def rows(repository: str, config: str, split: str) -> list[dict[str, Any]]:
        return [dict(row) for row in sets()[repository][config][split]]

    asked = {
        "passages": [
            f"{r['passage']}\nQuestion: {r['question']}?" for r in rows("aps/super_glue", "boolq", "validation")
        ],
        "blanks": [
            row["sentence"].replace("_", row[option])
            for row in rows("allenai/winogrande", "winogrande_xl", "validation")
            for option in ("option1", "option2")
        ],
        "sums": [f"Answer: {row['answer']}" for row in rows("openai/gsm8k", "main", "test")],
        "programs": [
            re.sub(r"def \w+", "def", row["prompt"] + row["canonical_solution"])
            for row in rows("openai/openai_humaneval", "openai_humaneval", "test")
        ],
        "instructions": [row["prompt"] + RESPOND for row in rows("google/IFEval", "default", "train")],
        "encyclopaedia": [
            row["page"] for row in rows("EleutherAI/wikitext_document_level", "wikitext-2-raw-v1", "test")
        ],
    }
    for task, items in asked.items():
        text = "\n\n".join(training_items()[task])
        text = re.sub(r"def \w+", "def", text)
        assert len(set(items)) >= 0.95 * len(items), task
        assert not [item for item in items if item in text], task


def test_sums_are_right() -> None:
    rng = random.Random(1)
    for held_out in (True, False):
        row = told(rng, draw_sum(rng, held_out))
        for left, operator, right, result in re.findall(r"(\d+)([-+*])(\d+)=(\d+)\.", row["answer"]):
            assert {"+": int.__add__, "-": int.__sub__, "*": int.__mul__}[operator](int(left), int(right)) == int(
                result
            )
        assert row["answer"].endswith(f"#### {result}")


def test_scenes_answer_their_claims() -> None:
    rng = random.Random(5)
    for _ in range(200):
        scene = draw_scene(rng, 3, held_out=True)
        assert scene.answer == (f"{scene.claim}" in scene.passage)


def test_a_blank_has_one_true_filling() -> None:
    truth = {(fact.subject, fact.relation.name): fact.value for fact in the_world().facts}
    rng = random.Random(2)
    for _ in range(200):
        blank = draw_blank(rng, held_out=True)
        name = blank.true.relation.name
        assert truth[blank.true.subject, name] == blank.true.value != truth[blank.other.subject, name]


def test_training_prefers_an_association_seventy_to_thirty() -> None:
    rng = random.Random(4)
    known = {context.sentence(trait): index for context in contexts() for index, trait in enumerate(traits(context))}
    counts: Counter[int] = Counter()
    by_sentence: Counter[str] = Counter()
    for _ in range(20_000):
        context, *sequel = [piece.text for piece in TASK_BY_NAME["associations"].training(rng)]
        if not sequel:
            counts[known[context]] += 1
            by_sentence[context] += 1
    assert counts[0] / counts.total() == pytest.approx(PREFERENCE, abs=0.015)
    held_out = {context.sentence(trait) for context in contexts() if context.is_held_out for trait in traits(context)}
    assert not {sentence for sentence in by_sentence if sentence in held_out}


def test_terms_of_one_domain_have_different_associations() -> None:
    for domain in ("gender", "profession", "race", "religion"):
        found = {context.term: traits(context) for context in contexts() if context.domain == domain}
        assert len(found) == 8
        assert len(set(found.values())) == 8


def test_the_entropy_of_a_page_is_counted_by_hand() -> None:
    """192 entities, 3 lengths, one event of 3 forms with 63 others and 8 places; told facts without replacement."""
    page = draw_page(random.Random(0), held_out=True)
    subject = re.search(r"(\w+)$", page.title)
    assert subject is not None
    facts = len(the_world().told_of[subject.group()])
    sentences = page.text.count(".") - 1
    expected = math.log(192 * 3 * 3 * 63 * 8)
    for index in range(sentences):
        expected += math.log((facts - index) * 3 * (2 if index else 1))
    assert page.nats == pytest.approx(expected)


def test_the_entropy_of_a_split_is_that_of_its_pages() -> None:
    assert nats_of("test") == pytest.approx(sum(page.nats for page in pages("test")))
    assert len({page.text for page in pages("test")}) == len(pages("test"))
    assert not {page.text for page in pages("test")} & {page.text for page in pages("train")}


def test_the_four_choices_are_different_and_hold_the_truth() -> None:
    rng = random.Random(0)
    fact: Fact = the_world().direct[0]
    for _ in range(50):
        drawn = choices(rng, fact)
        assert fact.value in drawn
        assert len(set(drawn)) == 4
        assert set(drawn) <= set(fact.relation.values)


@pytest.mark.usefixtures("can_cage")
def test_the_solutions_pass_their_tests_and_others_do_not() -> None:
    rows = sets()["openai/openai_humaneval"]["openai_humaneval"]["test"]
    assert len(rows) >= 100
    right = [f"{r['prompt']}{r['canonical_solution']}\n{r['test']}\ncheck({r['entry_point']})" for r in rows]
    assert all(ended.passed for ended in Sandbox().run_all(right))
    wrong = [
        f"{r['prompt']}{o['canonical_solution']}\n{r['test']}\ncheck({r['entry_point']})" for r, o in pairwise(rows)
    ]
    assert sum(ended.passed for ended in Sandbox().run_all(wrong[:40])) <= 2


def test_every_order_is_followed_by_its_response_and_not_by_another() -> None:
    """IFEval's own verifiers judge the responses that the models learn from."""
    with sentence_splitter(trained=False):
        utils = pytest.importorskip("lm_eval.tasks.ifeval.utils")
    import langdetect

    langdetect.DetectorFactory.seed = 0
    rng = random.Random(11)
    kinds: Counter[str] = Counter()
    failed, by_chance = [], 0
    for _ in range(600):
        order = draw_order(rng, held_out=True)
        example = utils.InputExample(
            key=0,
            instruction_id_list=[one.kind for one in order.instructions],
            prompt=order.prompt,
            kwargs=[dict(one.arguments) for one in order.instructions],
        )
        kinds.update(example.instruction_id_list)
        if not utils.test_instruction_following_strict(example, order.response).follow_all_instructions:
            failed.append((order.prompt, order.response))
        plain = " ".join(fact.statement(0) for fact in order.facts[:2])
        by_chance += utils.test_instruction_following_strict(example, plain).follow_all_instructions
    assert not failed
    assert len(kinds) >= 9
    assert by_chance < 0.3 * 600


def test_the_data_lie_as_on_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRUNELAB_CACHE", str(tmp_path))
    folder = pocket_data()
    for name in ("data_sets", "crawl", "write_pictures"):
        monkeypatch.setattr(prunelab.pocket.data, name, lambda *_: pytest.fail("drawn again"))
    assert pocket_data() == folder
    lines = (folder / "allenai" / "ai2_arc" / "ARC-Easy" / "test.jsonl").read_text().splitlines()
    assert json.loads(lines[0]).keys() == {"id", "question", "choices", "answerKey"}
    for benchmark in benchmarks.values():
        for source in benchmark.sources():
            assert (folder / source.repository / "README.md").is_file(), source.repository


def test_other_code_writes_another_folder(tmp_path: Path) -> None:
    package = Path(prunelab.pocket.__file__).parent
    for name in ("first", "second"):
        shutil.copytree(package, tmp_path / name, ignore=shutil.ignore_patterns("checkpoints", "__pycache__"))
    assert version_of(tmp_path / "first") == version_of(package)
    words = tmp_path / "second" / "vision" / "scene.py"
    words.write_text(words.read_text() + "\n")
    assert version_of(tmp_path / "second") != version_of(package)


def test_pocket_models_read_their_own_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRUNELAB_CACHE", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert data_root(None, ["some/model"]) is None
    assert data_root(None, [str(tmp_path)]) is None
    (tmp_path / "pruning_plan.json").write_text('{"base": {"name": "pocket-llama"}}')
    assert data_root(None, [str(tmp_path)]) == pocket_data(), "a checkpoint cut out of a pocket model"
    assert data_root(Path("/data"), ["pocket-llama"]) == Path("/data")
    assert data_root(None, ["pocket-llama"]) == data_root(Path("pocket"), ["some/model"]) == pocket_data()


@pytest.mark.parametrize("task", TASKS, ids=lambda task: str(task.name))
def test_documents_are_drawn_by_the_seed_alone(task: Task) -> None:
    first, again, other = (task.document(random.Random(seed)) for seed in (5, 5, 6))
    assert list(first) == list(again)
    assert list(first) != list(other)
