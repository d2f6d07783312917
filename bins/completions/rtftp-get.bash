# Bash completion for rtftp-get.
# Generated from bins/src/options.rs: see bins/src/reference.rs.

_rtftp_get() {
    local word=${COMP_WORDS[COMP_CWORD]} option=${COMP_WORDS[COMP_CWORD - 1]} words='' directories=''
    # Bash splits `--option=value` into three words.
    if [[ $word == = ]]; then
        word=
    elif [[ $option == = ]]; then
        option=${COMP_WORDS[COMP_CWORD - 2]}
    fi

    case $option in
    --ca | -o | --output | --verify) compopt -o filenames; mapfile -t COMPREPLY < <(compgen -f -- "$word"); return ;;
    --blksize | --patience | --timeout | --windowsize) return ;;
    *)
        case $COMP_CWORD,${COMP_WORDS[1]} in
        1,[!-]* | 1,) mapfile -t COMPREPLY < <(compgen -A hostname -- "$word"); return ;;
        *,*) [[ $word == -* ]] || return ;;&
        *) words='--output --blksize --windowsize --timeout --no-options --patience --verify --ca --trace --quiet --help --version' ;;
        esac
        ;;
    esac
    if [[ $directories ]]; then
        compopt -o filenames
        mapfile -t COMPREPLY < <(compgen -d -- "$word")
    else
        mapfile -t COMPREPLY < <(compgen -W "$words" -- "$word")
    fi
}

complete -F _rtftp_get rtftp-get
