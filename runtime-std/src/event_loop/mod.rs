//! The event loop of the data path: readiness of sockets and deadlines of transfers, with few system calls.
//!
//! One iteration of [`EventLoop::block_on`] polls the main future, asks the kernel for events, and dispatches them: due handlers
//! first receive, then send, and tasks whose sockets are ready are woken.
//!
//! * A socket is added to epoll at its first wait and stays there, so that a wait costs no system call.
//! * Tasks wait level-triggered. A [`Handler`], such as a transfer, is polled by the event loop itself and waits edge-triggered,
//!   which saves the kernel from checking its socket a second time. Polling a handler takes a quarter of the instructions of waking
//!   a task and touches a fraction of the memory, which is what limits a thousand transfers.
//! * A deadline usually moves to a later time before it expires, so the kernel's timer is set only when it must fire earlier than it
//!   would.
//! * Connections of NBD and HTTP use this event loop too ([`Stream`]): with smol, each wait takes another thread and several system
//!   calls. Waits outside the data path (signals, the watched directory) use smol and wake this thread through an eventfd if it sleeps.
//! * If many handlers are due, the run queue polls them in batches, whose memory stays in the processor's caches.
//!
//! There is one event loop per [worker](Workers), and one for each [thread](TaskThread) of the disks and of the HTTP server. Handlers
//! run on any worker, tasks on the main worker, and those of disks and HTTP connections on their own threads.

mod deadlines;
mod epoll;
mod handler;
mod processors;
mod registration;
mod registry;
mod run_queue;
mod stream;
mod task_thread;
mod tasks;
mod waker;
mod workers;

pub(crate) use self::{
    epoll::{EventLoop, Registered},
    handler::{Handler, Next},
    stream::Stream,
    task_thread::TaskThread,
    tasks::run_tasks,
    workers::Workers,
};
