# bash completion for rtftp(8). Generated from bins/src/options.rs.

_rtftp() {
    local word=${COMP_WORDS[COMP_CWORD]} option=${COMP_WORDS[COMP_CWORD - 1]}
    # `--option=value` arrives as three words.
    if [[ $word == = ]]; then
        word=
    elif [[ $option == = ]]; then
        option=${COMP_WORDS[COMP_CWORD - 2]}
    fi

    case $option in
    -r | --root-dir)
        compopt -o filenames
        mapfile -t COMPREPLY < <(compgen -d -- "$word")
        return
        ;;
    --status-socket | --socket)
        compopt -o filenames
        mapfile -t COMPREPLY < <(compgen -f -- "$word")
        return
        ;;
    -m | --monitor-configs)
        mapfile -t COMPREPLY < <(compgen -W 'true false' -- "$word")
        return
        ;;
    --log-level)
        mapfile -t COMPREPLY < <(compgen -W 'error warn info debug trace' -- "$word")
        return
        ;;
    -l | --listen-ip | -p | --listen-port | -t | --idle-timeout | --view-gap | --max-blksize | --max-windowsize | --max-window-bytes | --max-transfers | --max-per-client | --port-range | --open-limit | --read-limit | --status-listen)
        return
        ;;
    esac

    local words
    case $COMP_CWORD,${COMP_WORDS[1]} in
    1,[!-]* | 1,) words='check status' ;;
    *,check)
        if [[ $word != -* ]]; then
            compopt -o filenames
            mapfile -t COMPREPLY < <(compgen -d -- "$word")
            return
        fi
        words='--root-dir --json --open-limit --read-limit --help'
        ;;
    *,status) words='--socket --once --json --follow --help' ;;
    *) words='--root-dir --listen-ip --listen-port --idle-timeout --view-gap --monitor-configs --max-blksize --mtu-clamp --max-windowsize --max-window-bytes --max-transfers --max-per-client --port-range --single-port --open-limit --read-limit --no-sandbox --status-socket --status-listen --log-level --help --version' ;;
    esac
    mapfile -t COMPREPLY < <(compgen -W "$words" -- "$word")
}

complete -F _rtftp rtftp
