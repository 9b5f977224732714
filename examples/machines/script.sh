#!/bin/sh
# What a cron job would do: sends a reading with an API key, and prints how many
# there are. Usage: API_KEY=mch_… sh script.sh [http://127.0.0.1:8083].
set -eu
base=${1:-http://127.0.0.1:8083}
: "${API_KEY:?set it to a key of POST /auth/api-keys}"

# The key goes through a pipe: everybody on the machine can read command lines.
call() { printf 'header = "X-API-Key: %s"\n' "$API_KEY" | curl -sS --fail-with-body --max-time 10 --config - "$@"; }

call "$base/readings" -H 'Content-Type: application/json' -d '{"value":19.5}'
echo "readings so far: $(call "$base/readings" | grep -o '"value"' | wc -l)"
