"""How a checkpoint is served, for its card: each command with what was tried."""

from __future__ import annotations

SERVING = """\
## How to serve it

With transformers (`pip install 'transformers[serving]'`):

```
transformers serve {model}{trust}
```

With vLLM, **untested**: its Transformers backend builds each block from the configuration, so that {geometry}.

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
Not with llama.cpp, which has no place in this family for {beyond}: prune with `--compensation none` for that.
"""
_LLAMA_CPP = {
    ("gemma2", True): "Gemma-2 has no widths per block there, so that blocks are filled with zeros up to the widest",
}


def serving(model: str, family: str, mixed: bool, beyond: str = "") -> str:
    """The section of the model card.

    Args:
        model: the checkpoint, as the reader will call it.
        family: its family.
        mixed: whether it needs the modelling file, as for widths of its blocks' own.
        beyond: what llama.cpp has no place for, in words; empty for nothing.
    """
    own = "widths per block may be served as they are" if mixed else "one width for all blocks is nothing special"
    plain = "blocks with widths of their own are written as `deci`" if mixed else "as any model of its family"
    padded = family == "gemma2" and mixed
    trust = " --trust-remote-code" if mixed else ""
    text = SERVING.format(model=model, trust=trust, trust_vllm=trust, geometry=own)
    if family not in ("llama", "mistral", "qwen2", "gemma2"):
        return text  # a model that sees has no GGUF of ours
    if beyond:
        return text + NOT_LLAMA_CPP.format(beyond=beyond)
    return text + LLAMA_CPP.format(
        model=model,
        architecture=_LLAMA_CPP.get((family, mixed), plain),
        pad=" --pad-widths" if padded else "",
    )
