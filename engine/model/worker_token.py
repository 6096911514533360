"""The token of one handler worker: derived, so that nothing has to be stored or looked up to know it again."""

from __future__ import annotations

import hashlib
import hmac


def worker_token(deployment_token: str, handler_id: str, name: str) -> str:
    """What worker `name` of a handler deployment presents, and what is presented to it; 64 hexadecimal digits.

    Args:
        deployment_token: the deployment's own (`HandlerRow.worker_token_sealed`, opened); never given to a worker.
    """
    text = f"worker {handler_id} {name}"
    return hmac.new(deployment_token.encode(), text.encode(), hashlib.sha256).hexdigest()


def is_worker_token(presented: str, deployment_token: str, handler_id: str, name: str) -> bool:
    """Whether a presented token is that worker's; takes as long for a wrong one as for the right one."""
    return hmac.compare_digest(presented.encode(), worker_token(deployment_token, handler_id, name).encode())
