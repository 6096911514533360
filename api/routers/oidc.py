"""`/auth/oidc/…`: log-in at an OpenID provider, as two redirects. What is verified: `engine/identity/oidc.py`."""

from __future__ import annotations

import hmac
from typing import Annotated

from fastapi import APIRouter, BackgroundTasks, Query, Request
from fastapi.responses import RedirectResponse

from api.cookies import client_of, is_https, set_session
from api.deps import DepsArg
from engine.identity import federation
from engine.identity.oidc import FLOW_LIFETIME, Flow, OidcProvider
from engine.identity.oidc_client import CALLBACK
from engine.identity.sessions import COOKIE
from engine.model.errors import Forbidden, InvalidSpec, NotFound

FLOW_COOKIE = "stackyard_oidc"

router = APIRouter(tags=["accounts"])


@router.get(
    "/auth/oidc/login", status_code=302, response_class=RedirectResponse, summary="Log in at the OpenID provider"
)
async def begin_oidc(deps: DepsArg, next: Annotated[str, Query(max_length=500)] = "/") -> RedirectResponse:
    url, flow = await _provider(deps).begin(_own_path(next))
    answer = _redirect(url)
    answer.set_cookie(
        FLOW_COOKIE,
        flow.seal(deps.sealer),
        max_age=int(FLOW_LIFETIME.total_seconds()),
        path="/auth/oidc",
        httponly=True,
        secure=is_https(deps.public_url),
        samesite="lax",
    )
    return answer


@router.get(CALLBACK, status_code=302, response_class=RedirectResponse, summary="Where the provider sends back to")
async def finish_oidc(
    request: Request, deps: DepsArg, tasks: BackgroundTasks, code: str = "", state: str = "", error: str = "",
    iss: str = "",
) -> RedirectResponse:  # fmt: skip
    provider = _provider(deps)
    flow = Flow.open(request.cookies.get(FLOW_COOKIE), deps.sealer, deps.clock.now())
    if not hmac.compare_digest(state.encode(), flow.state.encode()):
        raise InvalidSpec("this log-in was not begun in this browser: begin at /auth/oidc/login", field="state")
    if iss and iss != provider.issuer:  # RFC 9207: another provider's answer was mixed in
        raise Forbidden("this answer is another provider's")
    if error or not code:
        raise Forbidden("the provider did not log you in", error=error[:100] or "no code")
    proven = await provider.finish(flow, code)
    before = request.cookies.get(COOKIE)
    opened = await federation.log_in(deps.identity, proven, client_of(request), previous_cookie=before)
    tasks.add_task(deps.identity.outbox.nudge)
    answer = _redirect(flow.next_path)
    answer.background = tasks
    answer.delete_cookie(FLOW_COOKIE, path="/auth/oidc")
    set_session(answer, opened, deps.clock.now(), deps.public_url)
    return answer


def _provider(deps: DepsArg) -> OidcProvider:
    if deps.identity.oidc is None:
        raise NotFound("this installation has no OpenID provider: set STACKYARD_OIDC_ISSUER")
    return deps.identity.oidc


def _own_path(path: str) -> str:
    """A path on this installation; what could lead elsewhere becomes `/`."""
    plain = path.startswith("/") and not path.startswith(("//", "/\\"))
    return path if plain and path.isprintable() and "\\" not in path else "/"


def _redirect(url: str) -> RedirectResponse:
    return RedirectResponse(
        url, status_code=302, headers={"Cache-Control": "no-store", "Referrer-Policy": "no-referrer"}
    )
