"""Whether timm's weights can be had at all: asked before hours or pictures are spent."""

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
"""The setting ``model.init`` that downloads."""
PATIENCE_S = 3.0
_FILES = ("model.safetensors", "pytorch_model.bin")


def check_hub(arch: str) -> None:
    """Make sure that a backbone's weights are on this machine, or that their host answers.

    Args:
        arch: timm's name for it.

    Raises:
        ConfigError: Neither, after :data:`PATIENCE_S` at most.
    """
    found = timm.get_pretrained_cfg(arch) if timm.is_model(arch.split(".")[0]) else None
    if found is None:
        return  # timm says at once what is wrong
    if found.hf_hub_id:
        repository = found.hf_hub_id.partition("@")[0]
        cached = any(isinstance(try_to_load_from_cache(repository, f), str) for f in _FILES)
        host = constants.ENDPOINT
    elif isinstance(found.url, str) and found.url:
        cached, host = check_cached_file(found.url), found.url
    else:
        return
    if not cached and (reason := why_unreachable(host, PATIENCE_S)):
        raise unavailable(arch, f"{host}: {reason}")


def unavailable(arch: str, reason: object) -> ConfigError:
    """What is said where weights cannot be had."""
    return ConfigError(
        f"model.init: timm's weights of {arch} cannot be had: {reason}",
        "without internet: --init shipped, --init FILE (safetensors), or --init none",
    )


def why_unreachable(url: str, patience_s: float) -> str:
    """Why a host does not answer in time; empty when it does, whatever it says.

    The question is asked in a thread that may be left behind: looking a name up has no limit.
    """
    said: list[str] = []

    def ask() -> None:
        try:
            with urlopen(Request(url, method="HEAD"), timeout=patience_s):  # noqa: S310
                said.append("")
        except HTTPError:
            said.append("")
        except (OSError, HTTPException, ValueError) as error:
            said.append(str(getattr(error, "reason", error)))

    thread = threading.Thread(target=ask, name="fxpipe-hub", daemon=True)
    thread.start()
    thread.join(patience_s)
    return said[0] if said else f"no answer within {patience_s:g} seconds"
