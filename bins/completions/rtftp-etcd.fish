# Fish completion for rtftp-etcd.
# Generated from bins/src/options.rs: see bins/src/reference.rs.

complete -c rtftp-etcd -f

complete -c rtftp-etcd -s r -l root-dir -x -a '(__fish_complete_directories)' -d 'the directory to write, which is the root directory of rtftp, too'
complete -c rtftp-etcd -l endpoints -x -d 'the members of the cluster, separated by commas (http://127.0.0.1:2379)'
complete -c rtftp-etcd -l prefix -x -d 'the start of the keys, which ends with / (/rtftp/)'
complete -c rtftp-etcd -l ca -r -F -d 'trust the authorities whose certificates are in this file, in the PEM format (/etc/ssl/certs/ca-certificates.crt)'
complete -c rtftp-etcd -l cert -r -F -d 'show this certificate to etcd, in the PEM format'
complete -c rtftp-etcd -l key -r -F -d 'the key of this certificate in the PEM format, not encrypted'
complete -c rtftp-etcd -l user -x -d 'log in to etcd as this user, who must be able to read the prefix'
complete -c rtftp-etcd -l password-file -r -F -d 'the password of the user, in the first line of this file (the file password in $CREDENTIALS_DIRECTORY)'
complete -c rtftp-etcd -l once -d 'make DIR equal to the prefix once, and exit'
complete -c rtftp-etcd -s h -l help -d 'print this help'
complete -c rtftp-etcd -s V -l version -d 'print the version'
