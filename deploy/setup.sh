#!/bin/sh
# While an image is built: the user that everything runs as, and the directories that it may write to.
#
# Volumes take the owner and the mode of the directory that they are first mounted on, so each one that a compose
# file or a manifest mounts is made here.
set -eu
id=10001
echo "octet:x:$id:$id:octet:/octet:/usr/sbin/nologin" >>/etc/passwd
echo "octet:x:$id:" >>/etc/group
make() { mkdir -p "$@" && chown "$id:$id" "$@" && chmod 0700 "$@"; }
# One directory for the run of each role that keeps something, one for the keys of each node.
make /runs /keys
cd /keys
make authority coordinator learner rollout-worker reward reward-next octet
