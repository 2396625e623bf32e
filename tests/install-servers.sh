#!/bin/bash
# Installs the Debian packages of the servers that tests run, those that are missing and no others.
# The tests start servers of their own, on free ports: nothing is started here, now or at boot.
# Where it cannot install them it says how to, and their tests are skipped (in CI they fail).
#
#   tests/install-servers.sh [PACKAGE...]
set -euo pipefail

export LC_ALL=C PATH=$PATH:/usr/sbin:/sbin
packages=(chromium chromium-driver faketime fish iproute2 mosquitto mosquitto-clients nats-server openssl postgresql
  prometheus prometheus-alertmanager prometheus-node-exporter prometheus-pushgateway rabbitmq-server redis-server systemd
  victoria-metrics zsh)
(($#)) || set -- "${packages[@]}"

# What tells that a package is there, where it is not a program of the same name.
declare -A program=([ansible-core]=ansible-playbook [chromium-driver]=chromedriver [iproute2]=ip [mosquitto-clients]=mosquitto_pub
  [postgresql]=pg_ctlcluster [systemd]=systemctl)
missing=()
for package; do
  command -v "${program[$package]:-$package}" >/dev/null || missing+=("$package")
done
((${#missing[@]})) || exit 0

give_up() {
  echo "$1, so that tests of these servers are skipped: ${missing[*]}" >&2
  echo "On Debian and Ubuntu: sudo $0 ${missing[*]}" >&2
  exit 0
}

as_root=()
if ((EUID)); then as_root=(sudo -n); fi
command -v apt-get >/dev/null || give_up "There is no apt-get here"
"${as_root[@]}" true 2>/dev/null || give_up "Installing packages takes root"

# The units that systemd starts at boot; found in files, so that systemd need not run.
enabled() {
  if command -v systemctl >/dev/null; then
    systemctl --root=/ list-unit-files --no-legend --state=enabled | awk '{print $1}' | sort
  fi
}

# SYSTEMD_OFFLINE makes the packages' `systemctl start` do nothing, RUNLEVEL=1 that of SysV scripts.
apt() {
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive SYSTEMD_OFFLINE=1 RUNLEVEL=1 apt-get --yes "$@"
}

echo "Installing ${missing[*]}"
before=$(enabled)
log=$(mktemp)
trap 'rm -f "$log"' EXIT
if ! { apt update && apt install --no-install-recommends --no-upgrade "${missing[@]}"; } &>"$log"; then
  tail -n 20 "$log" >&2
  give_up "apt-get failed"
fi
mapfile -t added < <(comm -13 <(echo "$before") <(enabled))
if ((${#added[@]})); then
  "${as_root[@]}" systemctl --root=/ disable "${added[@]}" &>/dev/null
fi
