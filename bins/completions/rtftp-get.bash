# bash completion for rtftp-get(1)

_rtftp_get() {
    local word=${COMP_WORDS[COMP_CWORD]} option=${COMP_WORDS[COMP_CWORD - 1]}
    # `--option=value` arrives as three words.
    if [[ $word == = ]]; then
        word=
    elif [[ $option == = ]]; then
        option=${COMP_WORDS[COMP_CWORD - 2]}
    fi

    case $option in
    -o | --output | --verify)
        compopt -o filenames
        mapfile -t COMPREPLY < <(compgen -f -- "$word")
        return
        ;;
    --blksize | --windowsize | --timeout | --patience) return ;;
    esac

    if [[ $word == -* ]]; then
        local words='--output --blksize --windowsize --timeout --no-options --patience --verify --trace --quiet --help
            --version'
        mapfile -t COMPREPLY < <(compgen -W "$words" -- "$word")
    elif [[ $COMP_CWORD == 1 ]]; then
        mapfile -t COMPREPLY < <(compgen -A hostname -- "$word")
    fi
}

complete -F _rtftp_get rtftp-get
