# ruff: noqa: E501
"""Command lines whose requests, messages and exit codes are compared with those of Docker's own client.

@FILE@ stands for a file of variables, @SOCKET@ for the engine's socket.
"""

from __future__ import annotations

CREATE = r"""
create x
create -it x sh -c "a b"
create --link a:b x
create --network host --network-alias q x
create --network bridge --link a x
create -m 1g --cpus 1.5 --memory-swap -1 --ulimit nofile=10:20 --device /dev/null:/dev/foo:r --device /dev/zero:rw --device vendor.com/gpu=x --gpus all --health-cmd "true" --health-interval 3s --sysctl net.a=b --tmpfs /x:size=3m x
create --mount type=bind,src=/a,dst=/b,readonly,bind-propagation=rslave --mount type=volume,src=v,dst=/w,volume-driver=local,volume-opt=a=b,volume-nocopy --mount type=tmpfs,dst=/t,tmpfs-size=1m,tmpfs-mode=1777 x
create --mount type=bind,src=/a,dst=/b,bind-recursive=enabled,consistency=cached --mount dst=/w,volume-label=a=b,volume-subpath=q --mount type=image,src=i,dst=/i,image-subpath=k --mount src=foo,dst=/e x
create --network name=foo,alias=a,ip=1.2.3.4,driver-opt=a=b,mac-address=92:d0:c6:0a:29:33,link-local-ip=1.1.1.1,gw-priority=3 --network bar --ip6 ::1 x
create --entrypoint "" x
create --entrypoint /bin/x --env A=b --env PATH=x --env NOSUCH -l a=b -l c --group-add g --init --ipc host --pid container:foo --uts host --userns host --isolation x --kernel-memory 4m --memory-reservation 5m --memory-swappiness 30 --name nn --no-healthcheck --oom-kill-disable --oom-score-adj 5 --pids-limit 100 --privileged --read-only --rm --runtime rr --shm-size 1m --stop-signal SIGINT --stop-timeout 4 -u u -w /w --annotation a=b x
create --platform linux/amd64 --name q x
create --pull never x
create --pull always x
create --restart unless-stopped -p 8000-8002:80 -p [::1]:80:81 -p published=8080,target=80 --log-driver none x
create --use-api-socket x
create -e A -e =b x
create --restart foo x
create --restart always:3 x
create --pid foo x
create --uts foo x
create --userns foo x
create --cgroupns foo x
create --ipc foo x
create --memory-swappiness 200 x
create --no-healthcheck --health-cmd x x
create --health-interval -1s x
create --health-interval 1us x
create --health-interval foo x
create --health-interval 1x x
create --health-interval 1 x
create --log-driver none --log-opt a=b x
create --storage-opt a x
create --security-opt seccomp=/nope x
create --security-opt a=b=c --security-opt foo x
create --device a:b:c:d x
create --device /dev/null:/dev/foo:q x
create --device null x
create --device /dev/null:x x
create --env-file /nope x
create --label-file /nope x
create --add-host a x
create --add-host a:b x
create --dns x x
create --dns-search "-" x
create --link a:b:c x
create --ulimit foo=1 x
create --ulimit nofile x
create --ulimit nofile=a x
create --ulimit nofile=3:2 x
create --ulimit nofile=-1 x
create --ulimit nofile=1:2:3 x
create --ulimit nofile=5 --ulimit nofile=6 --ulimit core=0 x
create --blkio-weight-device foo x
create --blkio-weight-device /dev/sda:5 x
create --blkio-weight-device foo:100 x
create --device-read-bps /dev/sda:x x
create --device-read-bps foo x
create --device-read-iops /dev/sda:x x
create --device-cgroup-rule foo x
create --gpus foo x
create --gpus "a=b" x
create --gpus "count=1,count=2" x
create -a foo x
create -p foo x
create -p 1:2:3:4 x
create -p 1-2:3-5 x
create -p 80/foo x
create -p : x
create -p a:80:80 x
create -p 80:99999 x
create -p 99999:80 x
create --expose 1:2 x
create --expose foo x
create --expose 5-2 x
create --mount type=bind,src=/a x
create --mount type=bind,src=/a,dst=/b,foo=bar x
create --mount type=tmpfs,dst=/b,bind-propagation=rslave x
create --mount type=bind,src=/a,dst=/b,readonly=foo x
create --mount type=bind,src=/a,dst=/b,bind-recursive=foo x
create --mount type=bind,src=/a,dst=/b,bind-recursive=disabled x
create --mount type=bind,src=/a,dst=/b,bind-recursive=writable x
create --mount type=bind,src=/a,dst=/b,ro,bind-recursive=writable x
create --mount type=bind,src=/a,dst=/b,bind-recursive=readonly x
create --mount type=bind,src=/a,dst=/b,ro,bind-recursive=readonly x
create --mount type=bind,src=/a,dst=/b,ro,bind-recursive=readonly,bind-propagation=rprivate x
create --mount type=bind,src=/a,dst=/b,bind-nonrecursive x
create --mount type=volume,src=/a,dst=/b,image-subpath=x x
create --mount type=tmpfs,dst=/b,tmpfs-mode=9 x
create --mount type=tmpfs,dst=/b,tmpfs-size=foo x
create --mount "" x
create --mount 'type=bind,"src=/a,b",dst=/b' x
create --mount type=bind,src=a,dst=/b x
create --mount type=bind,src=./a,dst=/b x
create --network "" x
create --network a --network bridge x
create --network a --network a x
create --network name=a,ip=1.1.1.1 --ip 2.2.2.2 x
create --network name=a,foo=b x
create --network name=a,b x
create --network alias=b x
create --network name=a,alias=b,alias=c x
create --mac-address foo x
create --ip foo x
create --stop-timeout x x
create -m -5 x
create -m 5.5m x
create -m "5 m" x
create -m 5MiB x
create -m 5mb x
create -m 12q x
create -m 12ib x
create -m "" x
create --memory-swap -2 x
create --shm-size foo x
create --cpus 1.0000000001 x
create --cpus foo x
create --cpus 1/2 x
create --cpus -1 x
create --sysctl foo x
create --annotation a --annotation b=c x
create --label =x x
create --name "" x
create --entrypoint="" x y z
create --tmpfs /a --tmpfs /b:ro x
create --volume /a x
create --volume "" x
create --volume :/a x
create --volume /a: x
create --volume /a:/b:/c:/d x
create -v foo:/c -v foo:/c -v bar:/c:ro x
create -v ../x:/c -v ~/y:/d x
create -v v:/c -v /d -v /e:/f:rw,z x
create --volumes-from a:q x
create --cidfile /tmp x
create --blkio-weight 5 x
create --blkio-weight 70000 x
create --blkio-weight -1 x
create --pids-limit foo x
create --hostname "" --domainname "" x
create --pull foo x
create
create ""
create Foo
create x:y:z
create --oom-score-adj 2000 x
create --network foo x
create --network default x
create --network host x
create --network none x
create --network container:foo x
create --network name=foo x
create --net foo --net-alias q x
create --network bridge --mac-address 92:d0:c6:0a:29:33 x
create --network bridge --ip 1.1.1.1 x
create --network foo --link a:b x
create --network a --network b x
create --network foo --ip 1.2.3.4 --network-alias q --mac-address 92:d0:c6:0a:29:33 --link a:b --link-local-ip 169.254.1.1 x
create --init=false --security-opt label:disable  --cap-add ALL --cap-add sys_admin --cap-drop CHOWN --cap-drop CAP_chown x
create --cap-add sys_admin --cap-drop all --cap-add cap_chown --cap-drop CHOWN x
create -m -1 x
create --memory-swap -5 x
create --restart no:3 x
create --restart on-failure:x x
create --restart on-failure:-1 x
create --restart : x
create --restart "" x
create --restart on-failure: x
create --gpus device=0 --gpus driver=nvidia,count=3,options=a=b x
create --gpus "device=0,capabilities=utility" x
create --gpus '"device=0,1","capabilities=compute,utility"' x
create --gpus 2 x
create --log-opt a x
create --security-opt no-new-privileges:true --security-opt systempaths=unconfined --security-opt writable-cgroups=true x
create --security-opt systempaths=unconfined x
create --env-file @FILE@ -e B=3 -e B=4 x
create --label-file @FILE@ -l B=3 x
create -i -a stdout x
create -a stdin -a stdout x
create --expose 80 -P x
create --userns host --uts host --pid host --ipc container:x --cgroupns private x
create --read-only=false --privileged=false --oom-kill-disable=false x
create --dns-search . --dns-search foo.com. --dns 8.8.8.8 x
create --add-host a:[::1] --add-host b=host-gateway x
create --add-host c:::1 x
create --storage-opt a=b=c x
create --hostname h.d x
create localhost:5000/x@sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa
create --pull always localhost:5000/x@sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa
create --pull always localhost:5000/x:t
create --pull always foo/x
create --annotation =x x
create --mac-address 92:d0:c6:0a:29:33 --hostname h --domainname d --dns 8.8.8.8 --dns-search s --dns-option o --add-host a:1.2.3.4 --add-host b=::1 --add-host c:host-gateway -p 80 -p 127.0.0.1:1000-1002:2000-2002/udp -P --expose 99-101/udp x
create --blkio-weight 100 --blkio-weight-device /dev/sda:200 --device-read-bps /dev/sda:1mb --device-write-iops /dev/sda:100 --device-cgroup-rule "c 1:3 rwm" --cap-add sys_admin --cap-add CAP_FOO --cap-drop all --cgroupns host --cgroup-parent foo --cpu-period 1 --cpu-quota 2 --cpu-rt-period 3 --cpu-rt-runtime 4 --cpu-shares 5 --cpuset-cpus 0 --cpuset-mems 0 x
create -v /a:/b:ro -v vv:/c -v /anon -v ./rel:/r --volumes-from f:ro --volume-driver foo --log-driver json-file --log-opt max-size=1m --restart on-failure:3 --storage-opt size=1G --security-opt no-new-privileges --security-opt apparmor=x --security-opt label=disable --security-opt systempaths=unconfined --security-opt seccomp=unconfined x
create --rm --restart always x
create --nope x
create -z x
create -e
create --name
create -itz x
create --rm=maybe x
create -i=false -t=true x
create -e=A=b -eC=d -p80:80 x
create x --rm -it
create -- x -y
create - x
"""

OTHERS = r"""
exec -it x sh
stop -t 3 x
stop -s 9 -t -1 x
restart x
restart -t 3 -s INT x
kill -s INT x
kill x
rm -fvl x
pause x
rename x y
commit x repo@foo
tag a b:c
tag a
images -a --filter reference=x --filter dangling=true foo
ps -n 3 -f status=running -f name=x -s
ps -l
ps -a --format '{{.Size}}'
ps --format 'table {{.Names}}\t{{.Size}}'
ps --format '{{json .}}'
ps --format json
ps --format '{{.ID}}'
export x
import http://foo/x.tar repo:tag -c "CMD x" -m hi --platform linux/amd64
import @FILE@ foo
import /nope foo
history x
diff x
top x aux
top x -o pid
top x
inspect x
inspect --type image x
inspect -s x
events --since 1 --until 2 -f a=b
start x
start x y
start -a x y
pull x
pull x:y -a
pull -q x
pull --platform linux/amd64 x:y
push x
push -a x
push -q x:y
save x
volume ls -f a=b
volume rm -f x y
volume inspect x
network ls -f a=b
network inspect x -v
network connect --ip 1.2.3.4 --alias q n c
network connect --driver-opt a=b --link a:b --link-local-ip 1.1.1.1 --gw-priority 3 --ip6 ::1 n c
network disconnect -f n c
system df
stats --no-stream x
load -i @FILE@
load -i /nope
run ""
run Foo
run --cidfile /tmp x
run --name
run --nope
run -h
run -h foo
run
exec x
exec
logs
logs a b
wait
run -d --rm --restart always x
run -d -a stdin x
network create foo
network create -d bridge --subnet 10.1.0.0/16 --gateway 10.1.0.1 --ip-range 10.1.2.0/24 --aux-address a=10.1.0.5 -o x=y --label l=m --internal --attachable --ipv6 --ipam-driver default --ipam-opt q=r foo
network create --subnet 10.1.0.0/16 --subnet fd00::/64 --gateway fd00::1 foo
network create --scope swarm --ingress --config-only --config-from bar foo
network create --ipv4=false foo
network create
network create --subnet 10.1.0.0/16 --gateway 10.2.0.1 foo
network create --subnet 10.1.0.0/16 --gateway 10.1.0.1 --gateway 10.1.0.2 foo
network create --subnet 10.1.0.0/16 --subnet 10.2.0.0/16 --gateway 10.1.0.1 --gateway 10.1.0.2 foo
network create --subnet 10.1.0.0/16 --subnet 10.1.2.0/24 foo
network create --subnet foo bar
network create --aux-address a=10.1.0.1 foo
network create foo bar
update -m 1g --cpus 1.5 --restart always --pids-limit 5 --cpu-shares 3 --blkio-weight 10 --cpuset-cpus 1 x
update --restart "" x
update --memory-swap -1 x
update --restart a:b x
rmi -f a --no-prune
"""


def lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.strip()]
