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
    -m | --monitor-configs) words='true false' ;;
    --log-level) words='error warn info debug trace' ;;
    -l | --listen-ip | -p | --listen-port | -t | --idle-timeout | --view-gap | --max-* | --open-limit | --read-limit)
        return
        ;;
    *)
        words='--root-dir --listen-ip --listen-port --idle-timeout --view-gap --monitor-configs --max-blksize
            --max-windowsize --max-window-bytes --max-transfers --max-per-client --open-limit --read-limit
            --single-port --no-sandbox --log-level --help --version'
        ;;
    esac
    mapfile -t COMPREPLY < <(compgen -W "$words" -- "$word")
}

complete -F _rtftp rtftp
