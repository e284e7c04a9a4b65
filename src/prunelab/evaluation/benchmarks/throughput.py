"""Speed and size at batch size 1, as the study's Table 2 measures it."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, ClassVar

from prunelab.errors import InvalidRequest
from prunelab.evaluation.benchmarks import register
from prunelab.evaluation.benchmarks.base import Benchmark, Evaluation, EvaluationSettings, Progress, Score
from prunelab.inference.runtimes import TimedGeneration, bytes_a_second, bytes_a_token, check_runtime
from prunelab.io.lazy import inference_mode, np, torch

if TYPE_CHECKING:
    from prunelab.models.loading import LanguageModel
    from prunelab.models.metadata import ModelMetadata


@register
class Throughput(Benchmark):
    """Tokens per second of reading a prompt and of generating behind it, and what the model weighs.

    One sequence, greedy, with a key-value cache, in the eager or the compiled runtime; the median of several runs
    behind a warm-up, the device synchronised around each. Beside the speed stands the ideal one, at which every weight
    is read once a token (see `prunelab.inference.runtimes`). The prompt is random tokens: what they say does not change
    the work. Peak memory is the device's on an accelerator, without what other models hold there, and the whole
    process's on a CPU, whatever else the process holds included.

    Machines slow down and speed up from one minute to the next, by more than a cut of a small model does. In the eager
    runtime a study's cuts are therefore run in turn with the dense model, and `times_as_fast` among a figure's details
    is the median of the runs' ratios, `times_as_fast_spread` half the range between their quartiles.
    """

    name = "throughput"
    title: ClassVar[str] = "tokens per second at batch size 1, parameter count, file size, peak memory"
    primary: ClassVar[str] = "decode_tokens_per_second"
    version: ClassVar[int] = 3
    is_timing: ClassVar[bool] = True

    def check(self, settings: EvaluationSettings) -> None:
        """There must be a compiler where one is to be used."""
        check_runtime(settings.runtime)

    def expected_tokens(self, model: ModelMetadata, settings: EvaluationSettings) -> int:
        """Every run's, the warm-up's included."""
        return (1 + settings.repeats) * (settings.prompt_tokens + settings.new_tokens)

    def identity(self, settings: EvaluationSettings) -> dict[str, Any]:
        """The lengths, the number of runs and the runtime."""
        return {
            "runtime": settings.runtime,
            "prompt_tokens": settings.prompt_tokens,
            "new_tokens": settings.new_tokens,
            "repeats": settings.repeats,
        }

    def evaluate(
        self, model: LanguageModel, settings: EvaluationSettings, progress: Progress | None = None
    ) -> Evaluation:
        """Warm up, then measure."""
        prompt, new, repeats = settings.prompt_tokens, settings.new_tokens, settings.repeats
        if prompt + new > model.context_length:
            raise InvalidRequest(
                f"{prompt} prompt tokens and {new} new ones exceed the context of {model.context_length}: ask for fewer"
            )
        generator = torch.Generator().manual_seed(settings.seed)
        vocabulary = model.model.config.get_text_config().vocab_size
        ids = torch.randint(vocabulary, (1, prompt), generator=generator).to(model.device)
        others = held_by_others(model)  # before its own cache is there
        run = TimedGeneration(model, settings.runtime, prompt + new)
        generate(run, ids, new)
        reset_peak_memory(model.device)
        generate(run, ids, new)
        peak = peak_memory(model.device)
        beside = settings.beside if settings.runtime == "eager" else None
        whole = None if beside is None else TimedGeneration(beside, settings.runtime, prompt + new)
        runs, ratios = [], []
        for index in range(repeats):
            before = generate(whole, ids, new) if whole is not None else None
            runs.append(generate(run, ids, new))
            if before is not None:
                ratios.append(before[1] / runs[-1][1])
            if progress is not None:
                progress(index + 1, repeats)
        prefill, decode = (median(times) for times in zip(*runs, strict=True))
        scores = [
            Score("decode_tokens_per_second", (new - 1) / decode, repeats),
            Score("prefill_tokens_per_second", prompt / prefill, repeats),
            *size_scores(model),
        ]
        scores += ideal_scores(model, scores[0].value, prompt + new // 2)
        if peak is not None:
            scores.append(Score("peak_memory_bytes", peak - others, 1))
        conditions: dict[str, Any] = {
            "prompt_tokens": prompt,
            "new_tokens": new,
            "device": str(model.device),
            "runtime": settings.runtime,
        }
        if ratios:
            low, middle, high = (float(np.quantile(ratios, share)) for share in (0.25, 0.5, 0.75))
            conditions |= {"times_as_fast": middle, "times_as_fast_spread": (high - low) / 2}
        return Evaluation(scores, conditions=conditions)


def size_scores(model: LanguageModel) -> list[Score]:
    """Parameters, bytes of weights, and bytes of cache that one token takes."""
    decoder = model.decoder
    element = torch.empty(0, dtype=model.model.dtype).element_size()
    cached = sum(2 * shape.key_value_groups * shape.head_dim for shape in decoder.shapes) * element
    weights = sum(p.numel() * p.element_size() for p in model.model.parameters())
    return [
        Score("parameters", decoder.parameters, 1),
        Score("weight_bytes", weights, 1),
        Score("cache_bytes_per_token", cached, 1),
    ]


@inference_mode
def generate(run: TimedGeneration, ids: torch.Tensor, new_tokens: int) -> tuple[float, float]:
    """Seconds of reading the prompt (the first new token included) and of the other new tokens."""
    run.begin()
    device, prompt = run.model.device, ids.shape[1]
    token, prefill = timed(device, lambda: run.read(ids))

    def rest() -> torch.Tensor:
        following = token
        for index in range(new_tokens - 1):
            following = run.write(following, prompt + index)
        return following

    _, decode = timed(device, rest)
    return prefill, decode


def ideal_scores(model: LanguageModel, tokens_per_second: float, length: int) -> list[Score]:
    """The most tokens per second that the memory's speed allows, and the share of it that was measured."""
    needed = bytes_a_token(model, length)
    ideal = bytes_a_second(model.device, needed, synchronise) / needed
    return [
        Score("ideal_tokens_per_second", ideal, 1),
        Score("share_of_ideal", tokens_per_second / ideal, 1),
        Score("bytes_read_per_token", needed, 1),
    ]


def timed(device: torch.device, work: Callable[[], torch.Tensor]) -> tuple[torch.Tensor, float]:
    """What the work gives and the seconds it takes, the device synchronised before and behind."""
    synchronise(device)
    start = time.perf_counter()
    result = work()
    synchronise(device)
    return result, time.perf_counter() - start


def synchronise(device: torch.device) -> None:
    """Wait until the device has done all that it was given."""
    if device.type in ("cuda", "mps"):
        getattr(torch, device.type).synchronize()


_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def reset_peak_memory(device: torch.device) -> None:
    """Begin a new measurement of peak memory, where the system can."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif _CLEAR.exists():
        try:
            _CLEAR.write_text("5")
        except OSError:  # not permitted here: the peak is then that of the whole run
            return


def held_by_others(model: LanguageModel) -> int:
    """Bytes on the model's accelerator that are not its weights; 0 elsewhere."""
    if model.device.type != "cuda":
        return 0
    own = {p.data_ptr(): p.numel() * p.element_size() for p in model.model.parameters() if p.device == model.device}
    return max(0, int(torch.cuda.memory_allocated(model.device) - sum(own.values())))


def peak_memory(device: torch.device) -> int | None:
    """Bytes at the peak since `reset_peak_memory`, or None where the system does not tell."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if not _STATUS.exists():
        return None
    line = next(line for line in _STATUS.read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024
