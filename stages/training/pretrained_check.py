"""Check before a training that timm's pretrained weights are available."""

from __future__ import annotations

import threading
from http.client import HTTPException
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import timm
from huggingface_hub import constants, try_to_load_from_cache
from timm.models._hub import check_cached_file

from pipeline.errors import ConfigError

HUB = "hub"
"""Value of ``model.init`` that downloads weights."""
TIMEOUT_S = 3.0
_FILES = ("model.safetensors", "pytorch_model.bin")


def check_hub(arch: str) -> None:
    """Check that a backbone's weights are cached on this machine, or that their host answers.

    Args:
        arch: timm's name for it.

    Raises:
        ConfigError: Neither, after :data:`TIMEOUT_S` at most.
    """
    config = timm.get_pretrained_cfg(arch) if timm.is_model(arch.split(".")[0]) else None
    if config is None:
        return  # timm reports the error immediately
    if config.hf_hub_id:
        repository = config.hf_hub_id.partition("@")[0]
        cached = any(isinstance(try_to_load_from_cache(repository, f), str) for f in _FILES)
        host = constants.ENDPOINT
    elif isinstance(config.url, str) and config.url:
        cached, host = check_cached_file(config.url), config.url
    else:
        return
    if not cached and (reason := why_unreachable(host, TIMEOUT_S)):
        raise unavailable(arch, f"{host}: {reason}")


def unavailable(arch: str, reason: object) -> ConfigError:
    """The error for unavailable weights."""
    return ConfigError(
        f"model.init: timm's weights of {arch} are not available: {reason}",
        "without internet: --init shipped, --init FILE (safetensors), or --init none",
    )


def why_unreachable(url: str, timeout_s: float) -> str:
    """Reason why a host does not answer in time; empty for any HTTP response.

    The request runs in a daemon thread, because a DNS look-up has no timeout.
    """
    results: list[str] = []

    def request() -> None:
        try:
            with urlopen(Request(url, method="HEAD"), timeout=timeout_s):  # noqa: S310
                results.append("")
        except HTTPError:
            results.append("")
        except (OSError, HTTPException, ValueError) as error:
            results.append(str(getattr(error, "reason", error)))

    thread = threading.Thread(target=request, name="fxpipe-hub", daemon=True)
    thread.start()
    thread.join(timeout_s)
    return results[0] if results else f"no answer within {timeout_s:g} seconds"
