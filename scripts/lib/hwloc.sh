# Sourced by scripts/conformance: hwloc's test-suite, out of Debian's source package.

# hwloc_recordings DIR: fetches the source into DIR, unless it is there, and sets $recordings to its recorded machines.
# The system's apt configuration is left alone: a copy of its sources, with deb-src for deb, has lists of its own.
hwloc_recordings() {
    place=$1
    recordings=$(find "$place" -type d -path '*/tests/hwloc/linux' 2>/dev/null | head -n 1)
    [ -z "$recordings" ] || return 0
    mkdir -p "$place/etc" "$place/lists/partial"
    for file in /etc/apt/sources.list.d/*.sources; do
        sed 's/^Types: deb$/Types: deb-src/' "$file"
        echo
    done >"$place/etc/src.sources"
    set -- -o Dir::Etc::sourcelist=/dev/null -o "Dir::Etc::sourceparts=$place/etc" -o "Dir::State::Lists=$place/lists"
    (
        cd "$place"
        apt-get "$@" update -qq
        apt-get "$@" source -qq --download-only hwloc
        tar xf hwloc_*.orig.tar.*
    ) >"$place/fetch.log" 2>&1 || {
        say "$0: the source of hwloc could not be fetched: see $place/fetch.log"
        return 1
    }
    recordings=$(find "$place" -type d -path '*/tests/hwloc/linux' | head -n 1)
}
