//! Client and server on one processor.

use nix::{
    sched::{CpuSet, sched_getaffinity, sched_setaffinity},
    unistd::Pid,
};

/// Lets this thread, and the programs that it starts from now on, share one processor. A transfer without windows is several times as fast
/// then: an idle processor of a virtual machine takes longer to wake up than a block takes to send.
///
/// # Panics
///
/// Panics if the kernel refuses it.
pub fn share_one_processor() {
    let this = Pid::from_raw(0);
    let allowed = sched_getaffinity(this).expect("the allowed processors");
    let first = (0..CpuSet::count()).find(|cpu| allowed.is_set(*cpu) == Ok(true)).expect("a processor");
    let mut one = CpuSet::new();
    one.set(first).expect("a processor number");
    sched_setaffinity(this, &one).expect("an allowed processor");
}
