#!/bin/sh
# Does what a new user of the service would, by curl, and fails where something does
# not come out as it says: keys, tokens, certificates, limits, the audit trail, metrics.
# Usage: sh demo.sh [http://127.0.0.1:8083], on the machine where the service runs.
set -eu
base=${1:-http://127.0.0.1:8083}
here=$(dirname "$0")
json='Content-Type: application/json'

call() { curl -s --max-time 10 -w ' %{http_code}' "$@"; } # prints the body and then the status
member() { sed -n "s/.*\"$1\":\"\([^\"]*\)\".*/\1/p"; }
expect() { # expect STATUS ANSWER WHAT [TEXT]: the status, and what has to be in the answer
  case $2 in
    *"${4-}"*" $1") echo "  $1  $3" ;;
    *) echo "  expected $1 ${4-} for: $3; got $2" >&2; exit 1 ;;
  esac
}

setup=$(curl -s --max-time 10 "$base/setup" || true)
directory=$(echo "$setup" | member directory)
tls=$(echo "$setup" | member tls)
[ -n "$directory" ] || { echo "nobody is there: start the example, and run this on the same machine" >&2; exit 1; }
. "$directory/environment"

echo "A person makes a key for a script:"
mail="ada-$$-$(date +%s)@example.com"
credentials="{\"email\":\"$mail\",\"password\":\"a passphrase for readings\"}"
expect 201 "$(call "$base/auth/register" -H "$json" -d "$credentials")" "register"
answer=$(call "$base/auth/login" -H "$json" -d "$credentials")
expect 200 "$answer" "sign in"
ada=$(echo "$answer" | member access_token)
answer=$(call "$base/auth/api-keys" -H "Authorization: Bearer $ada" -H "$json" -d '{"name":"cron","scopes":["readings:read","readings:write"]}')
expect 201 "$answer" "make an API key, which is shown this once" '"key":"mch_'
key=$(echo "$answer" | member key)
key_id=$(echo "$answer" | member id)
expect 403 "$(call "$base/auth/api-keys" -H "X-API-Key: $key" -H "$json" -d '{"name":"another"}')" "a key makes no keys"
answer=$(call "$base/auth/api-keys" -H "Authorization: Bearer $ada" -H "$json" -d '{"name":"too much","scopes":["mandate:audit"]}')
expect 422 "$answer" "nor gives a person more than is theirs" '"scopes"'

echo "The script calls with it:"
expect 201 "$(call "$base/readings" -H "X-API-Key: $key" -H "$json" -d '{"value":19.5}')" "a reading, by X-API-Key" '"credential":"api_key"'
expect 201 "$(call "$base/readings" -H "Authorization: Bearer $key" -H "$json" -d '{"value":19.5}')" "and by Bearer"
API_KEY=$key sh "$here/script.sh" "$base" > /dev/null && echo "  ok   script.sh"
expect 400 "$(call "$base/readings" -H "X-API-Key: $key" -H "Authorization: Bearer $key" -H "$json" -d '{"value":1}')" "never by both at once"
expect 401 "$(call "$base/readings" -H "Authorization: Bearer $ada" -H "$json" -d '{"value":1}')" "a person's token is no credential for readings"
expect 200 "$(call "$base/report" -H "Authorization: Bearer $ada")" "the person sees the report"
expect 403 "$(call "$base/report" -H "X-API-Key: $key")" "the script does not, though it may read" human_required
expect 204 "$(call -X DELETE "$base/auth/api-keys/$key_id" -H "Authorization: Bearer $ada")" "revoke the key"
expect 401 "$(call "$base/readings" -H "X-API-Key: $key" -H "$json" -d '{"value":1}')" "it is dead at once"

echo "A client gets tokens (OAuth 2.0 client credentials):"
metadata=$(call "$base/.well-known/oauth-authorization-server")
expect 200 "$metadata" "discover where" token_endpoint
endpoint=$(echo "$metadata" | member token_endpoint)
introspect=$(echo "$metadata" | member introspection_endpoint)
revoke=$(echo "$metadata" | member revocation_endpoint)
basic="$WORKER_CLIENT_ID:$WORKER_CLIENT_SECRET"
expect 200 "$(call "$(echo "$metadata" | member jwks_uri)")" "the keys that verify its tokens" '"crv":"Ed25519"'
answer=$(call "$endpoint" -u "$basic" -d grant_type=client_credentials -d scope=readings:write)
expect 200 "$answer" "a token by Basic" '"token_type":"Bearer"'
token=$(echo "$answer" | member access_token)
answer=$(call "$endpoint" -d grant_type=client_credentials -d "client_id=$WORKER_CLIENT_ID" -d "client_secret=$WORKER_CLIENT_SECRET")
expect 200 "$answer" "another one by form"
other=$(echo "$answer" | member access_token)
expect 401 "$(call "$endpoint" -u "$WORKER_CLIENT_ID:wrong" -d grant_type=client_credentials)" "none for a wrong secret" invalid_client
expect 400 "$(call "$endpoint" -u "$basic" -d grant_type=client_credentials -d scope=readings:read)" "none with more scopes than the client has" invalid_scope
expect 201 "$(call "$base/readings" -H "Authorization: Bearer $token" -H "$json" -d '{"value":22.5}')" "a reading with the token" "\"by\":\"$WORKER_CLIENT_ID\""
expect 201 "$(call "$base/readings" -u "$basic" -H "$json" -d '{"value":22.5}')" "or with id and secret, where a rule says client" client_secret
expect 403 "$(call "$base/readings" -H "Authorization: Bearer $token")" "it writes readings and reads none"
expect 200 "$(call "$introspect" -u "$basic" -d "token=$token")" "introspect it" '"active":true'
expect 200 "$(call "$revoke" -u "$basic" -d "token=$token")" "revoke it"
expect 200 "$(call "$introspect" -u "$basic" -d "token=$token")" "introspect it again" '"active":false'
expect 401 "$(call "$base/readings" -H "Authorization: Bearer $token" -H "$json" -d '{"value":1}')" "it is dead" token_revoked
expect 201 "$(call "$base/readings" -H "Authorization: Bearer $other" -H "$json" -d '{"value":22.5}')" "the other one lives"

echo "A certificate is a credential of the service's own:"
secure() { call --cacert "$directory/ca.pem" -H "$json" "$@"; }
expect 201 "$(secure --cert "$directory/worker.pem" "$tls/readings" -d '{"value":21.5}')" "a reading with the certificate" '"credential":"certificate"'
expect 401 "$(secure "$tls/readings" -d '{"value":1}')" "none without a credential" unauthenticated
expect 401 "$(secure --cert "$directory/worker.pem" -H 'Authorization: Bearer x' "$tls/readings" -d '{"value":1}')" "a wrong token beside it stays wrong" token_invalid
expect 401 "$(secure --cert "$directory/worker.pem" -X PUT "$tls/calibration" -d '{"offset":0}')" "calibration asks for token and certificate"
expect 204 "$(secure --cert "$directory/worker.pem" -H "Authorization: Bearer $other" -X PUT "$tls/calibration" -d '{"offset":0}')" "with both it passes"

echo "The worker has been at it, and nobody reads too often:"
for _ in 1 2 3 4 5 6 7 8; do # it sends every five seconds
  list=$(call "$base/readings" -D "$directory/headers" -H "Authorization: Bearer $ada")
  case $list in *'"credential":"client_token","value":20'*) break ;; esac
  sleep 1
done
expect 200 "$list" "its readings are there" '"credential":"client_token","value":20'
grep -i '^ratelimit' "$directory/headers" | sed 's/^/         /'
n=0
until answer=$(call "$base/readings" -D "$directory/headers" -o /dev/null -H "Authorization: Bearer $ada") && [ "$answer" = " 429" ]; do
  n=$((n + 1))
  [ $n -le 20 ] || { echo "  expected 429 after 20 requests in a minute" >&2; exit 1; }
done
echo "  429  the rule of the path is 20 a minute"
grep -Ei '^(x-)?ratelimit|^retry-after' "$directory/headers" | sed 's/^/         /'
for header in 'ratelimit-policy: "readings";q=20;w=60' 'ratelimit: "readings";r=0' 'x-ratelimit-remaining: 0' 'retry-after: '; do
  grep -qi "^$header" "$directory/headers" || { echo "  expected the header $header" >&2; exit 1; }
done

echo "Those who look after it:"
answer=$(call "$base/auth/login" -H "$json" -d "{\"email\":\"admin@example.com\",\"password\":\"$MACHINES_ADMIN_PASSWORD\"}")
expect 200 "$answer" "the administrator signs in"
admin="Authorization: Bearer $(echo "$answer" | member access_token)"
expect 403 "$(call "$base/auth/admin/audit" -H "Authorization: Bearer $ada")" "the audit trail is not for everybody" forbidden
expect 200 "$(call "$base/auth/admin/audit?type=rate_limited" -H "$admin")" "who was stopped by a limit" '"reason":"readings"'
expect 200 "$(call "$base/auth/admin/audit?client_id=$WORKER_CLIENT_ID&limit=5" -H "$admin")" "what the client did" '"is_m2m":true'
expect 200 "$(call "$base/auth/admin/audit/summary" -H "$admin")" "the summary" '"client_token_issued"'
expect 200 "$(call "$base/auth/admin/audit/verify" -H "$admin")" "the trail is whole" '"intact":true'
expect 200 "$(call "$base/auth/me/activity" -H "Authorization: Bearer $ada")" "everybody sees their own" '"type":"login_succeeded"'
answer=$(call "$base/auth/admin/clients" -H "$admin" -H "$json" -d '{"name":"cold store '$$'","scopes":["readings:write"]}')
expect 201 "$answer" "a new client" client_secret
made=$(echo "$answer" | sed -n 's/.*"id":"\(cli_[^"]*\)".*/\1/p')
expect 201 "$(call -X POST "$base/auth/admin/clients/$made/secrets" -H "$admin")" "a second secret, the first stays good beside it" client_secret
expect 204 "$(call -X DELETE "$base/auth/admin/clients/$made" -H "$admin")" "and its end"
answer=$(call "$base/auth/metrics/prometheus")
expect 200 "$answer" "metrics for Prometheus" 'auth_rate_limited_total{app="machines",rule="readings"}'
for series in auth_tokens_validated_total auth_success_rate auth_validation_duration_avg_ms auth_client_tokens_issued_total; do
  case $answer in *"$series{app=\"machines\"}"*) ;; *) echo "  expected the series $series" >&2; exit 1 ;; esac
done
echo "All as it should be. End the program with Ctrl-C to see the audit trail."
