"""Model packages: folders in MLflow's model format, sealed with digests.

Opening one reads YAML and digests only; no code of the package runs here.
"""

from __future__ import annotations

from sparkscore.package.archive import pack, unpack
from sparkscore.package.layout import Description, Package, open_package
from sparkscore.package.manifest import (
    Seal,
    compute_seal,
    copy_sealed,
    read_seal,
    seal,
    verify,
)
from sparkscore.package.trust import TrustPolicy

__all__ = [
    "Description",
    "Package",
    "Seal",
    "TrustPolicy",
    "compute_seal",
    "copy_sealed",
    "open_package",
    "pack",
    "read_seal",
    "seal",
    "unpack",
    "verify",
]
