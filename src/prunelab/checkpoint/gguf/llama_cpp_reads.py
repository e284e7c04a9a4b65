"""Tokenize texts with llama.cpp; run as a script in a separate process.

    python -P llama_cpp_reads.py FILE.gguf ANSWER.json < texts.json

A failed assertion in llama.cpp ends the process, and its server thread does not always stop.
"""

import http.client
import json
import os
import sys
from pathlib import Path
from typing import Any


def main() -> None:
    """Read a list of texts, write {"tokens": ...}, {"refused": ...} or {"unable": ...}, and exit immediately."""
    file, answer = sys.argv[1:]
    Path(answer).write_text(json.dumps(_answer(file, json.load(sys.stdin))))
    os._exit(0)


def _answer(file: str, texts: list[str]) -> dict[str, Any]:
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = file
    params.n_ctx = params.n_batch = params.n_ubatch = 64
    params.n_parallel = params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
    params.n_gpu_layers = 0
    params.fit_params = params.warmup = False
    params.verbosity = 1
    try:
        server = xllamacpp.Server(params)
    except RuntimeError as error:
        return {"refused": str(error)}
    connection = http.client.HTTPConnection(server.listening_address.partition("//")[2], timeout=60)
    try:
        return {"tokens": [_tokens(connection, text) for text in texts]}
    except OSError as error:
        return {"unable": f"its server cannot be reached ({error})"}


def _tokens(connection: http.client.HTTPConnection, text: str) -> list[int]:
    """The token ids of a text, with special tokens added and recognised."""
    request = json.dumps({"content": text, "add_special": True, "parse_special": True})
    for attempt in range(2):  # the server closes a kept-alive connection after some requests
        try:
            connection.request("POST", "/tokenize", request, {"Content-Type": "application/json"})
            ids: list[int] = json.loads(connection.getresponse().read())["tokens"]
            return ids
        except (http.client.HTTPException, ConnectionError):
            connection.close()
            if attempt:
                raise
    raise AssertionError


if __name__ == "__main__":
    main()
