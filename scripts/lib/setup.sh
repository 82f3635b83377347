# Sourced by scripts/demo and scripts/test: what tdxfs needs from the system, and the virtual environment.
# Needs $root, the checkout. Says plainly what is missing when it cannot install it.

say() {
    printf '%s\n' "$*" >&2
}

has_library() {
    { PATH="$PATH:/sbin:/usr/sbin" ldconfig -p 2>/dev/null || true; } | grep -q "$1"
}

# find_python: sets $python to one that is new enough and can make environments. The system's own first: others are
# often built without what makes it a sixth faster (--enable-optimizations); then the newest
find_python() {
    python=
    for candidate in /usr/bin/python3 python3.13 python3.12 python3.11 python3; do
        if "$candidate" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            python=$candidate
            return 0
        fi
    done
    return 1
}

# missing_packages NAME...: prints those of the named Debian packages whose content is not there
missing_packages() {
    for package in "$@"; do
        case $package in
        python3-venv) find_python || echo "$package" ;;
        libfuse2) has_library 'libfuse\.so\.2' || echo "$package" ;;
        libfuse-dev) pkg-config --exists fuse 2>/dev/null || echo "$package" ;;
        libseccomp2) has_library 'libseccomp\.so\.2' || echo "$package" ;;
        libc6-dev) [ -e /usr/include/stdio.h ] || echo "$package" ;;
        fuse3) command -v fusermount >/dev/null || command -v fusermount3 >/dev/null || echo "$package" ;;
        hwloc-nox) command -v lstopo-no-graphics >/dev/null || echo "$package" ;;
        libtool) command -v libtoolize >/dev/null || echo "$package" ;;
        dpkg-dev) command -v dpkg-source >/dev/null || echo "$package" ;;
        util-linux) command -v lsmem >/dev/null || echo "$package" ;;
        *) command -v "$package" >/dev/null || echo "$package" ;;
        esac
    done
}

# need NAME...: installs what is missing of the named packages, or says what to install and fails
need() {
    missing=$(missing_packages "$@" | tr '\n' ' ')
    [ -n "$missing" ] || return 0
    if [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null; then
        say "installing: $missing"
        # shellcheck disable=SC2086  # a list of package names
        if ! { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing; } \
            >/dev/null 2>&1; then
            say "$0: apt-get could not install all of: $missing"
        fi
        missing=$(missing_packages "$@" | tr '\n' ' ')
        [ -n "$missing" ] || return 0
    fi
    say "$0: please install these packages (Debian names) and run again: $missing"
    case $missing in *python3-venv*) say "$0: Python 3.11 or newer with venv is needed" ;; esac
    return 1
}

# environment: makes $root/.venv, again only when what it depends on has changed
environment() {
    venv=$root/.venv
    stamp=$venv/.tdxfs-stamp
    wanted=$(cat "$root/setup.cfg" "$root/pyproject.toml" | cksum)
    if [ -x "$venv/bin/tdxfs" ] && [ -e "$stamp" ] && [ "$(cat "$stamp")" = "$wanted $root" ]; then
        return 0
    fi
    find_python
    say "setting up $venv with $("$python" --version)"
    "$venv/bin/python" -c 'import pip' 2>/dev/null || "$python" -m venv --clear "$venv"
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --editable "$root[test]"
    printf '%s\n' "$wanted $root" >"$stamp"
}
