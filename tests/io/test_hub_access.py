"""A machine without internet is not kept waiting, and one that had none for a while is not kept offline."""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Iterator
from email.message import Message
from types import TracebackType

import pytest
from huggingface_hub import constants
from huggingface_hub.utils import _http

from prunelab.errors import CheckpointError, DataError
from prunelab.io import hub as hub_access
from prunelab.io.datasets import Source
from prunelab.models.loading import load_config


@pytest.fixture(autouse=True)
def unasked(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nobody has asked yet, and nothing is said by the environment; what is found is forgotten."""
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    hub_access._look.cache_clear()
    yield
    hub_access._look.cache_clear()


@pytest.fixture
def no_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    """No hub, and nobody who waits for it."""

    def refuse(*_: object, **__: object) -> None:
        raise urllib.error.URLError("no route")

    def wait(_: float) -> None:
        raise AssertionError("waited for a hub that does not answer")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    monkeypatch.setattr(_http.time, "sleep", wait)


@pytest.mark.usefixtures("no_hub")
def test_without_a_hub_data_and_models_are_refused_at_once() -> None:
    with pytest.raises(DataError, match="unreachable"):
        Source("nobody/has-this-data", "main").load("train")
    with pytest.raises(CheckpointError, match="the download from the hub failed"):
        load_config("nobody/has-this-model")
    assert constants.HF_HUB_OFFLINE


def test_a_hub_that_is_back_is_used_again(monkeypatch: pytest.MonkeyPatch) -> None:
    class Answer:
        def __enter__(self) -> None: ...

        def __exit__(self, a: type[BaseException] | None, b: BaseException | None, c: TracebackType | None) -> None: ...

    now = [0.0]
    answers: list[BaseException | None] = [OSError("no route"), None]

    def ask(*_: object, **__: object) -> Answer:
        if (answer := answers.pop(0)) is not None:
            raise answer
        return Answer()

    monkeypatch.setattr(urllib.request, "urlopen", ask)
    monkeypatch.setattr("prunelab.io.hub.time.monotonic", lambda: now[0])
    hub_access.require_hub()
    hub_access.require_hub()
    assert constants.HF_HUB_OFFLINE
    assert len(answers) == 1, "asked once a minute"
    now[0] = hub_access.GOOD_FOR
    hub_access.require_hub()
    assert not constants.HF_HUB_OFFLINE


def test_who_is_offline_by_choice_stays_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def ask(*_: object, **__: object) -> None:
        raise AssertionError("asked, though told not to")

    monkeypatch.setattr(urllib.request, "urlopen", ask)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    hub_access.require_hub()
    assert constants.HF_HUB_OFFLINE


def test_an_answer_that_is_an_error_is_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise urllib.error.HTTPError(constants.ENDPOINT, 403, "forbidden", Message(), None)

    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    assert hub_access.hub_answers()
