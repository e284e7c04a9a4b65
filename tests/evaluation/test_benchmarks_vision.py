"""POPE, TextVQA and MMMU as they run: data as they lie on the hub, images of all sorts, models of both kinds."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from conftest import Ran, Tiny
from miniature_vision import png
from PIL import Image, ImageOps
from seeing import stripes

from prunelab.errors import DataError, InvalidRequest
from prunelab.evaluation.benchmarks import EvaluationSettings, find_benchmark
from prunelab.evaluation.benchmarks.mmmu import DISCIPLINES
from prunelab.inference.vision_answers import ImageReport, PictureQuestion, answers
from prunelab.models.vision.dialogue import prompt_text
from prunelab.models.vision.images import LARGE_SIDE, Picture, UnusableImage, file_picture, open_picture

Command = Callable[..., Ran]
TinyOf = Callable[[str], Tiny]


def test_pope_runs_over_images_of_all_sorts(vision_hub: Path, tiny: TinyOf) -> None:
    settings = EvaluationSettings(datasets_root=vision_hub)
    found = find_benchmark("pope").evaluate(tiny("idefics3").model, settings)
    assert found.conditions["images unusable"] == 1
    assert found.conditions["unusable images"] == "image 1.png (broken)"
    assert found.conditions["images greyscale"] == 1
    assert found.conditions["images transparent"] == 1
    assert found.conditions["left_out"] == 1
    assert [record["sample"] for record in found.samples] == [
        "random/1", "popular/1", "popular/2", "adversarial/1", "adversarial/2",
    ]  # fmt: skip
    groups = {(score.group, score.metric): score for score in found.scores}
    assert found.scores[0].metric == find_benchmark("pope").primary
    assert groups["", "acc"].n == 5
    assert groups["random", "acc"].n == 1
    metrics = {"acc", "f1", "precision", "recall", "yes_share", "unparseable", "strict_acc"}
    assert {metric for group, metric in groups if group == "adversarial"} == metrics
    limited = find_benchmark("pope").evaluate(
        tiny("idefics3").model, EvaluationSettings(datasets_root=vision_hub, limit=1)
    )
    assert [record["category"] for record in limited.samples] == ["random", "popular", "adversarial"]


def test_textvqa_asks_without_recognised_words(vision_hub: Path, tiny: TinyOf) -> None:
    benchmark = find_benchmark("textvqa")
    settings = EvaluationSettings(datasets_root=vision_hub)
    found = benchmark.evaluate(tiny("idefics3").model, settings)
    assert found.scores[0].n == 3
    assert found.conditions["ocr_tokens"] is False
    asked = benchmark.question(benchmark.questions(settings)[0])  # type: ignore[attr-defined]
    assert asked.prompt == "What is written here?\nAnswer the question using a single word or phrase."
    records = pd.DataFrame(found.samples)
    worse = records.assign(score=0.0)
    best = records.assign(score=1.0)
    compared = benchmark.compare(best, worse)
    assert compared is not None
    assert compared.difference == pytest.approx(-1.0)


def test_mmmu_has_six_disciplines_of_thirty_subjects(vision_hub: Path, tiny: TinyOf) -> None:
    assert sum(map(len, DISCIPLINES.values())) == 30
    benchmark = find_benchmark("mmmu")
    settings = EvaluationSettings(datasets_root=vision_hub)
    items = benchmark.questions(settings)  # type: ignore[attr-defined]
    assert items[0].options == ("red", "it's blue", "image 2")
    assert len(items[0].pictures) == 2
    assert items[1].answer == ("12", "twelve")
    assert items[1].options == ()
    asked = benchmark.question(items[0])  # type: ignore[attr-defined]
    assert asked.prompt == (
        "What is in ?\nA. red\nB. it's blue\nC. image 2\n"
        "Answer with the option's letter from the given choices directly."
    )
    found = benchmark.evaluate(tiny("idefics3").model, EvaluationSettings(datasets_root=vision_hub, limit=1))
    assert found.scores[0].n == 30
    groups = [score.group for score in found.scores if score.metric == "acc"]
    assert len(groups) == 1 + 6 + 30
    assert all(record["guessed"] or record["prediction"] in "ABC" for record in found.samples)


def test_pope_from_its_official_files(tiny: TinyOf, tmp_path: Path, shared: Path) -> None:
    names: set[str] = set()
    for category in ("random", "popular", "adversarial"):
        lines = (shared / "bench" / "pope" / f"coco_pope_{category}.json").read_text().splitlines()
        names.update(json.loads(line)["image"] for line in lines[:12])
    assert len(names) == 2
    kept = sorted(names)[0]
    stripes().save(tmp_path / kept, "JPEG")
    benchmark = find_benchmark(f"pope:{shared / 'bench' / 'pope'}:{tmp_path}")
    found = benchmark.evaluate(tiny("idefics3").model, EvaluationSettings(limit=12))
    assert benchmark.name == "pope"
    assert found.scores[0].n == 18
    assert found.conditions["left_out"] == 18
    assert found.conditions["unusable images"] == f"{sorted(names)[1]} (missing)"
    everything = benchmark.questions(EvaluationSettings())  # type: ignore[attr-defined]
    assert len(everything) == 9000
    assert {item.label for item in everything} == {"yes", "no"}
    with pytest.raises(DataError, match=r"has no file like coco_pope_random\.json"):
        find_benchmark(f"pope:{tmp_path}").check(EvaluationSettings())


def test_not_one_image_is_an_error(tiny: TinyOf, shared: Path, tmp_path: Path) -> None:
    questions = shared / "bench" / "pope"
    benchmark = find_benchmark(f"pope:{questions}:{tmp_path}")
    with pytest.raises(DataError, match="no image of pope is usable"):
        benchmark.evaluate(tiny("idefics3").model, EvaluationSettings(limit=2))
    for name in (f"pope:{questions}:{tmp_path / 'absent'}", f"pope:{questions}:{tmp_path}", f"pope:{questions}"):
        with pytest.raises(DataError, match="contains none of the images of the questions"):  # before a model is loaded
            find_benchmark(name).check(EvaluationSettings(limit=2))


OFFICIAL = {"question_id": 1, "image": "x.jpg", "text": "Is there a dog in the image?", "label": "yes"}


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"", "has 0 questions"),
        (b"\xff\xe9", "is not UTF-8"),
        (b"{", "line 1: not JSON"),
        (b"[1]", "line 1: an object is required, and 1 is given: fetch the official"),
        (json.dumps({**OFFICIAL, "label": "maybe"}).encode(), "field label: .*'yes' or 'no', and 'maybe' is given"),
        (json.dumps({**OFFICIAL, "image": 3}).encode(), "line 1, field image: .* string, and 3 is given"),
    ],
)
def test_bad_question_files_of_pope(content: bytes, match: str, tmp_path: Path) -> None:
    for category in ("random", "popular", "adversarial"):
        (tmp_path / f"coco_pope_{category}.json").write_bytes(b"\xef\xbb\xbf" + json.dumps(OFFICIAL).encode())
    stripes().save(tmp_path / "x.jpg")
    benchmark = find_benchmark(f"pope:{tmp_path}")
    benchmark.check(EvaluationSettings())
    before = benchmark.identity(EvaluationSettings())
    stripes(40).save(tmp_path / "x.jpg")
    assert benchmark.identity(EvaluationSettings()) != before  # figures of other images are other figures
    (tmp_path / "coco_pope_popular.json").write_bytes(content)
    with pytest.raises(DataError, match=match):
        benchmark.check(EvaluationSettings())


def read(data: bytes) -> Any:
    return open_picture(Picture("x", lambda: data))


def test_images_of_all_sorts(tmp_path: Path) -> None:
    assert read(png(stripes())).remarks == ()
    grey = read(png(stripes(mode="L")))
    assert (grey.image.mode, grey.remarks) == ("RGB", ("greyscale",))
    clear = read(png(Image.new("RGBA", (3, 3), (255, 0, 0, 0))))
    assert (clear.image.getpixel((1, 1)), clear.remarks) == ((255, 255, 255), ("transparent",))
    assert read(png(Image.new("RGBA", (3, 3), (255, 0, 0, 255)))).remarks == ()
    deep = Image.new("I;16", (4, 4), 65535)
    assert read(png(deep)).image.getpixel((0, 0)) == (255, 255, 255)
    big_endian = io.BytesIO()
    Image.new("I;16B", (4, 4), 32896).save(big_endian, "TIFF")
    assert read(big_endian.getvalue()).image.getpixel((0, 0)) == (128, 128, 128)
    palette = stripes().convert("P")
    assert read(png(palette)).image.mode == "RGB"
    palette.info["transparency"] = bytes(range(256))
    assert read(png(palette)).remarks == ("transparent",)
    large = read(png(Image.new("RGB", (LARGE_SIDE + 900, 10))))
    assert (large.image.size, large.remarks) == ((LARGE_SIDE, 8), ("scaled down",))
    with pytest.raises(UnusableImage, match=r"enormous \(9000 x 9000 pixels\)"):
        read(png(Image.new("1", (9000, 9000))))
    with pytest.raises(UnusableImage, match="enormous"):
        read(png(Image.new("1", (20000, 10000))))
    whole = png(stripes(60, 60))
    for broken in (b"", b"text", whole[: len(whole) // 2], whole[:8] + b"\0" * 40):
        with pytest.raises(UnusableImage, match="broken"):
            read(broken)
    with pytest.raises(UnusableImage, match="missing"):
        open_picture(file_picture(tmp_path / "absent.png"))


def test_photographs_are_set_upright() -> None:
    """As Pillow does it, and so does `datasets`, which published figures were measured with."""
    for way in range(10):
        exif, file = Image.Exif(), io.BytesIO()
        exif[0x0112] = way
        stripes(20, 10).save(file, "PNG", exif=exif)
        opened = read(file.getvalue())
        expected = ImageOps.exif_transpose(Image.open(file)).convert("RGB")
        assert opened.image.tobytes() == expected.tobytes()
        assert opened.remarks == (("turned",) if 2 <= way <= 8 else ())
    file = io.BytesIO()
    stripes().save(file, "JPEG")
    garbage = b"\xff\xd8\xff\xe1\x00\x12Exif\0\0garbage!!!" + file.getvalue()[2:]
    assert read(garbage).remarks == ()  # the picture itself is whole


def test_images_are_read_as_they_are_needed(tiny: TinyOf) -> None:
    """Never more than two batches beyond what has been answered, however many there are."""
    opened: list[int] = []

    def picture(number: int) -> Picture:
        def read_it() -> bytes:
            opened.append(number)
            return png(stripes(16 + number))

        return Picture(str(number), read_it)

    asked = (PictureQuestion(str(n), "what?", (picture(n),)) for n in range(20))
    ahead = [
        len(opened) - answered
        for answered, _ in enumerate(answers(tiny("idefics3").model, asked, ImageReport(), max_new_tokens=1, rows=2))
    ]
    assert len(opened) == 20
    assert max(ahead) <= 4


def test_questions_longer_than_the_context_are_counted(tiny: TinyOf) -> None:
    model, report = tiny("idefics3").model, ImageReport()
    picture = Picture("x", lambda: png(stripes()))
    asked = [PictureQuestion("short", "what?", (picture,)), PictureQuestion("long", "what? " * 60, (picture,))]
    assert len(list(answers(model, asked, report, max_new_tokens=1))) == 2
    assert report.conditions() == {"beyond context": 1}


def test_an_image_that_is_shown_twice_is_counted_once(tiny: TinyOf) -> None:
    report = ImageReport()
    grey = Picture("grey.png", lambda: png(stripes(mode="L")))
    asked = [PictureQuestion(str(n), "what?", (grey,)) for n in range(3)]
    assert len(list(answers(tiny("idefics3").model, asked, report, max_new_tokens=1))) == 3
    assert report.conditions() == {"images greyscale": 1}


def test_answers_do_not_depend_on_the_batch(tiny: TinyOf) -> None:
    t = tiny("idefics3")

    def picture(number: int) -> Picture:
        return Picture("x", lambda: png(stripes(16 + number)))

    def ask(rows: int) -> list[str]:
        questions = [PictureQuestion(str(n), "so? " * n, tuple(picture(n) for _ in range(n % 3))) for n in range(7)]
        return [text for _, text in answers(t.model, questions, ImageReport(), max_new_tokens=6, rows=rows)]

    assert ask(1) == ask(3) == ask(7)


def test_answers_are_what_the_library_generates(tiny: TinyOf) -> None:
    t = tiny("idefics3")
    question = PictureQuestion("0", "what?", (Picture("x", lambda: png(stripes())),))
    ((_, text),) = answers(t.model, [question], ImageReport(), max_new_tokens=9)
    inputs = t.model.processor(
        text=[prompt_text(t.model.processor, "what?", 1)], images=[[stripes()]], return_tensors="pt"
    )
    written = t.model.model.generate(
        **inputs, max_new_tokens=9, do_sample=False, pad_token_id=0, eos_token_id=[257, 260]
    )
    new = written[0, inputs["input_ids"].shape[1] :]
    assert text == t.model.tokenizer.decode(new, skip_special_tokens=True).strip()


def test_a_language_model_is_refused_before_it_is_loaded(
    command: Command, tiny_checkpoint: Callable[[str], Path], tmp_path: Path, vision_hub: Path
) -> None:
    folder = tmp_path / "llama"
    folder.mkdir()
    (folder / "config.json").write_text((tiny_checkpoint("llama") / "config.json").read_text())  # and no weights
    ran = command("evaluate", folder, "--benchmark", "pope", "--benchmark", "textvqa", "--datasets-root", vision_hub)
    assert ran.code == 2
    assert (
        "is a llama, a language model, and pope, textvqa need images: give a vision-language model (idefics3" in ran.err
    )
    ran = command(
        "study", "--model", folder, "--benchmark", "mmmu", "--datasets-root", vision_hub, "--out", tmp_path / "run"
    )
    assert ran.code == 2
    assert "needs images: give a vision-language model" in ran.err
    assert not (tmp_path / "run").exists()


def test_a_model_without_a_processor_is_told_what_it_lacks(tiny: TinyOf, vision_hub: Path) -> None:
    from dataclasses import replace

    blind = replace(tiny("idefics3").model, processor=None)
    with pytest.raises(InvalidRequest, match="was loaded without an image processor, which pope needs"):
        find_benchmark("pope").check_model(blind, EvaluationSettings(datasets_root=vision_hub))


def test_the_command_names_what_could_not_be_shown(
    command: Command, tiny_checkpoint: Callable[[str], Path], vision_hub: Path
) -> None:
    ran = command(
        "evaluate", tiny_checkpoint("idefics3"), "--benchmark", "pope", "--benchmark", "textvqa", "--limit", 2,
        "--datasets-root", vision_hub,
        "--device", "cpu",
    )  # fmt: skip
    assert ran.code == 0, ran.err
    assert "image 1.png (broken)" in ran.out
    assert "vqa_acc" in ran.out


def test_text_benchmarks_run_on_models_that_see(
    command: Command, tiny_checkpoint: Callable[[str], Path], miniature: Path
) -> None:
    ran = command(
        "evaluate", tiny_checkpoint("idefics3"), "--benchmark", "arc_easy", "--limit", 2, "--datasets-root", miniature,
        "--device", "cpu",
    )  # fmt: skip
    assert ran.code == 0, ran.err
