"""A cluster's address: said within seconds where no Ray answers there, and joined where one does, however slow."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import psutil
import pytest
from conftest import Ran

from prunelab.errors import InvalidRequest, MissingRequirement
from prunelab.studies.config import RayConfig
from prunelab.studies.engines.address import check_ray
from prunelab.studies.engines.ray import _connected

CheckpointOf = Callable[[str], Path]
HEAD = """
import ray, sys
print(ray.init(address="local", num_cpus=2, include_dashboard=False).address_info["gcs_address"], flush=True)
sys.stdin.read()
"""


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if Ray and its client were."""
    monkeypatch.setattr("prunelab.studies.engines.address.find_spec", lambda name: object())


def test_an_address_where_nothing_listens_is_said_within_seconds(
    installed: None, tiny_checkpoint: CheckpointOf, corpus: Path, tmp_path: Path, command: Callable[..., Ran]
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        address = f"ray://127.0.0.1:{taken.getsockname()[1]}"
    began = time.monotonic()
    ran = command(
        "study", "--model", tiny_checkpoint("llama"), "--benchmark", f"text:{corpus}", "--out", tmp_path / "run",
        "--engine", "ray", "--address", address,
    )  # fmt: skip
    assert time.monotonic() - began < 10
    assert (ran.code, ran.err.count("\n")) == (2, 1), ran
    assert f"nothing answers at {address} within 5 s" in ran.err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "address", ["cluster", "", "local", ":6379", "host:", "host:x", "host:0", "host:99999", "ray://", "http://host"]
)
def test_what_is_no_address(address: str, installed: None) -> None:
    with pytest.raises(InvalidRequest, match="is not an address: give HOST:PORT, ray://HOST:PORT or auto"):
        check_ray(RayConfig(address=address))


def test_a_host_whose_name_cannot_be_one(installed: None) -> None:
    with pytest.raises(InvalidRequest, match=r"nothing answers at h{99}:6379"):
        check_ray(RayConfig(address="h" * 99 + ":6379"))


def test_rays_client_is_asked_for_where_an_address_needs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prunelab.studies.engines.address.find_spec", lambda name: None if name == "grpc" else object())
    with pytest.raises(MissingRequirement, match=r"ray://head:10001 needs Ray's client: pip install 'ray\[client\]'"):
        check_ray(RayConfig(address="ray://head:10001"))


def test_workers_are_for_a_ray_that_is_started_here(
    installed: None, tiny_checkpoint: CheckpointOf, command: Callable[..., Ran], tmp_path: Path
) -> None:
    with pytest.raises(InvalidRequest, match="--workers 2 starts a local Ray, but --address host:6379"):
        check_ray(RayConfig(address="host:6379", workers=2))
    ran = command("study", "--model", tiny_checkpoint("llama"), "--address", "host:6379", "--out", tmp_path / "run")
    assert (ran.code, "--address can only be used with Ray: add --engine ray" in ran.err) == (2, True), ran


@contextmanager
def silent() -> Iterator[int]:
    """Takes connections and never says anything."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@contextmanager
def http() -> Iterator[int]:
    """A web server."""
    with ThreadingHTTPServer(("127.0.0.1", 0), SimpleHTTPRequestHandler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


@pytest.mark.parametrize("other", [silent, http])
def test_an_address_where_something_else_answers_is_said_within_seconds(
    other: Callable[[], AbstractContextManager[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'prunelab[ray]'")
    monkeypatch.setattr("prunelab.studies.engines.address.ANSWER_SECONDS", 1)
    before = psutil.Process().children()
    said = r"at 127.0.0.1:\d+, but Ray does not answer within 1 s: give the address that `ray start --head` prints"
    with other() as port, pytest.raises(InvalidRequest, match=said):
        check_ray(RayConfig(address=f"127.0.0.1:{port}"))
    assert psutil.Process().children() == before, "nobody goes on trying"


FAILING = """
def init(**_):
    try:
        raise RuntimeError({inner!r})
    except RuntimeError as error:
        raise ConnectionError("Failed to connect") from error
"""


@pytest.mark.parametrize(
    ("inner", "reason"),
    [
        ("Failed. Last error: Traceback:\n  File x\nAuthenticationError: the token is missing\n\n",
         "AuthenticationError: the token is missing"),
        ("Version mismatch: the cluster has\n    Ray: 2.1\nthis process\n    Ray: 2.2",
         "Version mismatch: the cluster has Ray: 2.1 this process Ray: 2.2"),
        ("", "RuntimeError"),
    ],
)  # fmt: skip
def test_a_cluster_that_cannot_be_joined_says_why(
    inner: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, installed: None
) -> None:
    (tmp_path / "ray.py").write_text(FAILING.format(inner=inner))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with silent() as port, pytest.raises(InvalidRequest, match=rf"Ray at 127.0.0.1:{port} cannot be joined \({reason}"):
        check_ray(RayConfig(address=f"127.0.0.1:{port}"))


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, psutil.Process]]:
    """The address of a cluster, and the process that started it."""
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'prunelab[ray]'")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    monkeypatch.setenv("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    with subprocess.Popen(
        [sys.executable, "-c", HEAD],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as head:
        assert head.stdout is not None
        yield head.stdout.readline().strip(), psutil.Process(head.pid)
        head.communicate("")


@pytest.mark.filterwarnings("ignore")
def test_a_cluster_that_is_slow_to_answer_is_joined(cluster: tuple[str, psutil.Process]) -> None:
    address, head = cluster
    (server,) = (process for process in head.children(recursive=True) if process.name() == "gcs_server")
    server.send_signal(signal.SIGSTOP)
    waking = threading.Timer(2, server.send_signal, [signal.SIGCONT])
    waking.start()
    config = RayConfig(address=address)
    check_ray(config)
    assert not waking.is_alive(), "it was asleep when it was asked"
    with _connected(config) as ray:
        assert [node["Resources"]["CPU"] for node in ray.nodes()] == [2]
