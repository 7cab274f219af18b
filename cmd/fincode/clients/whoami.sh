#!/bin/sh
# Calls FinCode through the proxy with curl. The base URL holds the proxy's key:
#   FINCODE_PROXY=http://fincode:KEY@127.0.0.1:8080 sh whoami.sh
set -eu
# --config from standard input: a command line can be read by all users of the machine.
printf 'url = "%s/whoami"\n' "$FINCODE_PROXY" | curl --config - --fail --silent --show-error
