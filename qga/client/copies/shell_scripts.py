"""The scripts that list, rename and compare files in a guest.

/bin/sh runs them, with the POSIX tools and with stat(1), readlink(1) and sha256sum(1) of coreutils
or busybox. Names are passed as arguments and are never part of a script.

What must stay true: nothing is created outside the named directory. `enter` descends directory by
directory and compares the resulting path, so that it detects a link that somebody in the guest put
there; after that, only names in the current directory are used. Owner and permissions of a file are
set through a descriptor, and only if it is the file that the copy created.
"""

from __future__ import annotations

from typing import NamedTuple


class Script(NamedTuple):
    """A script for /bin/sh in the guest, and its purpose for error messages."""

    purpose: str
    text: str


# Prints the umask if the guest has the tools that the other scripts need.
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
    if [ -f "$1" ] && [ -r "$1" ]; then
        tail -c "+$(($2 + 1))" -- "$1" | head -c "$3" | sha256sum
    else
        echo
    fi
    shift 3
done
""",
)

# Change to the directory $2 below $1 without following links.
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

# `trusted` fails, with the prefix $2, if the file $1 may be another user's trap: see `is_planted`.
# `own` fails unless descriptor 3 is a regular file of the agent's user.
OWNERS = """
trusted() {
    around=$(stat -c "%a %u" .) && owner=$(stat -c %u -- "$1") || return
    [ "$((0${around% *} & 01002))" -eq "$((01002))" ] || return 0
    [ "$owner" != "${around#* }" ] && [ "$owner" != "$(id -u)" ] || return 0
    if [ -L "$1" ]; then kind="symbolic link"
    elif [ -p "$1" ]; then kind=FIFO
    else kind=file
    fi
    echo "$2is another user's $kind in a world-writable directory"
    return 1
}
own() {
    [ -f /proc/self/fd/3 ] && [ -O /proc/self/fd/3 ] && return
    echo "is not a file of the agent's user"
    return 1
}
"""

# Call `act` for each group of $1 arguments, and print its output and status. The first three of a
# group are a Place: top, directory below it, name in that. Only what `act` runs is forked.
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

# The file that a link leads to, and its path.
FOLLOW = Script(
    "following a symbolic link",
    """
act() {
    enter "$1" "$2" && trusted "./$3" || return
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

# With -C an existing file is an error, and no link is followed (O_EXCL). With an umask $4 the file
# has its final permissions at once; otherwise it has mode 0600, and its inode is printed. A FIFO or
# device of that name is refused by `own`, because -C does not.
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
        { own && stat -L -c "%d:%i" /proc/self/fd/3; } 3>"./$3"
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
    [ ! -e "./$3" ] || { own && stat -L -c "%d:%i %h %f %s" /proc/self/fd/3; } 3<>"./$3"
}
""",
)

# $4 is the temporary name, $5 its expected inode ("" if its permissions are final), $6 its
# permissions, and $7 whether they also replace those of an existing file. If the owner of an
# existing file cannot be kept by replacing it, the file is overwritten.
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
# Without -T (busybox): $2 was not a directory when it was checked.
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
        trusted "./$3" || return
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

# Not next to the device: /dev/pts, for example, takes no files.
MAKE_TEMPORARY = Script(
    "making a temporary file",
    """
mktemp
""",
)

# $4 is the file to write into the device or FIFO $3, whose type -b, -c or -p is $5.
POUR = Script(
    "writing into a device or FIFO",
    """
act() {
    enter "$1" "$2" || return
    if [ -L "./$3" ] || ! [ "$5" "./$3" ]; then
        echo "was replaced by another file"
        return 1
    fi
    trusted "./$3" "${PWD%/}/$3: " && cat -- "$4" >"./$3"
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
