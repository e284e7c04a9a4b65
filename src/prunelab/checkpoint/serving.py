"""The serving section of a model card: one command for each engine, and whether it was tested."""

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

With vLLM (**untested**), whose Transformers backend {geometry}:

```
vllm serve {model} --model-impl transformers{trust_vllm}
```
"""
LLAMA_CPP = """
With llama.cpp, which prunelab's tests compare with torch ({architecture}):

```
prunelab export {model} --to gguf --out model.gguf --type q8_0{pad}
llama-server -m model.gguf
```
"""
NOT_LLAMA_CPP = """
llama.cpp cannot serve this model. `prunelab export` refuses it: {refusal}.
"""


def serving(model: str, mixed: bool, llama_cpp: Fit) -> str:
    """Render the serving section of the model card.

    Args:
        model: path or id of the checkpoint in the commands.
        mixed: whether the checkpoint needs the modelling file, as blocks of different widths do.
        llama_cpp: whether and how the model can be exported to llama.cpp.
    """
    geometry = "builds each block from the configuration" if mixed else "runs the stock class as transformers does"
    trust = " --trust-remote-code" if mixed else ""
    text = SERVING.format(model=model, trust=trust, trust_vllm=trust, geometry=geometry)
    if llama_cpp.refusal:
        return text + NOT_LLAMA_CPP.format(refusal=llama_cpp.refusal)
    pad = " --pad-widths" if llama_cpp.pad_widths else ""
    return text + LLAMA_CPP.format(model=model, architecture=_architecture(llama_cpp), pad=pad)


def _architecture(llama_cpp: Fit) -> str:
    """Describe the GGUF architecture, with padding and notes."""
    words = [f"written as `{llama_cpp.architecture}`"]
    if llama_cpp.architecture == "deci":
        words[0] += ", which supports blocks of different widths"
    if llama_cpp.pad_widths:
        words[0] += ", which has one width for all blocks, so that blocks are padded with zeros to the widest"
    return "; ".join([*words, *llama_cpp.notes])
