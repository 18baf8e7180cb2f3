"""Speaks the OCI distribution protocol: credentials, TLS, tokens, blobs, manifests.

Source: OCI distribution specification 1.1; Docker's token authentication and ``config.json``;
``containers-registries.conf(5)`` and ``containers-auth.json(5)``.
"""

from tunebuild.registry.client import Manifest, Repository
from tunebuild.registry.connection import Options, Registries
from tunebuild.registry.transport import Retry

__all__ = ["Manifest", "Options", "Registries", "Repository", "Retry"]
