//! The libguestfs backend.
