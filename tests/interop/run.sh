#!/usr/bin/env bash
# The interop suite: the embedded stack, the consumer and the gateway beside the real KCL, KPL and other
# emulators.
#
#   tests/interop/run.sh                  every part
#   tests/interop/run.sh kcl kpl          those parts: kcl, kpl, node, differential, emulators
#   tests/interop/run.sh kcl -- -k split  passes the rest on: only scenarios whose name has this word
#
# Talk goes to stderr. Exit codes: 0 all passed, 1 something differs, 2 wrong usage, 3 a tool is missing (it is
# named, with the remedy; nothing is skipped).
#
# HEADWORKS_AWS=1   the differential part also runs against the real service; see suite/differential.py. Untried.
#
# What is fetched (by name and pinned version, from Maven Central, npm and PyPI) goes to target/interop and the
# tools' own caches. Every program that is started is ended by its process id.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
target=${CARGO_TARGET_DIR:-$root/target}
work=$target/interop
cargo=${CARGO:-cargo}

say() { printf 'interop: %s\n' "$*" >&2; }
die() {
    local code=$1
    shift
    printf 'interop: error: %s\n' "$1" >&2
    shift
    local line
    for line in "$@"; do printf 'interop:   %s\n' "$line" >&2; done
    exit "$code"
}

parts=()
while [ $# -gt 0 ]; do
    case $1 in
        kcl | kpl | node | differential | emulators) parts+=("$1") ;;
        --)
            shift
            break
            ;;
        -h | --help)
            sed -n '2,/^set /p' "${BASH_SOURCE[0]}" | sed '$d; s/^# \{0,1\}//'
            exit 0
            ;;
        *) die 2 "unknown part '$1'" "known are kcl, kpl, node, differential and emulators; --help tells more" ;;
    esac
    shift
done
[ ${#parts[@]} -gt 0 ] || parts=(kcl kpl node differential emulators)

wants() {
    local part
    for part in "${parts[@]}"; do
        local word
        for word in "$@"; do [ "$part" = "$word" ] && return 0; done
    done
    return 1
}

# All missing tools at once, each with its remedy.
missing=()
need() { command -v "$1" >/dev/null 2>&1 || missing+=("$1 is not on the PATH: $2"); }
need "$cargo" "install Rust with rustup, or set CARGO"
need python3 "install Python 3.11 or newer (Debian: apt-get install python3 python3-venv)"
if wants kcl kpl; then
    need java "install a JDK, 17 or newer (Debian: apt-get install openjdk-17-jdk-headless)"
    need javac "install a JDK, 17 or newer, not only the runtime (Debian: apt-get install openjdk-17-jdk-headless)"
    need mvn "install Maven, 3.6 or newer (Debian: apt-get install maven)"
fi
if wants kpl; then
    need openssl "install OpenSSL's program (Debian: apt-get install openssl)"
    [ "$(uname -s)" = Linux ] || [ "$(uname -s)" = Darwin ] ||
        missing+=("the KPL's native daemon exists for Linux and macOS only: run this part there")
fi
if wants node differential emulators; then
    need node "install Node.js, 20 or newer"
    need npm "install npm, which comes with Node.js"
    if command -v node >/dev/null 2>&1 && [ "$(node -p 'process.versions.node.split(".")[0] >= 20')" != true ]; then
        missing+=("node is $(node --version): install Node.js, 20 or newer")
    fi
fi
if wants kcl kpl && command -v javac >/dev/null 2>&1; then
    version=$(javac -version 2>&1 | sed -E 's/^javac ([0-9]+).*/\1/')
    [ "${version:-0}" -ge 17 ] 2>/dev/null || missing+=("javac is version $version: install a JDK, 17 or newer")
fi
[ ${#missing[@]} = 0 ] || die 3 "tools are missing for: ${parts[*]}" "${missing[@]}"

mkdir -p "$work"
export HEADWORKS_VENV=${HEADWORKS_VENV:-$target/venv}
"$root/tests/python/venv.sh"
python=$HEADWORKS_VENV/bin/python

say "building the programs"
(cd "$root" && "$cargo" build --workspace --exclude headworks-python --bins) >&2 || die 1 "the programs do not build"

quietly() { # LOG REMEDY COMMAND...
    local log=$1 remedy=$2
    shift 2
    "$@" >"$log" 2>&1 || {
        tail -n 15 "$log" >&2
        die 3 "'$1' failed (log: $log)" "$remedy"
    }
}

if wants kcl kpl; then
    say "building the KCL's and the KPL's program (Maven fetches some 160 MB the first time)"
    quietly "$work/maven.log" "no network or a proxy: set it up in Maven's settings.xml" \
        mvn --batch-mode --quiet --file "$here/java/pom.xml" "-Dinterop.directory=$work/java" \
        "-Dmdep.outputFile=$work/java.classpath" compile dependency:build-classpath
fi
if wants node differential emulators; then
    say "fetching the Node packages"
    mkdir -p "$work/node"
    cp "$here/node/package.json" "$here/node/package-lock.json" "$work/node/"
    (cd "$work/node" && quietly "$work/npm.log" "no network or a proxy: see npm help config" \
        npm ci --no-audit --no-fund --ignore-scripts)
fi
if wants differential emulators; then
    if ! cmp --silent "$here/constraints.txt" "$work/ministack/.headworks-stamp"; then
        say "fetching ministack"
        rm -rf "$work/ministack"
        # What pip says of conflicts concerns the environment, which this directory is no part of.
        quietly "$work/pip.log" "no network or a proxy: set HTTPS_PROXY or PIP_INDEX_URL" \
            "$python" -m pip --disable-pip-version-check install --no-input --target "$work/ministack" \
            --requirement "$here/requirements.txt" --constraint "$here/constraints.txt"
        cp "$here/constraints.txt" "$work/ministack/.headworks-stamp"
    fi
fi

# The pipeline's environment has the local stack's credentials; the caller's own are for HEADWORKS_AWS=1 only.
if [ "${HEADWORKS_AWS:-}" = 1 ]; then
    for name in AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY AWS_SESSION_TOKEN AWS_PROFILE AWS_REGION; do
        [ -z "${!name:-}" ] || export "HEADWORKS_$name=${!name}"
    done
fi

export HEADWORKS_INTEROP_WORK=$work HEADWORKS_INTEROP_BIN=$target/debug
failed=()
for part in "${parts[@]}"; do
    say "part $part"
    PYTHONPATH=$here PYTHONDONTWRITEBYTECODE=1 "$target/debug/with-pipeline" "$python" -m "suite.$part" "$@" ||
        failed+=("$part")
done
[ ${#failed[@]} = 0 ] || die 1 "failed: ${failed[*]}" "logs are in $work/logs"
say "passed: ${parts[*]}"
