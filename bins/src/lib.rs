//! Parts that the programs `rtftp` and `rtftp-get` share: their options and the progress bar.

pub mod arguments;
pub mod options;
pub mod progress_bar;
