"""Docker's spellings that don't follow from a field's name, and Go's names for its error texts. Data only."""

from __future__ import annotations

KEYS = {
    "blkio_device_read_iops": "BlkioDeviceReadIOps",
    "blkio_device_write_iops": "BlkioDeviceWriteIOps",
    "container_id_file": "ContainerIDFile",
    "device_ids": "DeviceIDs",
    "io_maximum_bandwidth": "IOMaximumBandwidth",
    "io_maximum_iops": "IOMaximumIOps",
    "enable_ipv4": "EnableIPv4",
    "enable_ipv6": "EnableIPv6",
    "ip_range": "IPRange",
    "ipam": "IPAM",
    "ipam_config": "IPAMConfig",
    "ipv4_address": "IPv4Address",
    "ipv6_address": "IPv6Address",
    "kernel_memory_tcp": "KernelMemoryTCP",
    "link_local_ips": "LinkLocalIPs",
    "uts_mode": "UTSMode",
}
"""field → JSON key."""

GO_STRUCTS = {
    "AddressPoolOptions": ("IPAMConfig", "network.IPAMConfig"),
    "BindOptions": ("BindOptions", "mount.BindOptions"),
    "CommitBody": ("ContainerConfigWrapper", "runconfig.ContainerConfigWrapper"),
    "CreateBody": ("ContainerConfigWrapper", "runconfig.ContainerConfigWrapper"),
    "ConfigSource": ("ConfigReference", "network.ConfigReference"),
    "ConnectOptions": ("NetworkConnect", "types.NetworkConnect"),
    "DeviceMapping": ("DeviceMapping", "container.DeviceMapping"),
    "DeviceRequest": ("DeviceRequest", "container.DeviceRequest"),
    "DisconnectOptions": ("NetworkDisconnect", "types.NetworkDisconnect"),
    "EndpointIpam": ("EndpointIPAMConfig", "network.EndpointIPAMConfig"),
    "EndpointOptions": ("EndpointSettings", "network.EndpointSettings"),
    "ExecOptions": ("ExecConfig", "types.ExecConfig"),
    "ExecStartBody": ("ExecStartCheck", "types.ExecStartCheck"),
    "HealthcheckOptions": ("HealthConfig", "container.HealthConfig"),
    "HostOptions": ("HostConfig", "container.HostConfig"),
    "ImageOptions": ("ImageOptions", "mount.ImageOptions"),
    "IpamOptions": ("IPAM", "network.IPAM"),
    "LogOptions": ("LogConfig", "container.LogConfig"),
    "MountOptions": ("Mount", "mount.Mount"),
    "NetworkOptions": ("NetworkCreateRequest", "types.NetworkCreateRequest"),
    "NetworkingOptions": ("NetworkingConfig", "network.NetworkingConfig"),
    "PortBinding": ("PortBinding", "nat.PortBinding"),
    "RestartPolicy": ("RestartPolicy", "container.RestartPolicy"),
    "ThrottleDevice": ("ThrottleDevice", "blkiodev.ThrottleDevice"),
    "TmpfsOptions": ("TmpfsOptions", "mount.TmpfsOptions"),
    "Ulimit": ("Ulimit", "units.Ulimit"),
    "UpdateOptions": ("UpdateConfig", "container.UpdateConfig"),
    "VolumeCreateBody": ("CreateOptions", "volume.CreateOptions"),
    "VolumeOptions": ("VolumeOptions", "mount.VolumeOptions"),
    "WeightDevice": ("WeightDevice", "blkiodev.WeightDevice"),
}
"""record → (name in field errors, name in errors about the whole value)."""

GO_FIELD_TYPES = {
    ("", "blkio_weight"): "uint16",
    ("", "console_size"): "[2]uint",
    ("", "blkio_weight_device"): "[]*blkiodev.WeightDevice",
    ("", "blkio_device_read_bps"): "[]*blkiodev.ThrottleDevice",
    ("", "blkio_device_write_bps"): "[]*blkiodev.ThrottleDevice",
    ("", "blkio_device_read_iops"): "[]*blkiodev.ThrottleDevice",
    ("", "blkio_device_write_iops"): "[]*blkiodev.ThrottleDevice",
    ("", "cgroupns_mode"): "container.CgroupnsMode",
    ("", "endpoints_config"): "map[string]*network.EndpointSettings",
    ("", "exposed_ports"): "nat.PortSet",
    ("", "interval"): "time.Duration",
    ("", "timeout"): "time.Duration",
    ("", "start_period"): "time.Duration",
    ("", "start_interval"): "time.Duration",
    ("", "retries"): "int",
    ("", "ipc_mode"): "container.IpcMode",
    ("", "isolation"): "container.Isolation",
    ("", "maximum_retry_count"): "int",
    ("", "network_mode"): "container.NetworkMode",
    ("", "oom_score_adj"): "int",
    ("", "pid_mode"): "container.PidMode",
    ("", "port_bindings"): "nat.PortMap",
    ("", "stop_timeout"): "int",
    ("", "ulimits"): "[]*units.Ulimit",
    ("", "userns_mode"): "container.UsernsMode",
    ("", "uts_mode"): "container.UTSMode",
    ("", "volumes"): "map[string]struct {}",
    ("", "gw_priority"): "int",
    ("BindOptions", "propagation"): "mount.Propagation",
    ("DeviceRequest", "count"): "int",
    ("HostOptions", "cgroup"): "container.CgroupSpec",
    ("MountOptions", "consistency"): "mount.Consistency",
    ("MountOptions", "type"): "mount.Type",
    ("ThrottleDevice", "rate"): "int64",
    ("TmpfsOptions", "mode"): "fs.FileMode",
    ("WeightDevice", "weight"): "uint16",
}
"""(record or "" for any, field) → Go's type, where it isn't the plain one of the Python type."""

STRING_OR_LIST = frozenset(("cmd", "entrypoint", "shell", "cap_add", "cap_drop"))
"""Fields for which Go's StrSlice takes a bare string, too."""

OMITTED_WHEN_EMPTY = {
    "AddressPoolOptions": frozenset("subnet ip_range gateway auxiliary_addresses".split()),
    "BindOptions": frozenset(
        "propagation non_recursive create_mountpoint read_only_non_recursive read_only_force_recursive".split()
    ),
    "ContainerConfig": frozenset(
        "exposed_ports healthcheck args_escaped network_disabled mac_address stop_signal stop_timeout shell".split()
    ),
    "EndpointIpam": frozenset("ipv4_address ipv6_address link_local_ips".split()),
    "HealthcheckOptions": frozenset("test interval timeout retries start_period start_interval".split()),
    "HostOptions": frozenset(
        "annotations depends_on storage_opt tmpfs sysctls init health_on_failure egress kernel_memory "
        "kernel_memory_tcp".split()
    ),
    "ImageOptions": frozenset(("subpath",)),
    "MountOptions": frozenset(
        "type source read_only consistency bind_options volume_options image_options tmpfs_options "
        "cluster_options".split()
    ),
    "TmpfsOptions": frozenset("size_bytes mode options".split()),
    "VolumeOptions": frozenset("no_copy labels driver_config subpath".split()),
}
"""record → fields that Docker's JSON leaves out when they are empty."""
