"""Check that Ray is installed, and that a cluster answers at the given address."""

from __future__ import annotations

import socket
import subprocess
import sys
import textwrap
from importlib.util import find_spec
from typing import TYPE_CHECKING

from prunelab.errors import InvalidRequest, MissingRequirement

if TYPE_CHECKING:
    from prunelab.studies.config import RayConfig

CONNECTION_SECONDS = 5
ANSWER_SECONDS = 30
"""Seconds to wait for a cluster after Ray is imported."""

_JOIN = """
import logging, os, sys
import ray
print("imported", flush=True)
try:
    ray.init(address=sys.argv[1], log_to_driver=False, logging_level=logging.CRITICAL)
except Exception as error:
    # Ray nests exceptions: the innermost has the reason, on the last line if it contains a traceback.
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line for line in str(error).split("\\n") if line.strip()] or [type(error).__name__]
    print(" ".join(lines[-1:] if "Traceback" in lines[0] else lines), flush=True)
    os._exit(1)
ray.shutdown()
"""


def check_ray(config: RayConfig) -> None:
    """Check the requirements of Ray before anything is computed.

    Raises:
        MissingRequirement: Ray or, for a `ray://` address, its client is not installed.
        InvalidRequest: no cluster answers at the address.
    """
    if find_spec("ray") is None:
        raise MissingRequirement("--engine ray needs Ray: pip install 'prunelab[ray]'")
    if config.address is None:
        return
    if config.workers is not None:
        raise InvalidRequest(
            f"--workers {config.workers} starts a local Ray, but --address {config.address} names a running cluster: "
            "leave out one of them"
        )
    if config.address != "auto":
        _require_listener(config.address)
    _require_cluster(config.address)


def _require_listener(address: str) -> None:
    """Require a host that accepts connections at the address."""
    if address.startswith("ray://") and find_spec("grpc") is None:
        raise MissingRequirement(
            f"--address {address} needs Ray's client: pip install 'ray[client]', or run the study on a machine "
            "of the cluster and give HOST:PORT or auto"
        )
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
        raise InvalidRequest(f"--address {address} is not an address: give HOST:PORT, ray://HOST:PORT or auto")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECTION_SECONDS).close()
    except (OSError, UnicodeError) as error:
        raise InvalidRequest(
            f"nothing answers at {address} within {CONNECTION_SECONDS} s ({error}): start Ray there (`ray start "
            "--head`), or leave out --address to start Ray locally"
        ) from None


def _require_cluster(address: str) -> None:
    """Require a cluster that this machine can join.

    Runs in a separate process: if another program accepts the connection, Ray retries for minutes and cannot be
    interrupted.
    """
    with subprocess.Popen(
        [sys.executable, "-P", "-c", _JOIN, address], bufsize=0, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as joining:  # fmt: skip
        assert joining.stdout is not None
        joining.stdout.readline()
        try:
            output, _ = joining.communicate(timeout=ANSWER_SECONDS)
        except subprocess.TimeoutExpired:
            raise InvalidRequest(
                f"a program accepts connections at {address}, but Ray does not answer within {ANSWER_SECONDS} s: give "
                "the address that `ray start --head` prints, or leave out --address to start Ray locally"
            ) from None
        finally:
            joining.kill()
    if joining.returncode:
        reason = textwrap.shorten(output.decode(errors="replace"), 300) or "no reason given"
        raise InvalidRequest(
            f"Ray at {address} cannot be joined ({reason}): check `ray status`, or leave out --address to start Ray "
            "locally"
        )
