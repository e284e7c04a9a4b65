"""Speed and size at batch size 1, as in Table 2 of the TMLR 2025 study."""

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
    """Tokens per second of reading a prompt and of generating after it, and the model's size.

    One sequence, greedy, with a key-value cache, in the eager or the compiled runtime; the median of several runs after
    a warm-up, with device synchronisation around each. The ideal speed, at which every weight is read once per token,
    is reported as well (see `prunelab.inference.runtimes`). The prompt is random tokens, since its content does not
    change the work. Peak memory is measured on the accelerator, without memory held by other models, or for the whole
    process on a CPU.

    Throughput drifts over minutes by more than pruning changes it on small models. In the eager runtime a study
    therefore alternates runs of the pruned and the dense model; `times_as_fast` in the details is the median of the
    runs' ratios, `times_as_fast_spread` half their interquartile range.
    """

    name = "throughput"
    title: ClassVar[str] = "tokens per second at batch size 1, parameter count, file size, peak memory"
    primary: ClassVar[str] = "decode_tokens_per_second"
    version: ClassVar[int] = 3
    is_timing: ClassVar[bool] = True

    def check(self, settings: EvaluationSettings) -> None:
        """Check that the runtime is available."""
        check_runtime(settings.runtime)

    def expected_tokens(self, model: ModelMetadata, settings: EvaluationSettings) -> int:
        """Tokens of all runs, the warm-up included."""
        return (1 + settings.repeats) * (settings.prompt_tokens + settings.new_tokens)

    def identity(self, settings: EvaluationSettings) -> dict[str, Any]:
        """Lengths, number of runs and runtime."""
        return {
            "runtime": settings.runtime,
            "prompt_tokens": settings.prompt_tokens,
            "new_tokens": settings.new_tokens,
            "repeats": settings.repeats,
        }

    def evaluate(
        self, model: LanguageModel, settings: EvaluationSettings, progress: Progress | None = None
    ) -> Evaluation:
        """Warm up, then measure the runs."""
        prompt, new, repeats = settings.prompt_tokens, settings.new_tokens, settings.repeats
        if prompt + new > model.context_length:
            raise InvalidRequest(
                f"{prompt} prompt tokens and {new} new ones exceed the context of {model.context_length}: request fewer"
            )
        generator = torch.Generator().manual_seed(settings.seed)
        vocabulary = model.model.config.get_text_config().vocab_size
        ids = torch.randint(vocabulary, (1, prompt), generator=generator).to(model.device)
        held_before = held_by_others(model)  # before the model's cache is allocated
        run = TimedGeneration(model, settings.runtime, prompt + new)
        generate(run, ids, new)
        reset_peak_memory(model.device)
        generate(run, ids, new)
        peak = peak_memory(model.device)
        dense = settings.beside if settings.runtime == "eager" else None
        dense_run = None if dense is None else TimedGeneration(dense, settings.runtime, prompt + new)
        runs, ratios = [], []
        for index in range(repeats):
            before = generate(dense_run, ids, new) if dense_run is not None else None
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
            scores.append(Score("peak_memory_bytes", peak - held_before, 1))
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
    """Parameters, bytes of weights, and bytes of cache per token."""
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
    """Tokens per second that the memory bandwidth allows, and the measured share of it."""
    needed = bytes_a_token(model, length)
    ideal = bytes_a_second(model.device, needed, synchronise) / needed
    return [
        Score("ideal_tokens_per_second", ideal, 1),
        Score("share_of_ideal", tokens_per_second / ideal, 1),
        Score("bytes_read_per_token", needed, 1),
    ]


def timed(device: torch.device, work: Callable[[], torch.Tensor]) -> tuple[torch.Tensor, float]:
    """The result of the work and its seconds, with device synchronisation before and after it."""
    synchronise(device)
    start = time.perf_counter()
    result = work()
    synchronise(device)
    return result, time.perf_counter() - start


def synchronise(device: torch.device) -> None:
    """Wait until the device is idle."""
    if device.type in ("cuda", "mps"):
        getattr(torch, device.type).synchronize()


_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def reset_peak_memory(device: torch.device) -> None:
    """Reset the peak memory counter, if the system has one."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif _CLEAR.exists():
        try:
            _CLEAR.write_text("5")
        except OSError:  # not permitted: the peak is then that of the process
            return


def held_by_others(model: LanguageModel) -> int:
    """Bytes on the model's accelerator that are not its weights; 0 elsewhere."""
    if model.device.type != "cuda":
        return 0
    weight_bytes = {
        p.data_ptr(): p.numel() * p.element_size() for p in model.model.parameters() if p.device == model.device
    }
    return max(0, int(torch.cuda.memory_allocated(model.device) - sum(weight_bytes.values())))


def peak_memory(device: torch.device) -> int | None:
    """Peak bytes since `reset_peak_memory`; None if the system does not report them."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if not _STATUS.exists():
        return None
    line = next(line for line in _STATUS.read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024
