"""What the flags of create and run do inside the container and what inspect then tells; on both engines."""

from __future__ import annotations

import contextlib
import functools
import json
import socket
from pathlib import Path

import pytest

from support.deadline import wait_until
from support.engine import Engine
from tare.kernel.apparmor import has_apparmor


def shell(engine: Engine, script: str, *flags: str, check: bool = True) -> str:
    """Runs a script in a new container; its standard output, stripped."""
    return engine.docker("run", "--rm", *flags, engine.image, "sh", "-c", script, check=check).out.strip()


def test_hostname_hosts_and_resolver(engine: Engine) -> None:
    """--hostname is the kernel's name and in /etc/hosts with the container's address; extra hosts follow."""
    script = "hostname; cat /etc/hostname; hostname -i; cat /etc/hosts; echo ---; cat /etc/resolv.conf"
    flags = ["--hostname", "box", "--add-host", "other:10.1.2.3", "--dns", "10.9.9.9", "--dns-search", "example.org"]
    shown = shell(engine, script, *flags, "--dns-option", "ndots:3")
    head, resolver = shown.split("---\n")
    first, second, address, *hosts = head.splitlines()
    assert (first, second) == ("box", "box")
    table = [line.split() for line in hosts]
    assert ["127.0.0.1", "localhost"] in table
    assert [address, "box"] in table
    assert ["10.1.2.3", "other"] in table
    lines = [line for line in resolver.splitlines() if not line.startswith("#") and line]
    assert sorted(lines) == ["nameserver 10.9.9.9", "options ndots:3", "search example.org"]


def test_hostname_is_the_short_id_by_default(engine: Engine) -> None:
    """Without --hostname it is the first twelve digits of the id; --domainname is appended in /etc/hosts."""
    container = engine.start()
    assert engine.docker("exec", container, "hostname").out.strip() == container[:12]
    assert engine.inspect(container)["Config"]["Hostname"] == container[:12]


def test_environment(engine: Engine) -> None:
    """PATH, HOSTNAME and HOME come by themselves, -e and --env-file are added, and a bare name is the client's."""
    given = ["--hostname", "box", "-e", "A=1", "-e", "EMPTY=", "-e", "FROM_CLIENT", "-e", "SPACE=a b"]
    result = engine.docker("run", "--rm", *given, engine.image, "env", env={"FROM_CLIENT": "yes"})
    lines = set(result.out.splitlines())
    assert {"HOSTNAME=box", "HOME=/root", "A=1", "EMPTY=", "FROM_CLIENT=yes", "SPACE=a b"} <= lines
    assert "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin" in lines
    assert "TERM=" not in result.out


@pytest.mark.parametrize(
    ("user", "ids"),
    [
        ("", "uid=0(root) gid=0(root) groups=0(root)"),
        ("web", "uid=101(web) gid=102(web) groups=6(disk),29(audio),102(web)"),
        ("101", "uid=101(web) gid=102(web) groups=6(disk),29(audio),102(web)"),
        ("4242", "uid=4242 gid=0(root) groups=0(root)"),
        ("4242:4343", "uid=4242 gid=4343 groups=4343"),
        ("web:disk", "uid=101(web) gid=6(disk) groups=6(disk)"),
        ("nobody:nogroup", "uid=65534(nobody) gid=65534(nogroup) groups=65534(nogroup)"),
    ],
)
def test_user(engine: Engine, user: str, ids: str) -> None:
    """--user takes names and numbers, known or not; the groups are the image's own view of them."""
    shown = shell(engine, "id", *(["--user", user] if user else []))
    # busybox prints the primary group first or in order: compare as sets
    left, _, groups = shown.partition(" groups=")
    wanted, _, wanted_groups = ids.partition(" groups=")
    assert left == wanted and set(groups.split(",")) >= set(wanted_groups.split(","))


def test_unknown_user_is_refused(engine: Engine) -> None:
    """A user or group that the image doesn't know is an error naming it, not root."""
    result = engine.docker("run", "--rm", "--user", "ghost", engine.image, "id", check=False)
    assert result.code in (125, 126)
    assert "unable to find user ghost: no matching entries in passwd file" in result.err
    result = engine.docker("run", "--rm", "--user", "web:ghosts", engine.image, "id", check=False)
    assert result.code in (125, 126)
    assert "unable to find group ghosts: no matching entries in group file" in result.err


def test_home_follows_the_user(engine: Engine) -> None:
    """HOME is the user's in /etc/passwd, / for one that isn't there, and -e wins."""
    assert shell(engine, "echo $HOME", "--user", "web") == "/home"
    assert shell(engine, "echo $HOME", "--user", "4242") == "/"
    assert shell(engine, "echo $HOME", "-e", "HOME=/there") == "/there"


def test_group_add(engine: Engine) -> None:
    """--group-add adds groups by name and by number."""
    groups = set(shell(engine, "id -G", "--user", "4242", "--group-add", "audio", "--group-add", "777").split())
    assert {"0", "29", "777"} <= groups


def test_working_directory_is_made(engine: Engine) -> None:
    """--workdir is where the program starts; it is made if it isn't there."""
    assert shell(engine, "pwd") == "/"
    assert shell(engine, "pwd", "--workdir", "/new/one") == "/new/one"
    refused = engine.docker("create", "--workdir", "relative", engine.image, check=False)
    assert (
        refused.code == 1
        and "the working directory 'relative' is invalid, it needs to be an absolute path" in refused.err
    )


def test_entrypoint_and_command(engine: Engine) -> None:
    """--entrypoint replaces the image's and drops its command; arguments follow it."""
    assert engine.docker("run", "--rm", "--entrypoint", "echo", engine.image, "a", "b").out == "a b\n"
    container = engine.docker("create", "--entrypoint", "/bin/echo", engine.image).out.strip()
    shown = engine.inspect(container)
    assert (shown["Path"], shown["Args"]) == ("/bin/echo", [])
    assert shown["Config"]["Entrypoint"] == ["/bin/echo"] and not shown["Config"]["Cmd"]
    container = engine.docker("create", engine.image, "ls", "-l", "/").out.strip()
    shown = engine.inspect(container)
    assert (shown["Path"], shown["Args"]) == ("ls", ["-l", "/"])


def test_labels(engine: Engine) -> None:
    """--label sets keys with and without a value."""
    container = engine.docker("create", "-l", "a=1", "-l", "bare", "-l", "x.y=a=b", engine.image).out.strip()
    labels = engine.inspect(container)["Config"]["Labels"]
    assert {"a": "1", "bare": "", "x.y": "a=b"}.items() <= labels.items()


def test_read_only_root(engine: Engine) -> None:
    """--read-only forbids writing to the root, while /dev, /dev/shm and a --tmpfs stay writable."""
    script = "touch /x 2>&1; touch /dev/shm/x /dev/x /scratch/x && echo fine"
    shown = shell(engine, script, "--read-only", "--tmpfs", "/scratch")
    assert "Read-only file system" in shown and shown.endswith("fine")


def test_tmpfs_options(engine: Engine) -> None:
    """--tmpfs mounts with Docker's defaults and the options given."""
    flags = ["--tmpfs", "/a", "--tmpfs", "/b:size=1m,mode=700,exec"]
    lines = shell(engine, "grep -E ' /[ab] ' /proc/mounts; stat -c %a /b", *flags).splitlines()
    plain = next(line for line in lines if " /a " in line).split()
    tuned = next(line for line in lines if " /b " in line).split()
    assert plain[2] == tuned[2] == "tmpfs"
    assert {"rw", "nosuid", "nodev", "noexec"} <= set(plain[3].split(","))
    assert {"size=1024k", "mode=700"} <= set(tuned[3].split(",")) and "noexec" not in tuned[3]
    assert lines[-1] == "700"


def test_shm_size(engine: Engine) -> None:
    """/dev/shm has 64 MiB, or what --shm-size says."""
    assert shell(engine, "df -k /dev/shm | tail -1 | awk '{print $2}'") == "65536"
    assert shell(engine, "df -k /dev/shm | tail -1 | awk '{print $2}'", "--shm-size", "8m") == "8192"


def test_ulimits(engine: Engine) -> None:
    """--ulimit sets soft and hard limits."""
    flags = ["--ulimit", "nofile=100:200", "--ulimit", "core=0"]
    assert shell(engine, "ulimit -Sn; ulimit -Hn; ulimit -c", *flags).split() == ["100", "200", "0"]


def test_sysctls(engine: Engine) -> None:
    """--sysctl sets a namespaced one; one of the host's is refused."""
    script = "cat /proc/sys/net/ipv4/ip_default_ttl /proc/sys/kernel/msgmax"
    flags = ["--sysctl", "net.ipv4.ip_default_ttl=33", "--sysctl", "kernel.msgmax=7777"]
    assert shell(engine, script, *flags).split() == ["33", "7777"]
    refused = engine.docker("run", "--rm", "--sysctl", "vm.swappiness=1", engine.image, "true", check=False)
    assert refused.code != 0 and "vm.swappiness" in refused.err


def test_default_sysctls(engine: Engine) -> None:
    """An unprivileged user may bind low ports and send pings."""
    shown = shell(engine, "cd /proc/sys/net/ipv4; cat ip_unprivileged_port_start ping_group_range").split()
    assert shown == ["0", "0", "2147483647"]


def bounding(engine: Engine, *flags: str) -> int:
    """The bounding set inside a container with these flags."""
    return int(shell(engine, "grep CapBnd /proc/self/status | cut -f2", *flags), 16)


def test_capabilities(engine: Engine) -> None:
    """--cap-add and --cap-drop change Docker's default set of fourteen."""
    default = 0x00000000A80425FB
    assert bounding(engine) == default
    assert bounding(engine, "--cap-add", "NET_ADMIN", "--cap-drop", "CAP_NET_RAW") == default ^ (1 << 12) ^ (1 << 13)
    assert bounding(engine, "--cap-drop", "ALL") == 0
    assert bounding(engine, "--cap-drop", "ALL", "--cap-add", "CHOWN") == 1


# Docker's runtime asks for every capability by number, and fails on a machine whose root lacks one: only ours is asked.


def test_all_capabilities_are_all_that_the_engine_has(tare: Engine) -> None:
    """--cap-add ALL gives what the engine itself has, also where that isn't everything."""
    own = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("CapBnd"))
    assert bounding(tare, "--cap-add", "ALL") == int(own.split()[1], 16)


def test_privileged(tare: Engine) -> None:
    """--privileged: all capabilities, no seccomp, devices, writable /proc/sys and /sys."""
    engine = tare
    script = "grep -E '^(CapEff|Seccomp):' /proc/self/status; grep -E '^[^ ]+ /sys ' /proc/mounts; ls /dev | wc -l"
    shown = shell(engine, script, "--privileged").splitlines()
    assert int(shown[0].split()[1], 16) & (1 << 21)
    assert shown[1].split() == ["Seccomp:", "0"]
    assert shown[2].split()[3].startswith("rw")
    assert int(shown[3]) > 20
    assert not shell(engine, "grep -E ' /proc/(sys|kcore|bus) ' /proc/mounts || true", "--privileged")


def test_no_new_privileges(engine: Engine) -> None:
    """--security-opt no-new-privileges sets the flag; by default it isn't set; seccomp=unconfined lifts the filter."""
    script = "grep -E '^(NoNewPrivs|Seccomp):' /proc/self/status | cut -f2"
    assert shell(engine, script).split() == ["0", "2"]
    assert shell(engine, script, "--security-opt", "no-new-privileges").split() == ["1", "2"]
    assert shell(engine, script, "--security-opt", "seccomp=unconfined").split() == ["0", "0"]


def test_init_reaps_and_forwards(engine: Engine) -> None:
    """--init: pid 1 is an init that reaps orphans, passes signals on and exits as the program did."""
    script = "(sleep 0.05 &); sleep 0.4; ps -o pid,stat,comm | grep -c ' Z' || true; exit 3"
    result = engine.docker("run", "--rm", "--init", engine.image, "sh", "-c", script, check=False)
    assert (result.code, result.out.strip()) == (3, "0")
    result = engine.docker("run", "--rm", "--init", engine.image, "sh", "-c", "kill $$", check=False)
    assert result.code == 143
    assert shell(engine, "echo $$", "--init") != "1"
    container = engine.start(flags=["--init"])
    engine.docker("stop", container)  # sleep has no handler for SIGTERM, and needs none when it isn't pid 1
    assert engine.inspect(container)["State"]["ExitCode"] == 143


def test_network_none_and_host(engine: Engine) -> None:
    """none has only lo; host has the engine's links and host name; bridge has eth0 with a default route."""
    assert shell(engine, "ls /sys/class/net", "--network", "none") == "lo"
    assert set(shell(engine, "ls /sys/class/net; ip route | grep default | cut -d' ' -f5").split()) == {"eth0", "lo"}
    outside = engine.in_network("readlink", "/proc/self/ns/net").out
    inside = shell(engine, "readlink /proc/self/ns/net; hostname", "--network", "host")
    assert inside.splitlines()[0] == outside.strip()
    assert inside.splitlines()[-1] == socket.gethostname()
    container = engine.docker("create", "--network", "none", engine.image).out.strip()
    assert list(engine.inspect(container)["NetworkSettings"]["Networks"]) == ["none"]
    assert engine.inspect(container)["HostConfig"]["NetworkMode"] == "none"


def test_pid_ipc_and_uts_of_another(engine: Engine) -> None:
    """--network container:X and --pid container:X join the namespaces of a running container."""
    other = engine.start(flags=["--hostname", "other"], command=["sleep", "4321"])
    assert "4321" in shell(engine, "ps -o args", "--pid", f"container:{other}")
    address = engine.docker("exec", other, "hostname", "-i").out.strip()
    shown = shell(engine, "ip -4 -o addr show eth0", "--network", f"container:{other}")
    assert f"inet {address}/" in shown


def test_mac_and_fixed_limits_in_inspect(engine: Engine) -> None:
    """Limits given by flags are what inspect shows, in bytes, nano-CPUs and counts."""
    flags = ["--memory", "64m", "--memory-reservation", "32m", "--cpus", "0.5", "--pids-limit", "50"]
    flags += ["--cpu-shares", "512", "--cpuset-cpus", "0", "--oom-score-adj", "100", "--shm-size", "1m"]
    host = engine.inspect(engine.docker("create", *flags, engine.image).out.strip())["HostConfig"]
    wanted = {"Memory": 64 << 20, "MemoryReservation": 32 << 20, "NanoCpus": 500_000_000, "PidsLimit": 50}
    wanted |= {"CpuShares": 512, "CpusetCpus": "0", "OomScoreAdj": 100, "ShmSize": 1 << 20}
    assert {key: host[key] for key in wanted} == wanted
    assert host["MemorySwap"] in (-1, 128 << 20)


def test_devices(engine: Engine) -> None:
    """--device makes a host device usable inside under the name given."""
    shown = shell(
        engine,
        "ls -l /dev/second && dd if=/dev/second bs=4 count=1 2>/dev/null | wc -c",
        "--device",
        "/dev/zero:/dev/second",
    )
    assert "1,   5" in shown and shown.splitlines()[-1] == "4"


def test_tty_flag_without_terminal(engine: Engine) -> None:
    """-t gives the program a terminal: isatty is true, line ends are \\r\\n, TERM is set, there is no stderr apart."""
    result = engine.docker(
        "run", "--rm", "-t", engine.image, "sh", "-c", "test -t 0 -a -t 1 && echo tty $TERM; echo e >&2"
    )
    assert result.out == "tty xterm\r\ne\r\n" and result.err == ""


def test_attached_stdin(engine: Engine) -> None:
    """-i passes stdin through to its end; without -i stdin is empty."""
    assert engine.docker("run", "--rm", "-i", engine.image, "cat", input="some\ntext").out == "some\ntext"
    assert engine.docker("run", "--rm", engine.image, "cat", input="ignored").out == ""


def test_attach_some_streams(engine: Engine) -> None:
    """-a stderr shows only stderr."""
    result = engine.docker("run", "-a", "stderr", engine.image, "sh", "-c", "echo out; echo err >&2")
    assert (result.out, result.err) == ("", "err\n")


def test_cidfile_and_name(engine: Engine, tmp_path: object) -> None:
    """--cidfile holds the id; a name may be looked up with a leading slash and by a unique prefix of the id."""
    file = f"{tmp_path}/cid"
    name = engine.unique()
    engine.docker("create", "--cidfile", file, "--name", name, engine.image)
    made = Path(file).read_text()
    assert engine.inspect(made[:8])["Id"] == engine.inspect(name)["Id"] == made
    assert engine.inspect(name)["Name"] == f"/{name}"


def test_unknown_option_values_are_refused(engine: Engine) -> None:
    """A value that the engine can't follow is refused at create, with nothing made."""
    for flags in (["--network", "no-such-network"], ["--runtime", "no-such-runtime"], ["--pid", "container:no-such"]):
        refused = engine.docker("run", "--rm", *flags, engine.image, "true", check=False)
        assert refused.code == 125 and "no-such" in refused.err
    wait_until(lambda: not engine.containers(), "nothing is left")


def test_oom_score_and_cgroup_are_applied(engine: Engine) -> None:
    """--oom-score-adj is what the kernel holds for the program."""
    assert shell(engine, "cat /proc/self/oom_score_adj", "--oom-score-adj", "321") == "321"


def test_inspect_formats(engine: Engine) -> None:
    """`inspect -f` sees the documents; several objects make a list; --size adds sizes; --type chooses."""
    container = engine.docker("create", "--name", engine.unique(), engine.image, "ls").out.strip()
    assert engine.docker("inspect", "-f", "{{.Id}} {{json .Config.Cmd}}", container).out == f'{container} ["ls"]\n'
    both = json.loads(engine.docker("inspect", container, engine.image).out)
    assert both[0]["Id"] == container and both[1]["RepoTags"]
    assert "SizeRootFs" in json.loads(engine.docker("inspect", "--size", container).out)[0]
    assert engine.docker("inspect", "--type", "image", container, check=False).code == 1


@pytest.mark.skipif(has_apparmor(), reason="the kernel has AppArmor")
@pytest.mark.parametrize("profile", ["some-profile", "docker-default", "unconfined"])
def test_apparmor_without_apparmor(engine: Engine, profile: str) -> None:
    """Where the kernel has no AppArmor a profile is noted, and neither applied nor shown as applied."""
    host = {"SecurityOpt": [f"apparmor={profile}"], "NetworkMode": "none"}
    created = engine.create({"Cmd": ["cat", "/proc/self/attr/current"], "HostConfig": host})
    assert created.status == 201
    detail = engine.inspect(created.json["Id"])
    assert detail["AppArmorProfile"] == profile and detail["HostConfig"]["SecurityOpt"] == [f"apparmor={profile}"]
    engine.docker("start", created.json["Id"])
    engine.exit_code(created.json["Id"])
    assert engine.inspect(created.json["Id"])["AppArmorProfile"] == ""
    if engine.is_tare:
        told = [f"This kernel has no AppArmor: profile {profile} is not applied"]
        assert created.json["Warnings"] == ([] if profile == "unconfined" else told)


@pytest.mark.parametrize("parent", ["a/../{}", "{}", "//{}/./"])
def test_cgroup_parents_of_any_spelling(tare: Engine, parent: str) -> None:
    """A relative parent, or one with `..`, is below the root of all; such a container runs, and can be removed."""
    container = tare.start("--cgroup-parent", parent.format(tare.mark))
    made = [path for shape in ("", "*/") for path in Path("/sys/fs/cgroup").glob(f"{shape}{tare.mark}")]
    try:
        assert made and all((path / container).is_dir() for path in made)
        tare.docker("rm", "-f", container)
    finally:
        for path in made:  # no engine removes what it was told to be in
            wait_until(functools.partial(remove_empty, path), f"nobody uses {path}")


def test_a_cgroup_parent_that_is_none(tare: Engine) -> None:
    """Refused at create: at start it would be too late, as the container could not be removed."""
    answer = tare.create({"Cmd": ["true"], "HostConfig": {"CgroupParent": "/x\ny"}})
    assert answer.status == 400 and answer.message.startswith("invalid cgroup path: ")


def remove_empty(cgroup: Path) -> bool:
    """Removes a cgroup; whether it is gone."""
    with contextlib.suppress(OSError):
        cgroup.rmdir()
    return not cgroup.exists()
