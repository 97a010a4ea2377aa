#!/usr/bin/env bash
# Makes the base image of deploy/Dockerfile on this machine, where the public ones cannot be pulled: a minimal
# Debian with Python's standard library, from Debian's packages, loaded into the container engine.
#
#   deploy/base-image.sh [--suite NAME] [--mirror URL] [--tag IMAGE] [--cache DIRECTORY]
#
# --suite    the Debian release; without it, this machine's if it is a Debian, since a program built here needs a
#            libc at least as new as the one here; trixie otherwise
# --mirror   where packages come from; without it DEBOOTSTRAP_MIRROR, and without that debootstrap's own default
# --tag      what the image is called (octet-base:SUITE)
# --cache    keeps the root file system, so that another engine gets it in seconds (target/base-image)
#
# The last line on standard output is the image's name. Needs root, since the root file system has root's files
# in it; needs debootstrap, or apt-get to unpack it into the cache: nothing is installed on this machine.
set -euo pipefail

root=$(cd "$(dirname "$0")/.." && pwd)
suite=
mirror=${DEBOOTSTRAP_MIRROR:-}
tag=
cache=${CARGO_TARGET_DIR:-$root/target}/base-image
while [ $# -gt 0 ]; do
    case $1 in
    --suite) suite=$2 ;;
    --mirror) mirror=$2 ;;
    --tag) tag=$2 ;;
    --cache) cache=$2 ;;
    *)
        echo "deploy/base-image.sh: expected --suite, --mirror, --tag or --cache, found \"$1\"" >&2
        exit 2
        ;;
    esac
    shift 2
done
if [ -z "$suite" ]; then
    suite=$(. /etc/os-release 2>/dev/null && [ "${ID:-}" = debian ] && echo "${VERSION_CODENAME:-}") || true
    suite=${suite:-trixie}
fi
tag=${tag:-octet-base:$suite}
say() { echo "deploy/base-image.sh: $*" >&2; }

# What is in the image, and how it was made: another list or another number is another image.
packages=python3
made=$suite-$packages-1
archive=$cache/$made.tar.gz
if [ "$(docker image inspect --format '{{index .Config.Labels "octet.base"}}' "$tag" 2>/dev/null)" = "$made" ]; then
    echo "$tag"
    exit
fi

if [ ! -e "$archive" ]; then
    if [ "$(id -u)" != 0 ]; then
        say "expected root, found user $(id -un): the root file system holds root's files; use sudo"
        exit 1
    fi
    mkdir -p "$cache"
    debootstrap=$(command -v debootstrap || true)
    if [ -z "$debootstrap" ]; then
        if ! command -v apt-get >/dev/null; then
            say "expected debootstrap, found neither it nor apt-get to fetch it with; install debootstrap"
            exit 1
        fi
        # A package is made of files: unpacked beside the cache it runs without being installed.
        tool=$cache/debootstrap
        if [ ! -x "$tool/usr/sbin/debootstrap" ]; then
            rm -rf "$tool" && mkdir -p "$tool"
            fetch() { (cd "$tool" && apt-get -qq -o APT::Sandbox::User=root download debootstrap); }
            fetch 2>/dev/null || { apt-get -qq update && fetch; }
            dpkg-deb -x "$tool"/debootstrap_*.deb "$tool"
        fi
        debootstrap=$tool/usr/sbin/debootstrap
        export DEBOOTSTRAP_DIR=$tool/usr/share/debootstrap
    fi
    files=$(mktemp -d "$cache/rootfs.XXXXXX")
    trap 'rm -rf "$files" "$archive.new"' EXIT
    say "unpacking $suite with $packages, about a minute"
    # shellcheck disable=SC2086  # without a mirror there is no argument, and debootstrap takes its default
    if ! "$debootstrap" --variant=minbase --include="$packages" "$suite" "$files" ${mirror:+"$mirror"} \
        >"$cache/debootstrap.log" 2>&1; then
        tail -5 "$cache/debootstrap.log" >&2
        say "debootstrap failed; all that it said is in $cache/debootstrap.log"
        exit 1
    fi
    # As the slim images do: what nobody reads in a container, and what the next apt-get update brings anew.
    rm -rf "$files"/usr/share/{doc,man,info,locale,lintian}/* "$files"/var/cache/apt/*.bin \
        "$files"/var/cache/apt/archives/*.deb "$files"/var/lib/apt/lists/* "$files"/var/log/*.log \
        "$files"/etc/{hostname,resolv.conf}
    tar -C "$files" --numeric-owner -czf "$archive.new" .
    mv "$archive.new" "$archive"
fi
docker import --change 'CMD ["bash"]' --change "LABEL octet.base=$made" "$archive" "$tag" >/dev/null
echo "$tag"
