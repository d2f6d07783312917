#!/usr/bin/env bash
# Prints the Debian copyright file of a package: bins/pkg/copyright.sh CRATE [OPTION-OF-CARGO-TREE...]
# That is bins/pkg/debian/copyright, and the licences of all crates that the programs contain, with the notices that these licences
# ask to keep: the texts in the crates themselves, each one once.
set -euo pipefail
cd "$(dirname "$0")/../.."

crate=$1
shift
texts=$(mktemp -d)
trap 'rm -rf "$texts"' EXIT

# Name, version and licence of each crate that is linked.
crates=$(cargo tree --quiet --locked --package "$crate" "$@" --edges normal --prefix none --no-dedupe --format '{p}|{l}' |
    sed -nE 's/^([^ ]+) v([^ |]+)( \(proc-macro\))?\|(.*)$/\1 \2 \4/p' | sort --unique)
[ -n "$crates" ] || { echo "$0: $crate has no dependencies" >&2; exit 1; }

cat bins/pkg/debian/copyright
[ ! -e "bins/pkg/debian/$crate.copyright" ] || cat "bins/pkg/debian/$crate.copyright"

# Debian has this text, and no package repeats it.
apache='/TERMS AND CONDITIONS FOR USE, REPRODUCTION/,/END OF TERMS AND CONDITIONS/c\
The full text is in /usr/share/common-licenses/Apache-2.0 on Debian systems.'

while read -r name version licence; do
    # A text of its own stands in bins/pkg/debian.
    ! grep --quiet "crates/$name/" "bins/pkg/debian/$crate.copyright" 2>/dev/null || continue
    directory=$(ls -d "${CARGO_HOME:-$HOME/.cargo}"/registry/src/*/"$name-$version" 2>/dev/null | head -n 1)
    [ -n "$directory" ] || { echo "$0: the source of $name $version is not in cargo's registry" >&2; exit 1; }
    # Where one may choose, the shortest licence that nearly all crates offer.
    if [ -e "$directory/LICENSE-MIT" ] && [[ $licence != *" AND "* ]]; then
        files=("$directory/LICENSE-MIT")
    else
        mapfile -t files < <(find "$directory" -maxdepth 2 -type f \( -ipath '*/licen[cs]e*' -o -ipath '*/copying*' \) | sort)
    fi
    [ ${#files[@]} -gt 0 ] || { echo "$0: $name $version has no licence text" >&2; exit 1; }
    # All crates with the same text are named before it.
    text=$(awk 'FNR == 1 && NR > 1 { print "" } 1' "${files[@]}" | tr --delete '\r' | sed 's/[[:space:]]*$//' | cat --squeeze-blank | sed "$apache")
    sum=$(sha256sum <<<"$text" | cut -c 1-12)
    printf '%s\n' "$text" >"$texts/$sum.text"
    echo "crates/$name/$version/*" >>"$texts/$sum.files"
    { grep --ignore-case --extended-regexp '^ *(\(?c\)? )?copyright (\(c\)|©|[0-9])' <<<"$text" || echo "the authors of these crates"; } |
        sed -E 's/^ *//' | sort --unique >"$texts/$sum.copyright"
done <<<"$crates"

for files in "$texts"/*.files; do
    sum=$(basename "$files" .files)
    printf '\nFiles:\n'
    sed 's/^/ /' "$files"
    printf 'Copyright:\n'
    sed 's/^/ /' "$texts/$sum.copyright"
    printf 'License: crates-%s\n' "$sum"
    sed -E 's/^$/./; s/^/ /' "$texts/$sum.text"
done
