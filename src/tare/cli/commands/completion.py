"""`tare completion`: a script that lets a shell complete `tare`'s commands, flags and names."""

from __future__ import annotations

from tare.cli.command import CliError, Command, Values
from tare.cli.completion import SHELLS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tare.cli.session import Session

# Each asks `tare __complete`, whose first line says what else may be offered; the rest is value<TAB>description.
BASH = r"""# bash completion for tare; load it with:  source <(tare completion bash)
_tare() {
    local line=${COMP_LINE:0:COMP_POINT} full stem="" mode value
    full=${line##*[[:space:]]}
    # bash takes a word apart at these; what is before the last one must not be repeated
    case $COMP_WORDBREAKS in *:*=* | *=*:*) stem=${full%"${full##*[:=]}"} ;; esac
    COMPREPLY=()
    {
        IFS= read -r mode
        while IFS=$'\t' read -r value _; do
            COMPREPLY+=("${value#"$stem"}")
        done
    } < <("${COMP_WORDS[0]}" __complete --line "$line" 2>/dev/null)
    case $mode in
        :files) compopt -o default 2>/dev/null ;;
        :nospace) compopt -o nospace 2>/dev/null ;;
    esac
}
complete -F _tare tare
"""
ZSH = r"""#compdef tare
# zsh completion for tare; load it with:  source <(tare completion zsh)
_tare() {
    local line mode
    local -a values shown options
    {
        IFS= read -r mode
        while IFS= read -r line; do
            values+=("${line%%$'\t'*}")
            shown+=("${line/$'\t'/ -- }")
        done
    } < <("${words[1]}" __complete -- "${(@)words[2,CURRENT-1]}" "$PREFIX" 2>/dev/null)
    [[ $mode == :nospace ]] && options=(-S '')
    (( $#values )) && compadd $options -l -d shown -a values
    [[ $mode == :files ]] && _files
    return 0
}
(( $+functions[compdef] )) && compdef _tare tare
"""
FISH = r"""# fish completion for tare; load it with:  tare completion fish | source
function __tare_complete
    set -l words (commandline -opc)
    set -l answer ($words[1] __complete -- $words[2..-1] (commandline -ct) 2>/dev/null)
    test (count $answer) -gt 0; or return
    test $answer[1] = :files; and __fish_complete_path (commandline -ct)
    printf '%s\n' $answer[2..-1]
end
complete -c tare -f -a '(__tare_complete)'
"""
SCRIPTS = {"bash": BASH, "zsh": ZSH, "fish": FISH}


def run(session: Session, _flags: Values, arguments: list[str]) -> int:
    script = SCRIPTS.get(arguments[0])
    if script is None:
        raise CliError(f"tare: no completion for {arguments[0]}; there is one for {', '.join(SHELLS)}")
    session.out(script.rstrip("\n"))
    return 0


COMMAND = Command("SHELL", run, least=1, most=1)
