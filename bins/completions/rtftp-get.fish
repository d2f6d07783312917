# Fish completion for rtftp-get.
# Generated from bins/src/options.rs: see bins/src/reference.rs.

complete -c rtftp-get -f
complete -c rtftp-get -n 'test (count (commandline -opc)) -eq 1' -a '(__fish_print_hostnames)'

complete -c rtftp-get -s o -l output -r -F -d 'write to this file; - is standard output (the last part of FILE or URL, in this directory)'
complete -c rtftp-get -l blksize -x -d 'request this block size, 8 to 65464 (1428)'
complete -c rtftp-get -l windowsize -x -d 'request this window size, 1 to 32767 (16)'
complete -c rtftp-get -l timeout -x -d 'request this retransmission timeout of the server, 1 to 255 (not requested)'
complete -c rtftp-get -l no-options -d 'request no options, as in RFC 1350'
complete -c rtftp-get -l patience -x -d 'give up after SECONDS without an answer, 1 to 60 (60)'
complete -c rtftp-get -l verify -r -F -d 'compare with a local file; write nothing unless -o is given'
complete -c rtftp-get -l ca -r -F -d 'trust the authorities whose certificates are in this file, in the PEM format (/etc/ssl/certs/ca-certificates.crt)'
complete -c rtftp-get -l trace -d 'print each packet, or over HTTP each header line, with its time in seconds'
complete -c rtftp-get -s q -l quiet -d 'print errors only'
complete -c rtftp-get -s h -l help -d 'print this help'
complete -c rtftp-get -s V -l version -d 'print the version'
