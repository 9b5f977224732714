#!/bin/sh
# Shows that three tenants of one engine have nothing in common: the same address
# signs in at each with a password of its own, and what one hands out works at no
# other. Usage: sh demo.sh [http://127.0.0.1:8081]; it fails where something does
# not come out as it says.
set -eu
base=${1:-http://127.0.0.1:8081}
mail="ada-$$@example.com"

post() { # post PATH BODY [HEADER…]: prints the body and then the status
  path=$1 body=$2
  shift 2
  curl -s -w ' %{http_code}' -H 'Content-Type: application/json' "$@" "$base$path" -d "$body"
}
member() { sed -n "s/.*\"$1\":\"\([^\"]*\)\".*/\1/p"; }
expect() { # expect STATUS ANSWER WHAT
  case $2 in
    *" $1") echo "  $1  $3" ;;
    *) echo "  expected $1 for: $3; got $2" >&2; exit 1 ;;
  esac
}

echo "One address, three accounts:"
for tenant in acme globex initech; do
  answer=$(post "/$tenant/auth/register" "{\"email\":\"$mail\",\"password\":\"a passphrase of $tenant only\"}")
  expect 201 "$answer" "register at $tenant"
  eval "$tenant=$(echo "$answer" | member access_token)"
  eval "refresh_$tenant=$(echo "$answer" | member refresh_token)"
done

echo "A password works where it was set:"
for at in acme globex initech; do
  for of in acme globex initech; do
    status=401
    [ $at = $of ] && status=200
    expect $status "$(post "/$at/auth/login" "{\"email\":\"$mail\",\"password\":\"a passphrase of $of only\"}")" "the password of $of at $at"
  done
done

echo "A token works where it was issued:"
for at in acme globex initech; do
  for of in acme globex initech; do
    eval "token=\$$of refresh=\$refresh_$of"
    status=401
    [ $at = $of ] && status=200
    expect $status "$(curl -s -w ' %{http_code}' -H "Authorization: Bearer $token" "$base/$at/auth/me")" "the access token of $of at $at"
    [ $at = $of ] || expect 401 "$(post "/$at/auth/refresh" "{\"refresh_token\":\"$refresh\"}")" "the refresh token of $of at $at"
  done
done

echo "Each has rules of its own:"
expect 200 "$(curl -s -w ' %{http_code}' -H "Authorization: Bearer $acme" "$base/acme/notes")" "a user of acme reads notes"
expect 403 "$(post /acme/notes '{"text":"hello"}' -H "Authorization: Bearer $acme")" "a user of acme is no editor and writes none"
expect 201 "$(post /globex/notes '{"text":"hello"}' -H "Authorization: Bearer $globex")" "a member of globex writes one"
expect 403 "$(curl -s -w ' %{http_code}' -H "Authorization: Bearer $initech" "$base/initech/notes")" "initech has no roles: nobody was allowed by name"
guest=$(post /initech/auth/anonymous '{}' | member access_token)
expect 200 "$(curl -s -w ' %{http_code}' -H "Authorization: Bearer $guest" "$base/initech/notes")" "but its guests read notes"

echo "Signing out of one is signing out of one:"
expect 204 "$(post /acme/auth/logout '{}' -H "Authorization: Bearer $acme")" "sign out of acme"
expect 401 "$(curl -s -w ' %{http_code}' -H "Authorization: Bearer $acme" "$base/acme/auth/me")" "acme's token is dead"
expect 200 "$(curl -s -w ' %{http_code}' -H "Authorization: Bearer $globex" "$base/globex/auth/me")" "globex's lives"
