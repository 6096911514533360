"""`/orgs…` and `/invitations/accept`: organisations, who belongs to them, and joining."""

from __future__ import annotations

from fastapi import APIRouter, BackgroundTasks, Request
from fastapi.responses import HTMLResponse
from sqlmodel import Session

from api import pages
from api.deps import CallerArg, DepsArg
from api.schemas.orgs import (
    AcceptBody,
    InvitationBody,
    InvitationList,
    InvitationView,
    MemberList,
    MemberView,
    OrgBody,
    OrgList,
    OrgView,
    RoleBody,
    TransferBody,
    invitation_view,
    member_view,
    org_view,
)
from engine.identity import invitations as inviting
from engine.identity import orgs as belonging
from engine.identity import outbox
from engine.identity.attempts import charge
from engine.model.access import Principal, Role
from engine.model.errors import NotFound, Unauthenticated
from engine.store import accounts, invitations, memberships, orgs
from engine.store.account_tables import UserRow
from engine.store.org_tables import MembershipRow

router = APIRouter(tags=["organisations"])
pages_router = APIRouter(include_in_schema=False)

ACCEPT = "/invitations/accept"


@router.post("/orgs", status_code=201, summary="Make an organisation; you are its owner")
def create_org(body: OrgBody, caller: CallerArg, deps: DepsArg) -> OrgView:
    with deps.database.write() as session:
        user = _account(session, caller)
        row = belonging.create(session, user, body.name, org_id=deps.new_id("org"), now=deps.clock.now())
        return org_view(row, Role.OWNER, caller)


@router.get("/orgs", summary="Organisations you belong to")
def list_orgs(caller: CallerArg, deps: DepsArg) -> OrgList:
    with deps.database.read() as session:
        if caller.session_id is None or caller.user_id is None:
            return OrgList(data=[_view(session, caller)])
        places = memberships.list_for_user(session, caller.user_id)
        return OrgList(data=[org_view(org, Role(place.role), caller) for place, org in places])


@router.get("/orgs/{org_id}", summary="Get an organisation, and what you may do there")
def get_org(org_id: str, caller: CallerArg, deps: DepsArg) -> OrgView:
    with deps.database.read() as session:
        return _view(session, caller)


@router.patch("/orgs/{org_id}", summary="Rename an organisation")
def rename_org(org_id: str, body: OrgBody, caller: CallerArg, deps: DepsArg) -> OrgView:
    with deps.database.write() as session:
        belonging.rename(session, caller, body.name, deps.clock.now())
        return _view(session, caller)


@router.get("/orgs/{org_id}/members", summary="Members and their roles")
def list_members(org_id: str, caller: CallerArg, deps: DepsArg) -> MemberList:
    with deps.database.read() as session:
        rows = memberships.list_for_org(session, caller.org_id)
    return MemberList(data=[member_view(row, user) for row, user in rows])


@router.patch("/orgs/{org_id}/members/{user_id}", summary="Change a member's role; sessions and keys follow at once")
def change_role(org_id: str, user_id: str, body: RoleBody, caller: CallerArg, deps: DepsArg) -> MemberView:
    """Owners alone make and unmake owners. The last owner stays one."""
    with deps.database.write() as session:
        return _member(session, belonging.set_role(session, caller, user_id, body.role, deps.clock.now()))


@router.delete("/orgs/{org_id}/members/{user_id}", status_code=204, summary="Remove a member, or leave")
def remove_member(org_id: str, user_id: str, caller: CallerArg, deps: DepsArg) -> None:
    """Members may remove themselves; administrators anybody but owners. Keys that the member made here are revoked."""
    with deps.database.write() as session:
        belonging.remove(session, caller, user_id, deps.clock.now())


@router.post("/orgs/{org_id}/transfer", summary="Make another member owner in your place")
def transfer_org(org_id: str, body: TransferBody, caller: CallerArg, deps: DepsArg) -> MemberView:
    """You become an administrator."""
    with deps.database.write() as session:
        return _member(session, belonging.transfer(session, caller, body.user_id, deps.clock.now()))


@router.post("/orgs/{org_id}/invitations", status_code=201, summary="Invite an address; a mail carries the link")
def create_invitation(
    org_id: str, body: InvitationBody, caller: CallerArg, deps: DepsArg, tasks: BackgroundTasks
) -> InvitationView:
    """An earlier invitation of the same address is replaced. The link is in the mail only, and good for seven days."""
    now = deps.clock.now()
    charge(deps.database, deps.hasher, now, (inviting.PER_ORG, caller.org_id))
    with deps.database.write() as session:
        made = inviting.invite(
            session, deps.hasher, caller, body.email, body.role, invitation_id=deps.new_id("inv"),
            public_url=deps.public_url, now=now,
        )  # fmt: skip
        outbox.post(session, deps.sealer, deps.clock, deps.new_id("mail"), made.row.email, made.letter)
    tasks.add_task(deps.identity.outbox.nudge)
    return invitation_view(made.row)


@router.get("/orgs/{org_id}/invitations", summary="Invitations that can still be accepted")
def list_invitations(org_id: str, caller: CallerArg, deps: DepsArg) -> InvitationList:
    with deps.database.read() as session:
        rows = invitations.list_open(session, caller.org_id, deps.clock.now())
    return InvitationList(data=[invitation_view(row) for row in rows])


@router.delete("/orgs/{org_id}/invitations/{invitation_id}", summary="Take an invitation back")
def revoke_invitation(org_id: str, invitation_id: str, caller: CallerArg, deps: DepsArg) -> InvitationView:
    with deps.database.write() as session:
        return invitation_view(inviting.revoke(session, caller, invitation_id, deps.clock.now()))


@router.post(ACCEPT, summary="Join the organisation that a mail invited you to")
def accept_invitation(body: AcceptBody, caller: CallerArg, deps: DepsArg) -> OrgView:
    """Joining again is fine. 403 for an account of another address; 409, with the reason, when it is no longer open."""
    with deps.database.write() as session:
        user = _account(session, caller)
        place = inviting.accept(session, deps.hasher, user.id, body.token, deps.clock.now())
        return org_view(orgs.one(session, place.org_id), Role(place.role), caller)


def _account(session: Session, caller: Principal) -> UserRow:
    """The account behind the caller's session, which is not closed before the transaction ends."""
    user = accounts.locked(session, caller.user_id or "")
    if user is None or user.disabled_at is not None:
        raise Unauthenticated("the account is gone")
    return user


def _view(session: Session, caller: Principal) -> OrgView:
    role = memberships.role_of(session, caller.org_id, caller.user_id) if caller.user_id else None
    return org_view(orgs.one(session, caller.org_id), role, caller)


def _member(session: Session, row: MembershipRow) -> MemberView:
    user = accounts.get(session, row.user_id)
    if user is None:
        raise NotFound(f"no member {row.user_id}")
    return member_view(row, user)


@pages_router.get(ACCEPT)
async def accept_invitation_page(request: Request) -> HTMLResponse:
    return pages.accept_invitation(str(request.app.url_path_for("accept_invitation")))
