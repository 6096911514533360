"""What a program's stack references read: outputs of other stacks in the backend of the stack being updated."""

from __future__ import annotations

import asyncio

from engine.deploy.backend.blobs import BackendError
from engine.deploy.checkpoint import CheckpointError
from engine.deploy.command.deployments import stack_outputs
from engine.deploy.command.session import Session, StackNotFound
from engine.deploy.property import PropertyMap
from engine.deploy.provider import ProviderError
from engine.deploy.secrets import SecretsError


class OtherStacks:
    """The `StackOutputsReader` of one command."""

    def __init__(self, session: Session) -> None:
        self._session = session

    async def stack_outputs(self, name: str) -> PropertyMap:
        """See `StackOutputsReader.stack_outputs`; reading blocks, so it happens beside the engine's loop."""
        return await asyncio.to_thread(self._read, name)

    def _read(self, name: str) -> PropertyMap:
        try:
            self._session.existing(name)
        except StackNotFound as err:
            raise ProviderError(f'unknown stack "{name}"') from err
        try:
            return stack_outputs(self._session.store_of(self._session.existing(name)).load_root())
        except (BackendError, CheckpointError, SecretsError, OSError) as err:
            raise ProviderError(f"stack reference {name!r}: {err}") from err
