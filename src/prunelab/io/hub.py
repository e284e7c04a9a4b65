"""Whether the hub answers; where it does not, its libraries are told.

By themselves they try again for half a minute for every model and data set that is asked for, and then take what is in
their cache, if anything is. Told so, they do that at once.
"""

from __future__ import annotations

import os
import time
from functools import lru_cache

TIMEOUT = 5.0
"""Seconds after which a hub that says nothing counts as out of reach."""

GOOD_FOR = 60.0
"""Seconds after which it is asked again: a notebook outlives a lost connection."""


def hub_answers() -> bool:
    """Whether anything answers where the hub is."""
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
    """Put the hub's libraries offline while the hub does not answer; where they were set so, they stay so."""
    if not any(os.environ.get(name) for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")):
        _look(int(time.monotonic() // GOOD_FOR))


@lru_cache(maxsize=1)
def _look(_: int) -> None:
    from huggingface_hub import constants

    constants.HF_HUB_OFFLINE = not hub_answers()
