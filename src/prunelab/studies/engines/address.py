"""Whether the Ray that a study asks for is to be had: the package here, and a cluster that answers at its address."""

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
"""How long a cluster may take to let this machine join, once Ray is imported."""

_JOIN = """
import logging, os, sys
import ray
print("imported", flush=True)
try:
    ray.init(address=sys.argv[1], log_to_driver=False, logging_level=logging.CRITICAL)
except Exception as error:
    # Of what Ray wraps into one another the innermost says why; a traceback in it ends with the reason.
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line for line in str(error).split("\\n") if line.strip()] or [type(error).__name__]
    print(" ".join(lines[-1:] if "Traceback" in lines[0] else lines), flush=True)
    os._exit(1)
ray.shutdown()
"""


def check_ray(config: RayConfig) -> None:
    """Find out what is missing before anything is computed.

    Raises:
        MissingRequirement: Ray is not installed, or what it needs for an address of its client's.
        InvalidRequest: no cluster answers at the address.
    """
    if find_spec("ray") is None:
        raise MissingRequirement("--engine ray needs Ray: pip install 'prunelab[ray]'")
    if config.address is None:
        return
    if config.workers is not None:
        raise InvalidRequest(
            f"--workers {config.workers} is for a Ray that is started here, and --address {config.address} names one "
            "that runs: leave one of them out"
        )
    if config.address != "auto":
        _require_listener(config.address)
    _require_cluster(config.address)


def _require_listener(address: str) -> None:
    """Something takes connections at the address."""
    if address.startswith("ray://") and find_spec("grpc") is None:
        raise MissingRequirement(
            f"--address {address} needs Ray's client: pip install 'ray[client]', or run the study on a machine "
            "of the cluster and give HOST:PORT or auto"
        )
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
        raise InvalidRequest(f"--address {address} is no address: give HOST:PORT, ray://HOST:PORT or auto")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECTION_SECONDS).close()
    except (OSError, UnicodeError) as error:
        raise InvalidRequest(
            f"nothing answers at {address} within {CONNECTION_SECONDS} s ({error}): start Ray there (`ray start "
            "--head`), or leave out --address to start one here"
        ) from None


def _require_cluster(address: str) -> None:
    """What takes connections there is a cluster that can be joined.

    Tried in a process of its own: where something else takes the connection, Ray tries again for minutes, and cannot be
    stopped from within.
    """
    with subprocess.Popen(
        [sys.executable, "-P", "-c", _JOIN, address], bufsize=0, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as joining:  # fmt: skip
        assert joining.stdout is not None
        joining.stdout.readline()
        try:
            said, _ = joining.communicate(timeout=ANSWER_SECONDS)
        except subprocess.TimeoutExpired:
            raise InvalidRequest(
                f"something takes connections at {address}, but no Ray answers within {ANSWER_SECONDS} s: give the "
                "address that `ray start --head` prints, or leave out --address to start one here"
            ) from None
        finally:
            joining.kill()
    if joining.returncode:
        reason = textwrap.shorten(said.decode(errors="replace"), 300) or "no reason given"
        raise InvalidRequest(
            f"Ray at {address} cannot be joined ({reason}): look at `ray status`, or leave out --address to start one "
            "here"
        )
