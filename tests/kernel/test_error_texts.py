"""Texts of the kernel's errors: the same under every C library."""

from __future__ import annotations

import errno
import os

import pytest

from tare.errors import KernelError, system_text


@pytest.mark.parametrize("number", sorted(errno.errorcode))
def test_the_texts_are_those_of_the_common_c_library(number: int) -> None:
    """musl words every third otherwise: "Address in use". Here the library's own are the measure."""
    assert system_text(number) == os.strerror(number)


def test_a_kernel_error_has_that_text() -> None:
    """With call and path."""
    assert str(KernelError(errno.EBUSY, "umount2", "/x")) == "umount2 /x: Device or resource busy"
