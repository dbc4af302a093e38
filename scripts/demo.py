#!/usr/bin/env python3
"""A guided tour of Tare: a directory becomes an image, runs in a jail of its own, and moves to a second engine.

It starts engines of its own (data below .demo/, sockets below /run), so it never disturbs another engine, and it ends
with exit code 0 only if every step gave what it should. `--clean` stops what an interrupted tour left, and removes it.
"""

from __future__ import annotations

import hashlib
import ipaddress
import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from tour import Engine, StepFailed, Tour, only_one, paint

ROOT = Path(__file__).resolve().parent.parent
DEMO = ROOT / ".demo"
ROOTFS = DEMO / "rootfs"
# Sockets have short names by law (108 bytes, man 7 unix); a checkout's path may be long.
RUN = Path("/run") / f"tare-demo-{hashlib.sha256(os.fsencode(ROOT)).hexdigest()[:8]}"

# A web server of one line, in the perl that every Debian has: its root has no Python, and we installed nothing in it.
WEB_SERVER = (
    "$|=1; $SIG{TERM}=sub{exit 0}; $s=IO::Socket::INET->new(LocalPort=>80,Listen=>9,ReuseAddr=>1) or die $!;"
    r" chomp($h=qx(hostname)); print qq($h serves\n);"
    r" while($c=$s->accept){ $r=<$c>; print $r; print $c qq(HTTP/1.0 200 OK\r\n\r\nHello from $h\n); close $c }"
)


def main() -> int:
    if os.geteuid() != 0:
        print("The demo makes namespaces, mounts and a bridge: run it as root, for example `sudo make demo`.")
        return 1
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # either way, what was started is ended
    os.chdir(ROOT)
    tour = Tour(make_environment())
    with only_one(DEMO / "lock"):
        first, second = make_engines()
        if "--clean" in sys.argv[1:]:
            sweep(tour, first, second)
            remove_everything()
            return 0
        try:
            sweep(tour, first, second)
            take_tour(tour, first, second)
        except StepFailed as error:
            print(f"\n{paint('This step failed:', '1;31')} {error}", flush=True)
            print(f"   The engines' logs: {first.log} {second.log}")
            return 1
        except KeyboardInterrupt:
            print("\nInterrupted; cleaning up …", flush=True)
            return 130
        finally:
            sweep(tour, first, second)
    took = time.monotonic() - tour.began
    print(f"\n{paint('Done:', '1;32')} {tour.commands} commands in {took:.0f} s, each gave what it should.")
    print("   Images and the Debian root are kept in .demo/ for the next time; `make clean` removes them.")
    return 0


def make_environment() -> dict[str, str]:
    """The environment of the tour's commands: this checkout's programs, and no engine of the user's."""
    dropped = {"DOCKER_HOST", "DOCKER_CONTEXT", "DOCKER_TLS_VERIFY", "TARE_HOST", "TARE_CONTEXT", "PYTHONPATH"}
    environment = {key: value for key, value in os.environ.items() if key not in dropped}
    programs = os.environ.get("DEMO_PROGRAMS", str(ROOT / ".venv" / "bin"))
    environment["PATH"] = f"{programs}:{os.environ['PATH']}:/usr/local/sbin:/usr/sbin:/sbin"
    environment["TARE_AUTOSTART"] = "0"
    environment["TARE_DEMO"] = str(RUN)  # by which processes of the tour are known, whatever their name
    return environment


def make_engines() -> tuple[Engine, Engine]:
    subnets = free_subnets(2)
    return (
        Engine(DEMO / "first", RUN / "first", "taredemo1", subnets[0]),
        Engine(DEMO / "second", RUN / "second", "taredemo2", subnets[1]),
    )


def free_subnets(count: int) -> list[str]:
    """Gateway addresses (as --bip wants them) of private networks that no route or link of this machine has."""
    taken = []
    for what in ("addr", "route"):
        text = subprocess.run(["ip", "-4", "-o", what], capture_output=True, text=True).stdout
        lines = [line for line in text.splitlines() if "taredemo" not in line]
        for address in re.findall(r"\d+\.\d+\.\d+\.\d+(?:/\d+)?", "\n".join(lines)):
            taken.append(ipaddress.ip_network(address, strict=False))
    free = []
    for third in range(200, 256):
        network = ipaddress.ip_network(f"172.31.{third}.0/24")
        if not any(network.overlaps(other) for other in taken if other.prefixlen > 0):
            free.append(f"172.31.{third}.1/24")
            if len(free) == count:
                return free
    raise SystemExit("no free subnet in 172.31.200.0/24 … 172.31.255.0/24 for the demo's bridges")


def sweep(tour: Tour, *engines: Engine) -> None:
    """Removes what this tour, or one that was interrupted, left running: containers, engines, bridges."""
    for engine in engines:
        try:
            if not engine.answers() and any((engine.exec_root / "containers").glob("*")):
                engine.kill()
                engine.start(tour.environment)
            remove_containers(tour, engine)
            engine.stop()
        except StepFailed as error:
            print(f"   Could not clean up after {engine.data_root.name}: {error}", flush=True)
            continue
        engine.drop_link()
        shutil.rmtree(engine.exec_root, ignore_errors=True)
    if RUN.exists() and not any(RUN.iterdir()):
        RUN.rmdir()


def remove_containers(tour: Tour, engine: Engine) -> None:
    if engine.answers() and (ids := tour.quiet(f"tare -H {engine.host} ps -aq")):
        tour.quiet(f"tare -H {engine.host} rm -f {' '.join(ids.split())}")


def remove_everything() -> None:
    for name in ("first", "second", "rootfs", "rootfs.partial"):
        shutil.rmtree(DEMO / name, ignore_errors=True)
    for log in DEMO.glob("*.log"):
        log.unlink()


def take_tour(tour: Tour, first: Engine, second: Engine) -> None:
    print(paint("Tare, a guided tour", "1"))
    tour.explain("Every command is shown as you would type it, with what it printed.")
    make_root(tour)
    start_engine(tour, first)
    import_image(tour, first)
    port = run_container(tour)
    look_inside(tour, first)
    hit_limits(tour)
    change_and_commit(tour)
    survive_a_crash(tour, first, port)
    move_to_second(tour, second)
    clean_up(tour, first, second)


def make_root(tour: Tour) -> None:
    site, suite = debian_mirror(tour)
    tour.chapter("A directory", "Any root file system will do. Here, a minimal Debian or Ubuntu, made by debootstrap.")
    if ROOTFS.exists():
        tour.explain("It is still there from the last time.")
        tour.show(f"ls {ROOTFS.relative_to(ROOT)}", gives="etc")
        return
    partial = ROOTFS.with_suffix(".partial")
    if partial.exists():
        shutil.rmtree(partial)
    maker = (
        "debootstrap --variant=minbase" if shutil.which("debootstrap", path=tour.environment["PATH"]) else "mmdebstrap"
    )
    tour.show(
        f"{maker} {suite} {shlex.quote(str(partial))} {site}",
        deadline_s=1800,
        fold=Folded(),
        display=f"{maker} {suite} {ROOTFS.relative_to(ROOT)} {site}",
    )
    partial.rename(ROOTFS)
    tour.show(f"ls {ROOTFS.relative_to(ROOT)}; du -sh {ROOTFS.relative_to(ROOT)}", gives="etc")


class Folded:
    """Counts debootstrap's lines by what they are about, to show hundreds of lines as one."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}

    def __call__(self, line: str) -> str:
        words = line.removeprefix("I: ").split()
        if words:
            self.counts[words[0].lower()] = self.counts.get(words[0].lower(), 0) + 1
        kinds = ("retrieving", "extracting", "unpacking", "configuring")
        return ", ".join(f"{kind} {self.counts[kind]}" for kind in kinds if kind in self.counts)


def debian_mirror(tour: Tour) -> tuple[str, str]:
    """The mirror and the suite that this machine's own packages come from."""
    listing = tour.quiet("apt-get indextargets --format '$(REPO_URI) $(CODENAME) $(COMPONENT)' 'Created-By: Packages'")
    for line in listing.splitlines():
        uri, suite, component = [*line.split(), "", "", ""][:3]
        if component == "main" and suite.isalpha():  # not bookworm-updates, not bookworm-security
            return uri, suite
    return "http://deb.debian.org/debian", "bookworm"


def start_engine(tour: Tour, first: Engine) -> None:
    tour.chapter(
        "The engine",
        "`tare` starts one by itself if none runs. This tour starts its own, with its own data root, socket",
        "and bridge, so that it does not disturb yours.",
    )
    print(f"\n   {paint('$', '32')} {paint(first.command + ' &', '1')}", flush=True)
    first.start(tour.environment)
    remove_containers(tour, first)  # of a tour that was interrupted
    tour.environment["TARE_HOST"] = tour.environment["DOCKER_HOST"] = first.host
    print(f"   {paint('$', '32')} {paint(f'export TARE_HOST={first.host}', '1')}", flush=True)
    tour.show("tare version", gives="Server")


def import_image(tour: Tour, first: Engine) -> None:
    tour.chapter("An image", "The directory becomes an image: one layer, named by its digest.")
    made = str(ROOTFS.stat().st_ctime_ns)
    known = first.data_root.parent / "imported"
    here = tour.quiet("tare images -q me/base")
    if here and known.exists() and known.read_text() == made:
        tour.explain("It is still there from the last time.")
    else:
        tour.show("tar -C .demo/rootfs -c . | tare import - me/base", gives="sha256:")
        known.write_text(made)
    tour.show("tare images", gives="me/base")


def run_container(tour: Tour) -> int:
    tour.chapter(
        "A container",
        "A process with its own root, hostname, processes, network and limits. Here, a web server of one line of perl,",
        "with its port 80 published on this machine.",
    )
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    options = f"-d --name box --hostname box --memory 256m --cpus 0.5 -p 127.0.0.1:{port}:80 me/base"
    tour.environment["WEB_SERVER"] = WEB_SERVER
    tour.show(
        f'tare run {options} perl -MIO::Socket::INET -e "$WEB_SERVER"',
        display=f"tare run {options} perl -MIO::Socket::INET -e '…'",
    )
    tour.show("tare ps", gives="box")
    tour.show("tare port box", gives=f"127.0.0.1:{port}")
    wait_for_page(tour, port)
    tour.show(get_page(port), gives="Hello from box")
    return port


def get_page(port: int) -> str:
    """A web client of one line, in bash: a fresh machine has no other."""
    return f"exec 3<>/dev/tcp/127.0.0.1/{port}; echo GET / >&3; cat <&3"


def wait_for_page(tour: Tour, port: int, deadline_s: float = 10) -> None:
    """A started container is a started process; its server listens a moment later."""
    end = time.monotonic() + deadline_s
    while not tour.quiet(f"({get_page(port)}) 2>/dev/null"):
        if time.monotonic() > end:
            raise StepFailed(f"nothing answers on port {port}\n" + tour.quiet("tare logs box 2>&1"))
        time.sleep(0.05)


def look_inside(tour: Tour, first: Engine) -> None:
    tour.chapter("Inside", "`exec` runs a second process in the same jail.")
    tour.show("tare exec box hostname", gives="box")
    tour.show(
        "tare inspect --format '{{range .NetworkSettings.Networks}}{{.IPAddress}} via {{.Gateway}}{{end}}' box",
        gives=first.bip.partition("/")[0],
    )
    tour.show("tare exec box cat /etc/hosts", gives="box")
    tour.explain("", "Of the machine's processes it sees its own two:")
    pids = tour.show("tare exec box bash -c 'for p in /proc/[0-9]*; do echo $(<$p/comm); done'", gives="perl")
    if len(pids.split()) > 3:
        raise StepFailed("the container sees processes that are not its own")
    tour.explain("", "Its limit, as the kernel holds it (cgroup v2 or v1): 256 MiB.")
    files = "/sys/fs/cgroup/memory.max /sys/fs/cgroup/memory/memory.limit_in_bytes"
    tour.show(f"tare exec box sh -c 'cat {files} 2>/dev/null || true'", gives=str(256 << 20))
    tour.show("tare stats --no-stream box", gives="256MiB")
    tour.explain("", "Root inside is not root outside:")
    tour.show("tare exec box mount -t tmpfs none /mnt", code=32, gives="permission denied")


def hit_limits(tour: Tour) -> None:
    tour.chapter("Limits are real", "400 MB of text in a jail of 64 MiB: the kernel kills it (137 = 128 + SIGKILL).")
    tour.show(
        "tare run --name greedy --memory 64m --memory-swap 64m me/base perl -e '$x = \"x\" x 400_000_000'", code=137
    )
    tour.show("tare inspect --format '{{.State.OOMKilled}} {{.State.ExitCode}}' greedy", gives="true 137")
    tour.show("tare rm greedy")


def change_and_commit(tour: Tour) -> None:
    tour.chapter("A change", "What a container writes is a layer of its own above the image's.")
    tour.show("tare exec box sh -c 'echo \"written in the box\" > /srv/letter; rm /etc/issue.net'")
    changes = tour.show("tare diff box", gives="A /srv/letter")
    if "D /etc/issue.net" not in changes:
        raise StepFailed("the deletion is missing in the diff")
    tour.explain("", "A commit keeps just that layer, as a new image on top of the old one.")
    tour.show("tare commit -m 'a letter in /srv' box me/letter", gives="sha256:")
    tour.show("tare history me/letter", gives="a letter in /srv")
    tour.show("tare run --rm me/letter cat /srv/letter", gives="written in the box")


def survive_a_crash(tour: Tour, first: Engine, port: int) -> None:
    tour.chapter("kill -9", "Containers belong to their monitors, not to the engine. It dies, and they go on.")
    started = tour.quiet("tare inspect --format '{{.State.Pid}}' box")
    print(f"\n   {paint('$', '32')} {paint(f'kill -9 $(cat {first.pidfile})', '1')}", flush=True)
    first.kill()
    if first.answers():
        raise StepFailed("the engine still answers")
    tour.show("tare ps", code=1)
    tour.show(get_page(port), gives="Hello from box")
    tour.explain("", "A new engine finds the container where it is: same process, log whole, exec as before.")
    print(f"\n   {paint('$', '32')} {paint('tared … &', '1')}", flush=True)
    first.start(tour.environment)
    tour.show("tare ps", gives="box")
    if tour.quiet("tare inspect --format '{{.State.Pid}}' box") != started:
        raise StepFailed("the container is not the same process as before")
    tour.show("tare logs --tail 2 box", gives="GET /")
    tour.show("tare exec box cat /srv/letter", gives="written in the box")


def move_to_second(tour: Tour, second: Engine) -> None:
    tour.chapter("A second engine", "Another data root, another bridge: it could be another machine.")
    print(f"\n   {paint('$', '32')} {paint(second.command + ' &', '1')}", flush=True)
    second.start(tour.environment)
    remove_containers(tour, second)
    tour.show(f"tare export box | tare -H {second.host} import - me/letter", gives="sha256:")
    tour.show(f"tare -H {second.host} images", gives="me/letter")
    tour.show(
        f"tare -H {second.host} run --rm --hostname elsewhere me/letter sh -c 'hostname; cat /srv/letter'",
        gives="elsewhere\nwritten in the box",
    )
    if shutil.which("docker", path=tour.environment["PATH"]):
        tour.explain("", "It speaks Docker's API, so the Docker CLI works with it as well:")
        tour.show(f"docker -H {second.host} run --rm me/letter cat /srv/letter", gives="written in the box")


def clean_up(tour: Tour, first: Engine, second: Engine) -> None:
    tour.chapter("Clean-up")
    tour.show("tare stop box", gives="box")
    tour.show("tare ps -a --format '{{.Names}}: {{.Status}}'", gives="box: Exited (0)")
    tour.show("tare rm box", gives="box")
    for engine in (first, second):
        left = tour.quiet(f"tare -H {engine.host} ps -aq")
        if left:
            raise StepFailed(f"containers are left: {left}")
        engine.stop()
    end = time.monotonic() + 5
    while left_processes := processes_of_tour():
        if time.monotonic() > end:
            raise StepFailed(f"processes are left: {left_processes}")
        time.sleep(0.05)
    mounts = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    if left_mounts := [mount for mount in mounts if str(DEMO) in mount or str(RUN) in mount]:
        raise StepFailed(f"mounts are left: {left_mounts}")
    links = json.loads(tour.quiet("ip -json link show type veth") or "[]")
    if left_links := [link["ifname"] for link in links if link.get("master", "").startswith("taredemo")]:
        raise StepFailed(f"links are left: {left_links}")
    tour.explain("", "No process, mount or link is left.")


def processes_of_tour() -> list[str]:
    """Command lines of the tour's processes, other than this one: engines, launchers, monitors."""
    mark = os.fsencode(f"TARE_DEMO={RUN}")
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if mark in (folder / "environ").read_bytes().split(b"\0"):
                found.append((folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip())
        except OSError:
            continue  # it ended meanwhile
    return found


if __name__ == "__main__":
    sys.exit(main())
