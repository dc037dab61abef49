#!/usr/bin/env bash
# What the machine must have: the one list of system packages.
#
#   packages.sh demo   to build and run Zeta: a C and C++ compiler, cmake, OpenSSL with pkg-config, Node.js with npm, Rust
#   packages.sh test   to test it too: a JDK, Maven, nginx, Chromium; and mold, which only makes linking quicker
#
# Missing packages are installed by root on Debian and Ubuntu; for anyone else it prints the line to run, and exits with 1.
# Where everything is there, it prints nothing and takes no time.
set -euo pipefail

NODE_MIN=20.19
JAVA_MIN=17

# need COMMAND PACKAGE: remembers the package, unless the command is there.
packages=()
need() { PATH=$PATH:/usr/sbin command -v "$1" >/dev/null || packages+=("$2"); }

# header FILE PACKAGE: the same for a header of C.
header() { echo "#include <$1>" | cc -E - >/dev/null 2>&1 || packages+=("$2"); }

problems=()
problem() { problems+=("$*"); }

# at_least VERSION MINIMUM
at_least() { printf '%s\n%s\n' "$2" "$1" | sort --version-sort --check=quiet; }

find_missing() { # demo|test
    need cc build-essential
    need c++ build-essential
    need make build-essential
    need cmake cmake
    # librdkafka includes its header even where it is built without it.
    header curl/curl.h libcurl4-openssl-dev
    # librdkafka's TLS is that of the system.
    header openssl/ssl.h libssl-dev
    need pkg-config pkg-config
    need node nodejs
    need npm npm
    [[ $1 == test ]] || return 0
    # On Debian, `java` alone may be there without the compiler that Maven wants.
    need javac default-jdk-headless
    need mvn maven
    need nginx nginx
    # Ubuntu has it under another name.
    command -v chromium-browser >/dev/null || need chromium chromium
    need flock util-linux
    # Makes the certificates of tests.
    need openssl openssl
    # Only quicker, so nobody is asked to install it by hand.
    [[ $(id -u) != 0 ]] || need mold mold
}

# What no package manager can be trusted to bring in the version needed, and what comes from elsewhere.
find_problems() { # demo|test
    local version
    if version=$(node --version 2>/dev/null) && ! at_least "${version#v}" "$NODE_MIN"; then
        problem "Node.js $NODE_MIN or newer is needed, found ${version#v}: install one from https://nodejs.org"
    fi
    command -v cargo >/dev/null ||
        problem "Rust is needed: install rustup from https://rustup.rs; it brings the version that rust-toolchain.toml names"
    if [[ $1 == test ]]; then
        if version=$(java -version 2>&1 | sed -n 's/.* version "\([0-9]*\).*/\1/p') && [[ -n $version ]] && ! at_least "$version" "$JAVA_MIN"; then
            problem "a JDK $JAVA_MIN or newer is needed, found $version: install one, and set JAVA_HOME"
        fi
    fi
}

install() {
    local line=(apt-get install --yes --no-install-recommends "${packages[@]}")
    if [[ $(id -u) == 0 ]] && command -v apt-get >/dev/null; then
        echo "packages: installing ${packages[*]}" >&2
        # Run level 1 keeps a package without systemd from starting its server: tests start their own nginx.
        apt-get update --quiet=2
        env RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive "${line[@]}" >&2
    elif command -v apt-get >/dev/null; then
        problem "system packages are missing; run: sudo apt-get update && sudo ${line[*]}"
    else
        problem "system packages are missing; install what Debian calls: ${packages[*]}"
    fi
}

kind=${1:-}
[[ $kind == demo || $kind == test ]] || { sed -n '2,${/^#/!q; s/^# \{0,1\}//p}' "$0" >&2; exit 2; }
find_missing "$kind"
if ((${#packages[@]} > 0)); then
    mapfile -t packages < <(printf '%s\n' "${packages[@]}" | sort -u)
    install
fi
find_problems "$kind"
if ((${#problems[@]} > 0)); then
    printf 'error: %s\n' "${problems[@]}" >&2
    exit 1
fi
