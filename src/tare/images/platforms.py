"""Platforms compared and written: which image suits whom. Pure."""

from __future__ import annotations

from tare.images.records import Platform


def suits(image: Platform, wanted: Platform) -> bool:
    """Whether an image for one platform is what was asked for."""
    if (image.os, image.architecture) != (wanted.os, wanted.architecture):
        return False
    return not wanted.variant or not image.variant or image.variant == wanted.variant


def format_platform(platform: Platform) -> str:
    return "/".join(part for part in (platform.os, platform.architecture, platform.variant) if part)
