# Shared by tests of the package: makes a root folder out of this machine's own packages, without a
# network, and runs a systemd in it that sees nothing of this machine.

# installed_closure PACKAGE ...: prints these, what every Debian system has, and all that they depend
# on, as far as it is installed here.
installed_closure() {
  local -A provider=() seen=()
  local package provides name clause choice essential=() queue
  while IFS='#' read -r package provides name; do
    provider[$package]=$package
    [ "$name" != yes ] || essential+=("$package")
    for name in $(tr ',' '\n' <<<"$provides" | sed 's/ *\([^ ]*\).*/\1/'); do : "${provider[$name]:=$package}"; done
  done < <(dpkg-query -W -f '${db:Status-Status} ${Package}#${Provides}#${Essential}\n' | sed -n 's/^installed //p')
  queue=("${essential[@]}" "$@")
  while [ ${#queue[@]} -gt 0 ]; do
    name=${provider[${queue[0]}]:-}
    queue=("${queue[@]:1}")
    if [ -z "$name" ] || [ -n "${seen[$name]:-}" ]; then continue; fi
    seen[$name]=1
    while IFS= read -r clause; do
      # The first alternative that is here, as dpkg would accept it.
      for choice in $clause; do
        if [ -n "${provider[$choice]:-}" ]; then queue+=("$choice"); break; fi
      done
    done < <(dpkg-query -W -f '${Pre-Depends}, ${Depends}\n' "$name" | plain_clauses)
  done
  printf '%s\n' "${!seen[@]}" | sort
}

# One line for each dependency: the names of its alternatives.
plain_clauses() { sed -e 's/([^)]*)//g' -e 's/\[[^]]*\]//g' -e 's/:[a-z]*//g' | tr ',|' '\n '; }

# make_root DIR PACKAGE ...: copies the packages' files as they are here, and dpkg's records of them.
make_root() {
  local root=$1 package path
  shift
  mkdir -p "$root"/usr/{bin,sbin,lib,lib64} "$root"/var/lib/dpkg/{info,updates,triggers} "$root"/{dev,proc,run,sys,root,tmp}
  chmod 1777 "$root/tmp"
  { printf '%s\n' /bin /sbin /lib /lib64; dpkg-query -L "$@"; } | grep '^/.' | sort -u |
    while IFS= read -r path; do if [ -e "$path" ] || [ -L "$path" ]; then echo ".$path"; fi; done |
    tar -C / --no-recursion -cf - -T - | tar -C "$root" -xpf -
  for package in "$@"; do
    dpkg-query -s "$package"
    echo
    for path in /var/lib/dpkg/info/"$package".* /var/lib/dpkg/info/"$package":*; do
      if [ -e "$path" ]; then cp -p "$path" "$root/var/lib/dpkg/info/"; fi
    done
  done >"$root/var/lib/dpkg/status"
  touch "$root/var/lib/dpkg/available"
  # What maintainer scripts of other packages have made.
  cp "$root/usr/share/base-passwd/passwd.master" "$root/etc/passwd"
  cp "$root/usr/share/base-passwd/group.master" "$root/etc/group"
  cp "$root/usr/share/libc-bin/nsswitch.conf" "$root/etc/nsswitch.conf"
  cp -a /etc/alternatives "$root/etc/"
  if [ -d "$root/usr/share/ca-certificates" ]; then cp -a /etc/ssl/certs "$root/etc/ssl/"; fi
  ldconfig -r "$root"
}

# mount_system DIR: what programs expect of a machine. Runs in a mount namespace of its own.
mount_system() {
  local root=$1 node
  mount --make-rprivate /
  mount --bind "$root" "$root"
  mount -t proc proc "$root/proc"
  # The kernel's settings are this machine's own.
  mount --bind -o ro "$root/proc/sys" "$root/proc/sys"
  mount -t sysfs -o ro sysfs "$root/sys"
  mount -t tmpfs -o mode=755 tmpfs "$root/dev"
  mount -t tmpfs -o mode=755 tmpfs "$root/run"
  for node in null zero full random urandom tty; do
    touch "$root/dev/$node"
    mount --bind "/dev/$node" "$root/dev/$node"
  done
  mkdir "$root/dev/shm" "$root/dev/pts"
  mount -t tmpfs tmpfs "$root/dev/shm"
  mount -t devpts -o newinstance,ptmxmode=666 devpts "$root/dev/pts"
  ln -s pts/ptmx "$root/dev/ptmx"
  ln -s /proc/self/fd "$root/dev/fd"
}

clean_environment=(env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8)

# in_root DIR COMMAND ...: runs it there, in an environment without a running systemd.
# shellcheck disable=SC2016 # The text is for the inner shell.
in_root() {
  unshare --mount --pid --fork --kill-child --uts --ipc --net bash -euo pipefail -c "$(declare -f mount_system)"'
    mount_system "$1"; root=$1; shift; exec chroot "$root" "$@"' in_root "$1" "${clean_environment[@]}" "${@:2}"
}

# boot_root DIR PIDFILE: runs a systemd in that folder until it is killed. PIDFILE has its id, as this
# machine sees it.
# shellcheck disable=SC2016 # The text is for the inner shells.
boot_root() {
  local group=$2.cgroups/sealyard-package.$BASHPID code=0
  # Ctrl-C reaches this process, too, and must not keep it from tidying up.
  trap '' HUP INT TERM
  mkdir "$2.cgroups"
  mount -t cgroup2 cgroup2 "$2.cgroups"
  mkdir "$group"
  unshare --mount --pid --fork --kill-child --uts --ipc --net bash -euo pipefail -c '
    echo 0 >"$1/cgroup.procs"
    exec unshare --cgroup bash -euo pipefail -c "$2" boot "${@:3}"' \
    boot "$group" "$(declare -f mount_system become_systemd); become_systemd \"\$@\"" "$1" "$2" || code=$?
  # Processes end a moment after the first one.
  while ! find "$group" -depth -type d -exec rmdir {} + 2>/dev/null; do sleep 0.2; done
  return "$code"
}

become_systemd() {
  local root=$1 pid
  # /proc is still that of this machine.
  read -r pid _ </proc/self/stat
  echo "$pid" >"$2"
  ip link set lo up
  mount_system "$root"
  mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
  mkdir -p "$root/old"
  pivot_root "$root" "$root/old"
  cd /
  umount -l /old
  # As container managers leave it: a unit's credentials are mounted in a child and must be seen here.
  mount --make-rshared /
  exec setpriv --bounding-set=-sys_module,-sys_time env -i container=sealyard-package \
    PATH=/usr/sbin:/usr/bin:/sbin:/bin /lib/systemd/systemd --unit=basic.target --log-target=journal --show-status=no
}
