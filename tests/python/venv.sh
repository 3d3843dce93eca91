#!/usr/bin/env bash
# Creates or renews the virtual environment that the Python tests and the infrastructure checks use.
#
#   tests/python/venv.sh            makes ${HEADWORKS_VENV:-target/venv}; says nothing when it is up to date
#   tests/python/venv.sh --path     the same, then prints the environment's directory on stdout
#   tests/python/venv.sh --force    builds it anew
#
# Data goes to stdout, talk to stderr. Exit codes: 0 ready, 1 could not be made, 2 wrong usage.
#
# Idempotent: a stamp in the environment holds the hash of the pins, of this script and of the
# interpreter's version; nothing is done while it matches. Several processes may call it at once.
#
# HEADWORKS_VENV   directory of the environment, default target/venv in the repository
# PYTHON           interpreter to build it from, default python3; 3.11 or newer
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
venv=${HEADWORKS_VENV:-$root/target/venv}
python=${PYTHON:-python3}
print_path=false
force=false

say() { printf 'venv: %s\n' "$*" >&2; }
die() {
    printf 'venv: error: %s\n' "$1" >&2
    shift
    local line
    for line in "$@"; do printf 'venv:   %s\n' "$line" >&2; done
    exit 1
}

for argument in "$@"; do
    case $argument in
        --path) print_path=true ;;
        --force) force=true ;;
        -h | --help)
            sed -n '2,/^set /p' "${BASH_SOURCE[0]}" | sed '$d; s/^# \{0,1\}//'
            exit 0
            ;;
        *)
            say "unknown argument '$argument'; known are --path, --force and --help"
            exit 2
            ;;
    esac
done

case $venv in
    /*) ;;
    *) venv=$PWD/$venv ;;
esac

command -v "$python" >/dev/null 2>&1 || die "no interpreter '$python' on the PATH" \
    "Debian: apt-get install python3 python3-venv; or set PYTHON to a Python 3.11 or newer"
version=$("$python" -c 'import platform, sys; print(platform.python_version(), int(sys.version_info >= (3, 11)))') ||
    die "'$python' does not run" "set PYTHON to a working Python 3.11 or newer"
[ "${version#* }" = 1 ] || die "'$python' is Python ${version% *}, 3.11 or newer is needed" \
    "set PYTHON, for example PYTHON=python3.11"
version=${version% *}

fingerprint() {
    {
        cat "$here/requirements.txt" "$here/constraints.txt" "$here/venv.sh"
        printf '%s\n' "$version"
    } | "$python" -c 'import hashlib, sys; print(hashlib.sha256(sys.stdin.buffer.read()).hexdigest())'
}

stamp=$venv/.headworks-stamp
wanted=$(fingerprint)

is_current() {
    [ "$force" = false ] && [ -x "$venv/bin/python" ] && [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ] &&
        "$venv/bin/python" -c '' 2>/dev/null
}

done_with_it() {
    if [ "$print_path" = true ]; then printf '%s\n' "$venv"; fi
    exit 0
}

if is_current; then done_with_it; fi

# One builder at a time: whoever waited finds the work done.
mkdir -p "$(dirname "$venv")"
exec 9>"$venv.lock"
if command -v flock >/dev/null 2>&1; then
    if ! flock --nonblock 9; then
        say "another process is building $venv; waiting for it"
        flock 9
    fi
    if is_current; then done_with_it; fi
fi

# Never delete a directory that merely happens to be named: only environments are replaced.
if [ -e "$venv" ] && [ ! -f "$venv/pyvenv.cfg" ] && [ -n "$(ls -A "$venv" 2>/dev/null)" ]; then
    die "$venv exists and is not a virtual environment" "remove it, or set HEADWORKS_VENV to another directory"
fi
rm -rf "$venv"

log=$venv.log
: >"$log"

# Debian splits ensurepip off into python3-venv, and virtualenv and pip into packages of their own, so
# a fresh machine may have any subset. Each way is tried in turn; what they said is in the log.
make_environment() {
    say "creating $venv with Python $version"
    if "$python" -m venv "$venv" >>"$log" 2>&1; then return 0; fi
    rm -rf "$venv"
    if "$python" -m virtualenv --quiet "$venv" >>"$log" 2>&1; then return 0; fi
    rm -rf "$venv"
    if "$python" -m venv --without-pip "$venv" >>"$log" 2>&1; then
        say "python3-venv is missing; installing pip into the environment with the system's pip"
        if "$python" -m pip --python "$venv/bin/python" install --quiet pip >>"$log" 2>&1; then return 0; fi
    fi
    rm -rf "$venv"
    return 1
}

make_environment || {
    tail -n 15 "$log" >&2
    die "Python $version can make no virtual environment (see above and $log)" \
        "Debian or Ubuntu: apt-get install python3-venv" \
        "elsewhere: $python -m pip install --user virtualenv"
}

packages=$(grep -c '==' "$here/constraints.txt")
say "installing $packages packages (about 200 MB on disk; half a minute to a few minutes)"
pip=("$venv/bin/python" -m pip --disable-pip-version-check)
started=$SECONDS
"${pip[@]}" install --no-input --progress-bar off \
    --requirement "$here/requirements.txt" --constraint "$here/constraints.txt" >>"$log" 2>&1 &
installer=$!
trap 'kill "$installer" 2>/dev/null || true' INT TERM
while kill -0 "$installer" 2>/dev/null; do
    sleep 1
    if [ $(((SECONDS - started) % 10)) = 0 ]; then
        collected=$(grep -c '^Collecting ' "$log" || true)
        if [ "$collected" -ge "$packages" ]; then collected="all"; fi
        say "$((SECONDS - started)) s: $collected of $packages packages collected"
    fi
done
wait "$installer" || {
    grep -E '^(WARNING: Retrying|ERROR|error)' "$log" | tail -n 8 | cut -c 1-300 >&2 || tail -n 15 "$log" >&2
    die "pip could not install the pinned packages (log: $log)" \
        "no network or a proxy: set HTTPS_PROXY or PIP_INDEX_URL" \
        "no wheel for this platform: use Python 3.11 or newer on x86_64 or aarch64 Linux with glibc, or macOS"
}
trap - INT TERM

"${pip[@]}" check >>"$log" 2>&1 || {
    tail -n 15 "$log" >&2
    die "the installed packages contradict each other (log: $log)" "renew tests/python/constraints.txt"
}

printf '%s\n' "$wanted" >"$stamp"
say "ready after $((SECONDS - started)) s: $venv"
done_with_it
