"""`--change` instructions against what a real engine (20.10) makes of them: configs and error texts."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from tare.errors import InvalidArgument
from tare.images.instruction import apply_changes
from tare.oci.image_spec import ImageConfig

# instruction → the parts of the config that a real engine then has
ACCEPTED: dict[str, dict[str, Any]] = {
    "CMD": {"Cmd": ["/bin/sh", "-c"]},
    'CMD ["a","b"]': {"Cmd": ["a", "b"]},
    'CMD ["a", b]': {"Cmd": ["/bin/sh", "-c", '["a", b]']},
    "cmd foo  bar": {"Cmd": ["/bin/sh", "-c", "foo  bar"]},
    "ENTRYPOINT foo bar": {"Entrypoint": ["/bin/sh", "-c", "foo bar"]},
    'ENV A=1 B="x y"': {"Env": ["A=1", "B=x y"]},
    "ENV A B C": {"Env": ["A=B C"]},
    "ENV A=x\\ y": {"Env": ["A=x y"]},
    "ENV A='$HOME'": {"Env": ["A=$HOME"]},
    "ENV PATH=$PATH:/x": {"Env": ["PATH=:/x"]},
    "ENV A=${B:-fallback}": {"Env": ["A=fallback"]},
    "ENV A=1\nENV B=${A}2\nENV A=3": {"Env": ["A=3", "B=12"]},
    "EXPOSE 80 53/udp": {"ExposedPorts": {"53/udp": {}, "80/tcp": {}}},
    "EXPOSE 8000-8002": {"ExposedPorts": {"8000/tcp": {}, "8001/tcp": {}, "8002/tcp": {}}},
    "LABEL x=y": {"Labels": {"x": "y"}},
    "LABEL a b": {"Labels": {"a": "b"}},
    'LABEL "a b"="c d" e=f': {"Labels": {"a b": "c d", "e": "f"}},
    "USER a b": {"User": "a b"},
    "WORKDIR rel": {"WorkingDir": "/rel"},
    "WORKDIR /a b": {"WorkingDir": "/a b"},
    "WORKDIR /a\nWORKDIR ../b/./c": {"WorkingDir": "/b/c"},
    "VOLUME /a /b": {"Volumes": {"/a": {}, "/b": {}}},
    'VOLUME ["/a", "/b c"]': {"Volumes": {"/a": {}, "/b c": {}}},
    "ONBUILD RUN x": {"OnBuild": ["RUN x"]},
    "CMD []": {},
    "ENTRYPOINT": {},
    "ENTRYPOINT []": {},
    'ENV A=a"b"c': {"Env": ["A=abc"]},
    "ENV A=1 A=2": {"Env": ["A=2"]},
    "EXPOSE 1.2.3.4:80:81": {"ExposedPorts": {"81/tcp": {}}},
    "EXPOSE 80/TCP": {"ExposedPorts": {"80/tcp": {}}},
    "EXPOSE $X": {},
    "HEALTHCHECK --start-period=5s cmd x": {"Healthcheck": {"Test": ["CMD-SHELL", "x"], "StartPeriod": 5000000000}},
    "HEALTHCHECK NONE": {"Healthcheck": {"Test": ["NONE"]}},
    "HEALTHCHECK --interval=1s --retries=2 CMD foo bar": {
        "Healthcheck": {"Test": ["CMD-SHELL", "foo bar"], "Interval": 1000000000, "Retries": 2}
    },
    'HEALTHCHECK --timeout=1m30s CMD ["foo"]': {"Healthcheck": {"Test": ["CMD", "foo"], "Timeout": 90000000000}},
    "STOPSIGNAL SIGINT": {"StopSignal": "SIGINT"},
}

REFUSED = {
    "FROM x": "from is not a valid change command",
    "RUN x": "run is not a valid change command",
    "COPY a b": "copy is not a valid change command",
    "SHELL []": "shell is not a valid change command",
    "bogus": "bogus is not a valid change command",
    "ENV": "ENV requires at least one argument",
    "ENV A": "ENV must have two arguments",
    "LABEL a": "LABEL must have two arguments",
    "ENV A='x' # c": 'Syntax error - can\'t find = in "#". Must be of the form: name=value',
    "EXPOSE": "EXPOSE requires at least one argument",
    "EXPOSE abc": "Invalid containerPort: abc",
    "EXPOSE 99999": "Invalid containerPort: 99999",
    "EXPOSE 80/foo": "Invalid proto: foo",
    "HEALTHCHECK x": 'Unknown type "X" in HEALTHCHECK (try CMD)',
    "HEALTHCHECK --bogus=1 CMD x": "Unknown flag: bogus",
    "HEALTHCHECK CMD": "Missing command after HEALTHCHECK CMD",
    "HEALTHCHECK NONE x": "HEALTHCHECK NONE takes no arguments",
    "HEALTHCHECK": "HEALTHCHECK requires at least one argument",
    "HEALTHCHECK --retries=0 CMD x": "--retries must be at least 1 (not 0)",
    "HEALTHCHECK --retries=x CMD x": 'strconv.ParseInt: parsing "x": invalid syntax',
    "HEALTHCHECK --interval=0s CMD x": 'Interval "interval" cannot be less than 1ms',
    'ENV A="unclosed': 'failed to process "\\"unclosed": unexpected end of statement while looking for matching double-quote',  # noqa: E501
    "LABEL a=$X b=${": "failed to process \"${\": syntax error: missing '}'",
    "ENV A=\\\n  1": 'Syntax error - can\'t find = in "1". Must be of the form: name=value',
    "ENV =x": "ENV names can not be blank",
    "EXPOSE 90-80": "Invalid containerPort: 90-80",
    'VOLUME [""]': "VOLUME specified can not be an empty string",
    "WORKDIR $X": "cannot normalize nothing",
    'CMD ["a",1]': "when using JSON array syntax, arrays must be comprised of strings only",
    "ONBUILD": "ONBUILD requires at least one argument",
    "ONBUILD FROM x": "FROM isn't allowed as an ONBUILD trigger",
    "ONBUILD ONBUILD RUN x": "Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed",
    "USER": "USER requires exactly one argument",
    "WORKDIR": "WORKDIR requires exactly one argument",
    "VOLUME": "VOLUME requires at least one argument",
    "": "file with no instructions",
    "# only a comment": "file with no instructions",
}


@pytest.mark.parametrize("text", sorted(ACCEPTED))
def test_accepted(text: str) -> None:
    """The instruction gives the config that a real engine gives."""
    assert msgspec.to_builtins(apply_changes(ImageConfig(), [text])) == ACCEPTED[text]


@pytest.mark.parametrize("text", sorted(REFUSED))
def test_refused(text: str) -> None:
    """The error text is a real engine's."""
    with pytest.raises(InvalidArgument) as caught:
        apply_changes(ImageConfig(), [text])
    said = str(caught.value)
    verb = text.partition(" ")[0]
    if said == f"{verb} is not a valid change command":  # Docker 28 has the word as the user wrote it
        said = said.replace(verb, verb.lower())
    assert said == REFUSED[text]


def test_nothing_changes_nothing() -> None:
    config = ImageConfig(env=["A=1"])
    assert apply_changes(config, []) is config


def test_a_new_entry_point_drops_the_old_arguments() -> None:
    """CMD of the container stays only if the same changes set it."""
    config = ImageConfig(cmd=["old"])
    assert apply_changes(config, ['ENTRYPOINT ["new"]']).cmd is None
    assert apply_changes(config, ['ENTRYPOINT ["new"]', 'CMD ["x"]']).cmd == ["x"]


def test_changes_stand_on_what_is_there() -> None:
    """Variables, paths, labels and ports of the config are extended."""
    config = ImageConfig(env=["A=1"], working_dir="/srv", labels={"a": "b"})
    changed = apply_changes(config, ["ENV B=${A}2 A=2", "WORKDIR x/$A", "LABEL c=$B"])
    assert (changed.env, changed.working_dir, changed.labels) == (["A=2", "B=12"], "/srv/x/2", {"a": "b", "c": "12"})
