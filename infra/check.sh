#!/usr/bin/env bash
# Checks the templates without an AWS account and without a network (beyond the first making of the virtual
# environment): cfn-lint, `sam validate`, `sam validate --lint`, then our own rules in infra/tests.
#
# Each finds what the others let pass. An on-failure destination of a type that SAM does not know, for one,
# is refused by `sam validate` alone: cfn-lint and even `sam validate --lint` accept it.
#
# Exit codes: 0 all passed, 1 something did not.
set -uo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/.." && pwd)
venv=$("$root/tests/python/venv.sh" --path) || exit 1

# SAM must neither report home, nor ask the instance for credentials, nor write to the home directory.
export SAM_CLI_TELEMETRY=0
export __SAM_CLI_APP_DIR=$root/target/sam
export AWS_EC2_METADATA_DISABLED=true
export AWS_DEFAULT_REGION=eu-central-1
export AWS_ACCESS_KEY_ID=offline AWS_SECRET_ACCESS_KEY=offline
unset AWS_PROFILE
mkdir -p "$__SAM_CLI_APP_DIR"

failed=0
run() {
    local name=$1 output started=$SECONDS
    shift
    if output=$("$@" 2>&1); then
        printf 'infra: ok      %s (%s s)\n' "$name" "$((SECONDS - started))"
    else
        printf 'infra: FAILED  %s\n%s\n' "$name" "$output"
        failed=1
    fi
}

cd "$here" || exit 1
run "cfn-lint" "$venv/bin/cfn-lint" --non-zero-exit-code informational -- pipeline.yaml consumer.yaml
for template in pipeline consumer; do
    run "sam validate $template.yaml" "$venv/bin/sam" validate --template "$template.yaml"
    run "sam validate --lint $template.yaml" "$venv/bin/sam" validate --lint --template "$template.yaml"
done
run "our rules" "$venv/bin/python" -m pytest -q -p no:cacheprovider tests
exit $failed
