//! The status of a response (RFC 9110 section 15).

use rtftp_core::wire::path::InvalidPath;

use crate::files::OpenError;

/// The status of a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// The whole file follows.
    Ok,
    /// A part of the file follows.
    PartialContent,
    /// The client has the present version of the file.
    NotModified,
    /// The file is not the version that the request depends on.
    PreconditionFailed,
    /// Not a request.
    BadRequest,
    /// The file may not be served.
    Forbidden,
    /// No root contains the file.
    NotFound,
    /// A method other than GET and HEAD.
    MethodNotAllowed,
    /// The path, or the first line, is too long.
    UriTooLong,
    /// The requested part lies beyond the end of the file.
    RangeNotSatisfiable,
    /// The head is larger than 8 KiB, or has more than 64 fields.
    HeadTooLarge,
    /// The file exists but cannot be read.
    Internal,
    /// The file cannot be read at present: its disk is not available.
    Unavailable,
    /// A major version other than 1.
    VersionNotSupported,
}

impl Status {
    /// Returns code and reason phrase.
    pub(super) fn line(self) -> &'static str {
        match self {
            Self::Ok => "200 OK",
            Self::PartialContent => "206 Partial Content",
            Self::NotModified => "304 Not Modified",
            Self::BadRequest => "400 Bad Request",
            Self::Forbidden => "403 Forbidden",
            Self::NotFound => "404 Not Found",
            Self::MethodNotAllowed => "405 Method Not Allowed",
            Self::PreconditionFailed => "412 Precondition Failed",
            Self::UriTooLong => "414 URI Too Long",
            Self::RangeNotSatisfiable => "416 Range Not Satisfiable",
            Self::HeadTooLarge => "431 Request Header Fields Too Large",
            Self::Internal => "500 Internal Server Error",
            Self::Unavailable => "503 Service Unavailable",
            Self::VersionNotSupported => "505 HTTP Version Not Supported",
        }
    }
}

impl From<InvalidPath> for Status {
    fn from(error: InvalidPath) -> Self {
        match error {
            InvalidPath::Empty => Self::NotFound,
            InvalidPath::TooLong => Self::UriTooLong,
            _ => Self::Forbidden,
        }
    }
}

impl From<&OpenError> for Status {
    fn from(error: &OpenError) -> Self {
        match error {
            OpenError::NotFound { .. } => Self::NotFound,
            OpenError::Forbidden { .. } => Self::Forbidden,
            OpenError::Local { .. } => Self::Internal,
            OpenError::Disk { .. } | OpenError::RootDirectory { .. } | OpenError::LinkAddress(_) => Self::Unavailable,
        }
    }
}
