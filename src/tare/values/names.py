"""Container names: what is allowed, and cheerful random ones. Pure but for the random numbers."""

from __future__ import annotations

import random
import re

from tare.errors import InvalidArgument

MAX_LENGTH = 255
_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+\Z")

_MOODS = (
    "able agile amber apt ardent azure balmy blithe bold brave bright brisk calm candid cheery civil clear clever "
    "cosy crisp deft dewy eager early earnest easy fair fleet fond frank free fresh gentle glad golden grand hale "
    "happy hardy humble ideal jolly jovial keen kind lively loyal lucid lucky mellow merry mild modest neat nimble "
    "noble patient placid plucky polite proud prudent quick quiet rapid ready rosy serene sharp shiny silent silver "
    "smart snug solid spry steady sturdy subtle sunny swift tidy trusty upbeat vivid warm wise witty zesty"
).split()
_THINGS = (
    "acorn anchor anvil apple atlas badger barge basil beacon birch bobbin bramble brook buoy canyon cargo cedar "
    "clover comet compass coral crane creel crow dory dove dune ember falcon fern ferry finch fjord flint fox gable "
    "gannet garnet glade grove gull harbor hazel heron holly ibis iris ivy jetty juniper kayak kelp kestrel kite "
    "lagoon lantern larch lark linden lynx magpie maple marlin marten meadow mistral moss nettle oak orchid osprey "
    "otter pebble pier pine plover poplar quail quartz quay raft raven reef robin rowan sable sage scale sloop "
    "sorrel sparrow spruce starling stoat stone swallow swan tarn teal tern thistle tide topaz trout tulip vale "
    "walnut weasel wharf willow wren yarrow yew"
).split()


def random_name(attempt: int = 0) -> str:
    """A name such as `calm_otter`; later attempts add digits, so that a crowded engine finds one."""
    name = f"{random.choice(_MOODS)}_{random.choice(_THINGS)}"
    return name + str(random.randrange(10 ** min(attempt, 9))) if attempt else name


def check_container_name(name: str) -> str:
    """name without a leading slash. Raises InvalidArgument with Docker's text; too long ones Docker takes."""
    bare = name.removeprefix("/")
    if len(bare) > MAX_LENGTH:
        raise InvalidArgument(f"Invalid container name ({name[:40]}…), at most {MAX_LENGTH} characters are allowed")
    if not _NAME.match(bare):
        raise InvalidArgument(f"Invalid container name ({name[:300]}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed")
    return bare
