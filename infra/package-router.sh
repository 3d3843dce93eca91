#!/usr/bin/env bash
# Builds the router's `bootstrap` for provided.al2023 and zips it with its route table.
#
#   infra/package-router.sh [--arch x86_64|aarch64] [ROUTES]
#
# Defaults: the machine's own architecture, and router-lambda/routes.example.toml. The zip is target/lambda/router.zip.
# Another architecture needs its Rust target and a C compiler for it; what is missing is named. Amazon Linux 2023 has
# glibc 2.34: a binary that asks for a newer one is refused here rather than at its first invocation.
set -euo pipefail
cd "$(dirname "$0")/.."
own=$(uname -m)
arch=$own
if [ "${1:-}" = --arch ]; then
    arch=${2:?'--arch needs x86_64 or aarch64'}
    shift 2
fi
routes=${1:-router-lambda/routes.example.toml}
target=${CARGO_TARGET_DIR:-target}
out=target/lambda
newest=2.34

die() {
    echo "error: $1" >&2
    exit "${2:-1}"
}

case $arch in
    x86_64 | aarch64) ;;
    *) die "unknown architecture '$arch'; Lambda has x86_64 and aarch64 (its arm64)" 2 ;;
esac
[ -f "$routes" ] || die "the route table $routes is not there" 2
triple=$arch-unknown-linux-gnu
tools=
if [ "$arch" != "$own" ]; then
    tools=$arch-linux-gnu-
    command -v "${tools}gcc" >/dev/null || die "no ${tools}gcc on the PATH (Debian: gcc-${arch//_/-}-linux-gnu)" 2
    [ -d "$(rustc --print sysroot)/lib/rustlib/$triple" ] || die "no Rust for $arch: rustup target add $triple" 2
    # cc-rs finds the compiler by the triple; cargo has to be told.
    declare -x "CARGO_TARGET_$(tr a-z- A-Z_ <<<"$triple")_LINKER=${tools}gcc"
fi
echo "lambda: building the router for $arch in release mode (a few minutes the first time)" >&2
if [ "$arch" = "$own" ]; then
    cargo build --release --locked -p headworks-router --bin bootstrap
    built=$target/release
else
    cargo build --release --locked -p headworks-router --bin bootstrap --target "$triple"
    built=$target/$triple/release
fi
mkdir -p "$out/root"
cp "$built/bootstrap" "$out/root/bootstrap"
cp "$routes" "$out/root/routes.toml"
"${tools}strip" "$out/root/bootstrap"

needed=$(grep -aoE 'GLIBC_2\.[0-9]+' "$out/root/bootstrap" | sed 's/GLIBC_//' | sort -V | tail -n 1)
if [ "$(printf '%s\n%s\n' "$needed" "$newest" | sort -V | tail -n 1)" != "$newest" ]; then
    die "bootstrap asks for glibc $needed, Amazon Linux 2023 has $newest; build on an older system"
fi
python3 - "$out" <<'PY'
import pathlib, sys, zipfile
out = pathlib.Path(sys.argv[1])
with zipfile.ZipFile(out / "router.zip", "w", zipfile.ZIP_DEFLATED) as archive:
    for name, mode in (("bootstrap", 0o755), ("routes.toml", 0o644)):
        # A fixed time makes equal inputs equal zips.
        entry = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
        entry.external_attr = (0o100000 | mode) << 16
        entry.compress_type = zipfile.ZIP_DEFLATED
        archive.writestr(entry, (out / "root" / name).read_bytes())
PY
printf 'lambda: %s (%s, bootstrap %s bytes, glibc %s)\n' \
    "$out/router.zip" "$arch" "$(stat -c %s "$out/root/bootstrap")" "$needed" >&2
