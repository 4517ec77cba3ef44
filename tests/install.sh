#!/bin/sh
# tests/install.sh PACKAGE=COMMAND...: installs the Debian packages whose command is not there (without a command: always).
# As root or by sudo without a password; without either it says what is missing and ends with 1. It asks nothing, and no
# daemon that comes with a package is started.
set -eu

missing=
for pair in "$@"; do
    command=${pair#*=}
    if [ -z "$command" ] || ! command -v "$command" >/dev/null 2>&1; then
        missing="$missing ${pair%%=*}"
    fi
done
[ -n "$missing" ] || exit 0

sudo=
if ! command -v apt-get >/dev/null 2>&1; then
    echo "missing, and there is no apt-get to install it:$missing" >&2
    exit 1
elif [ "$(id -u)" -ne 0 ]; then
    sudo="sudo -n"
    if ! $sudo true 2>/dev/null; then
        echo "missing, and neither root nor sudo to install it: apt-get install$missing" >&2
        exit 1
    fi
fi

policy=${POLICY:-/usr/sbin/policy-rc.d}
if [ ! -e "$policy" ]; then
    printf '#!/bin/sh\nexit 101\n' | $sudo tee "$policy" >/dev/null
    $sudo chmod 755 "$policy"
    trap '$sudo rm -f "$policy"' EXIT INT TERM
fi

echo "installing:$missing"
$sudo env DEBIAN_FRONTEND=noninteractive apt-get update -qq
# shellcheck disable=SC2086
$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing </dev/null >/dev/null
