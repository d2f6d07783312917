# Bash completion for rtftp-etcd.
# Generated from bins/src/options.rs: see bins/src/reference.rs.

_rtftp_etcd() {
    local word=${COMP_WORDS[COMP_CWORD]} option=${COMP_WORDS[COMP_CWORD - 1]} words='' directories=''
    # Bash splits `--option=value` into three words.
    if [[ $word == = ]]; then
        word=
    elif [[ $option == = ]]; then
        option=${COMP_WORDS[COMP_CWORD - 2]}
    fi

    case $option in
    -r | --root-dir) compopt -o filenames; mapfile -t COMPREPLY < <(compgen -d -- "$word"); return ;;
    --endpoints | --prefix | --user) return ;;
    --ca | --cert | --key | --password-file) compopt -o filenames; mapfile -t COMPREPLY < <(compgen -f -- "$word"); return ;;
    *)
        case $COMP_CWORD,${COMP_WORDS[1]} in
        *) words='--root-dir --endpoints --prefix --ca --cert --key --user --password-file --once --help --version' ;;
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

complete -F _rtftp_etcd rtftp-etcd
