#!/usr/bin/env bash
# curl through the gateway: curl.sh URL. Ends at the first answer that is not as it should be.
set -euo pipefail

gateway=$1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"

# Without the user's own settings, quietly, and never for ever.
curl() {
    command "${CURL:-curl}" --disable --silent --show-error --max-time 60 "$@"
}

fail() {
    printf 'curl.sh: %s\n' "$*" >&2
    exit 1
}

# is WHAT EXPECTED ACTUAL
is() {
    [[ $3 == "$2" ]] || fail "$1: expected '$2', got '$3'"
}

# has WHAT PATTERN FILE: some line of the file matches, whatever the case.
has() {
    grep -Eiq -- "$2" "$3" || fail "$1: no line like '$2' in: $(cat "$3")"
}

lacks() {
    ! grep -Eiq -- "$2" "$3" || fail "$1: a line like '$2' in: $(cat "$3")"
}

# What curl exits with.
exit_of() {
    local code=0
    curl "$@" >exit.out 2>exit.err || code=$?
    echo "$code"
}

plain_get() {
    is "GET" "ok 200 1.1" "$(curl -w ' %{http_code} %{http_version}' "$gateway/healthz" | tr -d '\n')"
    curl -D head "$gateway/users/7" >body
    has "an upstream's type" '^content-type: application/json' head
    has "Via" '^via: 1\.1 ringgate' head
    has "Date" '^date: ' head
    has "the rewritten path" '"path": "/v2/users/7"' body
    has "who asks" '"x-forwarded-for": "127.0.0.1"' body
    has "what host it asked" "\"x-forwarded-host\": \"${gateway#http://}\"" body
    has "request id" '"x-request-id": "[0-9a-f-]{36}"' body
}

head_requests() {
    curl -I -o head -w '%{num_connects} ' "$gateway/healthz" -: -s -o body -w '%{num_connects}' "$gateway/healthz" >connects
    is "HEAD and GET share a connection" "1 0" "$(cat connects)"
    has "HEAD" '^content-length: 3' head
    is "GET after HEAD" "ok" "$(cat body)"
    curl -I -o head -w '%{num_connects} ' "$gateway/users/7" -: -s -o body -w '%{num_connects}' "$gateway/users/7" >connects
    is "HEAD and GET of an upstream share a connection" "1 0" "$(cat connects)"
    has "HEAD of an upstream" '^content-length: [1-9]' head
    has "GET after HEAD of an upstream" '"method": "GET"' body
}

keep_alive() {
    curl -o /dev/null -w '%{num_connects}\n' "$gateway/users/7?try=[1-20]" >connects
    is "20 requests, connections" 1 "$(($(paste -sd+ connects)))"
    curl -H 'Connection: close' -D head -o /dev/null -w '%{num_connects}\n' "$gateway/users/7?try=[1-3]" >connects
    is "three closed connections" "1 1 1" "$(paste -sd' ' connects)"
    has "the gateway says that it closes" '^connection: close' head
    curl -Z --no-progress-meter --parallel-max 20 -o /dev/null -w '%{http_code}\n' "$gateway/users/7?try=[1-60]" >statuses
    is "60 requests in parallel" "60 200" "$(sort statuses | uniq -c | awk '{ print $1, $2 }')"
}

http_1_0() {
    is "HTTP/1.0" "ok 200" "$(curl --http1.0 -w '%{http_code}' "$gateway/healthz" | paste -sd' ')"
    curl --http1.0 -D head "$gateway/events?n=3&every=1" >events
    is "a stream to HTTP/1.0" 3 "$(grep -c '^data: event' events)"
    lacks "no chunks to HTTP/1.0" '^transfer-encoding' head
    curl --http1.0 -H 'Connection: keep-alive' -w '%{num_connects}\n' -o /dev/null "$gateway/healthz?try=[1-3]" >connects
    is "HTTP/1.0 with keep-alive" "1 0 0" "$(paste -sd' ' connects)"
}

redirects() {
    is "a redirect" "308 $gateway/users/7" "$(curl -o /dev/null -w '%{http_code} %{redirect_url}' "$gateway/old/7")"
    curl -L -w '%{num_redirects} %{num_connects}' -o body "$gateway/old/7" >counts
    is "a redirect, followed" "1 1" "$(cat counts)"
    has "where it leads" '"path": "/v2/users/7"' body
}

uploads() {
    head -c 3000000 /dev/urandom >file
    curl -d 'tea=1' "$gateway/orders" >body
    has "a form" '"body_bytes": 5' body
    curl -F 'file=@file' "$gateway/orders" >body
    has "a multipart form" '"body_bytes": 3000[0-9]{3}' body
    # Not waiting for 100: the echo's upstream answers before it reads.
    curl -H 'Expect:' -X PUT --data-binary @file "$gateway/echo" >echoed
    cmp file echoed || fail "a sized upload comes back changed"
    curl -H 'Expect:' -H 'Transfer-Encoding: chunked' -X POST -T file "$gateway/echo" >echoed
    cmp file echoed || fail "a chunked upload comes back changed"
    curl -H 'Expect:' -X POST -T - "$gateway/echo" <file >echoed
    cmp file echoed || fail "an upload from a pipe comes back changed"
    : >empty
    is "an empty upload" "200 0" "$(curl -X POST -T empty -o echoed -w '%{http_code} %{size_download}' "$gateway/echo")"
    curl -X POST -T - "$gateway/orders" <empty >body
    has "an empty chunked upload" '"body_bytes": 0' body
}

expect_continue() {
    curl -v -H 'Expect: 100-continue' --expect100-timeout 60 --data-binary @file "$gateway/orders" >body 2>trace
    has "100" '^< HTTP/1\.1 100' trace
    has "the body after 100" '"body_bytes": 3000000' body
    # Refused by its head alone: the body is never sent.
    curl -H 'Expect: 100-continue' --expect100-timeout 60 --data-binary @file -o problem \
        -w '%{http_code} %{size_upload}' "$gateway/echo/small" >counts
    is "413 instead of 100" "413 0" "$(cat counts)"
    has "413" '"status": ?413' problem
}

downloads() {
    is "20 MB" "200 20000000" "$(curl -o /dev/null -w '%{http_code} %{size_download}' "$gateway/bytes?n=20000000")"
    is "a slow reader" "200 3000000" \
        "$(curl --limit-rate 20M -o /dev/null -w '%{http_code} %{size_download}' "$gateway/bytes?n=3000000")"
    is "events" 5 "$(curl -N "$gateway/events?every=1" | grep -c '^data: event')"
    # 18: the transfer ended before its time.
    is "a response cut short, curl's exit code" 18 "$(exit_of "$gateway/broken")"
}

targets() {
    curl --path-as-is "$gateway/users/x/../7" >body
    has "dot segments" '"path": "/v2/users/7"' body
    curl -x "$gateway" http://example.test/users/7 >body
    has "absolute form" '"path": "/v2/users/7"' body
    has "its host" '"host": "example.test"' body
    curl -H 'Host: acme.demo.test' "$gateway/any/path" >body
    has "a tenant" '"x-tenant": "acme.demo.test"' body
    is "no route" 404 "$(curl -o problem -w '%{http_code}' "$gateway/nowhere")"
    has "the problem's type" '"type": ?"urn:ringgate:problem:no-route"' problem
    is "TRACE" 405 "$(curl -X TRACE -o /dev/null -w '%{http_code}' "$gateway/healthz")"
    # No route of a path takes it.
    is "OPTIONS *" 404 "$(curl -X OPTIONS --request-target '*' -o /dev/null -w '%{http_code}' "$gateway")"
    local long
    long=$(printf 'x%.0s' {1..9000})
    is "a long target" 414 "$(curl -o /dev/null -w '%{http_code}' "$gateway/$long")"
    is "a long head" 431 "$(curl -H "x-a: $long" -H "x-b: $long" -o /dev/null -w '%{http_code}' "$gateway/")"
}

cookies() {
    local first again
    first=$(curl -c jar "$gateway/cart" | grep '"upstream"')
    has "the cookie" 'cart_at' jar
    for _ in 1 2 3 4; do
        again=$(curl -b jar "$gateway/cart" | grep '"upstream"')
        is "a sticky endpoint" "$first" "$again"
    done
}

timeouts() {
    is "the route's timeout" 504 "$(curl -o /dev/null -w '%{http_code}' "$gateway/hurry")"
    is "nobody there" 502 "$(curl -o /dev/null -w '%{http_code}' "$gateway/nobody")"
}

plain_get
head_requests
keep_alive
http_1_0
redirects
uploads
expect_continue
downloads
targets
cookies
timeouts
