#!/bin/bash
# Runs a Docker Engine of its own for the tests, with the image that they use.  Needs Debian and root.
#
#   engine.sh start DIR   install what is missing, make the image once, start the engine, wait until
#                         it answers; print the DOCKER_HOST by which it is reached
#   engine.sh launch DIR  start it again after it has ended
#   engine.sh stop DIR    end that engine and everything that it runs, and remove DIR
#
# DIR is made; the engine keeps everything in it.  The root file system of the image is kept in
# $XDG_CACHE_HOME/sandpool-test (by default below /var/cache), because making it takes minutes.
set -euo pipefail

readonly IMAGE=python:3.11-slim
readonly SUITE=bookworm   # the Debian whose Python is 3.11
readonly PATIENCE=60      # seconds for the engine to answer, and to end
cache=${XDG_CACHE_HOME:-/var/cache}/sandpool-test

fail() {
    echo "engine.sh: $*" >&2
    exit 1
}

install_missing() {
    local missing=() package
    for package in debootstrap docker.io runsc; do
        if [[ $(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null) != installed ]]; then
            missing+=("$package")
        fi
    done
    if [[ ${#missing[@]} -gt 0 ]]; then
        apt-get update -qq -o Acquire::Retries=5
        DEBIAN_FRONTEND=noninteractive apt-get install -qq -o Acquire::Retries=5 --no-install-recommends "${missing[@]}"
    fi
}

# Leave the image's root file system in "$cache/$SUITE.tar", whole or not at all.
make_root() {
    [[ -f $cache/$SUITE.tar ]] && return
    mkdir -p "$cache"
    local work
    work=$(mktemp -d "$cache/making-XXXXXX")
    # A directory of another run that was interrupted is of no use to anybody.
    find "$cache" -maxdepth 1 -name 'making-*' -mmin +60 -exec rm -rf {} +
    debootstrap --variant=minbase --include=python3 "$SUITE" "$work/root" >"$work/log" 2>&1 || {
        tail -n 20 "$work/log" >&2
        fail "debootstrap failed"
    }
    ln -s python3 "$work/root/usr/bin/python"
    rm -rf "$work"/root/var/{cache/apt,lib/apt/lists,log}/* "$work"/root/usr/share/{doc,locale,man}/*
    tar -C "$work/root" --numeric-owner --exclude='./dev/*' --exclude='./proc/*' -cf "$work/tar" .
    mv "$work/tar" "$cache/$SUITE.tar"
    rm -rf "$work"
}

# Without a kernel's KVM gVisor has ptrace; without networking of its own a container of
# `--network none` starts, which it does not otherwise.
write_configuration() {
    cat >"$1" <<'JSON'
{
  "runtimes": {
    "runsc": {"path": "/usr/bin/runsc", "runtimeArgs": ["--platform=ptrace", "--network=none"]}
  }
}
JSON
}

answers() {
    docker -H "unix://$1/docker.sock" version >/dev/null 2>&1
}

# Start the daemon and nothing else: an engine that was killed is started again by this.
launch() {
    local dir=$1 file tenth
    # What a daemon that was killed has left would keep a new one from starting.
    for file in "$dir/pid" "$dir/exec/containerd/containerd.pid"; do
        if [[ -s $file ]] && ! lives "$(<"$file")"; then
            rm "$file"
        fi
    done
    # No firewall and no bridge: neither is there on every host, and the tests need neither.
    setsid dockerd --config-file "$dir/daemon.json" --host "unix://$dir/docker.sock" \
        --data-root "$dir/data" --exec-root "$dir/exec" --pidfile "$dir/pid" \
        --iptables=false --ip6tables=false --bridge=none >>"$dir/log" 2>&1 </dev/null &
    for ((tenth = 0; tenth < 10 * PATIENCE; tenth++)); do
        answers "$dir" && return
        kill -0 $! 2>/dev/null || break
        sleep 0.1
    done
    tail -n 20 "$dir/log" >&2
    fail "dockerd does not answer"
}

start() {
    local dir=$1
    [[ -e $dir/pid ]] && fail "there is an engine in $dir already"
    install_missing
    make_root
    mkdir -p "$dir"
    dir=$(readlink -f "$dir")
    write_configuration "$dir/daemon.json"
    launch "$dir"
    # The variable is what the official image has: it concerns no interpreter.
    docker -H "unix://$dir/docker.sock" import --change 'CMD ["python3"]' \
        --change 'ENV PYTHON_VERSION=3.11' "$cache/$SUITE.tar" "$IMAGE" >/dev/null
    echo "unix://$dir/docker.sock"
}

# Whether a process is there and more than a zombie.
lives() {
    [[ $(ps -o stat= -p "$1") == [^Z]* ]]
}

# End a process, gently if it lets itself be ended so.
end() {
    local pid=$1 tenth
    kill "$pid" 2>/dev/null || return 0
    for ((tenth = 0; tenth < 10 * PATIENCE; tenth++)); do
        lives "$pid" || return 0
        sleep 0.1
    done
    kill -9 "$pid" 2>/dev/null || true
}

stop() {
    local dir=$1 file containers arguments tenth
    [[ -d $dir ]] || return 0
    dir=$(readlink -f "$dir")
    if answers "$dir"; then
        containers=$(docker -H "unix://$dir/docker.sock" ps --all --quiet) || containers=
        # Word splitting is meant: one argument for each container.
        [[ -z $containers ]] || docker -H "unix://$dir/docker.sock" rm -f $containers >/dev/null || true
    fi
    # A daemon ends its containerd, unless it was killed itself.
    for file in "$dir/pid" "$dir/exec/containerd/containerd.pid"; do
        if [[ -s $file ]]; then
            end "$(<"$file")"
        fi
    done
    # Containers outlive a daemon that was killed; what holds them was told where it answered.
    for file in /proc/[0-9]*/cmdline; do
        arguments=$(tr '\0' ' ' 2>/dev/null <"$file") || continue
        if [[ $arguments == *"$dir/exec/"* ]]; then
            kill -9 "$(cut -d/ -f3 <<<"$file")" 2>/dev/null || true
        fi
    done
    awk -v below="$dir/" 'index($5, below) == 1 {print $5}' /proc/self/mountinfo | sort -r |
        while read -r place; do umount -l "$place" || true; done
    # What was killed just now may still be writing.
    for ((tenth = 0; tenth < 10 * PATIENCE; tenth++)); do
        rm -rf "$dir" 2>/dev/null && return
        sleep 0.1
    done
    fail "$dir cannot be removed"
}

[[ $# -eq 2 ]] || fail "usage: engine.sh start|stop|launch DIR"
case $1 in
    start) start "$2" ;;
    launch) launch "$2" ;;
    stop) stop "$2" ;;
    *) fail "usage: engine.sh start|stop|launch DIR" ;;
esac
