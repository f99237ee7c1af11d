"""Completion scripts of bash, zsh and fish. They hold all words themselves: a key press starts no Python."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Mapping

from depthray.cli.shells.completed_words import Flag, Keys, Place, Places

Tables = Mapping[str, Keys]  # override keys by the name of their table

# Shared by bash and zsh, whose `case` is the same. Each function sets variables of its caller.
_LOOKUP = """\
_depthray_place() {{
    words_here='' flags_here='' valued_here='' keys_here='' files_here=''
    case "$1" in
{places}
    *) return 1 ;;
    esac
}}
_depthray_values() {{
    values_here=''
    case "$1" in
{values}
    *) return 1 ;;
    esac
}}
_depthray_keys() {{
    case "$1" in
{keys}
    esac
}}
"""

_BASH = """\
# Completion of depthray in bash: depthray shell-completion bash
{lookup}
_depthray() {{
    local current="${{COMP_WORDS[COMP_CWORD]}}" before="${{COMP_WORDS[COMP_CWORD-1]}}"
    local place='' words_here flags_here valued_here keys_here files_here values_here candidates=''
    if (( COMP_CWORD > 1 )); then place="${{COMP_WORDS[1]}}"; fi
    if (( COMP_CWORD > 2 )) && _depthray_place "$place ${{COMP_WORDS[2]}}"; then place="$place ${{COMP_WORDS[2]}}"; fi
    COMPREPLY=()
    _depthray_place "$place" || return 0
    # Readline splits words at "=": KEY, "=" and the beginning of a value.
    if [[ $current == '=' ]]; then current=''; before="$before="
    elif [[ $before == '=' ]]; then before="${{COMP_WORDS[COMP_CWORD-2]}}="
    fi
    if [[ $before == --*= ]]; then before="${{before%=}}"; fi
    if [[ $before == *= ]]; then
        if _depthray_values "$keys_here ${{before%=}}"; then COMPREPLY=($(compgen -W "$values_here" -- "$current")); fi
        return 0
    fi
    if [[ " $valued_here " == *" $before "* ]]; then
        if _depthray_values "$place $before"; then COMPREPLY=($(compgen -W "$values_here" -- "$current")); fi
        return 0
    fi
    if [[ $current == -* ]]; then
        COMPREPLY=($(compgen -W "$flags_here" -- "$current"))
        return 0
    fi
    candidates="$words_here"
    if [[ -n $keys_here ]]; then
        if [[ $current == *.* ]]; then candidates="$candidates $(_depthray_keys "$keys_here")"
        else candidates="$candidates $(_depthray_keys "$keys_here sections")"; fi
    fi
    COMPREPLY=($(compgen -W "$candidates" -- "$current"))
    if [[ -n $files_here ]]; then
        local file
        while IFS= read -r file; do COMPREPLY+=("$file"); done < <(compgen -f -- "$current")
        compopt -o filenames 2> /dev/null
    fi
    if [[ ${{#COMPREPLY[@]}} == 1 && ${{COMPREPLY[0]}} == *[.=] ]]; then compopt -o nospace 2> /dev/null; fi
}}
complete -o default -F _depthray depthray
"""

_ZSH = """\
#compdef depthray
# Completion of depthray in zsh: depthray shell-completion zsh
{lookup}
_depthray() {{
    local current="${{words[CURRENT]}}" before="${{words[CURRENT-1]}}"
    local place='' words_here flags_here valued_here keys_here files_here values_here
    if (( CURRENT > 2 )); then place="${{words[2]}}"; fi
    if (( CURRENT > 3 )) && _depthray_place "$place ${{words[3]}}"; then place="$place ${{words[3]}}"; fi
    _depthray_place "$place" || {{ _files; return }}
    if [[ $current == --*=* ]]; then before="${{current%%=*}}"; compset -P '*='
    elif [[ $current == *=* ]]; then
        compset -P '*='
        if _depthray_values "$keys_here ${{current%%=*}}"; then compadd -- ${{=values_here}}; else _files; fi
        return
    fi
    if [[ " $valued_here " == *" $before "* ]]; then
        if _depthray_values "$place $before"; then compadd -- ${{=values_here}}; else _files; fi
        return
    fi
    if [[ $current == -* ]]; then compadd -- ${{=flags_here}}; return; fi
    compadd -- ${{=words_here}}
    if [[ -n $keys_here ]]; then
        if [[ $current == *.* ]]; then compadd -S '' -- $(_depthray_keys "$keys_here")
        else compadd -S '' -- $(_depthray_keys "$keys_here sections"); fi
    fi
    if [[ -n $files_here || -z $words_here ]]; then _files; fi
}}
if [[ "${{funcstack[1]}}" == _depthray ]]; then _depthray "$@"; else compdef _depthray depthray; fi
"""

_FISH = """\
# Completion of depthray in fish: depthray shell-completion fish
function __depthray_at
    set -l given (commandline -opc)
    set -l expected (string split ' ' -- $argv[1])
    set -l last (math 1 + (count $expected))
    test (count $given) -ge $last; and test "$given[2..$last]" = "$expected"; or return 1
    test (count $given) -eq $last; or not contains -- $given[(math $last + 1)] $argv[2..-1]
end
function __depthray_first
    test (count (commandline -opc)) -eq 1
end
complete -c depthray -n __depthray_first -f
{lines}
"""


def bash(places: Places, tables: Tables) -> str:
    """The script to source in bash 4.4 or newer."""
    return _BASH.format(lookup=_lookup(places, tables))


def zsh(places: Places, tables: Tables) -> str:
    """The script to source in zsh, or to put into a folder of its `fpath` as `_depthray`."""
    return _ZSH.format(lookup=_lookup(places, tables))


def fish(places: Places, tables: Tables) -> str:
    """The script to source in fish, with the meaning of each word."""
    lines = []
    for name, place in places.items():
        verbs = [word for word in place.words if name and f"{name} {word}" in places]
        condition = f"__depthray_at '{name}' {' '.join(verbs)}".strip() if name else "__depthray_first"
        lines += _fish_lines(f'complete -c depthray -n "{condition}"', place, tables)
    return _FISH.format(lines="\n".join(lines))


SHELLS: dict[str, Callable[[Places, Tables], str]] = {"bash": bash, "zsh": zsh, "fish": fish}


def _lookup(places: Places, tables: Tables) -> str:
    rows = [f"    {shlex.quote(name)}) {_assignments(place)} ;;" for name, place in places.items()]
    values = {f"{name} {flag.name}": flag.values for name, place in places.items() for flag in place.flags}
    values |= {f"{table} {key}": known for table, keys in tables.items() for key, known in keys.items()}
    listed = {}
    for table, keys in tables.items():
        listed[table] = [f"{key}=" for key in keys]
        listed[f"{table} sections"] = _sections(keys)
    return _LOOKUP.format(
        places="\n".join(rows),
        values="\n".join(
            f"    {shlex.quote(name)}) values_here={_join(known)} ;;" for name, known in values.items() if known
        ),
        keys="\n".join(f"    {shlex.quote(name)}) echo {' '.join(words)} ;;" for name, words in listed.items()),
    )


def _sections(keys: Keys) -> list[str]:
    """The beginnings of override keys: `optim.`, and keys outside of sections whole."""
    return list(dict.fromkeys(f"{key.partition('.')[0]}." if "." in key else f"{key}=" for key in keys))


def _assignments(place: Place) -> str:
    valued = [flag.name for flag in place.flags if flag.takes_value]
    return (
        f"words_here={_join(place.words)} flags_here={_join(flag.name for flag in place.flags)} "
        f"valued_here={_join(valued)} keys_here={shlex.quote(place.keys)} files_here={'1' if place.takes_files else ''}"
    )


def _join(words: Iterable[str]) -> str:
    return shlex.quote(" ".join(words))


def _fish_lines(start: str, place: Place, tables: Tables) -> list[str]:
    lines = [f"{start} {_fish_flag(flag)}" for flag in place.flags]
    lines += [f"{start} -a {_fish_quote(word)} -d {_fish_quote(about)}" for word, about in place.words.items()]
    for key, values in tables.get(place.keys, {}).items():
        pairs = [f"{key}={value}" for value in values] or [f"{key}="]
        lines.append(f"{start} -a {_fish_quote(' '.join(pairs))} -d override")
    return lines


def _fish_flag(flag: Flag) -> str:
    values = f" -x -a {_fish_quote(' '.join(flag.values))}" if flag.values else " -r" if flag.takes_value else ""
    kind = "l" if flag.name.startswith("--") else "s"
    return f"-{kind} {flag.name.lstrip('-')}{values} -d {_fish_quote(flag.about)}"


def _fish_quote(text: str) -> str:
    return "'" + " ".join(text.split()).replace("\\", "\\\\").replace("'", "\\'") + "'"
