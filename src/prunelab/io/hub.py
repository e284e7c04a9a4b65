"""Detect whether the Hugging Face Hub is reachable, and switch its libraries to offline mode if it is not.

Otherwise the libraries retry for half a minute per model or data set before they fall back to their cache. In offline
mode they use the cache immediately.
"""

from __future__ import annotations

import os
import time
from functools import lru_cache

TIMEOUT = 5.0
"""Seconds without an answer after which the hub counts as unreachable."""

GOOD_FOR = 60.0
"""Seconds until the hub is checked again, so that a notebook recovers from a lost connection."""


def hub_answers() -> bool:
    """Whether the hub's endpoint answers at all."""
    import urllib.error
    import urllib.request

    from huggingface_hub import constants

    try:
        with urllib.request.urlopen(constants.ENDPOINT, timeout=TIMEOUT):
            return True
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False


def require_hub() -> None:
    """Set the hub's libraries offline while the hub is unreachable; an offline mode set by the user is kept."""
    if not any(os.environ.get(name) for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")):
        _look(int(time.monotonic() // GOOD_FOR))


@lru_cache(maxsize=1)
def _look(_: int) -> None:
    from huggingface_hub import constants

    constants.HF_HUB_OFFLINE = not hub_answers()
