#!/bin/bash
# Whether the node in this container is well: what it says itself at /healthz. The image has no curl, and needs none.
set -eu
exec 3<>"/dev/tcp/127.0.0.1/${1:-9464}"
printf 'GET /healthz HTTP/1.0\r\n\r\n' >&3
answer=$(tr -d '\r' <&3)
case ${answer%%$'\n'*} in
*' 200 '*) ;;
*)
    echo "${answer##*$'\n\n'}"
    exit 1
    ;;
esac
