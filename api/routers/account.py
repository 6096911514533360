"""`/account…`: the caller's own account, in a browser session."""

from __future__ import annotations

from fastapi import APIRouter, BackgroundTasks, Depends, Request, Response

from api.cookies import clear_session, client_of, not_kept
from api.deps import CallerArg, DepsArg
from api.schemas.account import (
    AccountClose,
    AccountPatch,
    AccountView,
    CodeBody,
    OpenSessionList,
    PhoneBody,
    PhoneView,
    PlaceView,
    open_session_view,
)
from api.schemas.auth import DoneView, user_view
from engine.identity import closing, log_in, phone, profile, recovery
from engine.model.access import Role
from engine.store import memberships, sessions

router = APIRouter(prefix="/account", tags=["accounts"], dependencies=[Depends(not_kept)])


@router.get("", summary="The account and the organisations it belongs to")
async def get_account(caller: CallerArg, deps: DepsArg) -> AccountView:
    user = await log_in.signed_in(deps.identity, caller)
    places = await deps.identity.read(lambda session: memberships.list_for_user(session, user.id))
    return AccountView(
        **user_view(user).model_dump(),
        organisations=[
            PlaceView(
                org_id=org.id,
                name=org.name,
                role=Role(place.role),
                tier=org.tier,
                is_personal=org.personal_for == user.id,
            )
            for place, org in places
        ],
    )


@router.patch("", summary="Change the name or the password; a new password ends all other sessions")
async def patch_account(
    body: AccountPatch, request: Request, caller: CallerArg, deps: DepsArg, tasks: BackgroundTasks
) -> AccountView:
    user, client = await log_in.signed_in(deps.identity, caller), client_of(request)
    if body.old_password is not None and body.new_password is not None:
        old, new = body.old_password.get_secret_value(), body.new_password.get_secret_value()
        await recovery.change_password(deps.identity, user, old, new, client, session_id=caller.session_id)
        tasks.add_task(deps.identity.outbox.nudge)
    if body.name is not None:
        await profile.rename(deps.identity, user.id, body.name, client)
    return await get_account(caller, deps)


@router.delete("", summary="Close the account for ever")
async def close_account(
    request: Request, response: Response, caller: CallerArg, deps: DepsArg, body: AccountClose | None = None
) -> DoneView:
    user = await log_in.signed_in(deps.identity, caller)
    password = body.password.get_secret_value() if body and body.password else None
    await closing.close_account(deps.identity, user, password, client_of(request))
    clear_session(response, deps.public_url)
    return DoneView(message="the account is closed")


@router.get("/sessions", summary="The account's open sessions")
async def list_sessions(caller: CallerArg, deps: DepsArg) -> OpenSessionList:
    user, now = await log_in.signed_in(deps.identity, caller), deps.clock.now()
    rows = await deps.identity.read(lambda session: sessions.list_live(session, user.id, now))
    return OpenSessionList(data=[open_session_view(row, caller.session_id) for row in rows])


@router.delete("/sessions/{session_id}", summary="End one of the account's sessions")
async def revoke_session(session_id: str, request: Request, caller: CallerArg, deps: DepsArg) -> DoneView:
    user = await log_in.signed_in(deps.identity, caller)
    await log_in.log_out(deps.identity, user, session_id, client_of(request))
    return DoneView(message=f"session {session_id} ended")


@router.post("/phone", status_code=202, summary="Text a code to a number")
async def send_phone_code(body: PhoneBody, request: Request, caller: CallerArg, deps: DepsArg) -> DoneView:
    user = await log_in.signed_in(deps.identity, caller)
    await phone.send_code(deps.identity, user, body.number, client_of(request))
    return DoneView(message="a code is on its way: POST /account/phone/verify within ten minutes")


@router.post("/phone/verify", summary="Verify the number a code was texted to; the first one earns $1 of credit")
async def verify_phone(body: CodeBody, request: Request, caller: CallerArg, deps: DepsArg) -> PhoneView:
    user = await log_in.signed_in(deps.identity, caller)
    credited = await phone.verify_code(deps.identity, user, body.code, client_of(request))
    return PhoneView(verified=True, credit_granted=credited)
