#!/usr/bin/env bash
# Builds the router's `bootstrap` for provided.al2023 and zips it with its route table.
#
#   infra/package-router.sh [ROUTES]     default: router-lambda/routes.example.toml
#
# The zip is target/lambda/router.zip, for the machine's own architecture. Amazon Linux 2023 has glibc 2.34:
# a binary that asks for a newer one is refused here rather than at its first invocation.
set -euo pipefail
cd "$(dirname "$0")/.."
routes=${1:-router-lambda/routes.example.toml}
target=${CARGO_TARGET_DIR:-target}
out=target/lambda
newest=2.34

[ -f "$routes" ] || { echo "error: the route table $routes is not there" >&2; exit 2; }
echo "lambda: building the router in release mode (a few minutes the first time)" >&2
cargo build --release --locked -p headworks-router --bin bootstrap
mkdir -p "$out/root"
cp "$target/release/bootstrap" "$out/root/bootstrap"
cp "$routes" "$out/root/routes.toml"
strip "$out/root/bootstrap"

needed=$(grep -aoE 'GLIBC_2\.[0-9]+' "$out/root/bootstrap" | sed 's/GLIBC_//' | sort -V | tail -n 1)
if [ "$(printf '%s\n%s\n' "$needed" "$newest" | sort -V | tail -n 1)" != "$newest" ]; then
    echo "error: bootstrap asks for glibc $needed, Amazon Linux 2023 has $newest; build on an older system" >&2
    exit 1
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
    "$out/router.zip" "$(uname -m)" "$(stat -c %s "$out/root/bootstrap")" "$needed" >&2
