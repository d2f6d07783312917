#!/bin/sh
# Runs the test program as a helper that fails as the name of this script says. The helper replies on descriptor 3, because the
# test program writes to its stdout itself.
RTFTP_FAKE_HELPER=$0 exec "${0%/*}/test-program" guestfs::fake::helper_process --exact --ignored --nocapture 3>&1 >/dev/null
