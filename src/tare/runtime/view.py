"""A stopped container's root as it would see it, mounted in a mount namespace of its own that only descriptors hold.

    tared ──ViewRequest + [report socket]──▶ launcher ──fork──▶ worker: unshare, mounts
    tared ◀──ViewReply + [root, mount namespace]── worker, which then exits

Whoever holds the descriptors sees the mounts without entering anything; with the last one closed all are gone. The
worker executes nothing but its steps, and runs nothing from the root (CVE-2019-14271).
"""

from __future__ import annotations

import os
import socket

import msgspec

from tare import faults
from tare.errors import TareError
from tare.kernel import namespaces
from tare.oci.runtime_spec import OCI_VERSION, Mount, Root, Spec
from tare.runtime import messages
from tare.runtime.failure import sentence
from tare.runtime.plan import Step
from tare.runtime.plan_mounts import MountPlan
from tare.runtime.steps import roots
from tare.runtime.steps.init import Init
from tare.values.mount import RootFilesystem


class View(msgspec.Struct, frozen=True):
    """The steps that make one view, in order."""

    steps: tuple[Step, ...]


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(View).decode


def plan_view(rootfs: RootFilesystem, own_mounts: tuple[Mount, ...], *, readonly: bool) -> bytes:
    """The request's steps: the root, and over it the container's own mounts. Raises InvalidArgument."""
    spec = Spec(oci_version=OCI_VERSION, root=Root(path="/", readonly=readonly), mounts=own_mounts)
    plan = MountPlan("", early_binds=True)
    plan.add_root(spec, rootfs)
    plan.add_mounts(spec, None, cgroup_namespace=False)
    steps: list[Step] = [*plan.early, roots.IsolateMounts(), *plan.root, *plan.mounts]
    if readonly:
        steps.append(roots.SealRoot())
    return _encode(View(tuple(steps)))


def run_worker(request: messages.ViewRequest, report: socket.socket) -> None:
    """Makes the view and sends its descriptors. Call it in a process with one thread that is there for nothing else."""
    init = Init(report, None)
    step: Step | None = None
    try:
        namespaces.unshare(namespaces.CLONE_NEWNS)
        for step in _decode(request.steps).steps:
            step.apply(init)
            faults.point("runtime.view.step")
        namespace_fd = os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    except (TareError, OSError) as error:
        what = f"{step.describe()}: " if step is not None else ""
        messages.send(report, messages.ViewReply(f"{what}{sentence(error)}"))
        return
    messages.send(report, messages.ViewReply(), (init.root_fd, namespace_fd))
