# Copyright 2026 The diffusers-imagen authors. Licensed under the Apache License, Version 2.0.
"""Where the art comes from: npm packages at fixed versions, with their checksums, licences and credits."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Package:
    """Name one version of an npm package.

    Attributes:
        name: Name with its scope.
        version: Exact version.
        integrity: The registry's checksum of the tarball: "sha512-" and base64.
    """

    name: str
    version: str
    integrity: str


@dataclass(frozen=True)
class StyleSource:
    """Say which package holds a drawing style, and on what terms.

    Attributes:
        package: The package.
        license: SPDX name of the art's licence.
        credit: The credit to give.
        is_vector: Whether the pictures are an Iconify set of SVG (else WebP files named by code points).
    """

    package: Package
    license: str
    credit: str
    is_vector: bool


NAMES = Package(
    "emojibase-data",
    "17.0.0",
    "sha512-Yvgb5AWoHViHV/gq1qr5ZAarcBip+B27/ZLRsUJkbgAEaLlZ/fof9g882LTpmEpyhBNEC0m2SEmItljHsTygjA==",
)

_MICROSOFT = "Fluent Emoji (c) Microsoft Corporation, MIT"
_GOOGLE = "Noto Emoji (c) Google, Apache-2.0"

SOURCES = {
    "fluent-3d": StyleSource(
        Package(
            "@lobehub/fluent-emoji-3d",
            "1.1.0",
            "sha512-Wlq2lVStTnr8BDpIJ0pEnTKO4LuDxxqTEhTvRtD1DLRF0me7ogeRQjKoehDHXuVJ2Qaecgl5wRBv60lUAG3h7g==",
        ),
        license="MIT",
        credit=_MICROSOFT,
        is_vector=False,
    ),
    "fluent-flat": StyleSource(
        Package(
            "@iconify-json/fluent-emoji-flat",
            "1.2.6",
            "sha512-RY47RgPb47fYUiyrA64sIOL0+UU02s29sXpNBbIQRBUlPlfNFTKUmZDERGuxDs/7yNGWqQYvuaSYM1M4fRXlUw==",
        ),
        license="MIT",
        credit=_MICROSOFT,
        is_vector=True,
    ),
    "noto": StyleSource(
        Package(
            "@iconify-json/noto",
            "1.2.9",
            "sha512-DQiuXENbun41ch+XPSV55H9FaWKpHTyz46YIKtSaKYD4fIDDzL1tR6H4np/T38jfrTAeI3rcKF0mqHYeZVAuaw==",
        ),
        license="Apache-2.0",
        credit=_GOOGLE,
        is_vector=True,
    ),
    "twemoji": StyleSource(
        Package(
            "@iconify-json/twemoji",
            "1.2.5",
            "sha512-uKpuIEV0v6K5BW3Mjdyl+XKFVAbbcPxAgifKvEMtZoUZB5+YiY5zaMm2uNNCxyXzAWU9yNLlj41WU6/mvgALsw==",
        ),
        license="CC-BY-4.0",
        credit="Twemoji (c) Twitter, Inc and other contributors, CC-BY-4.0",
        is_vector=True,
    ),
}
