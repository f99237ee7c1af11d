"""Without keys the service answers on this machine alone, whatever starts it, unless its owner says otherwise."""

from __future__ import annotations

from depthray.errors import UsageError
from serve.http import auth
from serve.settings import Settings

LOOPBACK = ("127.0.0.1", "localhost", "::1")


def refuse_open(settings: Settings, host: str | None) -> None:
    """UsageError for an address others can reach where nobody needs a key."""
    if host not in LOOPBACK and not settings.allow_anonymous and not auth.load(settings.keys_file):
        raise UsageError(
            f"{host} can be reached by others, and there are no API keys: give --keys-file FILE or {auth.VARIABLE}, "
            "or --allow-anonymous if everybody may use it"
        )
