"""Synthetic images: drawn identically everywhere, held out from training, asked in the training format."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import Ran

from prunelab.errors import InvalidRequest
from prunelab.evaluation.benchmarks import EvaluationSettings, find_benchmark
from prunelab.models.bundled import checkpoint_of
from prunelab.models.loading import LanguageModel, load_model
from prunelab.models.vision.dialogue import model_inputs, prompt_text
from prunelab.pocket.study import pocket_study
from prunelab.pocket.vision.data import picture_sets
from prunelab.pocket.vision.drawing import SIZE, draw
from prunelab.pocket.vision.questions import ABSENT, OPEN, existence, lettered
from prunelab.pocket.vision.scene import COLOURS, FREQUENT, SHAPES, Drawn, Scene, companion, make_scene
from tools.pocket_training.optimizer import Mean, Rates
from tools.pocket_training.vision.batches import GIVEN, Writer
from tools.pocket_training.vision.curriculum import KINDS, Lesson, lesson
from tools.pocket_training.vision.tokens import make_processor, train_tokenizer
from tools.pocket_training.vision.train import Recipe, train

Command = Callable[..., Ran]
NAME = "pocket-idefics3"


@pytest.fixture(scope="module")
def data(pocket_root: Path) -> Path:
    return pocket_root


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    return load_model(NAME, device="cpu")


def folder() -> Path:
    found = checkpoint_of(NAME)
    assert found is not None
    return found


def test_the_checkpoint_is_small_and_says_how_it_was_made(model: LanguageModel) -> None:
    assert sum(path.stat().st_size for path in folder().iterdir()) <= 8e6
    assert model.dtype == "bfloat16"
    assert len(model.decoder.shapes) == 10
    assert model.decoder.family.name == "idefics3"
    assert (model.name, type(model.processor).__name__) == (NAME, "Idefics3Processor")
    training = json.loads((folder() / "training.json").read_text())
    assert training["parameters"] == model.decoder.parameters
    assert training["curve"][-1]["right"]["reading"] > 0.9
    assert training["curve"][-1]["right"]["existence"] > 0.9
    scores = json.loads((folder() / "scores.json").read_text())
    assert {row["benchmark"] for row in scores} == {"pope", "textvqa", "mmmu"}


def test_training_and_benchmarks_share_no_sign_and_no_scene() -> None:
    sets = picture_sets()
    asked = [
        value
        for repository, configs in sets.items()
        for splits in configs.values()
        for split, rows in splits.items()
        if split != "train"
        for row in rows
        for value in row.values()
        if isinstance(value, Scene)
    ]
    assert len(asked) == 600 + 200 + 300
    assert all(scene.is_held_out for scene in asked)
    signs = {scene.sign.text for scene in asked if scene.sign is not None}
    bare = {repr(scene.shapes) for scene in asked if scene.sign is None}
    rng = random.Random(7)
    for _ in range(2000):
        scene = lesson(rng, 0.5).scene
        assert not scene.is_held_out
        assert (scene.sign.text if scene.sign else "") not in signs
        assert scene.sign is not None or repr(scene.shapes) not in bare


def test_what_is_absent_is_chosen_as_pope_does() -> None:
    rng = random.Random(0)
    for _ in range(300):
        scene = make_scene(rng, held_out=False)
        for absent in ABSENT:
            one = existence(rng, scene, absent, yes=False)
            if one is None:
                continue
            name = one.question.split()[3]
            assert name not in scene.present
            assert absent != "popular" or name in FREQUENT
            assert absent != "adversarial" or companion(name) in scene.present
        yes = existence(rng, scene, "random", yes=True)
        assert yes is not None
        assert yes.question.split()[3] in scene.present


def test_lettered_questions_have_one_right_option() -> None:
    rng = random.Random(1)
    letters = []
    for index in range(400):
        asked = lettered(rng, make_scene(rng, held_out=True), OPEN[index % len(OPEN)])
        if asked is not None:
            assert len(set(asked.options)) == 4
            assert asked.options.count(asked.answer) == 1
            letters.append(asked.letter)
    assert all(50 < letters.count(letter) < 150 for letter in "ABCD")


@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_is_drawn_in_its_colour_and_cell(shape: str) -> None:
    for name, colour in COLOURS.items():
        picture = draw(Scene((Drawn(shape, name, 4, 6, (0, 0)),), None, (255, 255, 255)))
        assert picture.size == (SIZE, SIZE)
        coloured = [(x, y) for x in range(SIZE) for y in range(SIZE) if picture.getpixel((x, y)) == colour]
        assert len(coloured) > 20
        assert all(15 <= x <= 32 and 15 <= y <= 32 for x, y in coloured)


def test_lessons_are_written_as_the_processor_writes_prompts() -> None:
    """Training makes its tokens by itself, faster; they are those that the benchmarks' prompts become."""
    tokenizer = train_tokenizer(0, lessons=400)
    writer = Writer(tokenizer, Recipe.length)
    processor = make_processor(tokenizer)
    rng = random.Random(3)
    for _ in range(20):
        one = lesson(rng, 1.0)
        first = one.turns[0]
        tokens = writer.row(Lesson(one.scene, [first]))[0]
        text = prompt_text(processor, first.prompt, 1)
        ids = model_inputs(processor, [text], [[draw(one.scene)]], "right")["input_ids"][0].tolist()
        assert tokens[: len(ids)] == ids
        answer = tokenizer.decode(tokens[len(ids) :], skip_special_tokens=True).strip()
        assert answer == "".join(piece.text for piece in first.answer).strip()


def test_pixels_are_the_processors() -> None:
    tokenizer = train_tokenizer(0, lessons=200)
    scene = make_scene(random.Random(2), held_out=False)
    batch = Writer(tokenizer, Recipe.length).batch(random.Random(5), 1, 0.5)
    assert batch.pixels.shape == (1, 3, SIZE, SIZE)
    inputs = model_inputs(make_processor(tokenizer), ["<image>"], [[draw(scene)]], "right")
    pixels = torch.tensor(list(draw(scene).getdata())).reshape(SIZE, SIZE, 3).permute(2, 0, 1) / 127.5 - 1
    assert torch.allclose(inputs["pixel_values"][0, 0], pixels, atol=1e-5)


def test_lists_say_what_is_in_the_picture() -> None:
    rng = random.Random(4)
    kinds = set()
    for _ in range(200):
        one = lesson(rng, 0.0)
        colours = {shape.shape: shape.colour for shape in one.scene.shapes}
        for turn in one.turns:
            kinds.add(turn.kind)
            told = [piece.text.strip(" :") for piece in turn.answer]
            pairs = list(zip(told[::2], told[1::2], strict=False))
            if turn.kind == "existences":
                assert pairs
                assert all((answer == "Yes") == (shape in colours) for shape, answer in pairs)
            if turn.kind == "colours":
                assert dict(pairs) == colours
            if turn.kind in ("letters", "reasoned"):
                options = {
                    letter: text for letter, _, text in (line.partition(". ") for line in turn.prompt.split("\n"))
                }
                assert all(options[letter] == text for text, letter in pairs)
    assert {"existences", "colours", "places", "letters"} <= kinds <= set(KINDS)


def test_only_answers_are_counted_as_answers() -> None:
    tokenizer = train_tokenizer(0, lessons=400)
    writer = Writer(tokenizer, Recipe.length)
    rng = random.Random(6)
    for _ in range(20):
        one = lesson(rng, 0.5)
        tokens, kinds = writer.row(Lesson(one.scene, one.turns[:1]))
        assert len(tokens) == len(kinds) == Recipe.length
        answers = [token for token, kind in zip(tokens, kinds, strict=True) if kind < GIVEN]
        said = "".join(piece.text for piece in one.turns[0].answer if piece.is_answer)
        assert tokenizer.decode(answers) == said


def test_a_training_writes_what_loads_and_sees(tmp_path: Path) -> None:
    train(Recipe(steps=2, pictures=2, length=64), tmp_path / "out", compiled=False)
    made = json.loads((tmp_path / "out" / "training.json").read_text())
    assert [point["step"] for point in made["curve"]] == [2]
    assert set(made["curve"][0]["right"]) <= set(KINDS)
    model = load_model(str(tmp_path / "out"), device="cpu")
    assert model.decoder.parameters == made["parameters"]
    text = prompt_text(model.processor, "Is there a star in the image?", 1)
    inputs = model_inputs(model.processor, [text], [[draw(make_scene(random.Random(2), held_out=False))]], "left")
    with torch.no_grad():
        assert torch.isfinite(model.model(**inputs).logits).all()


def test_rates_rise_and_fall() -> None:
    rates = Rates(warm_up=2, decay=0.5)
    assert [rates.factor(step, 8) for step in range(8)] == [0.5, 1.0, 1.0, 1.0, 1.0, 0.75, 0.5, 0.25]


def test_means_are_of_what_counts() -> None:
    mean = Mean(("a", "b", "c"))
    belongs = torch.tensor([[0, 0, 1, 2]])
    mean.add(torch.tensor([[True, False, True, True]]), belongs, torch.tensor([[True, True, True, False]]))
    mean.add(torch.tensor([[True, True, True, True]]), belongs, torch.tensor([[True, True, False, False]]))
    assert mean.drain() == {"a": 0.75, "b": 1.0}
    assert mean.drain() == {}


def test_a_part_of_the_scores_is_measured_again(data: Path, model: LanguageModel) -> None:
    """Sixty signs against the score kept from all: four standard errors."""
    kept = json.loads((folder() / "scores.json").read_text())
    value = next(row["value"] for row in kept if row["benchmark"] == "textvqa" and row["primary"])
    found = find_benchmark("textvqa").evaluate(model, EvaluationSettings(datasets_root=data, limit=60))
    assert value >= 0.7
    assert found.scores[0].value == pytest.approx(value, abs=max(0.05, 4 * (value * (1 - value) / 60) ** 0.5))


def test_a_pocket_study_with_pictures(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    ran = command(
        "study", "--model", NAME, "--benchmark", "pope", "--benchmark", "textvqa", "--limit", 12, "--ratio", 0.4,
        "--method", "flap", "--samples", 8, "--device", "cpu",
    )  # fmt: skip
    assert ran.code == 0, ran.err
    rows = (tmp_path / "runs" / NAME / "results.csv").read_text()
    assert ",pope," in rows
    assert ",textvqa," in rows
    page = (tmp_path / "runs" / NAME / "report" / "index.html").read_text()
    assert 'src="data:image/png;base64,' in page, "what pruning lost is shown with its picture"


def test_a_model_that_sees_is_studied_apart() -> None:
    with pytest.raises(InvalidRequest, match="is evaluated on images and the other models are not"):
        pocket_study([NAME, "pocket-llama"])
