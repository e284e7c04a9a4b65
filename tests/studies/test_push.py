"""`prunelab push` against a hub that is a fake, and the card that goes there."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from fnmatch import fnmatch
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import Ran
from huggingface_hub.errors import HfHubHTTPError
from llama_cpp import letter_tokenizer
from test_cli import quick, refused

from prunelab.checkpoint.license import Licence, front_matter
from prunelab.studies import hub_upload as hub

Command = Callable[..., Ran]
STALE = ("model-00001-of-00002.safetensors", "model.safetensors.index.json", "results.json")
"""What an earlier checkpoint may have left in a repository."""


class FakeHub:
    """What `push` asks of the hub: it keeps what it is given, and refuses as it is told."""

    def __init__(self) -> None:
        self.taken: set[str] = set()
        self.sent: dict[str, bytes] = {}
        self.refuses: int | None = None
        self.gone: Exception | None = None
        self.licences: dict[str, str] = {}

    def repo_exists(self, name: str) -> bool:
        if self.gone is not None:
            raise self.gone
        return name in self.taken

    def create_repo(self, name: str, private: bool, exist_ok: bool) -> str:
        if self.refuses is not None:
            response: Any = SimpleNamespace(status_code=self.refuses, headers={}, request=None)
            raise HfHubHTTPError("no\nreally not", response=response)
        assert exist_ok or name not in self.taken
        self.taken.add(name)
        return f"https://huggingface.co/{name}"

    def upload_folder(
        self,
        repo_id: str,
        folder_path: str,
        commit_message: str,
        delete_patterns: tuple[str, ...],
        ignore_patterns: tuple[str, ...] = (),
    ) -> None:
        for name in [name for name in self.sent if any(fnmatch(name, pattern) for pattern in delete_patterns)]:
            del self.sent[name]
        for path in Path(folder_path).rglob("*"):
            name = path.relative_to(folder_path).as_posix()
            if path.is_file() and not any(fnmatch(name, pattern) for pattern in ignore_patterns):  # as the client does
                self.sent[name] = path.read_bytes()

    def model_info(self, name: str) -> Any:
        if self.gone is not None:
            raise self.gone
        fields = {"license": self.licences.get(name)}
        return SimpleNamespace(card_data=SimpleNamespace(to_dict=lambda: fields))


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeHub:
    made = FakeHub()
    monkeypatch.setattr(hub, "HfApi", lambda: made)
    monkeypatch.setattr(hub, "get_token", lambda: "hf_token")
    return made


@pytest.fixture
def base(tiny_checkpoint: Callable[[str], Path], tmp_path: Path) -> Path:
    """A base model whose card names its licence, with a tokenizer that llama.cpp knows."""
    folder = tmp_path / "base"
    shutil.copytree(tiny_checkpoint("llama"), folder)
    letter_tokenizer().save_pretrained(folder)
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\n# Base\n")
    for name in ("LICENSE.txt", "Notice", "USE_POLICY.md"):
        (folder / name).write_text(f"{name} of the base\n")
    return folder


def pruned(command: Command, base: Path, corpus: Path, *more: object) -> Path:
    out = base.parent / "pruned"
    ran = command("prune", base, "--out", out, *quick(corpus), *more)
    assert ran.code == 0, ran
    return out


def test_hidden_files_stay_here(command: Command, base: Path, corpus: Path, fake: FakeHub) -> None:
    folder = pruned(command, base, corpus)
    secret = {".env", ".git/config", "more/.netrc", ".cache/huggingface/token"}
    for name in secret:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("hf_secret")
    words = ("push", folder, "--to", "me/small", "--base-model", "org/base")
    listed = command(*words, "--dry-run")
    assert listed.code == 0, listed
    assert command(*words).code == 0
    assert "model.safetensors" in fake.sent
    assert not secret & set(fake.sent)
    assert not [name for name in secret if name in listed.out]
    assert b"hf_secret" not in b"".join(fake.sent.values())


@pytest.mark.parametrize("content", [b"---\nlicense: mit\n---\n\xff", b"\xe5\x00", b"\xed\xa0\x80"])
def test_a_card_that_is_no_text(content: bytes, command: Command, base: Path, corpus: Path, fake: FakeHub) -> None:
    folder = pruned(command, base, corpus)
    (folder / "README.md").write_bytes(content)
    ran = command("push", folder, "--to", "me/small", "--license", "mit", "--dry-run")
    refused(ran, "README.md")
    assert not fake.sent


def test_everything_arrives(command: Command, base: Path, corpus: Path, fake: FakeHub) -> None:
    folder = pruned(command, base, corpus)
    (folder / "pytorch_model.bin").write_bytes(b"pickle")
    ran = command("push", folder, "--to", "me/small", "--base-model", "org/base")
    assert ran.code == 0, ran
    assert "licence apache-2.0" in ran.out
    assert "uploaded to https://huggingface.co/me/small" in ran.out
    expected = {"model.safetensors", "config.json", "tokenizer.json", "pruning_plan.json", "modeling_prunelab.py"}
    assert expected <= set(fake.sent)
    assert fake.sent["LICENSE.txt"] == b"LICENSE.txt of the base\n"
    assert {"Notice", "USE_POLICY.md"} <= set(fake.sent)
    assert "pytorch_model.bin" not in fake.sent
    fields, body = front_matter(fake.sent["README.md"].decode())
    assert (fields["base_model"], fields["license"]) == ("org/base", "apache-2.0")
    assert 'from_pretrained("me/small", trust_remote_code=True)' in body
    assert "prunelab export me/small --to gguf" in body
    assert "PATH" not in body
    assert "Intended use" in body


def test_measured_losses_come_along(command: Command, base: Path, corpus: Path, fake: FakeHub) -> None:
    run = base.parent / "run"
    text = ["--calibration", corpus, "--samples", 8, "--sequence-length", 64]
    grid = ["--method", "flap", "--ratio", 0.2, "--benchmark", f"text:{corpus}", "--device", "cpu", "--window", 64]
    assert command("study", "--model", base, *grid, *text, "--out", run).code == 0
    (plan,) = (run / "plans").glob("*.json")
    folder = pruned(command, base, corpus, "--plan", plan)
    assert command("push", folder, "--to", "me/small", "--run", run).code == 0
    card = fake.sent["README.md"].decode()
    assert "## What was lost" in card
    assert f"- text:{corpus.name} token_perplexity: " in card or "token_perplexity: " in card
    rows = json.loads(fake.sent["results.json"])
    assert {row["method"] for row in rows} == {"flap"}
    shutil.rmtree(folder)
    other = pruned(command, base, corpus, "--ratio", 0.4)
    refused(command("push", other, "--to", "me/other", "--run", run), "did not measure the model")


def test_a_dry_run_sends_nothing(command: Command, base: Path, corpus: Path, fake: FakeHub) -> None:
    folder = pruned(command, base, corpus)
    ran = command("push", folder, "--to", "me/small", "--dry-run")
    assert ran.code == 0
    assert "model.safetensors" in ran.out
    assert "README.md" in ran.out
    assert "nothing was uploaded" in ran.out
    assert not fake.sent
    assert not fake.taken


def test_what_lacks_a_part_is_not_sent(command: Command, base: Path, corpus: Path, fake: FakeHub) -> None:
    folder = pruned(command, base, corpus)
    (folder / "modeling_prunelab.py").rename(base.parent / "aside.py")
    refused(command("push", folder, "--to", "me/small"), "lacks modeling_prunelab.py", "prune again")
    (base.parent / "aside.py").rename(folder / "modeling_prunelab.py")
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-8])
    refused(command("push", folder, "--to", "me/small"), "its download is incomplete")
    assert not fake.sent
    assert not fake.taken


@pytest.mark.parametrize("licence", ["llama3", "gemma", "cc-by-nc-4.0", "other"])
def test_a_restrictive_licence_is_named_before_anything_leaves(
    licence: str, command: Command, base: Path, corpus: Path, fake: FakeHub
) -> None:
    (base / "README.md").write_text(f"---\nlicense: {licence}\nlicense_name: the-terms\n---\n")
    folder = pruned(command, base, corpus, "--method", "magnitude_depth", "--ratio", 0.25)
    refused(command("push", folder, "--to", "me/small"), "is licensed under the-terms", "--accept-license")
    assert not fake.sent
    assert command("push", folder, "--to", "me/small", "--accept-license").code == 0
    fields, _ = front_matter(fake.sent["README.md"].decode())
    assert (fields["license"], fields["license_name"]) == (licence, "the-terms")


def test_the_licence_is_asked_of_the_hub(command: Command, base: Path, corpus: Path, fake: FakeHub) -> None:
    (base / "README.md").unlink()
    folder = pruned(command, base, corpus)
    refused(command("push", folder, "--to", "me/small"), "licence of base is unknown", "--license", "--base-model")
    fake.licences["org/base"] = "mit"
    ran = command("push", folder, "--to", "me/small", "--base-model", "org/base", "--dry-run")
    assert "licence mit" in ran.out
    assert command("push", folder, "--to", "me/small", "--license", "MIT").code == 0
    assert front_matter(fake.sent["README.md"].decode())[0]["license"] == "mit", "as the hub spells it"


def test_names_tokens_and_refusals(
    command: Command, base: Path, corpus: Path, fake: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = pruned(command, base, corpus)
    refused(command("push", folder, "--to", "small"), "'small' is not a repository name", "user/name")
    refused(command("push", folder, "--to", "me/small--er"), "Cannot have -- or ..", "user/name")
    refused(command("push", folder, "--to", "me/" + "x" * 97), "maximum length is 96", "user/name")
    refused(
        command("push", folder, "--to", "me/small", "--base-model", "Qwen2"),
        "'Qwen2' is not a repository name",
        "ORG/NAME",
    )
    refused(command("push", base, "--to", "me/small"), "is not a checkpoint written by prunelab")
    fake.taken.add("me/taken")
    refused(command("push", folder, "--to", "me/taken"), "me/taken exists on the hub", "--overwrite")
    fake.sent = dict.fromkeys(STALE, b"another cut's")
    fake.sent["notes.md"] = b"the user's"
    assert command("push", folder, "--to", "me/taken", "--overwrite").code == 0
    assert not set(STALE) & set(fake.sent), "transformers loads the weights that it finds first"
    assert fake.sent["notes.md"] == b"the user's"
    assert fake.sent["model.safetensors"] == (folder / "model.safetensors").read_bytes()
    for status, remedy in (
        (401, "hf auth login"),
        (403, "may not write to me"),
        (409, "the repository exists"),
        (500, "later"),
    ):
        fake.refuses = status
        refused(command("push", folder, "--to", "me/new"), "the hub refused me/new (no)", remedy)
    monkeypatch.setattr(hub, "get_token", lambda: None)
    refused(command("push", folder, "--to", "me/new"), "hf auth login", "HF_TOKEN")


@pytest.mark.parametrize("gone", [hub._HTTPError("no route"), ConnectionError("no route")])
def test_no_hub(gone: Exception, command: Command, base: Path, corpus: Path, fake: FakeHub) -> None:
    folder = pruned(command, base, corpus)
    fake.gone = gone
    refused(command("push", folder, "--to", "me/new"), "the hub cannot be reached (no route)", "HF_HUB_OFFLINE")
    for name in ("README.md", "LICENSE.txt", "Notice", "USE_POLICY.md"):
        (base / name).unlink()
    shutil.rmtree(folder)
    unknown = pruned(command, base, corpus)
    refused(command("push", unknown, "--to", "me/new", "--base-model", "org/base"), "licence of org/base is unknown")


def test_only_known_free_licences_are_free() -> None:
    assert not Licence("apache-2.0").is_restrictive
    assert Licence("llama3.1").is_restrictive
    assert Licence("other").is_restrictive
