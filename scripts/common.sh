# Sourced by the other scripts: what more than one of them needs to know about this machine.
# shellcheck shell=bash
set -euo pipefail

# Debian keeps dnsmasq, ip and debootstrap where an ordinary user's PATH does not reach.
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cache=${SHLOGIN_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/shlogin}

say() { printf '%s\n' "$*" >&2; }
die() { say "${0##*/}: $*"; exit 1; }
have() { command -v "$1" >/dev/null 2>&1; }

# That there is a compiler, and none that is too old.
need_rust() {
  local wanted found
  have cargo || die "cargo is missing: install Rust with rustup, then run this again"
  wanted=$(sed -n 's/^rust-version = "\(.*\)"$/\1/p' "$top/Cargo.toml")
  found=$(rustc --version | cut -d ' ' -f 2)
  [ "$(printf '%s\n' "$wanted" "$found" | sort -V | head -n 1)" = "$wanted" ] ||
    die "Rust $found is too old: install $wanted or newer with rustup, then run this again"
}

# Runs a command as root: as it is, or with sudo.
as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"
  elif have sudo; then sudo "$@"
  else die "needs root for '$1', and there is no sudo"
  fi
}

# What cargo builds and then runs, it runs as root from here on: the compiler needs none of it.
run_as_root() { # VARIABLE,…: those that it gets
  [ "$(id -u)" != 0 ] || return 0
  local triple
  triple=$(rustc -vV | sed -n 's/^host: //p' | tr 'a-z-' 'A-Z_')
  export "CARGO_TARGET_${triple}_RUNNER=sudo --preserve-env=$1"
}

# What is made once and kept outside the clone: prints FOLDER, of the cache, whose name is NAME-CONTENT by a hash of what it is made of.
# Where it is not there, COMMAND fills "$work" for it. Two callers at once make it once; what an interrupted call has left is removed
# by the next. Anybody may read it.
keep() { # FOLDER COMMAND…
  local folder=$1 name=${1##*/}
  name=${name%-*}
  shift
  if [ ! -d "$folder" ]; then
    mkdir -p "$cache"
    exec 9>"$cache/.$name.lock"
    flock 9
  fi
  if [ ! -d "$folder" ]; then # nor made by whoever held the lock
    # Only who holds the lock makes such folders.
    rm -rf "$cache/.$name"-??????*
    work=$(mktemp -d "$cache/.$name-XXXXXX")
    trap 'rm -rf "$work" "$work.log"' EXIT
    "$@" 9>&- >&2
    chmod -R a+rX "$work"
    mv -T "$work" "$folder"
    # earlier versions that nobody used for a week
    find "$cache" -maxdepth 1 -name "$name-????????????????" ! -path "$folder" -mtime +7 -exec rm -rf {} +
  fi
  touch "$folder"
  echo "$folder"
}

# The Debian archive this machine's apt is configured with, as a URL.
debian_mirror() {
  local codename url
  codename=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
  url=$(apt-get indextargets --format '$(REPO_URI)' 'Identifier: Packages' "Release: $codename" 'Component: main' 2>/dev/null | head -n 1)
  [ -n "$url" ] || die "apt has no Debian archive configured for '$codename'"
  echo "$url"
}
