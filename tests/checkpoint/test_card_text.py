"""A model card holds text from outside as text: names, notes, the command and the calibration's corpus."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import yaml
from conftest import Tiny
from markdown_it import MarkdownIt

from prunelab.checkpoint.card import model_card
from prunelab.checkpoint.license import front_matter, licence_in
from prunelab.pruning.apply import make_pruning_plan, pruned_model
from prunelab.pruning.plan import PruningPlan

READER = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
NAMES = [
    "plain-name",
    "meta-llama/Llama-3",
    "<img src=x onerror=alert(1)>",
    "a`b [x](javascript:y) **z** |",
    "two\nlines\n---\nlicense: mit\n# heading",
    "{base} {0} %s",
    "x/y](http://example.org) <b>",
    "\x1b[31mred: 'a' \"b\"",
]


@pytest.fixture(scope="module")
def cut(tiny: Callable[[str], Tiny]) -> tuple[Tiny, PruningPlan]:
    t = tiny("llama")
    return t, make_pruning_plan(t.model, "flap", 0.25, statistics=t.statistics, calibration=t.calibration)


@pytest.mark.parametrize("name", NAMES)
def test_any_name_command_and_corpus_stand_in_the_card_as_text(name: str, cut: tuple[Tiny, PruningPlan]) -> None:
    t, plan = cut
    calibration = {**plan.provenance["calibration"], "corpus": f"{name}\n```\n<script>"}
    named = plan.model_copy(
        update={
            "base": plan.base.model_copy(update={"name": name}),
            "notes": (name,),
            "provenance": {**plan.provenance, "calibration": calibration},
        }
    )
    card = model_card(pruned_model(t.model, plan, t.statistics), named, f"prunelab prune '{name}\n```\n<b>x</b>'")
    fields, body = front_matter(card)
    is_id = name == "meta-llama/Llama-3"
    assert fields.get("base_model") == (name if is_id else None)
    assert fields["tags"] == ["pruned", "prunelab", "flap"]
    assert licence_in(fields) is None
    assert "\x1b" not in card
    tokens = READER.parse(body)
    assert [token.tag for token in tokens if token.type == "heading_open"].count("h1") == 1
    children = [child for token in tokens for child in token.children or ()]
    assert not [token for token in tokens if token.type == "html_block"]
    assert not [child for child in children if child.type == "html_inline"]
    links = [child.attrs["href"] for child in children if child.type == "link_open"]
    assert links == ([f"https://huggingface.co/{name}"] if is_id else [])
    fences = [token.content for token in tokens if token.type == "fence"]
    assert any("prunelab prune" in text and "<b>x</b>" in text for text in fences)
    assert any("<script>" in text and '"samples"' in text for text in fences)


@pytest.mark.parametrize(
    "head",
    [
        "license: mit\nlicense: other",
        "license: [",
        "a: &a [*a]",
        "license: {a: 1}\nlicense_name: [x]",
        "- license",
        "1: 2",
    ],
)
def test_odd_front_matter_names_no_licence_or_one_line(head: str) -> None:
    fields, _ = front_matter(f"---\n{head}\n---\ntext")
    found = licence_in(fields)
    assert found is None or "\n" not in found.title
    yaml.safe_dump(fields)
