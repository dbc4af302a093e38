"""The command tree: groups, commands and the short top-level names, each with its one-line summary.

The module of command "container ls" is `tare.cli.commands.container_ls`; it is imported only when the command runs.
"""

from __future__ import annotations

GROUPS = {
    "container": "Manage containers",
    "context": "Manage contexts: named engine addresses",
    "image": "Manage images",
    "network": "Manage networks",
    "system": "Manage Tare",
    "trash": "Manage what was removed and can be restored",
    "volume": "Manage volumes",
}

COMMANDS = {
    "bootstrap": "Make an image of a distribution's packages, the same one each time",
    "branch": "List names of versions and the containers on them; make and remove names",
    "cert": "Make certificates with which an engine can listen on TCP",
    "checkout": "Take a container back to a version, or fork a new one from it",
    "completion": "Print a script that lets a shell complete tare's commands and names",
    "container attach": "Connect this terminal to a running container",
    "container commit": "Make an image from what a container has changed",
    "container cp": "Copy files between a container and the local file system",
    "container create": "Make a new container without starting it",
    "container diff": "Show which files a container has changed, or what differs between two images or containers",
    "container exec": "Run a command in a running container",
    "container export": "Write the file system of a container, or of a version of an image, as a tar archive",
    "container inspect": "Show all that is known about containers",
    "container kill": "Kill running containers",
    "container logs": "Show what a container has printed",
    "container ls": "List containers",
    "container pause": "Freeze all processes of containers",
    "container port": "Show a container's published ports",
    "container prune": "Remove all stopped containers",
    "container rename": "Give a container another name",
    "container restart": "Stop and start containers",
    "container rm": "Remove containers",
    "container run": "Make a new container from an image and run it",
    "container start": "Start stopped containers",
    "container stats": "Show what containers use, live",
    "container stop": "Stop running containers",
    "container top": "Show the processes of a container",
    "container unpause": "Thaw all processes of containers",
    "container update": "Change the limits of containers",
    "container wait": "Wait until containers stop, then print their exit codes",
    "context create": "Make a context",
    "context export": "Write a context to an archive",
    "context import": "Make a context from an archive",
    "context inspect": "Show all that is known about contexts",
    "context ls": "List contexts",
    "context rm": "Remove contexts",
    "context show": "Print the name of the context in force",
    "context update": "Change a context",
    "context use": "Choose the context that is used by default",
    "doctor": "Tell what this machine allows, what is missing and what that costs",
    "fetch": "Take images straight from another engine; only the layers that are missing here travel",
    "image history": "Show how an image was made",
    "image import": "Make an image from a tar archive of a file system, or from a directory",
    "image inspect": "Show all that is known about images",
    "image load": "Load images from a tar archive",
    "image ls": "List images",
    "image prune": "Remove unused images",
    "image pull": "Download an image from a registry",
    "image push": "Upload an image to a registry",
    "image rm": "Remove images",
    "image save": "Write images to a tar archive",
    "image tag": "Give an image another name, or with --undo NAME put a name back to where it was",
    "inspect": "Show all that is known about containers, images, networks and volumes",
    "log": "Show images as versions: which was made from which, by whom and why",
    "login": "Log in to a registry, and keep the credentials",
    "logout": "Forget the credentials for a registry",
    "move": "Carry a container with all that is its own to another engine",
    "network connect": "Connect a container to a network",
    "network create": "Make a network",
    "network disconnect": "Disconnect a container from a network",
    "network inspect": "Show all that is known about networks",
    "network ls": "List networks",
    "network prune": "Remove all unused networks",
    "network repair": "Put right what somebody broke of bridges, links and rules",
    "network rm": "Remove networks",
    "network rules": "Show the engine's packet filter in words",
    "network update": "Change what a network's containers may send to",
    "reflog": "Show where names of images were before",
    "search": "Look for images in Docker Hub, or in another registry",
    "send": "Take images straight to another engine; only the layers that are missing there travel",
    "squash": "Make one version of several that follow each other",
    "system dial-stdio": "Connect standard input and output to the engine, as ssh:// addresses need it",
    "system df": "Show how much disk space is used",
    "system events": "Show what happens in the engine, live",
    "system fsck": "Check all that the engine keeps, and repair it with --repair",
    "system info": "Show the engine's state and settings",
    "system pack": "Keep older versions of large files as what changed",
    "system prune": "Remove all unused data",
    "system thin": "Give up compressed layers that are kept as they came, for their space",
    "trash empty": "Delete for good what was removed",
    "trash ls": "List removed containers, volumes and images that can be restored",
    "trash restore": "Bring removed containers, volumes and images back",
    "version": "Show the versions of client and engine",
    "volume create": "Make a volume",
    "volume inspect": "Show all that is known about volumes",
    "volume ls": "List volumes",
    "volume prune": "Remove unused volumes",
    "volume rm": "Remove volumes",
    "volume update": "Change a volume (cluster volumes only)",
    "why": "Tell what became of a container, in plain words",
}

ALIASES = {
    "container list": "container ls",
    "container ps": "container ls",
    "container remove": "container rm",
    "context list": "context ls",
    "context remove": "context rm",
    "image list": "image ls",
    "image remove": "image rm",
    "network list": "network ls",
    "network remove": "network rm",
    "trash list": "trash ls",
    "volume list": "volume ls",
    "volume remove": "volume rm",
    "attach": "container attach",
    "commit": "container commit",
    "cp": "container cp",
    "create": "container create",
    "diff": "container diff",
    "exec": "container exec",
    "export": "container export",
    "kill": "container kill",
    "logs": "container logs",
    "pause": "container pause",
    "port": "container port",
    "ps": "container ls",
    "rename": "container rename",
    "restart": "container restart",
    "rm": "container rm",
    "run": "container run",
    "start": "container start",
    "stats": "container stats",
    "stop": "container stop",
    "top": "container top",
    "unpause": "container unpause",
    "update": "container update",
    "wait": "container wait",
    "history": "image history",
    "images": "image ls",
    "import": "image import",
    "load": "image load",
    "pull": "image pull",
    "push": "image push",
    "rmi": "image rm",
    "save": "image save",
    "tag": "image tag",
    "events": "system events",
    "info": "system info",
}

# Docker's that Tare doesn't have yet: named, so that the answer is clear.
ABSENT = frozenset(
    "bake build builder buildx checkpoint compose config manifest node plugin secret service stack swarm trust".split()
) | frozenset(
    {"image build"},
)

COMMON = ("run", "exec", "ps", "images", "import", "pull", "version", "info", "doctor")


def summary_of(path: str) -> str:
    return COMMANDS[ALIASES.get(path, path)]


def names_of(path: str) -> list[str]:
    """All names of a command, the canonical one first."""
    canonical = ALIASES.get(path, path)
    return [canonical] + [alias for alias, target in ALIASES.items() if target == canonical]


def module_of(path: str) -> str:
    return "tare.cli.commands." + ALIASES.get(path, path).replace(" ", "_").replace("-", "_")
