# bash completion for rtftp(8)

_rtftp() {
    local word=${COMP_WORDS[COMP_CWORD]} option=${COMP_WORDS[COMP_CWORD - 1]}
    # `--option=value` arrives as three words.
    if [[ $word == = ]]; then
        word=
    elif [[ $option == = ]]; then
        option=${COMP_WORDS[COMP_CWORD - 2]}
    fi

    local words
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
    -m | --monitor-configs) words='true false' ;;
    --log-level) words='error warn info debug trace' ;;
    -l | -p | -t | --listen-* | --status-listen | --idle-timeout | --view-gap | --max-* | --port-range | --*-limit)
        return
        ;;
    *)
        if [[ ${COMP_WORDS[1]} == check && $COMP_CWORD -gt 1 && $word != -* ]]; then
            compopt -o filenames
            mapfile -t COMPREPLY < <(compgen -d -- "$word")
            return
        fi
        words=$(_rtftp_words)
        ;;
    esac
    mapfile -t COMPREPLY < <(compgen -W "$words" -- "$word")
}

# The commands, or the options of the one that is there.
_rtftp_words() {
    case $COMP_CWORD,${COMP_WORDS[1]} in
    1,[!-]* | 1,) echo 'check status' ;;
    *,check) echo '--root-dir --json --open-limit --read-limit --help' ;;
    *,status) echo '--socket --once --json --follow --help' ;;
    *)
        echo '--root-dir --listen-ip --listen-port --idle-timeout --view-gap --monitor-configs --max-blksize --mtu-clamp
            --max-windowsize --max-window-bytes --max-transfers --max-per-client --port-range --single-port --open-limit --read-limit
            --status-socket --status-listen --no-sandbox --log-level --help --version'
        ;;
    esac
}

complete -F _rtftp rtftp
