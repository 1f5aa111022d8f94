"""The scripts that copy files in a guest whose agent has no commands for that.

/bin/sh runs them, with the tools of POSIX, and stat(1), readlink(1) and sha256sum(1) as coreutils
and busybox have them. Names are arguments of the scripts and never parts of them.

What must stay true: nothing is made outside the directory that was named. `enter` goes down
directory by directory and compares where it has come to, so that a link that somebody in the guest
has put in the way is noticed; then names in the current directory are all that is used. A file
gets owner and permissions through a descriptor, and only if it is the one that we have made.
"""

from __future__ import annotations

from typing import NamedTuple


class Script(NamedTuple):
    """What /bin/sh in the guest is to run, and what for, as an error says it."""

    purpose: str
    text: str


# Prints the umask where there is what the others need.
HAS_TOOLS = Script(
    "looking for its tools",
    """
for tool in find stat readlink; do command -v "$tool" || exit; done >/dev/null
umask
""",
)

FIND = Script(
    "looking for a file",
    """
if [ -e "$1" ]; then stat -L -c "%f %s" -- "$1"; fi
""",
)

LIST = Script(
    "listing a directory",
    r"""
cd -- "$1" && find . -mindepth 1 -exec sh -c '
if lines=$(stat -c "%f %s" -- "$@" 2>/dev/null); then
    printf "%s\n%s\n" "$#" "$lines"
    printf "%s\0" "$@"
else
    for name; do
        line=$(stat -c "%f %s" -- "$name") && printf "1\n%s\n%s\0" "$line" "$name"
    done
fi
' sh {} +
""",
)

LINKS = Script(
    "reading symbolic links",
    r"""
cd -- "$1" && shift && for link; do readlink -n -- "$link"; printf "\0"; done
""",
)

CHECKSUMS = Script(
    "computing checksums",
    """
while [ $# -gt 0 ]; do
    if [ -r "$1" ]; then
        tail -c "+$(($2 + 1))" -- "$1" | head -c "$3" | sha256sum
    else
        echo
    fi
    shift 3
done
""",
)

# Go to the directory $2 below $1, by no link.
ENTER = """
go() {
    cd -P -- "$1" 2>/dev/null && return
    if [ -d "$1" ]; then reason="Permission denied"
    elif [ -e "$1" ]; then reason="Not a directory"
    else reason="No such file or directory"
    fi
    echo "$1: $reason"
    return 1
}
enter() {
    go "$1" || return
    rest=$2
    while [ -n "$rest" ]; do
        part=${rest%%/*}
        case $rest in
            */*) rest=${rest#*/} ;;
            *) rest= ;;
        esac
        expected=${PWD%/}/$part
        go "./$part" || return
        if [ "$PWD" != "$expected" ]; then
            echo "$expected: a symbolic link is in the way"
            return 1
        fi
    done
}
"""

# `act` for each lot of $1 arguments: what it says, and its status. The first three of a lot are a
# Place: top, directory below that, name therein. Nothing here forks but for what `act` runs.
EACH = """
width=$1
shift
while [ $# -gt 0 ]; do
    act "$@" 2>&1
    printf "\\0%s\\0" "$?"
    shift "$width"
done
"""

LOOK = Script(
    "looking for files",
    """
act() {
    enter "$1" "$2" || return
    if [ -e "./$3" ] || [ -L "./$3" ]; then stat -c "%f %s" -- "./$3"; fi
}
""",
)

# Who has made the link and in what directory, what it leads to, and where that is.
FOLLOW = Script(
    "following a symbolic link",
    """
act() {
    enter "$1" "$2" || return
    stat -c %u -- "./$3" && stat -c "%f %u" . && id -u || return
    if [ ! -e "./$3" ]; then
        echo "is a symbolic link to a missing file, or one that may not be followed"
        return 1
    fi
    stat -L -c "%f %s" -- "./$3" && readlink -f -- "./$3"
}
""",
)

MAKE_FOLDER = Script(
    "making directories",
    """
act() {
    enter "$1" "$2" && mkdir -m 700 -- "./$3"
}
""",
)

# With -C a file that is there is an error, and no link is followed (O_EXCL). With an umask $4 the
# file has its permissions at once; else it is ours alone, and we must know it again.
CREATE = Script(
    "creating files",
    """
set -C
act() {
    enter "$1" "$2" || return
    umask "${4:-077}"
    if [ -n "$4" ]; then
        { :; } >"./$3"
    else
        { stat -L -c "%d:%i" /proc/self/fd/3; } 3>"./$3"
    fi
}
""",
)

TAKE_UP = Script(
    "looking at an unfinished copy",
    """
act() {
    enter "$1" "$2" || return
    if [ -L "./$3" ] || { [ -e "./$3" ] && { [ ! -f "./$3" ] || [ ! -O "./$3" ]; }; }; then
        echo "is not a file of the agent's user"
        return 1
    fi
    [ ! -e "./$3" ] || { stat -L -c "%d:%i %h %f %s" /proc/self/fd/3; } 3<>"./$3"
}
""",
)

# $4 is the temporary name, $5 which file that must be ("": it has its permissions), $6 its
# permissions, and $7 is whether they hold for what is in its place, too. An owner that cannot be
# kept by replacing a file is kept by writing into it.
FINISH = Script(
    "putting files in their places",
    """
act() {
    enter "$1" "$2" || return
    if [ -L "./$3" ] || { [ -e "./$3" ] && [ ! -f "./$3" ]; }; then
        echo "a link, device or directory of this name is in the way"
        return 1
    fi
    if [ -n "$5" ]; then
        put "$@" 3<"./$4"
    elif [ -e "./$3" ]; then
        echo "another process created this file meanwhile"
        return 1
    else
        rename "./$4" "./$3"
    fi
}
# Without -T (busybox): the target was not a directory when it was looked at.
rename() {
    mv -fT -- "$1" "$2" 2>/dev/null || mv -f -- "$1" "$2"
}
put() {
    if [ "$(stat -L -c %d:%i /proc/self/fd/3)" != "$5" ]; then
        echo "another process replaced $4"
        return 1
    fi
    mode=$6
    if [ -f "./$3" ]; then
        was=$(stat -c "%u:%g %a" -- "./$3") || return
        if ! chown -- "${was% *}" /proc/self/fd/3 2>/dev/null; then
            cat <&3 >"./$3" && rm -f -- "./$4"
            return
        fi
        [ -n "$7" ] || mode=$(printf %o $((0${was#* } & 0777)))
    fi
    chmod -- "$mode" /proc/self/fd/3 && rename "./$4" "./$3"
}
""",
)

MAKE_LINK = Script(
    "making symbolic links",
    """
act() {
    enter "$1" "$2" || return
    if [ -L "./$3" ]; then
        rm -f -- "./$3" || return
    elif [ -e "./$3" ]; then
        echo "a file or directory of this name is in the way"
        return 1
    fi
    ln -sn -- "$4" "./$3"
}
""",
)

SET_PERMISSIONS = Script(
    "setting permissions",
    """
act() {
    enter "$1" "${2:+$2/}$3" && chmod -- "$4" .
}
""",
)

# Not beside a device: /dev/pts, for one, takes no files.
MAKE_TEMPORARY = Script(
    "making a temporary file",
    """
mktemp
""",
)

# $4 is what goes into the device or FIFO $3, whose kind -c or -p is $5.
POUR = Script(
    "writing into a device or FIFO",
    """
act() {
    enter "$1" "$2" || return
    if [ -L "./$3" ] || ! [ "$5" "./$3" ]; then
        echo "was replaced by another file"
        return 1
    fi
    cat -- "$4" >"./$3"
}
""",
)

REMOVE = Script(
    "removing files",
    """
act() {
    enter "$1" "$2" && rm -f -- "./$3"
}
""",
)
