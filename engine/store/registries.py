"""Queries about organisations' credentials for image registries. Opens them for stacks, shows them to nobody."""

from __future__ import annotations

import json
from collections.abc import Sequence

from sqlmodel import Session, col, select

from engine.model.registries import ImagePull, LocalImages, RegistryLogin, login_for, registry_of
from engine.store import orgs
from engine.store.registry_tables import RegistryCredentialRow
from engine.store.sealing import Sealer


def get(session: Session, org_id: str, registry: str) -> RegistryCredentialRow | None:
    """An organisation's credentials for a registry; None: it has none."""
    return session.get(RegistryCredentialRow, (org_id, registry))


def list_for_org(session: Session, org_id: str) -> Sequence[RegistryCredentialRow]:
    """An organisation's credentials, by registry."""
    query = select(RegistryCredentialRow).where(RegistryCredentialRow.org_id == org_id)
    return session.exec(query.order_by(col(RegistryCredentialRow.host))).all()


def put(session: Session, row: RegistryCredentialRow) -> RegistryCredentialRow:
    """Store credentials in place of earlier ones for that registry."""
    before = get(session, row.org_id, row.host)
    if before is not None:
        row.created_at = before.created_at
    stored = session.merge(row)
    session.flush()
    return stored


def remove(session: Session, row: RegistryCredentialRow) -> None:
    """Forget credentials."""
    session.delete(row)
    session.flush()


def sealed_login(sealer: Sealer, login: RegistryLogin | None) -> str:
    """What a row keeps of credentials that came with a deployment or pod; "" for none."""
    if login is None:
        return ""
    return sealer.seal(json.dumps([login.registry, login.username, login.password]))


def opened_login(sealer: Sealer, sealed: str) -> RegistryLogin | None:
    """What `sealed_login` sealed."""
    return RegistryLogin(*json.loads(sealer.open(sealed))) if sealed else None


def pull_of(
    session: Session, sealer: Sealer, *, org_id: str, image: str, auth_sealed: str, local_images: LocalImages
) -> ImagePull:
    """How an organisation's image is fetched at this moment.

    Args:
        auth_sealed: credentials that came with it, as `sealed_login` made them.
    """
    stored = {}
    if (row := get(session, org_id, registry_of(image))) is not None:
        stored[row.host] = RegistryLogin(row.host, row.username, sealer.open(row.password_sealed))
    login = login_for(image, opened_login(sealer, auth_sealed), stored)
    org = orgs.get(session, org_id)
    is_trusted = org is not None and org.credit_limit_microdollars is None
    return ImagePull(login, always=not local_images.allows(is_trusted=is_trusted))
