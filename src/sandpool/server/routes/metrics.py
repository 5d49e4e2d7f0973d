"""Figures for Prometheus."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST

from sandpool.server.context import CurrentTenant
from sandpool.server.metrics import Metrics
from sandpool.wire import problems

router = APIRouter(tags=["server"], responses=problems.RESPONSES)

_AnswersText: dict[int | str, dict[str, Any]] = {
    200: {"content": {"text/plain": {"schema": {"type": "string"}}}}
}


@router.get("/metrics", response_class=Response, responses=_AnswersText)
async def read_metrics(request: Request, tenant: CurrentTenant) -> Response:
    """Return the figures of the caller's namespace, and of the server's process."""
    metrics: Metrics = request.app.state.metrics
    pools = await tenant.manager.list_pools()
    text = metrics.render(tenant.name, pools, leases=len(tenant.holdings))
    return Response(text, media_type=CONTENT_TYPE_LATEST)
