#!/bin/sh
# SPDX-License-Identifier: MIT
#
# rabbitmq.sh - a private RabbitMQ: on loopback, with ports, a folder and an
# epmd of its own, for any user.  It ends with the process that it belongs to,
# whichever way that ends.
#
#     rabbitmq.sh open OWNER          start one for the process of that number
#     rabbitmq.sh open OWNER shared   the same, or the one that OWNER has
#     rabbitmq.sh open OWNER strict   TLS with a certificate of the client only
#     rabbitmq.sh stop DIR            end it; connections break
#     rabbitmq.sh kill DIR            the same by SIGKILL
#     rabbitmq.sh run DIR             start it again, with what it had
#     rabbitmq.sh ctl DIR WORD...     rabbitmqctl WORD...
#     rabbitmq.sh close DIR           end it, and remove all of it
#
# 'open' prints DIR, which has:
#
#     port, tls_port      numbers
#     ca.pem              signed server.pem (for localhost and 127.0.0.1),
#                         client.pem, elsewhere.pem (for elsewhere.invalid)
#     client.key, secret.key   of client.pem; the second one has a password
#     other.pem           a CA that has signed nothing here
#     log/                what the server said
#
# Users are guest (password guest), and 'a user' (password 'p@ss/w%rd:'), who
# has the virtual host a/b.  There is a queue without priorities, 'plain', and
# an exchange that is no fanout, 'direct'.  What cannot be is told on the
# standard error; the status is 77 where a program is missing.

PATH=$PATH:/usr/sbin:/sbin
here=$(cd "$(dirname "$0")" && pwd)/$(basename "$0")
server=/usr/lib/rabbitmq/bin/rabbitmq-server
BOOT=180                    # seconds until the server has to listen

die () {
  echo "rabbitmq: $*" >&2
  exit "${status:-1}"
}

# alive PID WORD - does it run, and is WORD in its command line?
alive () {
  tr '\0' ' ' 2>/dev/null <"/proc/$1/cmdline" | grep -q -e "$2"
}

# listens PORT
listens () {
  awk -v port="$(printf ':%04X' "$1")" '
    $4 == "0A" && substr($2, length($2) - 4) == port { found = 1 }
    END { exit !found }' /proc/net/tcp /proc/net/tcp6 2>/dev/null
}

# Four ports that are free, one after the other: below those that the system
# gives to connections.
choose () {
  for try in 1 2 3 4 5 6 7 8 9 10; do
    base=$(($(od -An -N2 -tu2 /dev/urandom) % 20000 + 12000))
    taken=
    for port in $base $((base + 1)) $((base + 2)) $((base + 3)); do
      listens $port && taken=$port
    done
    test -n "$taken" || return 0
  done
  die "no free ports"
}

# sign NAME SUBJECT ALTERNATIVES - a key, and a certificate of the CA.
sign () {
  openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes \
    -keyout "$dir/$1.key" -out "$dir/$1.req" -subj "/CN=$2" &&
  printf 'subjectAltName=%s\n' "$3" >"$dir/$1.ext" &&
  openssl x509 -req -in "$dir/$1.req" -CA "$dir/ca.pem" \
    -CAkey "$dir/ca.key" -set_serial "0x$(od -An -N8 -tx1 /dev/urandom |
      tr -d ' ')" -days 30 -extfile "$dir/$1.ext" -out "$dir/$1.pem"
}

authority () {
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes \
    -keyout "$dir/$1.key" -out "$dir/$1.pem" -subj "/CN=runspace $1" -days 30
}

certify () {
  authority ca && authority other &&
  sign server localhost DNS:localhost,IP:127.0.0.1 &&
  sign elsewhere elsewhere.invalid DNS:elsewhere.invalid &&
  sign client client DNS:client.invalid &&
  openssl pkey -in "$dir/client.key" -aes128 -passout pass:secret \
    -out "$dir/secret.key"
}

configure () {
  choose
  echo $base >"$dir/port"
  echo $((base + 1)) >"$dir/tls_port"
  echo $((base + 2)) >"$dir/dist_port"
  echo $((base + 3)) >"$dir/epmd_port"
  cat >"$dir/rabbitmq.conf" <<END
listeners.tcp.1 = 127.0.0.1:$base
listeners.ssl.1 = 127.0.0.1:$((base + 1))
ssl_options.cacertfile = $dir/ca.pem
ssl_options.certfile = $dir/server.pem
ssl_options.keyfile = $dir/server.key
ssl_options.verify = verify_peer
ssl_options.fail_if_no_peer_cert = $strict
load_definitions = $dir/definitions.json
disk_free_limit.absolute = 1MB
log.console = false
END
  cat >"$dir/definitions.json" <<END
{ "users": [
    { "name": "guest", "password": "guest", "tags": "administrator" },
    { "name": "a user", "password": "p@ss/w%rd:", "tags": "" } ],
  "vhosts": [ { "name": "/" }, { "name": "a/b" } ],
  "permissions": [
    { "user": "guest", "vhost": "/",
      "configure": ".*", "write": ".*", "read": ".*" },
    { "user": "a user", "vhost": "a/b",
      "configure": ".*", "write": ".*", "read": ".*" } ],
  "queues": [
    { "vhost": "/", "name": "plain", "durable": true, "auto_delete": false,
      "arguments": {} } ],
  "exchanges": [
    { "vhost": "/", "name": "direct", "type": "direct", "durable": true,
      "auto_delete": false, "internal": false, "arguments": {} } ] }
END
  echo '[].' >"$dir/enabled_plugins"
}

# The name resolver, and the server.  What they inherit is closed.
run () {
  port=$(cat "$dir/port")
  epmd_port=$(cat "$dir/epmd_port")
  if ! alive "$(cat "$dir/epmd.pid" 2>/dev/null)" "-port $epmd_port "; then
    setsid epmd -port "$epmd_port" -address 127.0.0.1 \
      </dev/null >/dev/null 2>&1 3>&- 4>&- 5>&- 6>&- 7>&- 8>&- 9>&- &
    echo $! >"$dir/epmd.pid"
  fi
  (
    cd "$dir" || exit
    surround
    export RUNNING_UNDER_SYSTEMD=true  # it becomes the server, and stays it
    export RABBITMQ_DIST_PORT="$(cat dist_port)"
    export RABBITMQ_CONFIG_FILE="$dir/rabbitmq.conf"
    export RABBITMQ_ADVANCED_CONFIG_FILE="$dir/none"
    export RABBITMQ_GENERATED_CONFIG_DIR="$dir/generated"
    export RABBITMQ_SCHEMA_DIR="$dir/schema"
    export RABBITMQ_ENABLED_PLUGINS_FILE="$dir/enabled_plugins"
    export RABBITMQ_MNESIA_BASE="$dir/mnesia" RABBITMQ_LOG_BASE="$dir/log"
    export RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS="-runspace $dir +S 2:2
      -kernel inet_dist_use_interface {127,0,0,1} -start_epmd false"
    unset NOTIFY_SOCKET
    exec setsid "$server" </dev/null >>"$dir/said" 2>&1 \
      3>&- 4>&- 5>&- 6>&- 7>&- 8>&- 9>&-
  ) &
  pid=$!
  echo $pid >"$dir/pid"
  waited=0
  until listens "$port" && listens $((port + 1)); do
    sleep 0.1
    waited=$((waited + 1))
    kill -0 $pid 2>/dev/null ||
      die "the server has ended: $(tail -n 20 "$dir/said" "$dir"/log/*.log)"
    test $waited -lt $((BOOT * 10)) ||
      die "the server does not listen: $(tail -n 20 "$dir/said")"
  done
}

# What all programs of the server are told.
surround () {
  HOME=$dir
  ERL_EPMD_PORT=$(cat "$dir/epmd_port")
  ERL_EPMD_ADDRESS=127.0.0.1
  RABBITMQ_NODENAME=rs@localhost
  RABBITMQ_CONF_ENV_FILE=$dir/none
  export HOME ERL_EPMD_PORT ERL_EPMD_ADDRESS RABBITMQ_NODENAME
  export RABBITMQ_CONF_ENV_FILE
}

ctl () {
  surround
  exec "$(dirname $server)/rabbitmqctl" -q "$@" </dev/null
}

# end SIGNAL
end () {
  pid=$(cat "$dir/pid" 2>/dev/null) || return 0
  waited=0
  while alive "$pid" "-runspace $dir "; do
    case $waited in
      0) kill -"$1" "$pid" ;;
      200) kill -KILL "$pid" ;;
    esac
    sleep 0.1
    waited=$((waited + 1))
  done
  rm -f "$dir/pid"
}

close () {
  rmdir "$dir/open" 2>/dev/null || return 0  # somebody else does
  end TERM
  pid=$(cat "$dir/epmd.pid" 2>/dev/null)
  if alive "$pid" "-port $(cat "$dir/epmd_port") "; then kill "$pid"; fi
  rm -rf "$dir"
}

# End with the owner, or when 'close' was called.
keep () {
  while kill -0 "$1" 2>/dev/null && test -d "$dir/open"; do sleep 0.5; done
  close
}

# The server that the same owner has already: wait until it listens.
find () {
  test -O "$dir" && test ! -L "$dir" || die "$dir is not ours"
  waited=0
  until test -f "$dir/ready"; do
    test -d "$dir" && test $waited -lt $((BOOT * 10)) ||
      die "the server that another test has started does not listen"
    sleep 0.1
    waited=$((waited + 1))
  done
}

open () {
  owner=$1
  status=77
  test -x $server || die "package rabbitmq-server is missing"
  for program in openssl epmd setsid; do
    command -v $program >/dev/null || die "$program is missing"
  done
  status=1
  kill -0 "$owner" 2>/dev/null || die "no process $owner"
  strict=false
  test "$2" != strict || strict=true
  if test "$2" = shared; then
    dir=${TMPDIR:-/tmp}/runspace-rabbitmq-$owner
    if ! mkdir -m 700 "$dir" 2>/dev/null; then
      find
      echo "$dir"
      return
    fi
  else
    dir=$(mktemp -d "${TMPDIR:-/tmp}/runspace-rabbitmq-XXXXXX") || exit
  fi
  mkdir "$dir/open"
  setsid sh "$here" keep "$dir" "$owner" </dev/null >/dev/null 2>&1 \
    3>&- 4>&- 5>&- 6>&- 7>&- 8>&- 9>&- &
  trap 'close' EXIT
  certify >"$dir/openssl" 2>&1 || die "no certificates: $(cat "$dir/openssl")"
  # Ports may be taken in between.
  for try in 1 2 3; do
    configure
    ( run ) 2>"$dir/why" && break
    grep -q eaddrinuse "$dir/why" "$dir/said" && test $try -lt 3 ||
      die "$(cat "$dir/why")"
    end KILL
  done
  trap - EXIT
  >"$dir/ready"
  echo "$dir"
}

command=$1
shift
case $command in
  open) open "$@" ;;
  run|close) dir=$1; $command ;;
  stop) dir=$1; end TERM ;;
  kill) dir=$1; end KILL ;;
  ctl) dir=$1; shift; ctl "$@" ;;
  keep) dir=$1; keep "$2" ;;
  *) die "no command '$command'" ;;
esac
