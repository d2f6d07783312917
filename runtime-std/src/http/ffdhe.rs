//! The Diffie-Hellman key exchange without elliptic curves (RFC 7919), for firmware that has none, such as OVMF until 2023.
//!
//! ring does not have it. Clients with elliptic curves prefer those.

use std::sync::{Arc, LazyLock};

use crypto_bigint::{
    BoxedUint, Odd,
    modular::{BoxedMontyForm, BoxedMontyParams},
};
use rustls::{
    CipherSuite, Error, NamedGroup, PeerMisbehaved, SupportedCipherSuite, Tls12CipherSuite,
    crypto::{
        ActiveKeyExchange, CipherSuiteCommon, CryptoProvider, GetRandomFailed, KeyExchangeAlgorithm, SecureRandom,
        SharedSecret, SupportedKxGroup,
        ring::{self, cipher_suite::*},
    },
    ffdhe_groups::{FFDHE2048, FfdheGroup},
};

/// The size of the numbers of the group in bits.
const BITS: u32 = 2048;
/// The size of secrets in bits; 225 are enough (RFC 7919, appendix A.1).
const SECRET_BITS: u32 = 256;

/// The arithmetic modulo the prime of the group.
static PARAMS: LazyLock<Option<BoxedMontyParams>> =
    LazyLock::new(|| Option::from(Odd::new(number(FFDHE2048.p)?)).map(BoxedMontyParams::new));

/// The cipher suites: those of ring with the other key exchange.
static SUITES: LazyLock<Vec<Tls12CipherSuite>> = LazyLock::new(|| {
    let suites = [
        (TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, CipherSuite::TLS_DHE_RSA_WITH_AES_128_GCM_SHA256),
        (TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384, CipherSuite::TLS_DHE_RSA_WITH_AES_256_GCM_SHA384),
    ];
    let with_dhe = |(suite, number)| match suite {
        SupportedCipherSuite::Tls12(suite) => Some(Tls12CipherSuite {
            common: CipherSuiteCommon { suite: number, ..suite.common },
            kx: KeyExchangeAlgorithm::DHE,
            ..*suite
        }),
        SupportedCipherSuite::Tls13(_) => None,
    };
    suites.into_iter().filter_map(with_dhe).collect()
});

/// Returns ring's algorithms and this key exchange.
pub(super) fn provider() -> Arc<CryptoProvider> {
    let mut provider = ring::default_provider();
    provider.cipher_suites.extend(SUITES.iter().map(SupportedCipherSuite::Tls12));
    provider.kx_groups.push(&Ffdhe2048);
    provider.into()
}

/// The group of 2,048 bits.
#[derive(Debug)]
struct Ffdhe2048;

/// A key exchange that waits for the public key of the client.
struct KeyExchange {
    secret: BoxedUint,
    public: Box<[u8]>,
}

/// Returns a number of the group; `None` if it has more than [`BITS`].
fn number(bytes: &[u8]) -> Option<BoxedUint> {
    BoxedUint::from_be_slice(bytes, BITS).ok()
}

/// Returns the power of a number in the group.
fn power(base: BoxedUint, exponent: &BoxedUint) -> Result<Box<[u8]>, Error> {
    let params = PARAMS.as_ref().ok_or_else(|| Error::General("the prime of FFDHE2048 is even".into()))?;
    Ok(BoxedMontyForm::new(base, params).pow(exponent).retrieve().to_be_bytes())
}

impl SupportedKxGroup for Ffdhe2048 {
    fn start(&self) -> Result<Box<dyn ActiveKeyExchange>, Error> {
        let mut secret = [0; SECRET_BITS as usize / 8];
        let random: &dyn SecureRandom = ring::default_provider().secure_random;
        random.fill(&mut secret).map_err(|GetRandomFailed| Error::FailedToGetRandomBytes)?;
        let secret = BoxedUint::from_be_slice_truncated(&secret, SECRET_BITS);
        let generator = BoxedUint::from_be_slice_truncated(FFDHE2048.g, BITS);
        let public = power(generator, &secret)?;
        Ok(Box::new(KeyExchange { secret, public }))
    }

    fn ffdhe_group(&self) -> Option<FfdheGroup<'static>> {
        Some(FFDHE2048)
    }

    fn name(&self) -> NamedGroup {
        NamedGroup::FFDHE2048
    }
}

impl ActiveKeyExchange for KeyExchange {
    fn complete(self: Box<Self>, peer: &[u8]) -> Result<SharedSecret, Error> {
        let invalid = || Error::PeerMisbehaved(PeerMisbehaved::InvalidKeyShare);
        let (peer, prime) = number(peer).zip(number(FFDHE2048.p)).ok_or_else(invalid)?;
        // Neither 0 nor 1 nor the last number of the group: these would make the secret known (RFC 7919 section 5.1).
        let one = BoxedUint::one_with_precision(BITS);
        if peer <= one || peer >= prime.wrapping_sub(&one) {
            return Err(invalid());
        }
        Ok(SharedSecret::from(&power(peer, &self.secret)?[..]))
    }

    fn ffdhe_group(&self) -> Option<FfdheGroup<'static>> {
        Some(FFDHE2048)
    }

    fn pub_key(&self) -> &[u8] {
        &self.public
    }

    fn group(&self) -> NamedGroup {
        NamedGroup::FFDHE2048
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_sides_compute_the_same_secret() {
        let [first, second] = [(); 2].map(|()| Ffdhe2048.start().expect("a key"));
        let (first_key, second_key) = (first.pub_key().to_vec(), second.pub_key().to_vec());
        assert_ne!(first_key, second_key);
        let [first, second] =
            [first.complete(&second_key), second.complete(&first_key)].map(|secret| secret.expect("valid"));
        assert_eq!(first.secret_bytes(), second.secret_bytes());
    }

    #[test]
    fn rejects_keys_that_make_the_secret_known() {
        let mut last = FFDHE2048.p.to_vec();
        *last.last_mut().expect("not empty") -= 1;
        for key in [&[][..], &[0], &[1], &last, FFDHE2048.p, &[1; 257]] {
            assert!(Ffdhe2048.start().expect("a key").complete(key).is_err(), "{key:x?}");
        }
    }
}
