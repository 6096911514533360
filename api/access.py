"""The access matrix: what each route needs of its caller. Who the caller is, and the check itself, is `deps.py`.

Adding a route: name it here, or `create_app` refuses to start. Roles and their permissions: `engine/model/access.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType

from engine.identity.grants import lacks
from engine.model.access import Permission, Principal
from engine.model.errors import Forbidden


class Level(StrEnum):
    """What routes outside of the permissions of organisations need."""

    PUBLIC = "public"  # anybody; the route itself decides what it shows
    SIGNED_IN = "signed_in"  # any live key or session
    SESSION = "session"  # a browser session: what concerns the account itself, or opens new doors for it
    OPERATOR = "operator"  # a browser session of an account that runs this installation


@dataclass(frozen=True)
class Needs:
    """A permission in the organisation the request is about.

    Attributes:
        filtered: scoped keys that have the permission on some deployment pass too; the answer holds only those.
        or_session: members without the permission pass too in a browser session; the route limits them to what is
            their own.
    """

    permission: Permission
    filtered: bool = False
    or_session: bool = False


Access = Level | Permission | Needs

_READ, _WRITE = Permission.DEPLOYMENT_READ, Permission.DEPLOYMENT_WRITE
_INVOKE, _ADMIN = Permission.DEPLOYMENT_INVOKE, Permission.ORG_ADMIN
_ADMIN_OR_OWN = Needs(Permission.ORG_ADMIN, or_session=True)

ACCESS: Mapping[str, Access] = MappingProxyType(
    {
        # documentation and health
        "openapi": Level.PUBLIC,
        "swagger_ui_html": Level.PUBLIC,
        "swagger_ui_redirect": Level.PUBLIC,
        "healthz": Level.PUBLIC,
        "readyz": Level.PUBLIC,
        "metrics": Level.PUBLIC,
        # accounts
        "sign_up": Level.PUBLIC,
        "log_in": Level.PUBLIC,
        "current_session": Level.SESSION,
        "log_out": Level.SESSION,
        "log_out_everywhere": Level.SESSION,
        "verify_email": Level.PUBLIC,
        "resend_verification": Level.PUBLIC,
        "forgot_password": Level.PUBLIC,
        "reset_password": Level.PUBLIC,
        "verify_email_page": Level.PUBLIC,
        "reset_password_page": Level.PUBLIC,
        "begin_oidc": Level.PUBLIC,
        "finish_oidc": Level.PUBLIC,
        "get_account": Level.SESSION,
        "patch_account": Level.SESSION,
        "close_account": Level.SESSION,
        "list_sessions": Level.SESSION,
        "revoke_session": Level.SESSION,
        "send_phone_code": Level.SESSION,
        "verify_phone": Level.SESSION,
        # deployments
        "create_deployment": _WRITE,
        "list_deployments": Needs(_READ, filtered=True),
        "get_deployment": _READ,
        "delete_deployment": _WRITE,
        "gpu_model_configs": Level.SIGNED_IN,
        "get_scaling": _READ,
        "patch_scaling": _WRITE,
        "get_sla": _READ,
        "patch_sla": _WRITE,
        "list_sla_breaches": _READ,
        "get_deployment_metrics": _READ,
        "get_logs": _READ,
        "get_stack": _READ,
        "get_cost": _READ,
        "chat": _INVOKE,
        "complete": _INVOKE,
        "embed": _INVOKE,
        "list_models": _INVOKE,
        "chat_for_org": _INVOKE,
        "complete_for_org": _INVOKE,
        "embed_for_org": _INVOKE,
        "list_models_for_org": _INVOKE,
        "respond": _INVOKE,
        "cancel_response": _INVOKE,
        "rerank": _INVOKE,
        "score": _INVOKE,
        "tokenize": _INVOKE,
        "detokenize": _INVOKE,
        "transcribe": _INVOKE,
        "translate": _INVOKE,
        "get_response": _INVOKE,
        "delete_response": _INVOKE,
        "respond_for_org": _INVOKE,
        "cancel_response_for_org": _INVOKE,
        "rerank_for_org": _INVOKE,
        "score_for_org": _INVOKE,
        "tokenize_for_org": _INVOKE,
        "detokenize_for_org": _INVOKE,
        "transcribe_for_org": _INVOKE,
        "translate_for_org": _INVOKE,
        "get_response_for_org": _INVOKE,
        "delete_response_for_org": _INVOKE,
        "admit_deleting": _INVOKE,
        "admit_deleting_for_org": _INVOKE,
        "admit": _INVOKE,
        "admit_reading": _INVOKE,
        "admit_for_org": _INVOKE,
        "admit_reading_for_org": _INVOKE,
        # own weights: routes without a deployment in their path look at it themselves
        "upload_model": Needs(_WRITE, filtered=True),
        "begin_model_upload": Needs(_WRITE, filtered=True),
        "list_model_parts": Needs(_WRITE, filtered=True),
        "complete_model_upload": Needs(_WRITE, filtered=True),
        "abort_model_upload": Needs(_WRITE, filtered=True),
        "list_models_byom": Needs(_READ, filtered=True),
        "get_model_byom": Needs(_READ, filtered=True),
        "delete_model_byom": Needs(_WRITE, filtered=True),
        # jobs: the gateway's; it asks here for callers with a session
        "admit_to_jobs": Level.SESSION,
        "admit_to_reading_jobs": Level.SESSION,
        # handlers
        "create_handler": _WRITE,
        "list_handlers": Needs(_READ, filtered=True),
        "get_handler": _READ,
        "patch_handler": _WRITE,
        "delete_handler": _WRITE,
        # pods
        "list_pod_types": Level.SIGNED_IN,
        "create_pod": Permission.POD_WRITE,
        "list_pods": Permission.POD_READ,
        "get_pod": Permission.POD_READ,
        "stop_pod": Permission.POD_WRITE,
        "start_pod": Permission.POD_WRITE,
        "restart_pod": Permission.POD_WRITE,
        "delete_pod": Permission.POD_WRITE,
        # image registries
        "put_registry": _WRITE,
        "list_registries": _READ,
        "get_registry": _READ,
        "delete_registry": _WRITE,
        # keys
        "create_key": _ADMIN_OR_OWN,
        "list_keys": _ADMIN_OR_OWN,
        "get_key": _ADMIN_OR_OWN,
        "rotate_key": _ADMIN_OR_OWN,
        "revoke_key": _ADMIN_OR_OWN,
        "manage_create_key": _ADMIN_OR_OWN,
        "manage_list_keys": _ADMIN_OR_OWN,
        "manage_get_key": _ADMIN_OR_OWN,
        "manage_rotate_key": _ADMIN_OR_OWN,
        "manage_revoke_key": _ADMIN_OR_OWN,
        # organisations
        "create_org": Level.SESSION,
        "list_orgs": Level.SIGNED_IN,
        "get_org": Level.SIGNED_IN,
        "rename_org": _ADMIN,
        "list_members": _ADMIN_OR_OWN,
        "change_role": _ADMIN,
        "remove_member": _ADMIN_OR_OWN,
        "transfer_org": _ADMIN,
        "create_invitation": _ADMIN,
        "list_invitations": _ADMIN,
        "revoke_invitation": _ADMIN,
        "accept_invitation": Level.SESSION,
        "accept_invitation_page": Level.PUBLIC,
        "list_audit": _ADMIN,
        # money
        "list_tiers": Level.PUBLIC,
        "get_balance": Permission.BILLING_READ,
        "list_transactions": Permission.BILLING_READ,
        "list_budgets": Permission.BILLING_READ,
        "put_budget": Permission.BILLING_WRITE,
        "delete_budget": Permission.BILLING_WRITE,
        "record_deposit": Level.OPERATOR,
        # webhooks
        "list_deliveries": _READ,
        "get_delivery": _READ,
        "replay_delivery": _WRITE,
        "get_webhook_secret": _ADMIN,
        "rotate_webhook_secret": _ADMIN,
        # presets and webhooks of deployments
        "patch_preset": _WRITE,
        "create_subscription": _WRITE,
        "list_subscriptions": _READ,
        "get_subscription": _READ,
        "patch_subscription": _WRITE,
        "delete_subscription": _WRITE,
        "test_subscription": _WRITE,
        "rotate_subscription_secret": _WRITE,
        "list_subscription_deliveries": _READ,
        # storage
        "begin_upload": Permission.STORAGE_WRITE,
        "commit_upload": Permission.STORAGE_WRITE,
        "list_objects": Permission.STORAGE_READ,
        "get_storage_usage": Permission.STORAGE_READ,
        "get_bucket": Permission.STORAGE_READ,
        "begin_multipart": Permission.STORAGE_WRITE,
        "list_parts": Permission.STORAGE_WRITE,
        "complete_multipart": Permission.STORAGE_WRITE,
        "abort_multipart": Permission.STORAGE_WRITE,
        "get_object": Permission.STORAGE_READ,
        "patch_object": Permission.STORAGE_WRITE,
        "delete_object": Permission.STORAGE_WRITE,
        # permissions of keys on deployments
        "grant_permission": _ADMIN_OR_OWN,
        "list_permissions": _ADMIN_OR_OWN,
        "withdraw_permission": _ADMIN_OR_OWN,
    }
)


def check_routes(routes: Mapping[str, bool]) -> None:
    """Refuse an application in which a route's access was not decided, or is not enforced.

    Args:
        routes: name → whether the route takes dependencies: others (mounts, the framework's pages) never meet
            `deps.authorise`, so they can only be public.

    Raises:
        ValueError: names the routes.
    """
    if missing := sorted(set(routes) - set(ACCESS)):
        raise ValueError(f"no access was decided for {', '.join(missing)}: add them to ACCESS in api/access.py")
    if open_ones := sorted(n for n, checked in routes.items() if not checked and ACCESS[n] is not Level.PUBLIC):
        raise ValueError(f"nothing enforces the access of {', '.join(open_ones)}: make them routes of an APIRouter")


def check(access: Access, caller: Principal, deployment_id: str | None = None) -> None:
    """Let the caller pass if it has what a route needs. `Level.PUBLIC` has no caller and does not come here.

    Raises:
        Forbidden: it has not; the message names what is missing.
    """
    if isinstance(access, Level):
        return _check_level(access, caller)
    needs = Needs(access) if isinstance(access, Permission) else access
    if caller.may(needs.permission, deployment_id):
        return
    if needs.filtered and any(needs.permission in granted for granted in (caller.grants or {}).values()):
        return
    if needs.or_session and caller.session_id is not None and caller.permissions:
        return
    raise lacks(caller, needs.permission, deployment_id)


def _check_level(level: Level, caller: Principal) -> None:
    if level in (Level.SESSION, Level.OPERATOR) and caller.session_id is None:
        raise Forbidden("an API key cannot do this: sign in, and send the session's cookie", needs=level.value)
    if level is Level.OPERATOR and not caller.is_operator:
        raise Forbidden("only the operators of this installation may do this", needs=level.value)
