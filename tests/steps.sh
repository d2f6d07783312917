# Sourced by run.sh and long.sh. Runs the steps of a table, each a function of that name, or only the named ones:
# run_steps TABLE [STEP...]. A line of the table is a step and its description; `--list` prints the table.
# Ends with "PASSED" or "FAILED: STEP".
run_steps() {
    local table=$1 names since started=$SECONDS
    shift
    names=$(awk '{print $1}' <<<"$table")
    if [ "${1:-}" = --list ]; then
        sed '/^$/d' <<<"$table"
        return
    fi
    for step in "$@"; do
        grep --quiet --line-regexp --regexp "$step" <<<"$names" || { echo "no such step: $step; see $0 --list" >&2; exit 2; }
    done

    step=
    trap 'kill $(jobs -p) 2>/dev/null || :; [ -z "$step" ] || echo "FAILED: $step"' EXIT
    for step in ${*:-$names}; do
        since=$SECONDS
        echo "=== $step"
        "$step"
        echo "--- $step: $((SECONDS - since)) s"
    done
    step=
    echo "PASSED in $((SECONDS - started)) s"
}
