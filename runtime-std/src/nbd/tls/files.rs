//! Reads the certificates and keys of a connection, outside of the sandbox and anew for each connection.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    sync::{Arc, Weak},
    time::Duration,
};

use parking_lot::Mutex;
use rustls::{
    RootCertStore,
    client::WebPkiServerVerifier,
    pki_types::{CertificateRevocationListDer, ServerName, pem::PemObject},
    sign::CertifiedKey,
};
use smol::lock::Semaphore;

use super::{
    TlsError,
    settings::{Identity, Settings, Trust},
    verifier::{PROVIDER, ServerCheck},
};
use crate::{
    clock::within,
    pem::{self, PemError},
    unsandboxed,
};

/// The time limit for reading the files of a connection.
const READ_TIMEOUT: Duration = Duration::from_secs(5);
/// The number of connections whose files are read at the same time, for each directory.
const MAX_READS: usize = 8;

/// The directories from which files are being read. A read that hangs keeps its thread and its place, and so delays only connections
/// that use its directory.
static READS: Mutex<BTreeMap<PathBuf, Arc<Semaphore>>> = Mutex::new(BTreeMap::new());

/// The system's authorities, which connections that begin at the same time share.
static SYSTEM: Mutex<Weak<RootCertStore>> = Mutex::new(Weak::new());

/// What the files of a connection contain, and the settings that need no file.
#[derive(Debug)]
pub(in crate::nbd) struct Credentials {
    pub(super) name: ServerName<'static>,
    pub(super) check: ServerCheck,
    pub(super) identity: Option<Arc<CertifiedKey>>,
}

/// Reads the files.
pub(in crate::nbd) async fn load(settings: Settings) -> Result<Credentials, TlsError> {
    let read = async {
        let place = places(settings.directory()).acquire_arc().await;
        let task = move || {
            let loaded = read_all(settings);
            drop(place);
            loaded
        };
        unsandboxed::spawn(task).recv().await
    };
    within(READ_TIMEOUT, read).await.and_then(Result::ok).unwrap_or(Err(TlsError::FilesTimeout(READ_TIMEOUT)))
}

/// Returns the places of a directory.
fn places(directory: &Path) -> Arc<Semaphore> {
    let mut reads = READS.lock();
    // Each read holds its semaphore.
    reads.retain(|_, places| Arc::strong_count(places) > 1);
    reads.entry(directory.to_owned()).or_insert_with(|| Arc::new(Semaphore::new(MAX_READS))).clone()
}

/// Reads the files. Blocks.
fn read_all(settings: Settings) -> Result<Credentials, TlsError> {
    let Settings { name, trust, identity } = settings;
    let check = match trust {
        Trust::System => ServerCheck::authorities(verifier(system_authorities()?, vec![])?),
        Trust::Authorities { ca, crl } => {
            let revoked = crl.as_deref().map_or(Ok(vec![]), revocation_lists)?;
            ServerCheck::authorities(verifier(pem::authorities(&ca)?.into(), revoked)?)
        }
        Trust::Fingerprint(digest) => ServerCheck::fingerprint(digest),
        Trust::Anyone => ServerCheck::anyone(),
    };
    let identity = identity.map_or(Ok(None), |identity| read_identity(&identity))?;
    Ok(Credentials { name, check, identity })
}

fn verifier(
    roots: Arc<RootCertStore>,
    revoked: Vec<CertificateRevocationListDer<'static>>,
) -> Result<Arc<WebPkiServerVerifier>, TlsError> {
    let verifier = WebPkiServerVerifier::builder_with_provider(roots, PROVIDER.clone())
        .with_crls(revoked)
        .allow_unknown_revocation_status()
        .build();
    verifier.map_err(|error| TlsError::Other(error.to_string()))
}

/// Returns the authorities that the system trusts.
fn system_authorities() -> Result<Arc<RootCertStore>, TlsError> {
    if let Some(roots) = SYSTEM.lock().upgrade() {
        return Ok(roots);
    }
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    let (added, _) = roots.add_parsable_certificates(found.certs);
    if added == 0 {
        let reason = found.errors.first().map_or_else(String::new, |error| format!(" ({error})"));
        return Err(TlsError::NoSystemAuthorities(reason));
    }
    let roots = Arc::new(roots);
    *SYSTEM.lock() = Arc::downgrade(&roots);
    Ok(roots)
}

/// Reads the lists of revoked certificates in a file that may be missing.
fn revocation_lists(path: &Path) -> Result<Vec<CertificateRevocationListDer<'static>>, TlsError> {
    let pem = match pem::read(path) {
        Err(PemError::Read(_, error)) if error.kind() == io::ErrorKind::NotFound => return Ok(vec![]),
        pem => pem?,
    };
    let lists: Result<Vec<_>, _> = CertificateRevocationListDer::pem_slice_iter(&pem).collect();
    let lists = lists.ok().filter(|lists| !lists.is_empty());
    lists.ok_or_else(|| PemError::NoRevocationList(path.to_owned()).into())
}

fn read_identity(identity: &Identity) -> Result<Option<Arc<CertifiedKey>>, TlsError> {
    let Identity { certificate, key, is_optional } = identity;
    let chain = match pem::certificates(certificate) {
        Err(PemError::Read(_, error)) if *is_optional && error.kind() == io::ErrorKind::NotFound => return Ok(None),
        chain => chain?,
    };
    let certified = CertifiedKey::from_der(chain, pem::key(key)?, &PROVIDER);
    let files = || format!("{}, {}", certificate.display(), key.display());
    Ok(Some(certified.map_err(|error| TlsError::Identity(files(), error.to_string()))?.into()))
}

#[cfg(test)]
mod tests {
    use std::{fs::File, os::unix::fs::OpenOptionsExt};

    use nix::{sys::stat::Mode, unistd::mkfifo};
    use smol::{block_on, future::poll_once};

    use super::*;

    #[test]
    fn directory_that_hangs_delays_no_other() {
        let [hanging, other] = [(); 2].map(|()| tempfile::tempdir().expect("a directory"));
        let pipe = hanging.path().join("ca.pem");
        // Opening it waits for a writer.
        mkfifo(&pipe, Mode::S_IRUSR | Mode::S_IWUSR).expect("a pipe");
        let settings = |directory: &Path| Settings {
            name: ServerName::try_from("nas").expect("a name"),
            trust: Trust::Authorities { ca: directory.join("ca.pem"), crl: None },
            identity: None,
        };
        block_on(async {
            let mut reads: Vec<_> = (0..2 * MAX_READS).map(|_| Box::pin(load(settings(hanging.path())))).collect();
            for read in &mut reads {
                assert!(poll_once(read).await.is_none());
            }
            let error = load(settings(other.path())).await.expect_err("no file");
            assert!(matches!(error, TlsError::File(PemError::Read(..))), "{error}");
        });
        // Ends the threads: non-blocking, this fails once none waits.
        while File::options().write(true).custom_flags(nix::libc::O_NONBLOCK).open(&pipe).is_ok() {}
    }
}
