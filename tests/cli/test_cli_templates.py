"""Go templates: each claim is a template, the data, and what Go's text/template makes of it."""

from __future__ import annotations

from typing import Any

import pytest

from tare.cli.gotemplate import GoMap, NilList, NilMap, TemplateError, compile_template
from tare.cli.gotemplate.values import with_go_types
from tare.cli.listing import Row

DATA: dict[str, Any] = {
    "Name": "/web",
    "Pid": 42,
    "Running": True,
    "Share": 0.5,
    "Args": ["-c", "a b"],
    "Labels": GoMap(b="2", a="1"),
    "State": {"Status": "up", "Health": None, "Log": NilList()},
    "Options": NilMap(),
    "Mounts": [{"Source": "/a", "RW": True}, {"Source": "/b", "RW": False}],
    "Ports": GoMap({"80/tcp": [{"HostPort": "8080"}], "53/udp": None}),
    "Html": "<a&b>",
}

RENDERED = [
    ("plain", "plain"),
    ("{{.Name}}", "/web"),
    ("{{ .Name }}", "/web"),
    ("a {{- .Name -}} b", "a/webb"),
    ("a {{/* note */}} b", "a  b"),
    ("a {{- /* note */ -}} b", "ab"),
    ("{{.State.Status}}", "up"),
    ("{{.State.Health}}", "<nil>"),
    ("{{.Running}} {{.Pid}} {{.Share}}", "true 42 0.5"),
    ("{{.Args}}", "[-c a b]"),
    ("{{.Labels}}", "map[a:1 b:2]"),
    ("{{.Labels.a}}{{.Labels.zz}}", "1<no value>"),
    ('{{index .Labels "zz"}}|', "|"),
    ("{{.Mounts}}", "[{/a true} {/b false}]"),
    ("{{.Options}} {{.State.Log}}", "map[] []"),
    ("{{json .Labels}}", '{"a":"1","b":"2"}'),
    ("{{json .Options}} {{json .State.Log}} {{json .State}}", 'null null {"Status":"up","Health":null,"Log":null}'),
    ("{{json .Html}}", '"<a&b>"'),
    ("{{.Args | json}}", '["-c","a b"]'),
    ("{{if .Running}}y{{else}}n{{end}}", "y"),
    ("{{if not .Running}}y{{else if .Pid}}p{{else}}n{{end}}", "p"),
    ("{{if .Options}}y{{else}}n{{end}}{{if .State}}s{{end}}", "ns"),
    ("{{with .State}}{{.Status}}{{end}}", "up"),
    ("{{with .State.Health}}x{{else}}none{{end}}", "none"),
    ("{{with $x := .Pid}}{{$x}}{{end}}", "42"),
    ("{{range .Args}}[{{.}}]{{end}}", "[-c][a b]"),
    ("{{range $i, $a := .Args}}{{$i}}={{$a}};{{end}}", "0=-c;1=a b;"),
    ("{{range $k, $v := .Labels}}{{$k}}{{$v}} {{end}}", "a1 b2 "),
    ("{{range $v := .Labels}}{{$v}}{{end}}", "12"),
    ("{{range .State.Log}}x{{else}}empty{{end}}", "empty"),
    ("{{range .Mounts}}{{if .RW}}{{continue}}{{end}}{{.Source}}{{end}}", "/b"),
    ("{{range .Mounts}}{{.Source}}{{break}}{{end}}", "/a"),
    ("{{range .Mounts}}{{$.Name}}{{.Source}} {{end}}", "/web/a /web/b "),
    ("{{range $p, $c := .Ports}}{{$p}}->{{with $c}}{{(index . 0).HostPort}}{{end}} {{end}}", "53/udp-> 80/tcp->8080 "),
    ('{{(index (index .Ports "80/tcp") 0).HostPort}}', "8080"),
    ("{{$x := 1}}{{if true}}{{$x = 2}}{{end}}{{$x}}", "2"),
    ("{{$x := 1}}{{if true}}{{$x := 2}}{{$x}}{{end}}{{$x}}", "21"),
    ("{{len .Args}} {{len .Labels}} {{len .Name}}", "2 2 4"),
    ("{{slice .Name 1}} {{slice .Args 0 1}}", "web [-c]"),
    ('{{join .Args "+"}} {{split "a-b" "-"}} {{upper "a"}}{{lower "B"}}', "-c+a b [a b] Ab"),
    ('{{title "hello-big world"}} {{truncate "abcdef" 3}} {{pad "x" 1 2}}|', "Hello-Big World abc  x  |"),
    (
        '{{eq .Pid 42}} {{ne .Pid 42}} {{lt 1 2}} {{le 2 2}} {{gt "b" "a"}} {{ge 1 2}}',
        "true false true true true false",
    ),
    ('{{eq .Name "/x" "/web"}}', "true"),
    ('{{and 1 0 2}} {{or "" "x"}} {{not ""}}', "0 x true"),
    ("{{and .State.Health .State.Health.Foo}}", "<nil>"),
    ('{{printf "%s" 3}}', "%!s(int=3)"),
    ('{{printf "%d%%" 5}}', "5%"),
    ('{{printf "%d"}}', "%!d(MISSING)"),
    ('{{printf "x" 1}}', "x%!(EXTRA int=1)"),
    ('{{print 1 2 "a" 3}}', "1 2a3"),
    ('{{println "a" 1}}', "a 1\n"),
    ('{{html "<a&\'b\'>"}} {{urlquery "a b&c"}} {{js "a<b"}}', "&lt;a&amp;&#39;b&#39;&gt; a+b%26c a\\u003Cb"),
    (r'{{"tab\there"}} {{`raw\t`}} {{"ü"}} {{"\u00fc\x41\101"}}', "tab\there raw\\t ü üAA"),
    ("{{'a'}} {{0x10}} {{1e3}} {{-5}} {{1_000}}", "97 16 1000 -5 1000"),
    ('{{.Name | printf "%s-%s" .State.Status}}', "up-/web"),
    ('{{"a" | upper | printf "%s%s" "b"}}', "bA"),
    ("{{(.State).Status}} {{(.Pid)}}", "up 42"),
]


@pytest.mark.parametrize(("template", "expected"), RENDERED)
def test_rendering(template: str, expected: str) -> None:
    """The template gives what Go gives."""
    assert compile_template(template).render(DATA) == expected


def test_printf_verbs() -> None:
    """Widths, precisions and flags of printf are Go's."""
    verbs = "%s|%q|%d|%05d|%-4s|%6.2f|%v|%t|%x|%X|%c|%+d|%.2s|%U"
    values = '"a" "b\\n" 3 42 "ab" 1.256 .Args true 255 "hi" 65 7 "xyz" 65'
    template = f'{{{{printf "{verbs}" {values}}}}}'
    assert (
        compile_template(template).render(DATA) == 'a|"b\\n"|3|00042|ab  |  1.26|[-c a b]|true|ff|6869|A|+7|xy|U+0041'
    )


REFUSED = [
    ("{{.Name", "template: :1: unclosed action"),
    ("{{}}", "template: :1: missing value for command"),
    ("{{foo}}", 'template: :1: function "foo" not defined'),
    ("\n\n{{.x | foo}}", 'template: :3: function "foo" not defined'),
    ("{{end}}", "template: :1: unexpected {{end}}"),
    ("{{else}}", "template: :1: unexpected {{else}}"),
    ("{{if .x}}", "template: :1: unexpected EOF"),
    ("{{if}}x{{end}}", "template: :1: missing value for if"),
    ("{{$x}}", 'template: :1: undefined variable "$x"'),
    ('{{"abc}}', "template: :1: unterminated quoted string"),
    ("{{(.x}}", "template: :1: unclosed left paren"),
    ("{{.x)}}", "template: :1: unexpected right paren"),
    ("{{1 | 2}}", "template: :1: non executable command in pipeline stage 2"),
    ("{{break}}", "template: :1: {{break}} outside {{range}}"),
    ("{{/* x }}", "template: :1: unclosed comment"),
    ("{{range $i, $j, $k := .x}}{{end}}", "template: :1: too many declarations in range"),
    ('{{template "x"}}', "template: :1: {{template}} is not supported"),
]


@pytest.mark.parametrize(("template", "message"), REFUSED)
def test_what_does_not_parse(template: str, message: str) -> None:
    """A text that is no template is refused with Go's sentence."""
    with pytest.raises(TemplateError) as caught:
        compile_template(template)
    assert caught.value.message == message
    assert caught.value.parsing


FAILING = [
    ("{{.Foo}}", ':1:2: executing "" at <.Foo>: map has no entry for key "Foo"'),
    ("{{.State.Foo}}", ':1:8: executing "" at <.State.Foo>: map has no entry for key "Foo"'),
    ("\n {{.Name.Foo}}", ':2:8: executing "" at <.Name.Foo>: can\'t evaluate field Foo in type string'),
    ("{{len 3}}", ':1:2: executing "" at <len 3>: error calling len: len of type int'),
    ("{{index .Args 9}}", ':1:2: executing "" at <index .Args 9>: error calling index: index out of range: 9'),
    ("{{range .Name}}{{end}}", ':1:8: executing "" at <.Name>: range can\'t iterate over /web'),
    ("{{nil}}", ':1:2: executing "" at <nil>: nil is not a command'),
    ('{{lt 1 "a"}}', ':1:2: executing "" at <lt 1 "a">: error calling lt: incompatible types for comparison'),
]


@pytest.mark.parametrize(("template", "message"), FAILING)
def test_what_fails_while_it_runs(template: str, message: str) -> None:
    """A template that meets data it can't use fails with Go's sentence and place."""
    with pytest.raises(TemplateError) as caught:
        compile_template(template).render(DATA)
    assert caught.value.message == f"template: {message}"


def test_rows_have_fields_and_methods() -> None:
    """A row's fields are computed when asked for; Label takes a name; the row's JSON escapes HTML and is sorted."""
    row = Row("*x.Context", {"B": lambda: "->", "A": lambda: "a"}, {"Label": lambda name: f"<{name}>"})
    assert compile_template('{{.A}} {{.Label "q"}} {{json .}}').render(row) == 'a <q> {"A":"a","B":"-\\u003e"}'
    with pytest.raises(TemplateError, match=r"can't evaluate field C in type \*x.Context"):
        compile_template("{{.C}}").render(row)
    with pytest.raises(TemplateError, match="wrong number of args for Label: want 1 got 0"):
        compile_template("{{.Label}}").render(row)


def test_json_from_the_api_gets_gos_types() -> None:
    """Maps and nil lists are told from structs by the names of their fields."""
    seen = with_go_types({"Config": {"Labels": {"b": "1", "a": "2"}, "Cmd": None, "Env": ["x"]}, "Ports": None})
    template = "{{.Config.Labels}} {{.Config.Cmd}} {{.Config.Env}} {{.Ports}} {{json .Config.Cmd}} {{.Config.Labels.q}}"
    assert compile_template(template).render(seen) == "map[a:2 b:1] [] [x] map[] null <no value>"


def test_deep_nesting_is_refused() -> None:
    """A template nested beyond reason is an error, not a crash."""
    with pytest.raises(TemplateError, match="nested too deeply"):
        compile_template("{{if .x}}" * 500 + "{{end}}" * 500)
