"""`/auth/…`: sign-up, log-in, log-out, recovery. OpenID log-in is `routers/oidc.py`."""

from __future__ import annotations

from fastapi import APIRouter, BackgroundTasks, Depends, Request, Response
from fastapi.responses import HTMLResponse

from api import pages
from api.cookies import clear_session, client_of, from_own_site, not_kept, set_session
from api.deps import CallerArg, DepsArg
from api.schemas.auth import (
    DoneView,
    EmailBody,
    LogInBody,
    ResetBody,
    SessionView,
    SignUpBody,
    SignUpView,
    TokenBody,
    session_view,
    user_view,
)
from engine.identity import log_in as log_ins
from engine.identity import recovery
from engine.identity import sign_up as sign_ups
from engine.identity.sessions import COOKIE, csrf_token_of
from engine.model.errors import NotFound

router = APIRouter(prefix="/auth", tags=["accounts"], dependencies=[Depends(not_kept)])


@router.post("/signup", status_code=201, summary="Make an account, with an organisation of its own")
async def sign_up(
    body: SignUpBody, request: Request, response: Response, deps: DepsArg, tasks: BackgroundTasks
) -> SignUpView:
    client, password = from_own_site(request, deps), body.password.get_secret_value()
    user = await sign_ups.sign_up(deps.identity, body.email, password, body.name, client)
    tasks.add_task(deps.identity.outbox.nudge)
    if deps.identity.policy.verified_email_needed:
        return SignUpView(user=user_view(user), session=None, message=f"confirm {user.email}: a mail has the link")
    opened = await log_ins.open_after_sign_up(deps.identity, user, client, request.cookies.get(COOKIE))
    set_session(response, opened, deps.clock.now(), deps.public_url)
    return SignUpView(user=user_view(opened.user), session=session_view(opened), message="you are logged in")


@router.post("/login", summary="Open a session; its cookie is set")
async def log_in(body: LogInBody, request: Request, response: Response, deps: DepsArg) -> SessionView:
    client, before = from_own_site(request, deps), request.cookies.get(COOKIE)
    password = body.password.get_secret_value()
    opened = await log_ins.log_in(deps.identity, body.email, password, client, previous_cookie=before)
    set_session(response, opened, deps.clock.now(), deps.public_url)
    return session_view(opened)


@router.get("/session", summary="Who is logged in, and the token that changes need")
async def current_session(request: Request, caller: CallerArg, deps: DepsArg) -> SessionView:
    user = await log_ins.signed_in(deps.identity, caller)
    return SessionView(
        user=user_view(user),
        session_id=caller.session_id or "",
        csrf_token=csrf_token_of(deps.hasher, request.cookies[COOKIE]),
    )


@router.post("/logout", summary="End this session")
async def log_out(request: Request, response: Response, caller: CallerArg, deps: DepsArg) -> DoneView:
    user = await log_ins.signed_in(deps.identity, caller)
    if caller.session_id is None:
        raise NotFound("no session")
    await log_ins.log_out(deps.identity, user, caller.session_id, client_of(request))
    clear_session(response, deps.public_url)
    return DoneView(message="you are logged out")


@router.post("/logout-all", summary="End all sessions of the account")
async def log_out_everywhere(request: Request, response: Response, caller: CallerArg, deps: DepsArg) -> DoneView:
    user = await log_ins.signed_in(deps.identity, caller)
    ended = await log_ins.log_out_everywhere(deps.identity, user, client_of(request))
    clear_session(response, deps.public_url)
    return DoneView(message=f"{ended} sessions ended")


@router.post("/verify-email", summary="Confirm an address with the token mailed to it")
async def verify_email(body: TokenBody, request: Request, deps: DepsArg) -> DoneView:
    user = await recovery.verify_email(deps.identity, body.token, from_own_site(request, deps))
    return DoneView(message=f"{user.email} is confirmed")


@router.post("/resend-verification", status_code=202, summary="Mail a new token to an unconfirmed address")
async def resend_verification(body: EmailBody, request: Request, deps: DepsArg, tasks: BackgroundTasks) -> DoneView:
    address = await recovery.allow_mail(deps.identity, body.email, from_own_site(request, deps))
    tasks.add_task(recovery.resend_verification, deps.identity, address)
    tasks.add_task(deps.identity.outbox.nudge)
    return DoneView(message="if the address has an account that waits for it, a mail is on its way")


@router.post("/forgot-password", status_code=202, summary="Mail a token that sets a new password")
async def forgot_password(body: EmailBody, request: Request, deps: DepsArg, tasks: BackgroundTasks) -> DoneView:
    client = from_own_site(request, deps)
    address = await recovery.allow_mail(deps.identity, body.email, client)
    tasks.add_task(recovery.forgot_password, deps.identity, address, client)
    tasks.add_task(deps.identity.outbox.nudge)
    return DoneView(message="if the address has an account, a mail is on its way")


@router.post("/reset-password", summary="Set a new password with a mailed token; all sessions end")
async def reset_password(body: ResetBody, request: Request, deps: DepsArg, tasks: BackgroundTasks) -> DoneView:
    client, password = from_own_site(request, deps), body.password.get_secret_value()
    await recovery.reset_password(deps.identity, body.token, password, client)
    tasks.add_task(deps.identity.outbox.nudge)
    return DoneView(message="the password is set; log in with it")


@router.get("/verify-email", include_in_schema=False)
async def verify_email_page() -> HTMLResponse:
    return pages.verify_email()


@router.get("/reset-password", include_in_schema=False)
async def reset_password_page() -> HTMLResponse:
    return pages.reset_password()
