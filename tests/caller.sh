#!/usr/bin/env bash
# Sourced by the tests that need root. Under sudo, PATH has no cargo, and whatever root builds is in the way of the user's next
# build. So root runs only what needs it, and the user who called sudo does the rest.

under_sudo() { [ "$(id -u)" = 0 ] && [ -n "${SUDO_USER:-}" ]; }

# Runs a command as the user who called sudo, with that user's Rust; without sudo, as the current user.
as_caller() { # COMMAND...
    if ! under_sudo; then
        "$@"
        return
    fi
    local home
    home=$(getent passwd "$SUDO_USER" | cut -d: -f6)
    setpriv --reuid "$SUDO_USER" --regid "$(id -g "$SUDO_USER")" --init-groups \
        env --unset=SUDO_USER HOME="$home" USER="$SUDO_USER" PATH="$home/.cargo/bin:$PATH" "$@"
}

# Restarts the calling script as root, with the variables that say where to build.
become_root() { # SCRIPT ARGUMENT...
    [ "$(id -u)" != 0 ] || return 0
    exec sudo ${CARGO_TARGET_DIR:+CARGO_TARGET_DIR="$CARGO_TARGET_DIR"} "$@"
}
