#!/bin/sh
# How a node starts in a container: adds what can be known only inside of it, then octet takes its place.
#
#   OCTET_JOIN_TOKEN_FILE   holds the run's join token, which so is in no container's description
#   @hostname@              in an argument: this container's own name, by which others reach it
set -eu
if [ -n "${OCTET_JOIN_TOKEN_FILE:-}" ]; then
    OCTET_JOIN_TOKEN=$(cat "$OCTET_JOIN_TOKEN_FILE")
    export OCTET_JOIN_TOKEN
fi
for argument; do
    shift
    case $argument in
    *@hostname@*) argument=${argument%%@hostname@*}$HOSTNAME${argument#*@hostname@} ;;
    esac
    set -- "$@" "$argument"
done
exec octet "$@"
