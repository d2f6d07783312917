//! Servers in the process of a test, to which all connections of a thread go.

use std::{cell::RefCell, io};

use super::transport::{BoxedStream, Stream};

type Connect = Box<dyn FnMut() -> io::Result<BoxedStream>>;

thread_local! {
    static SERVER: RefCell<Option<Connect>> = const { RefCell::new(None) };
}

/// Lets the connections of this thread go to a server, which returns its end of each, until the result is dropped.
pub(crate) fn serve<S: Stream + 'static>(mut connect: impl FnMut() -> io::Result<S> + 'static) -> Served {
    SERVER.set(Some(Box::new(move || Ok(Box::new(connect()?)))));
    Served(())
}

/// See [`serve`].
#[derive(Debug)]
pub(crate) struct Served(());

impl Drop for Served {
    fn drop(&mut self) {
        SERVER.set(None);
    }
}

/// Connects to the server of this thread, if there is one.
pub(super) fn connect() -> Option<io::Result<BoxedStream>> {
    SERVER.with_borrow_mut(|server| server.as_mut().map(|connect| connect()))
}
