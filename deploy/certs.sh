#!/bin/sh
# Before the nodes start: the run's authority, a certificate for each service, and the join token. What is there
# and good is kept, so this may run at any time, also beside nodes that are at work.
#
#   octet-certs SERVICE[=NAME]…    NAME is a further name that others dial the service by
#
# Each service's directory is a volume of its own: a node sees its own key, and the authority's key is seen by
# this script alone. Rewards get no token: they demand none, and users' code runs beside them.
# OCTET_JOIN_TOKEN, if it is set, is taken for the token instead of one that is drawn.
set -eu
umask 077
cd /keys
authority=authority
[ -e "$authority/ca.pem" ] || octet certs init --dir "$authority"

token=$authority/join-token
if [ -n "${OCTET_JOIN_TOKEN:-}" ]; then
    printf %s "$OCTET_JOIN_TOKEN" >"$token"
elif [ ! -s "$token" ]; then
    od -An -N32 -tx1 /dev/urandom | tr -d ' \n' >"$token"
fi

for service; do
    name=${service#*=}
    service=${service%%=*}
    # What a certificate was issued for stands beside it, written last: a stop before that repeats it all.
    # A certificate lives for a year; half of it leaves time to notice.
    if [ "$(cat "$service/issued-for" 2>/dev/null)" != "$name" ] ||
        [ -n "$(find "$service/cert.pem" -mtime +180)" ]; then
        rm -f "$service/issued-for"
        octet certs issue --dir "$authority" --name "$service" --san "$name"
        mv "$authority/$service"/*.pem "$service/"
        printf %s "$name" >"$service/issued-for"
    fi
    case $service in
    reward*) ;;
    *) cp "$token" "$service/join-token" ;;
    esac
done
