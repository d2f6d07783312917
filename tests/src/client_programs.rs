//! TFTP client programs of the distribution: curl, tftp-hpa, busybox, atftp.

use std::{fs, process::Command};

use tempfile::TempDir;

use crate::{Rtftp, process::output};

/// A client program and the options that it requests.
#[derive(Debug, Clone, Copy)]
pub enum ClientProgram {
    /// curl with its default options: tsize, blksize 512, timeout.
    Curl,
    /// curl with blocks of 1428 bytes.
    CurlLargeBlocks,
    /// curl without options.
    CurlPlain,
    /// The client of tftp-hpa, without options.
    TftpHpa,
    /// busybox with tsize.
    Busybox,
    /// busybox with tsize and blocks of 1468 bytes.
    BusyboxLargeBlocks,
    /// atftp without options.
    Atftp,
    /// atftp with blocks of 1428 bytes and windows of 8.
    AtftpWindows,
}

/// All client programs.
pub const ALL_CLIENT_PROGRAMS: [ClientProgram; 8] = [
    ClientProgram::Curl,
    ClientProgram::CurlLargeBlocks,
    ClientProgram::CurlPlain,
    ClientProgram::TftpHpa,
    ClientProgram::Busybox,
    ClientProgram::BusyboxLargeBlocks,
    ClientProgram::Atftp,
    ClientProgram::AtftpWindows,
];

impl ClientProgram {
    /// Returns whether the program can fetch an empty file: curl rejects tsize 0.
    pub fn takes_empty_files(self) -> bool {
        !matches!(self, Self::Curl | Self::CurlLargeBlocks)
    }

    /// Fetches a file from a daemon. The request comes from 127.0.0.1, the only source address that all programs can use.
    ///
    /// # Errors
    ///
    /// Returns the program's output if it failed or wrote no file.
    pub fn fetch(self, server: &Rtftp, name: &str) -> Result<Vec<u8>, String> {
        let directory = TempDir::new().expect("a temporary directory");
        let local = directory.path().join("file");
        let to = local.to_str().expect("a temporary directory with a name in UTF-8");
        let (host, port) = (server.address().ip().to_string(), server.address().port().to_string());
        let url = format!("tftp://{host}:{port}/{name}");
        let (program, args): (&str, Vec<&str>) = match self {
            Self::Curl => ("curl", vec!["-sS", "-m", "120", &url, "-o", to]),
            Self::CurlLargeBlocks => ("curl", vec!["-sS", "-m", "120", "--tftp-blksize", "1428", &url, "-o", to]),
            Self::CurlPlain => ("curl", vec!["-sS", "-m", "120", "--tftp-no-options", &url, "-o", to]),
            Self::TftpHpa => ("tftp", vec!["-m", "binary", &host, &port, "-c", "get", name, to]),
            Self::Busybox => ("busybox", vec!["tftp", "-g", "-r", name, "-l", to, &host, &port]),
            Self::BusyboxLargeBlocks => {
                ("busybox", vec!["tftp", "-b", "1468", "-g", "-r", name, "-l", to, &host, &port])
            }
            Self::Atftp => ("atftp", vec!["-g", "-r", name, "-l", to, &host, &port]),
            Self::AtftpWindows => (
                "atftp",
                vec!["--option", "blksize 1428", "--option", "windowsize 8", "-g", "-r", name, "-l", to, &host, &port],
            ),
        };
        let output = output(Command::new("timeout").arg("150").arg(program).args(args));
        assert_ne!(output.status.code(), Some(127), "this test needs the program `{program}`, which is not installed");
        let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        match fs::read(&local) {
            Ok(bytes) if output.status.success() => Ok(bytes),
            // curl creates no file if it received no bytes.
            Err(_) if output.status.success() && program == "curl" => Ok(Vec::new()),
            _ => Err(format!("{program}: {}, {text}", output.status)),
        }
    }
}
