"""``/metrics``: Prometheus metrics."""

from __future__ import annotations

import ipaddress
from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response
from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4

from ..accounts import Principal
from .problems import Responses, responses
from .security import COOKIE, allow, service_of, with_roles

router = APIRouter(tags=["health"])

_TEXT: Responses = {200: {"content": {"text/plain": {"schema": {"type": "string"}}}}}
_FORWARDED = ("forwarded", "x-forwarded-for", "x-real-ip", "via")
_auditor = allow("auditor")


@with_roles("auditor")
async def _local_or_auditor(request: Request) -> Principal | None:
    """Admit auditors, and anonymous requests of programs on this machine.

    Requests forwarded by a proxy on this machine are not local.
    """
    if request.headers.get("authorization") or request.cookies.get(COOKIE):
        return await _auditor(request)
    host = request.client.host if request.client is not None else ""
    if not any(name in request.headers for name in _FORWARDED) and _is_loopback(host):
        return None
    return await _auditor(request)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


@router.get("/metrics", response_class=Response, responses=_TEXT | responses(401, 403))
def metrics(
    request: Request, _: Annotated[Principal | None, Depends(_local_or_auditor)]
) -> Response:
    """Metrics in the Prometheus text format, for auditors and for programs on this machine."""
    return Response(service_of(request).metrics.text(), media_type=CONTENT_TYPE_PLAIN_0_0_4)
