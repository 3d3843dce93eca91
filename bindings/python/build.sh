#!/usr/bin/env bash
# Builds the wheel, installs it into a fresh virtual environment and checks that it can be imported.
#
#   bindings/python/build.sh             the dev profile: quick to build
#   bindings/python/build.sh --release   the release profile: what is published
#
# Leaves the wheel in target/wheels and the environment, with pytest beside the wheel, in
# target/wheel-venv. Prints the environment's interpreter on stdout; talk goes to stderr.
# Exit codes: 0 built and importable, 1 not, 2 wrong usage.
#
# The wheel is abi3: one file for CPython 3.11 and every later one. It is built in the workspace's own
# target directory: after a build of the workspace only PyO3 and the binding are left to compile.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
target=${CARGO_TARGET_DIR:-$root/target}
wheels=$target/wheels
fresh=$target/wheel-venv
profile=(--profile dev --features unified)

say() { printf 'wheel: %s\n' "$*" >&2; }
die() {
    say "error: $*"
    exit 1
}

for argument in "$@"; do
    case $argument in
        --release) profile=(--release) ;;
        -h | --help)
            sed -n '2,/^set /p' "${BASH_SOURCE[0]}" | sed '$d; s/^# \{0,1\}//'
            exit 0
            ;;
        *)
            say "unknown argument '$argument'; known are --release and --help"
            exit 2
            ;;
    esac
done

tools=$("$root/tests/python/venv.sh" --path) || die "the environment with maturin cannot be made (see above)"

# What cargo tells the tests that it runs is not meant for another cargo.
for name in $(compgen -e); do
    case $name in
        CARGO_PKG_* | CARGO_BIN_* | CARGO_MANIFEST_* | CARGO_CRATE_NAME | CARGO_PRIMARY_PACKAGE) unset "$name" ;;
    esac
done

say "building ($([ "${profile[0]}" = --release ] && echo release || echo dev) profile)"
rm -rf "$wheels"
# Tagged for this machine: whoever publishes wheels builds them in a manylinux image, without this option.
"$tools/bin/maturin" build "${profile[@]}" --locked --manifest-path "$here/Cargo.toml" --target-dir "$target" \
    --interpreter "$tools/bin/python" --compatibility linux --out "$wheels" >&2 ||
    die "the wheel does not build (see above)"
wheel=("$wheels"/headworks-*-abi3-*.whl)
[ -f "${wheel[0]}" ] || die "no abi3 wheel in $wheels: $(ls "$wheels")"

say "installing ${wheel[0]##*/} into a fresh environment"
rm -rf "$fresh"
# Without pip of its own: not every machine has ensurepip, and the environment of the tools has one.
"$tools/bin/python" -m venv --without-pip "$fresh"
pip=("$tools/bin/python" -m pip --disable-pip-version-check --python "$fresh/bin/python" install --quiet --no-input)
"${pip[@]}" --no-index --no-deps "${wheel[0]}" >&2 || die "the wheel cannot be installed"
"${pip[@]}" --constraint "$root/tests/python/constraints.txt" pytest >&2 || die "pytest cannot be installed"

# From a folder without sources, so that it is the wheel that is imported.
(cd "$fresh" && ./bin/python -I -c 'import headworks; print("wheel: headworks", headworks.__version__, headworks.__file__)') >&2 ||
    die "the wheel cannot be imported"
printf '%s\n' "$fresh/bin/python"
