"""How a checkpoint is served, for its card: each command with what was tried."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from prunelab.checkpoint.gguf.support import Fit

SERVING = """\
## How to serve it

With transformers (`pip install 'transformers[serving]'`):

```
transformers serve {model}{trust}
```

With vLLM, **untested**: its Transformers backend {geometry}.

```
vllm serve {model} --model-impl transformers{trust_vllm}
```
"""
LLAMA_CPP = """
With llama.cpp, checked against torch by prunelab's tests ({architecture}):

```
prunelab export {model} --to gguf --out model.gguf --type q8_0{pad}
llama-server -m model.gguf
```
"""
NOT_LLAMA_CPP = """
Not with llama.cpp, for `prunelab export` refuses it: {refusal}.
"""


def serving(model: str, mixed: bool, llama_cpp: Fit) -> str:
    """The section of the model card.

    Args:
        model: the checkpoint, as the reader will call it.
        mixed: whether it needs the modelling file, as for widths of its blocks' own.
        llama_cpp: how it fits llama.cpp.
    """
    own = "builds each block from the configuration" if mixed else "runs the stock class as transformers does"
    trust = " --trust-remote-code" if mixed else ""
    text = SERVING.format(model=model, trust=trust, trust_vllm=trust, geometry=own)
    if llama_cpp.refusal:
        return text + NOT_LLAMA_CPP.format(refusal=llama_cpp.refusal)
    pad = " --pad-widths" if llama_cpp.pad_widths else ""
    return text + LLAMA_CPP.format(model=model, architecture=_architecture(llama_cpp), pad=pad)


def _architecture(llama_cpp: Fit) -> str:
    """How it is written, in words."""
    words = [f"written as `{llama_cpp.architecture}`"]
    if llama_cpp.architecture == "deci":
        words[0] += ", whose blocks have widths of their own"
    if llama_cpp.pad_widths:
        words[0] += ", which has no widths per block, so that blocks are filled with zeros up to the widest"
    return "; ".join([*words, *llama_cpp.notes])
