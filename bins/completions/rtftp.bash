# Bash completion for rtftp.
# Generated from bins/src/options.rs: see bins/src/reference.rs.

_rtftp() {
    local word=${COMP_WORDS[COMP_CWORD]} option=${COMP_WORDS[COMP_CWORD - 1]} words='' directories=''
    # Bash splits `--option=value` into three words.
    if [[ $word == = ]]; then
        word=
    elif [[ $option == = ]]; then
        option=${COMP_WORDS[COMP_CWORD - 2]}
    fi

    case $option in
    --allow-read | --history | -r | --root-dir) compopt -o filenames; mapfile -t COMPREPLY < <(compgen -d -- "$word"); return ;;
    --disk-memory | --http | --http-prefix | --https | --idle-timeout | -l | --listen-ip | --listen-port | --max-blksize | --max-per-client | --max-transfers | --max-window-bytes | --max-windowsize | --open-limit | -p | --port-range | --read-limit | --server | --since | --status-listen | --status-peer | --stop-grace | -t | --view-gap) return ;;
    -m | --monitor-configs) words='true false' ;;
    --ethers | --leases | --socket | --status-socket | --tls-certificate | --tls-key) compopt -o filenames; mapfile -t COMPREPLY < <(compgen -f -- "$word"); return ;;
    --log-level) words='error warn info debug trace' ;;
    *)
        case $COMP_CWORD,${COMP_WORDS[1]} in
        1,[!-]* | 1,) words='check status' ;;
        *,check) [[ $word == -* ]] && words='--root-dir --json --http --https --http-prefix --open-limit --read-limit --help' || directories=1 ;;
        *,status) words='--socket --server --since --history --once --json --csv --follow --help' ;;
        *) words='--root-dir --listen-ip --listen-port --idle-timeout --view-gap --monitor-configs --max-blksize --mtu-clamp --max-windowsize --max-window-bytes --max-transfers --max-per-client --port-range --single-port --open-limit --read-limit --disk-memory --leases --ethers --status-socket --status-listen --history --status-peer --http --http-prefix --https --tls-certificate --tls-key --stop-grace --allow-read --no-sandbox --log-level --help --version' ;;
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

complete -F _rtftp rtftp
