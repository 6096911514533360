"""Builds the HTTP surface from the values it works with: no sockets, no settings, no globals."""

from __future__ import annotations

from fastapi import Depends, FastAPI
from fastapi.routing import APIRoute, iter_route_contexts

from api import errors
from api.access import check_routes
from api.deps import Deps, authorise
from api.job_document import DocumentedApi
from api.metrics import ApiMetrics
from api.middleware import Counted, JsonByDefault
from api.routers import (
    account,
    audit,
    auth,
    billing,
    byom,
    deployment_metrics,
    deployments,
    handlers,
    health,
    inference,
    insight,
    job_admission,
    keys,
    oidc,
    orgs,
    permissions,
    pods,
    presets,
    registries,
    scaling,
    sla,
    storage,
    subscriptions,
    webhooks,
)
from api.schemas.errors import ErrorAnswer

PUBLIC = "/api/v1/public"
V1 = "/v1"

_DESCRIPTION = """Dedicated model deployments, each one a Pulumi stack.

Every failure is `{"error": {"code", "message", "details"?}}`. Authenticate with `Authorization: Bearer sk_…`.
"""


def create_app(deps: Deps) -> FastAPI:
    """The API as an ASGI application."""
    app = DocumentedApi(
        title="Stackyard",
        version="0.1.0",
        description=_DESCRIPTION,
        redirect_slashes=False,
        generate_unique_id_function=lambda route: route.name,
        responses={code: {"model": ErrorAnswer} for code in (401, 403, 404, 409, 422)},
        dependencies=[Depends(authorise)],
        docs_url="/docs",
        redoc_url=None,
    )
    app.state.deps = deps
    app.state.metrics = metrics = ApiMetrics()
    errors.install(app)
    for router in (
        deployments.router,
        scaling.router,
        sla.router,
        deployment_metrics.router,
        insight.router,
        inference.router,
        inference.org_router,
        byom.router,
        keys.router,
        permissions.router,
        subscriptions.router,
        presets.router,
        orgs.router,
        audit.router,
        billing.router,
        billing.tiers_router,
    ):
        app.include_router(router, prefix=PUBLIC)
    for router in (handlers.router, job_admission.router, pods.router, registries.router, webhooks.router):
        app.include_router(router, prefix=V1)
    app.include_router(auth.router)
    app.include_router(orgs.pages_router)
    app.include_router(oidc.router)
    app.include_router(account.router)
    app.include_router(keys.manage_router)
    app.include_router(storage.router)
    app.include_router(health.router)
    routes = list(iter_route_contexts(app.routes))
    check_routes({r.name or "": isinstance(r.original_route, APIRoute) for r in routes})
    app.add_middleware(JsonByDefault)
    app.add_middleware(Counted, metrics=metrics, clock=deps.clock)
    return app
