#!/bin/sh
# Asks both apps the same and compares: the one that Casbin's rules decide for, and
# the one with a provider of its own. Usage: sh demo.sh [http://127.0.0.1:8082]; it
# fails where the answers differ or are not those that are expected.
set -eu
base=${1:-http://127.0.0.1:8082}
password='three people in one office'
failed=0

for app in casbin custom; do
  for who in user editor admin; do
    token=$(curl -s -H 'Content-Type: application/json' "$base/$app/auth/login" -d "{\"email\":\"$who@example.com\",\"password\":\"$password\"}" |
      sed -n 's/.*"access_token":"\([^"]*\)".*/\1/p')
    [ -n "$token" ] || { echo "$who cannot sign in at $app" >&2; exit 1; }
    eval "${app}_$who=$token"
  done
done

# ask METHOD PATH WHO EXPECTED: the status at both
ask() {
  for app in casbin custom; do
    if [ "$3" = nobody ]; then
      status=$(curl -s -o /dev/null -w '%{http_code}' --path-as-is -X "$1" "$base/$app$2")
    else
      eval "token=\$${app}_$3"
      status=$(curl -s -o /dev/null -w '%{http_code}' --path-as-is -X "$1" -H "Authorization: Bearer $token" "$base/$app$2")
    fi
    eval "$app=$status"
  done
  printf '%-7s %-32s %-7s casbin %s  custom %s\n' "$1" "$2" "$3" "$casbin" "$custom"
  [ "$casbin" = "$4" ] && [ "$custom" = "$4" ] || { echo "  expected $4 of both" >&2; failed=1; }
}

ask GET    /documents/handbook            nobody 401
ask GET    /documents/handbook            user   200
ask PUT    /documents/handbook            user   403
ask PUT    /documents/handbook            editor 200
ask PUT    /documents/handbook/chapter    editor 403
ask DELETE /documents/handbook            editor 403
ask DELETE /documents/handbook            admin  200
ask GET    /documents/payroll             admin  403
ask GET    /documents/payroll/march       user   403
ask PATCH  /documents/handbook            user   403
ask DELETE /DOCUMENTS/handbook            user   403
ask DELETE '/documents;x/handbook'         user   403
ask DELETE /documents%2fhandbook          nobody 401
ask GET    /documents/hand%00book         admin  400

echo
echo "Why:"
explain() { # explain APP WHO OBJECT ACTION EXPECTED
  eval "token=\$${1}_$2"
  text=$(curl -s -H "Authorization: Bearer $token" "$base/$1/explain?object=$3&action=$4" | sed -n 's/.*"text":"\([^"]*\)".*/\1/p')
  echo "  $1, $2: $text"
  case $text in *"$5"*) ;; *) echo "  expected: $5" >&2; failed=1 ;; esac
}
explain casbin editor /documents/handbook read '→ editor → user may read /documents/*'
explain casbin admin /documents/payroll read 'may not read /documents/payroll/*'
explain casbin user /documents/handbook delete no_rule
explain custom user /documents/handbook delete no_rule

echo
echo "What a path asks for:"
for app in casbin custom; do
  text=$(curl -s -G "$base/$app/explain-path" --data-urlencode "path=/$app/documents/handbook" --data method=DELETE | sed -n 's/.*"text":"\([^"]*\)".*/\1/p')
  echo "  DELETE $text"
  case $text in "rule 1, /$app/documents/*: a principal, a sign-in within 15m, the role admin") ;; *) echo "  expected rule 1" >&2; failed=1 ;; esac
done
[ $failed = 0 ] && echo && echo "Both gave the same answers."
exit $failed
