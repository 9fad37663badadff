# Shared by scripts/demo and scripts/test: installs system packages, runs a private PostgreSQL.

say() { printf '\033[1m%s\033[0m\n' "$*" >&2; }

as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"; elif command -v sudo >/dev/null; then sudo "$@"; else
    say "This needs root: $*"; say "Run it as root, or install sudo."; return 1
  fi
}

# install_missing COMMAND=PACKAGE ...: installs the packages whose commands are missing.
install_missing() {
  local missing=() pair
  for pair in "$@"; do
    command -v "${pair%%=*}" >/dev/null || [ -e "${pair%%=*}" ] || missing+=("${pair#*=}")
  done
  [ ${#missing[@]} -eq 0 ] && return 0
  say "Installing ${missing[*]} …"
  as_root apt-get update -qq
  as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
}

# unpack_promtool DIR: puts Prometheus's metrics checker there without installing the server, which
# would start.
unpack_promtool() {
  command -v promtool >/dev/null && return 0
  if [ ! -x "$1/promtool" ]; then
    say "Fetching promtool …"
    local dir
    dir=$(mktemp -d)
    as_root apt-get update -qq
    (cd "$dir" && apt-get download -qq prometheus && dpkg-deb -x prometheus_*.deb .)
    mkdir -p "$1" && cp "$dir/usr/bin/promtool" "$1/promtool"
    rm -rf "$dir"
  fi
  PATH="$(cd "$1" && pwd):$PATH"
}

build_packages() { install_missing cc=build-essential pkg-config=pkg-config /usr/include/postgresql/libpq-fe.h=libpq-dev; }

postgres_bin() {
  local dir
  for dir in /usr/lib/postgresql/*/bin; do [ -x "$dir/initdb" ] && { echo "$dir"; return; }; done
}

# PostgreSQL refuses to run as root, so root runs its programs as an unprivileged user.
as_postgres() {
  if [ "$(id -u)" = 0 ]; then setpriv --reuid=postgres --regid=postgres --clear-groups -- "$@"; else "$@"; fi
}

# start_postgres DIR: starts a private cluster in DIR on a socket there; prints the server's URL
# (without a database).
start_postgres() {
  local dir=$1 bin
  [ -n "$(postgres_bin)" ] || install_missing postgres-is-missing=postgresql
  bin=$(postgres_bin)
  mkdir -p "$dir"
  dir=$(cd "$dir" && pwd)
  [ "$(id -u)" != 0 ] || { chown postgres "$dir"; chmod 700 "$dir"; }
  if [ ! -f "$dir/data/PG_VERSION" ]; then
    as_postgres "$bin/initdb" -D "$dir/data" -A trust -U sealyard -E UTF8 >"$dir/initdb.log" 2>&1 || { cat "$dir/initdb.log" >&2; return 1; }
  fi
  as_postgres "$bin/pg_ctl" -D "$dir/data" -l "$dir/server.log" -w \
    -o "-c listen_addresses='' -c unix_socket_directories='$dir' -c max_connections=300" start >/dev/null || { cat "$dir/server.log" >&2; return 1; }
  echo "postgres://sealyard@${dir//\//%2F}"
}

stop_postgres() {
  [ -d "$1/data" ] && as_postgres "$(postgres_bin)/pg_ctl" -D "$(cd "$1" && pwd)/data" -m fast stop >/dev/null 2>&1 || true
}
